"""Run a command in a poor environment: `confine.py fsize=4096 dac nofile=48 closed -- command`.

`fsize`: the largest file in bytes. `dac`: read-only files are so even for root. `nofile`: the highest number of open files.
`closed`: stdout and stderr are closed.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys

_CAPBSET_DROP = 24
_PAST_PERMISSIONS = (1, 2)
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""


def main() -> None:
    end = sys.argv.index("--")
    for word in sys.argv[1:end]:
        name, _, value = word.partition("=")
        if name == "fsize":
            # Python ignores SIGXFSZ: a write beyond the limit is an OSError, as on a full disk.
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(value), int(value)))
        elif name == "nofile":
            resource.setrlimit(resource.RLIMIT_NOFILE, (int(value), int(value)))
        elif name == "closed":
            os.close(1)
            os.close(2)
        elif name == "dac" and os.geteuid() == 0:
            for capability in _PAST_PERMISSIONS:
                ctypes.CDLL(None, use_errno=True).prctl(_CAPBSET_DROP, capability, 0, 0, 0)
    os.execvp(sys.argv[end + 1], sys.argv[end + 1 :])


if __name__ == "__main__":
    main()

"""Run a command and note what it took: `python -I -S meter.py NOTE COMMAND…`.

A process of its own, and a small one: Linux counts the memory of the process that starts another towards the peak of the
one that is started, so that a large one would show its own.
"""

import os
import sys
import time

before = time.perf_counter()
child = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(child, 0)
wall = time.perf_counter() - before
with open(sys.argv[1], "w") as note:
    note.write(f"{wall} {used.ru_utime + used.ru_stime} {used.ru_maxrss} {os.waitstatus_to_exitcode(status)}")

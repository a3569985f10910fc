"""Processes of the tests' own: the real program, forked from a server that has imported everything once.

An interpreter of its own takes a command longer than all its work. The server never starts a thread; what is forked from
it is a process like any other, with its own id, signals and death.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from bioforge.testing import processes as testing
from bioforge.testing.processes import KILLED, PATIENCE, Ran, wait_until

__all__ = [
    "ENVIRONMENT",
    "ISOLATION",
    "KILLED",
    "PATIENCE",
    "Child",
    "Ran",
    "program",
    "program_on_a_small_disk",
    "program_under_nohup",
    "program_with_few_files",
    "script",
    "wait_until",
]

ISOLATION = {"SSL_CERT_FILE": "", "SSL_CERT_DIR": str(Path(__file__).parent), "TIKTOKEN_CACHE_DIR": ""}
"""No certificates, which take a client longer to read than all its calls, and nothing in here speaks TLS; and no
vocabularies that happen to be on this machine."""

ENVIRONMENT = {**testing.ENVIRONMENT, **ISOLATION}


_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["warm"])

_turn = threading.Lock()
"""Walks are made by two threads, and whoever begins a process or asks how it ended looks after all others as well."""


def _started(process: ForkServerProcess) -> None:
    """Begin a process. The first one begins the server they are forked from, which has to find `warm`."""
    path = os.environ.get("PYTHONPATH")
    with _turn:
        os.environ["PYTHONPATH"] = os.pathsep.join(name for name in (path, str(Path(__file__).parent)) if name)
        try:
            process.start()
        finally:
            if path is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = path


class Child:
    """A process that works in a project's folder. What it writes is read when it has ended."""

    def __init__(self, root: Path, function: Callable[..., int | None], arguments: Sequence[Any]) -> None:
        self._root = root
        self._process = _context.Process(target=_child, args=(root, function, arguments))
        _started(self._process)
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """When this returns it is dead."""
        self.signal(signal.SIGKILL)
        wait_until(self.gone, "the end of a process that was killed")

    def gone(self) -> bool:
        """Whether it has ended. From any thread."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def said(self) -> str:
        """What stands on its stderr so far."""
        return (self._root / f"{self.pid}.err").read_text("utf-8")

    def end(self) -> Ran:
        """How it ended, which it must do by itself."""
        in_time = bool(wait([self._process.sentinel], PATIENCE))
        if not in_time:
            self.kill()
        with _turn:
            self._process.join()
            code = self._process.exitcode
            self._process.close()
        out, err = ((self._root / f"{self.pid}.{name}") for name in ("out", "err"))
        ran = Ran(-1 if code is None else code, *(path.read_text("utf-8") for path in (out, err)))
        out.unlink()
        err.unlink()
        assert in_time, f"it did not end:\n{ran.err}"
        assert "Traceback" not in ran.err, ran.err
        return ran


def _child(root: Path, function: Callable[..., int | None], arguments: Sequence[Any]) -> None:
    os.chdir(root)
    os.environ.update(ENVIRONMENT)
    warnings.simplefilter("error")
    for number, name in ((1, "out"), (2, "err")):
        with open(f"{os.getpid()}.{name}", "wb") as stream:
            os.dup2(stream.fileno(), number)
    sys.exit(function(*arguments))


def program_on_a_small_disk(room: int, *arguments: str) -> None:
    """The same where no file can have more bytes than `room`. Python ignores SIGXFSZ: a write beyond the limit is an
    OSError, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    program(*arguments)


def program_with_few_files(soft: int, hard: int, *arguments: str) -> None:
    """The same where so many files may be open."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    program(*arguments)


def program(*arguments: str) -> None:
    """The command line, as a process begins it."""
    from warm import COMMAND

    sys.argv = ["bioforge", *arguments]
    COMMAND()


def program_under_nohup(*arguments: str) -> None:
    """The same with the hangup signal ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    program(*arguments)


def script(code: str) -> None:
    """A program of somebody who uses the library, as `python -c` begins it."""
    sys.argv = ["-c"]
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})

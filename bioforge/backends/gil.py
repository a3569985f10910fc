"""Two threads and one interpreter: how long each keeps it, and how one waits for the other."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for

from bioforge.core.interfaces import Step

TURN = 0.0002
"""Seconds a thread may keep the interpreter while others wait. The storing thread lets go of it at every statement; at
Python's own 5 ms it would wait that long for the others each time, which halves the answers a second."""


class _Turns:
    """The interpreter's turns while anybody shares it: the first one shortens them, the last one puts back what was."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sharing = 0
        self._before = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._sharing:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(TURN)
            self._sharing += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._sharing -= 1
            if not self._sharing:
                sys.setswitchinterval(self._before)


short_switch_interval = _Turns()


def wait_whatever_comes(step: Future[None]) -> None:
    """Waits for a step on another thread to its end. What interrupts the waiting is raised afterwards: nobody may go on
    beside a step that uses the same state, however often Ctrl-C is pressed."""
    interrupted: BaseException | None = None
    while not step.done():
        try:
            wait_for([step])
        except BaseException as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


class CommitThread:
    """Usable as `RunControl.commit`. `ahead` is done beside each step, as long as there is `more` of it to do."""

    def __init__(self, ahead: Callable[[], None], more: Callable[[], bool]) -> None:
        self._ahead = ahead
        self._more = more
        self._executor = ThreadPoolExecutor(1, "bioforge-recording")

    def close(self) -> None:
        self._executor.shutdown()

    def __call__(self, step: Step) -> None:
        if not self._more():
            step()
            return
        with short_switch_interval:
            stored = self._executor.submit(step)
            try:
                self._ahead()
            finally:
                wait_whatever_comes(stored)
        stored.result()

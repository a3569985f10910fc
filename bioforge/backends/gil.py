"""Share the interpreter between the thread that sends and the thread that stores."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for

from bioforge.core.interfaces import Step

SWITCH_SECONDS = 0.0002
"""Seconds a thread may keep the interpreter while others wait for it.

The storing thread releases it at every SQL statement; with Python's default of 5 ms it would wait that long each time, which
halves the answers per second.
"""


class _SwitchInterval:
    """A reentrant context in which the switch interval is short; the last exit restores it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sharing = 0
        self._before = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._sharing:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(SWITCH_SECONDS)
            self._sharing += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._sharing -= 1
            if not self._sharing:
                sys.setswitchinterval(self._before)


short_switch_interval = _SwitchInterval()
"""The one context of the process, since the switch interval is global."""


def wait_to_end(step: Future[None]) -> None:
    """Wait until a step on another thread has ended; raise an interruption such as Ctrl-C only then.

    The step uses the same state, so nothing may run beside it.
    """
    interrupted: BaseException | None = None
    while not step.done():
        try:
            wait_for([step])
        except BaseException as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


class CommitThread:
    """Runs steps on another thread, as a `RunControl.commit`. `ahead` runs beside each step while `more()` is true."""

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
                wait_to_end(stored)
        stored.result()

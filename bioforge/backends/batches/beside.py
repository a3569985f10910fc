"""Recording a group on a thread of its own, while this one goes on with what needs no state."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for

from bioforge.interfaces import Step

TURN = 0.0002
"""Seconds a thread may keep the interpreter while the other waits. The one that records lets go of it at every statement,
and at Python's own 5 ms it would do nothing else than wait for it."""


class Beside:
    """To be used for `Work.meanwhile`. `ahead` is done beside each step, as long as there is `more` of it to do."""

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
        before = sys.getswitchinterval()
        sys.setswitchinterval(min(before, TURN))
        stored = self._executor.submit(step)
        try:
            self._ahead()
        finally:
            # an interrupt comes here at once, and nobody may go on beside a step
            wait_for([stored])
            sys.setswitchinterval(before)
        stored.result()

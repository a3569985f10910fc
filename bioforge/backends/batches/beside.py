"""Recording a group on a thread of its own, while this one goes on with what needs no state."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bioforge.backends.turns import SHORT_TURNS, wait_whatever_comes
from bioforge.core.interfaces import Step


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
        with SHORT_TURNS:
            stored = self._executor.submit(step)
            try:
                self._ahead()
            finally:
                wait_whatever_comes(stored)
        stored.result()

"""How far something is that takes long: nothing in its first seconds, then a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

EVERY = 5.0
"""Seconds."""

ProgressCallback = Callable[[str], None]
T = TypeVar("T")


def no_progress(words: str) -> None:
    """For who does not want to hear."""


class ProgressCounter:
    """`what` is said with the number so far: `reading the input: 80,000 rows`."""

    def __init__(
        self, what: str, things: str, tell: ProgressCallback = no_progress, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what, self._things, self._tell, self._clock = what, things, tell, clock
        self._number = 0
        self._next = clock() + EVERY

    def add(self, number: int) -> None:
        self._number += number
        if (now := self._clock()) >= self._next:
            self._next = now + EVERY
            self._tell(f"{self._what}: {self._number:,} {self._things} so far")

    def over(self, things: Iterable[T], at_a_time: int = 1000) -> Iterator[T]:
        """The same things; time is looked at once in so many."""
        counted = 0
        for thing in things:
            yield thing
            counted += 1
            if counted == at_a_time:
                self.add(counted)
                counted = 0

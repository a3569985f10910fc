"""Report the progress of long operations: nothing in the first seconds, then a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

EVERY = 5.0
"""Seconds."""

ProgressCallback = Callable[[str], None]
T = TypeVar("T")


def no_progress(message: str) -> None:
    """Ignore the message."""


class ProgressCounter:
    """Reports the operation with the count so far: `reading the input: 80,000 rows so far`."""

    def __init__(
        self,
        operation: str,
        unit: str,
        callback: ProgressCallback = no_progress,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._operation, self._unit, self._callback, self._clock = operation, unit, callback, clock
        self._number = 0
        self._next = clock() + EVERY

    def add(self, number: int) -> None:
        self._number += number
        if (now := self._clock()) >= self._next:
            self._next = now + EVERY
            self._callback(f"{self._operation}: {self._number:,} {self._unit} so far")

    def over(self, items: Iterable[T], chunk: int = 1000) -> Iterator[T]:
        """Yield the same items; count them, and check the clock, once per `chunk`."""
        counted = 0
        for item in items:
            yield item
            counted += 1
            if counted == chunk:
                self.add(counted)
                counted = 0

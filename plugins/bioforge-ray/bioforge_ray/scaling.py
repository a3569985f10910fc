"""How many workers there should be. Pure: times are seconds of any clock, and come in."""

from __future__ import annotations

import math
from collections import deque

LONGEST_REST = 30.0
"""Seconds between two attempts at a worker that dies each time before it has brought anything."""


def rest(deaths: int) -> float:
    """Seconds before a worker is replaced, after so many deaths in a row that brought nothing."""
    return 0.0 if deaths < 2 else min(LONGEST_REST, 0.5 * 2.0**deaths)


class Scaling:
    """Grows when attempts have waited for a place all the time, shrinks when fewer would have been enough all the time.

    `room` is how many calls one worker may have in flight.
    """

    def __init__(self, least: int, most: int, room: int, grow_seconds: float, shrink_seconds: float) -> None:
        self._least = least
        self._most = most
        self._room = room
        self._grow_seconds = grow_seconds
        self._shrink_seconds = shrink_seconds
        self._full_since: float | None = None
        self._first: float | None = None
        self._needs: deque[tuple[float, int]] = deque()
        """When more was needed than at any time since: the first one is the most of the last `shrink_seconds`."""

    def wanted(self, workers: int, starting: int, waiting: int, in_flight: int, now: float) -> int:
        """How many there should be; `workers` there are, of which `starting` cannot take anything yet."""
        need = math.ceil((waiting + in_flight) / self._room)
        self._note(need, now)
        self._first = now if self._first is None else self._first
        if waiting <= starting * self._room:
            # Whoever waits has a place as soon as those that were asked for are there.
            self._full_since = None
        elif self._full_since is None:
            self._full_since = now
        elif now - self._full_since >= self._grow_seconds:
            self._full_since = None
            return self._within(max(workers + 1, need))
        # Judged only when the needs go back far enough.
        if now - self._first >= self._shrink_seconds:
            return min(workers, self._within(self._needs[0][1]))
        return self._within(workers)

    def _within(self, workers: int) -> int:
        return max(self._least, min(self._most, workers))

    def _note(self, need: int, now: float) -> None:
        while self._needs and self._needs[-1][1] <= need:
            self._needs.pop()
        self._needs.append((now, need))
        while self._needs[0][0] < now - self._shrink_seconds:
            self._needs.popleft()

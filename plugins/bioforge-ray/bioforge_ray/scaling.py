"""Decide the number of workers. Without I/O: the caller passes the time in seconds of any clock."""

from __future__ import annotations

import math
from collections import deque

MAX_DELAY_SECONDS = 30.0
"""Longest delay in seconds before a worker that keeps dying is replaced."""


def restart_delay(deaths: int) -> float:
    """Return the seconds before a worker is replaced, after `deaths` in a row without an outcome."""
    return 0.0 if deaths < 2 else min(MAX_DELAY_SECONDS, 0.5 * 2.0**deaths)


class Scaling:
    """A policy that adds workers after attempts waited for `grow_seconds`, and removes idle ones after `shrink_seconds`.

    `room` is the number of calls one worker may have in flight.
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
        """Decreasing maxima as (time, workers needed): the first is the maximum of the last `shrink_seconds`."""

    def wanted(self, workers: int, starting: int, waiting: int, in_flight: int, now: float) -> int:
        """Return the target number; `workers` exist, of which `starting` are not ready."""
        need = math.ceil((waiting + in_flight) / self._room)
        self._note(need, now)
        self._first = now if self._first is None else self._first
        if waiting <= starting * self._room:
            # The starting workers have room for all waiting attempts.
            self._full_since = None
        elif self._full_since is None:
            self._full_since = now
        elif now - self._full_since >= self._grow_seconds:
            self._full_since = None
            return self._within(max(workers + 1, need))
        # Shrink only with a full window of samples.
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

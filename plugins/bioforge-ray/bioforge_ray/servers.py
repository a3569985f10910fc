"""Choose the server with the fewest calls in flight. Without I/O: the caller passes the time in seconds of any clock.

An unreachable server pauses; otherwise its fast errors would attract all calls.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_DELAY_SECONDS = 1.0
MAX_DELAY_SECONDS = 30.0


@dataclass(slots=True)
class _Server:
    in_flight: int = 0
    outages: int = 0
    unavailable_until: float = 0.0


class Servers:
    """The servers of a worker. Ties go to the first index from `offset`, so that workers start at different servers."""

    def __init__(self, count: int, offset: int = 0) -> None:
        self._servers = [_Server() for _ in range(count)]
        self._order = [(offset + place) % count for place in range(count)]

    def choose(self, now: float) -> int:
        """Return the index for the next call; report its end to `ended`. If all pause, the pause that ends first wins."""
        awake = [index for index in self._order if self._servers[index].unavailable_until <= now]
        if awake:
            index = min(awake, key=lambda one: self._servers[one].in_flight)
        else:
            index = min(self._order, key=lambda one: self._servers[one].unavailable_until)
        self._servers[index].in_flight += 1
        return index

    def ended(self, index: int, outage: bool, now: float) -> None:
        server = self._servers[index]
        server.in_flight -= 1
        if not outage:
            server.outages = 0
        elif server.unavailable_until <= now:
            # calls in flight fail together: count one outage
            server.unavailable_until = now + min(MAX_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0**server.outages)
            server.outages += 1

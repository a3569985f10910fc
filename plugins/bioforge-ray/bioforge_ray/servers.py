"""Which of several servers a worker's next call goes to. Pure: times are seconds of any clock, and come in.

The one with the fewest calls in flight; a server that is not reached rests, or it would answer soonest with nothing and
so be given everything.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_REST = 1.0
LONGEST_REST = 30.0


@dataclass(slots=True)
class _Server:
    in_flight: int = 0
    outages: int = 0
    rests_until: float = 0.0


class Servers:
    """`count` servers; of equal ones the first at or after `offset` goes first, so that workers begin apart."""

    def __init__(self, count: int, offset: int = 0) -> None:
        self._servers = [_Server() for _ in range(count)]
        self._order = [(offset + place) % count for place in range(count)]

    def choose(self, now: float) -> int:
        """The index of a server, whose call `ended` is to be told. When all of them rest: whose rest ends first."""
        awake = [index for index in self._order if self._servers[index].rests_until <= now]
        if awake:
            index = min(awake, key=lambda one: self._servers[one].in_flight)
        else:
            index = min(self._order, key=lambda one: self._servers[one].rests_until)
        self._servers[index].in_flight += 1
        return index

    def ended(self, index: int, outage: bool, now: float) -> None:
        server = self._servers[index]
        server.in_flight -= 1
        if not outage:
            server.outages = 0
        elif server.rests_until <= now:
            # Calls that went out together fail together: that is one outage.
            server.rests_until = now + min(LONGEST_REST, FIRST_REST * 2.0**server.outages)
            server.outages += 1

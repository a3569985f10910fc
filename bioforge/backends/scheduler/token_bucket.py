"""Token buckets: the pace of requests and tokens, by the project's limits and by what the provider reports.

Pure: `now` is passed in, in seconds of any monotonic clock.
"""

from __future__ import annotations

from typing import NamedTuple

from bioforge.core.interfaces import Limits, RateLimits

BURST = 3.0
"""Seconds of the allowance that may go out at once. A whole minute's worth is a herd that ends in 429s."""

DAY = 86_400.0


class TokenBucket:
    """Fills at `rate` units a second up to `capacity`; taking more than there is leaves a debt.

    What needs more than the capacity may go when the bucket is full: it is paid for by those after it.
    """

    __slots__ = ("_level", "_seen", "capacity", "rate")

    def __init__(self, rate: float, capacity: float, now: float) -> None:
        self.rate = rate
        self.capacity = capacity
        self._level = capacity
        self._seen = now

    def level(self, now: float) -> float:
        if now > self._seen:
            self._level = min(self.capacity, self._level + (now - self._seen) * self.rate)
            self._seen = now
        return self._level

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken; 0 for now."""
        short = min(amount, self.capacity) - self.level(now)
        # A millionth of tolerance: having waited exactly as long as told must be enough in floating point too.
        return short / self.rate if short > 1e-6 * self.capacity else 0.0

    def take(self, amount: float, now: float) -> None:
        self._level = self.level(now) - amount

    def adjust(self, rate: float, capacity: float, level: float, now: float) -> None:
        self.rate, self.capacity, self._level, self._seen = rate, capacity, min(level, capacity), now


class Snapshot(NamedTuple):
    """What had been taken when an attempt was let go, itself included: it dates the report that its answer brings."""

    requests: float
    tokens: float
    at: float


class _Meter:
    """One kind of unit: the project's bucket, and the provider's as far as its headers tell it."""

    def __init__(self, per_minute: float | None, now: float) -> None:
        self.taken = 0.0
        self._own: TokenBucket | None = None
        if per_minute is not None:
            rate = per_minute / 60.0
            self._own = TokenBucket(rate, max(1.0, rate * BURST), now)
        self._theirs: TokenBucket | None = None
        self._newest = 0.0

    def wait(self, amount: float, now: float) -> float:
        own = self._own.wait(amount, now) if self._own else 0.0
        theirs = self._theirs.wait(amount, now) if self._theirs else 0.0
        return max(own, theirs)

    def take(self, amount: float, now: float) -> None:
        self.taken += amount
        if self._own:
            self._own.take(amount, now)
        if self._theirs:
            self._theirs.take(amount, now)

    def feed(
        self, taken: float, at: float, limit: int | None, remaining: int | None, reset: float | None, now: float
    ) -> None:
        """Takes over a report. Answers overtake each other: only the newest attempt's report says anything."""
        if remaining is None or taken < self._newest:
            return
        self._newest = taken
        capacity = float(max(limit or 0, remaining, 1))
        # "reset" is when the bucket is full again: with what is missing, that gives the speed of its filling.
        missing = capacity - remaining
        rate = missing / reset if reset and missing > 0 else capacity / 60.0
        rate = max(rate, capacity / DAY)
        # What was sent after that attempt is not in the report yet, and neither is what was filled in since.
        level = remaining - (self.taken - taken) + rate * (now - at)
        if self._theirs is None:
            self._theirs = TokenBucket(rate, capacity, now)
        self._theirs.adjust(rate, capacity, level, now)


class RateLimiter:
    """Requests and tokens together: an attempt needs one of the first and some of the second."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._requests = _Meter(limits.requests_per_minute, now)
        self._tokens = _Meter(limits.tokens_per_minute, now)

    def wait(self, tokens: float, now: float) -> float:
        """Seconds until an attempt that needs so many tokens may be sent."""
        return max(self._requests.wait(1.0, now), self._tokens.wait(tokens, now))

    def take(self, tokens: float, now: float) -> Snapshot:
        self._requests.take(1.0, now)
        self._tokens.take(tokens, now)
        return Snapshot(self._requests.taken, self._tokens.taken, now)

    def feed(self, mark: Snapshot, said: RateLimits, now: float) -> None:
        self._requests.feed(
            mark.requests, mark.at, said.limit_requests, said.remaining_requests, said.reset_requests, now
        )
        self._tokens.feed(mark.tokens, mark.at, said.limit_tokens, said.remaining_tokens, said.reset_tokens, now)

"""Token buckets for requests and tokens, fed by the project's limits and the provider's headers.

Sans I/O: `now` is passed in, in seconds of any monotonic clock.
"""

from __future__ import annotations

from typing import NamedTuple

from bioforge.core.interfaces import Limits, RateLimits

BURST = 3.0
"""Seconds of the allowance that may be sent at once. A whole minute's worth in one burst ends in 429s."""

DAY = 86_400.0


class TokenBucket:
    """A bucket that fills at `rate` units a second up to `capacity`; taking more than its level leaves a debt.

    An amount above the capacity may be taken when the bucket is full; the next takers wait for the debt.
    """

    __slots__ = ("_level", "_seen", "capacity", "rate")

    def __init__(self, rate: float, capacity: float, now: float) -> None:
        self.rate = rate
        self.capacity = capacity
        self._level = capacity
        self._seen = now

    def level(self, now: float) -> float:
        """Return the units that may be taken now; negative for a debt."""
        if now > self._seen:
            self._level = min(self.capacity, self._level + (now - self._seen) * self.rate)
            self._seen = now
        return self._level

    def wait(self, amount: float, now: float) -> float:
        """Return the seconds until `amount` may be taken; 0 for now."""
        missing = min(amount, self.capacity) - self.level(now)
        # Tolerate floating-point error: after exactly this wait, the next call returns 0.
        return missing / self.rate if missing > 1e-6 * self.capacity else 0.0

    def take(self, amount: float, now: float) -> None:
        """Take an amount, whatever the level is."""
        self._level = self.level(now) - amount

    def adjust(self, rate: float, capacity: float, level: float, now: float) -> None:
        """Replace all values by reported ones."""
        self.rate, self.capacity, self._level, self._seen = rate, capacity, min(level, capacity), now


class Snapshot(NamedTuple):
    """Totals taken when an attempt was admitted, itself included; they date the report in its answer."""

    requests: float
    tokens: float
    at: float


class _Meter:
    """One kind of unit: the project's bucket, and the provider's once its headers are known."""

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
        return max(own, self.provider_wait(amount, now))

    def provider_wait(self, amount: float, now: float) -> float:
        return self._theirs.wait(amount, now) if self._theirs else 0.0

    def take(self, amount: float, now: float) -> None:
        self.taken += amount
        if self._own:
            self._own.take(amount, now)
        if self._theirs:
            self._theirs.take(amount, now)

    def feed(
        self, taken: float, at: float, limit: int | None, remaining: int | None, reset: float | None, now: float
    ) -> None:
        """Apply a report, unless a newer attempt's report has arrived before."""
        if remaining is None or taken < self._newest:
            return
        if not remaining and (limit == 0 or not (limit or reset)):
            return  # servers without limits report zeros
        self._newest = taken
        capacity = float(max(limit or 0, remaining, 1))
        # "reset" is the time until the bucket is full: with the missing amount it gives the rate.
        missing = capacity - remaining
        rate = missing / reset if reset and missing > 0 else capacity / 60.0
        rate = max(rate, capacity / DAY)
        # The report does not include attempts sent after it, nor the refill since.
        level = remaining - (self.taken - taken) + rate * (now - at)
        if self._theirs is None:
            self._theirs = TokenBucket(rate, capacity, now)
        self._theirs.adjust(rate, capacity, level, now)


class RateLimiter:
    """Limits requests and tokens together: an attempt needs one request and its tokens."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._requests = _Meter(limits.requests_per_minute, now)
        self._tokens = _Meter(limits.tokens_per_minute, now)

    def wait(self, tokens: float, now: float) -> float:
        """Return the seconds until an attempt with this many tokens may be sent."""
        return max(self._requests.wait(1.0, now), self._tokens.wait(tokens, now))

    def provider_wait(self, tokens: float, now: float) -> float:
        """Return the part of `wait` that the provider's limits cause."""
        return max(self._requests.provider_wait(1.0, now), self._tokens.provider_wait(tokens, now))

    def take(self, tokens: float, now: float) -> Snapshot:
        """Take an attempt's request and tokens."""
        self._requests.take(1.0, now)
        self._tokens.take(tokens, now)
        return Snapshot(self._requests.taken, self._tokens.taken, now)

    def feed(self, taken: Snapshot, report: RateLimits, now: float) -> None:
        """Apply the rate limits that an answer reported; `taken` is the snapshot of its attempt."""
        self._requests.feed(
            taken.requests, taken.at, report.limit_requests, report.remaining_requests, report.reset_requests, now
        )
        self._tokens.feed(
            taken.tokens, taken.at, report.limit_tokens, report.remaining_tokens, report.reset_tokens, now
        )

"""Rate limits with token buckets and `x-ratelimit-*` headers, and the quota.

A bucket holds a minute's allowance, starts full and refills evenly. Only an admitted request takes from it.
The clock is passed in and gives seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from bioforge.simulator.errors import ApiError, quota
from bioforge.simulator.faults import retry_headers

Clock = Callable[[], float]


class MinuteBucket:
    """A token bucket of `limit` units that refills within 60 seconds."""

    def __init__(self, limit: int, clock: Clock) -> None:
        self.limit = limit
        self._rate = limit / 60.0
        self._clock = clock
        self._level = float(limit)
        self._seen = clock()

    def level(self) -> float:
        now = self._clock()
        self._level = min(float(self.limit), self._level + (now - self._seen) * self._rate)
        self._seen = now
        return self._level

    def wait(self, amount: float) -> float:
        """Return the seconds until `amount` can be taken: 0 for now, infinite if it exceeds the limit."""
        if amount > self.limit:
            return math.inf
        # tolerance for floating point: waiting exactly this long must be enough
        short = amount - self.level()
        return short / self._rate if short > 1e-9 * self.limit else 0.0

    def take(self, amount: float) -> None:
        self._level = max(0.0, self.level() - amount)

    @property
    def remaining(self) -> int:
        return int(self.level() + 1e-9 * self.limit)

    @property
    def reset(self) -> float:
        """Return the seconds until the bucket is full."""
        return (self.limit - self.level()) / self._rate


class ServerLimits:
    """Admits requests or refuses them with 429."""

    def __init__(self, requests_per_minute: int | None, tokens_per_minute: int | None, clock: Clock) -> None:
        self._buckets: list[tuple[str, MinuteBucket]] = []
        if requests_per_minute is not None:
            self._buckets.append(("requests", MinuteBucket(requests_per_minute, clock)))
        if tokens_per_minute is not None:
            self._buckets.append(("tokens", MinuteBucket(tokens_per_minute, clock)))

    def __bool__(self) -> bool:
        return bool(self._buckets)

    def admit(self, tokens: int) -> ApiError | None:
        """Take one request and `tokens`, or take nothing and return the refusal."""
        needed = {"requests": 1, "tokens": tokens}
        waits = [(bucket.wait(needed[kind]), kind, bucket) for kind, bucket in self._buckets]
        longest, kind, bucket = max(waits, key=lambda entry: entry[0])
        if longest == 0:
            for kind, bucket in self._buckets:
                bucket.take(needed[kind])
            return None
        used = bucket.limit - bucket.remaining
        if longest == math.inf:
            message = (
                f"Request too large on {kind} per min: Limit {bucket.limit}, Requested {needed[kind]}. "
                "The input or output tokens must be reduced in order to run successfully."
            )
            headers = {"x-should-retry": "false"}
        else:
            message = (
                f"Rate limit reached on {kind} per min: Limit {bucket.limit}, Used {used}, "
                f"Requested {needed[kind]}. Please try again in {duration(longest)}."
            )
            headers = retry_headers(longest)
        return ApiError(429, message, type=kind, code="rate_limit_exceeded", headers=headers)

    def headers(self) -> dict[str, str]:
        """Return the three `x-ratelimit-*` headers of each limit."""
        described = {}
        for kind, bucket in self._buckets:
            described[f"x-ratelimit-limit-{kind}"] = str(bucket.limit)
            described[f"x-ratelimit-remaining-{kind}"] = str(bucket.remaining)
            described[f"x-ratelimit-reset-{kind}"] = duration(bucket.reset)
        return described


class Quota:
    """The number of answers that may be charged before every request is refused; None for unlimited."""

    def __init__(self, answers: int | None) -> None:
        self._left = answers

    def refusal(self) -> ApiError | None:
        return quota() if self._left is not None and self._left <= 0 else None

    def take(self) -> None:
        if self._left is not None:
            self._left -= 1


def duration(seconds: float) -> str:
    """Format a duration like the API, rounded up to milliseconds: `41ms`, `1.2s`, `6m0s`, `1h0m3.5s`."""
    # rounding first keeps 0.041 s (41.000000000000004 ms in floating point) at 41
    milliseconds = math.ceil(round(seconds * 1000, 6))
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}h" if hours else ""
    text += f"{minutes}m" if minutes or hours else ""
    return f"{text}{rest / 1000:g}s"

"""When to try again: how long to wait, and when an attempt was the last one. Times in seconds."""

from __future__ import annotations

from collections.abc import Callable

from tenacity import RetryCallState, Retrying, stop_after_attempt, wait_exponential

from bioforge.core.interfaces import RetryPolicy

LONG = 120.0
"""A longer Retry-After is no delay of one request: everything waits for it, and no attempt is used up."""


class Backoff:
    """Exponential backoff with full jitter, where the provider's own Retry-After wins.

    tenacity computes the ceilings (0.5, 1, 2, 4 …, at most 60) and the end; the jitter is drawn here, because its
    `wait_random_exponential` draws from the global generator and no test could repeat it. `random` is a function
    without arguments that returns numbers from 0 to below 1.
    """

    def __init__(self, policy: RetryPolicy, random: Callable[[], float]) -> None:
        self._ceiling = wait_exponential(multiplier=policy.first_delay, max=policy.max_delay)
        self._last = stop_after_attempt(policy.max_attempts)
        self._state = RetryCallState(Retrying(), None, (), {})
        self._first = policy.first_delay
        self._random = random

    def exhausted(self, tries: int) -> bool:
        """Whether the counted attempt with this number (from 1) was the last one allowed."""
        self._state.attempt_number = tries
        return self._last(self._state)

    def delay(self, tries: int, retry_after: float | None = None) -> float:
        """Seconds to wait after the attempt with this number (from 1)."""
        if retry_after is not None:
            # Never earlier than asked; spread a little, or all that were told the same come back together.
            return retry_after + self._random() * min(retry_after * 0.25 + self._first, self._first * 4)
        self._state.attempt_number = max(1, tries)
        return self._random() * self._ceiling(self._state)

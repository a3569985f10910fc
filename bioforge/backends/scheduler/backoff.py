"""Retry delays and the last attempt of a request. Times in seconds."""

from __future__ import annotations

from collections.abc import Callable

from tenacity import RetryCallState, Retrying, stop_after_attempt, wait_exponential

from bioforge.core.interfaces import RetryPolicy

LONG = 120.0
"""A Retry-After above this pauses all requests and uses up no attempt."""


class Backoff:
    """Exponential backoff with full jitter; the provider's Retry-After wins.

    tenacity computes the ceilings (0.5, 1, 2, 4 …, at most 60) and the last attempt. The jitter is drawn here from `random`
    (0 to below 1), because tenacity's `wait_random_exponential` uses the global generator, which tests cannot repeat.
    """

    def __init__(self, policy: RetryPolicy, random: Callable[[], float]) -> None:
        self._ceiling = wait_exponential(multiplier=policy.first_delay, max=policy.max_delay)
        self._last = stop_after_attempt(policy.max_attempts)
        self._state = RetryCallState(Retrying(), None, (), {})
        self._first = policy.first_delay
        self._random = random

    def exhausted(self, tries: int) -> bool:
        """Return True if the counted attempt with this number (from 1) was the last one allowed."""
        self._state.attempt_number = tries
        return self._last(self._state)

    def delay(self, tries: int, retry_after: float | None = None) -> float:
        """Return the seconds to wait after the attempt with this number (from 1)."""
        if retry_after is not None:
            # Never earlier than asked, and spread a little, so that not all requests return together.
            return retry_after + self._random() * min(retry_after * 0.25 + self._first, self._first * 4)
        self._state.attempt_number = max(1, tries)
        return self._random() * self._ceiling(self._state)

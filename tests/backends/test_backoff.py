"""Retry policy: delays, the end, Retry-After."""

from __future__ import annotations

from random import Random

import pytest

from bioforge.backends.scheduler.backoff import Backoff
from bioforge.core.interfaces import RetryPolicy


def test_ceilings_double_up_to_the_maximum() -> None:
    backoff = Backoff(RetryPolicy(first_delay=0.5, max_delay=60.0), lambda: 1.0)
    assert [backoff.delay(tries) for tries in range(1, 10)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


def test_jitter_is_full_and_repeatable() -> None:
    policy = RetryPolicy()
    drawn = [Backoff(policy, Random(7).random).delay(4) for _ in range(2)]
    assert drawn[0] == drawn[1]
    random = Random(1).random
    spread = [Backoff(policy, random).delay(4) for _ in range(500)]
    assert min(spread) < 0.2
    assert 3.8 < max(spread) <= 4.0


def test_what_the_provider_asks_for_wins_and_is_never_shortened() -> None:
    random = Random(3).random
    backoff = Backoff(RetryPolicy(), random)
    delays = [backoff.delay(6, 7.0) for _ in range(200)]
    assert min(delays) >= 7.0
    assert max(delays) <= 9.0
    assert len(set(delays)) > 150


def test_the_last_attempt_is_the_configured_one() -> None:
    backoff = Backoff(RetryPolicy(max_attempts=3), lambda: 0.5)
    assert [backoff.exhausted(tries) for tries in (1, 2, 3, 4)] == [False, False, True, True]


@pytest.mark.parametrize("tries", [1, 50, 5000])
def test_no_number_of_tries_is_too_large(tries: int) -> None:
    assert Backoff(RetryPolicy(), lambda: 1.0).delay(tries) <= 60.0


def test_a_first_delay_of_zero_means_at_once() -> None:
    assert Backoff(RetryPolicy(first_delay=0.0), lambda: 1.0).delay(3) == 0.0

"""The deduplicator, without threads and server: join, yield, retry, split, close."""

from __future__ import annotations

import pytest

from bioforge.api import ClosedError
from bioforge.api.deduplicate import LINGER, Deduplicator, InFlight, Waiter
from bioforge.api.request import PreparedRequest
from bioforge.core.types import Rendered, Request


def call(name: str) -> Waiter:
    request = Request(name, "/v1/responses", "m", b"{}", "", "")
    return Waiter(PreparedRequest(Rendered("/v1/responses", "m", None, name, None, {}), request))


def joined(calls: Deduplicator, name: str) -> tuple[Waiter, InFlight]:
    """Return a call and its request, which is ready to be sent."""
    first = call(name)
    entry = calls.join(first)
    assert entry is not None
    calls.enqueue(entry, entry.request)
    return first, entry


def ready(calls: Deduplicator) -> list[str]:
    return [request.request_hash for request in calls]


def test_identical_calls_share_one_request() -> None:
    calls = Deduplicator()
    first, entry = joined(calls, "a")
    second = call("a")
    assert calls.join(second) is None
    assert ready(calls) == ["a"]
    assert calls.first_waiter("a") is first
    assert calls.pop("a") == [first, second]
    assert calls.pop("a") == []
    assert calls.join(call("a")) is not entry, "a removed request begins again"


def test_requests_are_yielded_in_order_and_once() -> None:
    calls = Deduplicator()
    for name in "abc":
        joined(calls, name)
    assert ready(calls) == ["a", "b", "c"]
    assert ready(calls) == []


def test_a_request_whose_calls_were_cancelled_is_dropped() -> None:
    calls = Deduplicator()
    first, _ = joined(calls, "a")
    joined(calls, "b")
    first.future.cancel()
    assert ready(calls) == ["b"]
    assert calls.join(call("a")) is not None, "it is removed"


def test_the_backend_is_woken_only_after_the_iterator_ended() -> None:
    calls = Deduplicator()
    entries = [calls.join(call(name)) for name in "abc"]
    woken = []
    for entry in entries:
        assert entry is not None
        woken.append(calls.enqueue(entry, entry.request))
        if len(woken) == 1:
            ready(calls)
    assert woken == [False, True, False]


def test_nothing_is_yielded_while_requests_are_held() -> None:
    calls = Deduplicator()
    with calls.hold(), calls.hold():
        joined(calls, "a")
        assert ready(calls) == []
        joined(calls, "b")
    assert ready(calls) == ["a", "b"]


def test_retries_carry_the_number_of_attempts() -> None:
    calls = Deduplicator()
    for name in "ab":
        joined(calls, name)
    ready(calls)
    calls.mark_for_retry("a", 3)
    assert [(request.request_hash, request.attempts) for request in calls.retries()] == [("a", 3)]
    assert list(calls.retries()) == []
    calls.mark_for_retry("unknown", 1)
    assert list(calls.retries()) == []


def test_calls_can_be_split_off() -> None:
    calls = Deduplicator()
    first, entry = joined(calls, "a")
    second = call("a")
    calls.join(second)
    assert calls.split(entry, lambda one: one is second) == [first]
    assert entry.waiters == [second]
    assert calls.split(entry, lambda one: False) == [second]
    assert calls.pop("a") == []


def test_a_removed_request_is_not_yielded() -> None:
    calls = Deduplicator()
    first, entry = joined(calls, "a")
    assert calls.pop_all() == [first]
    assert ready(calls) == []
    assert not calls.enqueue(entry, entry.request), "it was removed"
    assert ready(calls) == []


def test_closing_returns_unsent_calls_and_leaves_the_others() -> None:
    calls = Deduplicator()
    sent, _ = joined(calls, "sent")
    ready(calls)
    unsent, _ = joined(calls, "unsent")
    assert not calls.abandoned
    assert calls.shut_down() == [unsent]
    assert not calls.wait_for_work()
    assert ready(calls) == []
    with pytest.raises(ClosedError):
        calls.join(call("late"))
    sent.future.cancel()
    assert calls.abandoned
    assert calls.pop("sent") == [sent]
    assert not calls.abandoned, "nothing is in flight"


def test_a_batch_of_an_earlier_process_is_work() -> None:
    calls = Deduplicator()
    entry = calls.join(call("a"))
    assert entry is not None
    calls.await_batch(entry, "bf-1")
    assert calls.awaited_batches() == {"bf-1"}
    assert calls.wait_for_work()
    assert ready(calls) == []


def test_more_is_expected_until_the_linger_time_has_passed() -> None:
    now = 100.0
    calls = Deduplicator(lambda: now)
    joined(calls, "a")
    now += LINGER - 1
    assert calls.expects_more
    ready(calls)
    now += LINGER - 1
    assert calls.expects_more
    calls.pop("a")
    now += LINGER
    assert not calls.expects_more
    joined(calls, "b")
    ready(calls)
    assert calls.expects_more
    calls.shut_down()
    assert not calls.expects_more

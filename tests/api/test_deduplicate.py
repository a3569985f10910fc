"""Who waits for what, without threads and without a server: joining, handing out, taking back, closing."""

from __future__ import annotations

import pytest

from bioforge.api import ClosedError
from bioforge.api.deduplicate import LINGER, Deduplicator, InFlight, Waiter
from bioforge.api.request import PreparedRequest
from bioforge.core.types import Rendered, Request


def call(name: str) -> Waiter:
    request = Request(name, "/v1/responses", "m", b"{}", "", "")
    return Waiter(PreparedRequest(Rendered("/v1/responses", "m", None, name, None, {}), request))


def joined(desk: Deduplicator, name: str) -> tuple[Waiter, InFlight]:
    """A call that has begun a flight which is handed in to be sent."""
    first = call(name)
    flight = desk.join(first)
    assert flight is not None
    desk.enqueue(flight, flight.request)
    return first, flight


def handed_out(desk: Deduplicator) -> list[str]:
    return [request.request_hash for request in desk]


def test_calls_for_the_same_request_are_one_flight() -> None:
    desk = Deduplicator()
    first, flight = joined(desk, "a")
    second = call("a")
    assert desk.join(second) is None
    assert handed_out(desk) == ["a"]
    assert desk.first_waiter("a") is first
    assert desk.pop("a") == [first, second]
    assert desk.pop("a") == []
    assert desk.join(call("a")) is not flight, "what is settled is begun anew"


def test_requests_are_handed_out_in_order_and_once() -> None:
    desk = Deduplicator()
    for name in "abc":
        joined(desk, name)
    assert handed_out(desk) == ["a", "b", "c"]
    assert handed_out(desk) == []


def test_one_that_nobody_waits_for_is_never_handed_out() -> None:
    desk = Deduplicator()
    first, _ = joined(desk, "a")
    joined(desk, "b")
    first.future.cancel()
    assert handed_out(desk) == ["b"]
    assert desk.join(call("a")) is not None, "it is forgotten"


def test_somebody_has_to_be_told_only_after_there_was_nothing() -> None:
    desk = Deduplicator()
    flights = [desk.join(call(name)) for name in "abc"]
    told = []
    for flight in flights:
        assert flight is not None
        told.append(desk.enqueue(flight, flight.request))
        if len(told) == 1:
            handed_out(desk)
    assert told == [False, True, False]


def test_nothing_is_handed_out_while_somebody_collects() -> None:
    desk = Deduplicator()
    with desk.hold(), desk.hold():
        joined(desk, "a")
        assert handed_out(desk) == []
        joined(desk, "b")
    assert handed_out(desk) == ["a", "b"]


def test_what_was_given_back_is_handed_out_again_with_its_attempts() -> None:
    desk = Deduplicator()
    for name in "ab":
        joined(desk, name)
    handed_out(desk)
    desk.mark_for_retry("a", 3)
    assert [(request.request_hash, request.attempts) for request in desk.retries()] == [("a", 3)]
    assert list(desk.retries()) == []
    desk.mark_for_retry("unknown", 1)
    assert list(desk.retries()) == []


def test_a_flight_can_be_split() -> None:
    desk = Deduplicator()
    first, flight = joined(desk, "a")
    second = call("a")
    desk.join(second)
    assert desk.split(flight, lambda one: one is second) == [first]
    assert flight.waiters == [second]
    assert desk.split(flight, lambda one: False) == [second]
    assert desk.pop("a") == []


def test_what_ends_is_not_handed_out_any_more() -> None:
    desk = Deduplicator()
    first, flight = joined(desk, "a")
    assert desk.pop_all() == [first]
    assert handed_out(desk) == []
    assert not desk.enqueue(flight, flight.request), "it comes too late"
    assert handed_out(desk) == []


def test_closing_returns_what_was_not_sent_and_leaves_the_rest() -> None:
    desk = Deduplicator()
    sent, _ = joined(desk, "sent")
    handed_out(desk)
    unsent, _ = joined(desk, "unsent")
    assert not desk.abandoned
    assert desk.close() == [unsent]
    assert not desk.wait_for_work()
    assert handed_out(desk) == []
    with pytest.raises(ClosedError):
        desk.join(call("late"))
    sent.future.cancel()
    assert desk.abandoned
    assert desk.pop("sent") == [sent]
    assert not desk.abandoned, "nothing is under way"


def test_a_batch_of_an_earlier_process_is_something_to_do() -> None:
    desk = Deduplicator()
    flight = desk.join(call("a"))
    assert flight is not None
    desk.await_batch(flight, "bf-1")
    assert desk.awaited_batches() == {"bf-1"}
    assert desk.wait_for_work()
    assert handed_out(desk) == []


def test_it_stays_lively_for_a_while() -> None:
    now = 100.0
    desk = Deduplicator(lambda: now)
    joined(desk, "a")
    now += LINGER - 1
    assert desk.expects_more
    handed_out(desk)
    now += LINGER - 1
    assert desk.expects_more
    desk.pop("a")
    now += LINGER
    assert not desk.expects_more
    joined(desk, "b")
    handed_out(desk)
    assert desk.expects_more
    desk.close()
    assert not desk.expects_more

"""Senders that break their word: what they give counts for their own attempt, and the answers of all others are kept."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from bioforge.backends.base import AsyncCallsBackend, CallsBackend, ThreadCallsBackend
from bioforge.core.events import Event, Failed, Notice, Started, Succeeded, Unusable
from bioforge.core.interfaces import BackendContext, Limits, Outcome, RateLimits, RetryPolicy, Work
from bioforge.core.types import Failure, Paid, Request, Response, Usage
from bioforge.plugins.validate import sanitize

GOOD = Outcome(answer=Response(b"{}", "ok"))
BODY = b'{"text": "paid for"}'
FAILURE = Failure("rate_limit", "slow down")

Give = Callable[[], Any]


class Sender:
    def __init__(self, give: Give) -> None:
        self.give = give

    def answer(self, request: Request) -> Any:
        return self.give() if request.artist_id == "1" else GOOD


class ThreadSender(Sender):
    def send(self, request: Request, client_request_id: str) -> Any:
        return self.answer(request)

    def close(self) -> None:
        pass


class AsyncSender(Sender):
    async def send(self, request: Request, client_request_id: str) -> Any:
        return self.answer(request)

    async def close(self) -> None:
        pass


class Threads(ThreadCallsBackend):
    give: Give

    def open_sender(self, concurrency: int) -> Any:
        return ThreadSender(self.give)


class Coroutines(AsyncCallsBackend):
    give: Give

    def open_sender(self) -> Any:
        return AsyncSender(self.give)


@pytest.fixture(params=[Threads, Coroutines])
def events(request: pytest.FixtureRequest) -> Callable[[Give], dict[str, Event]]:
    """`events(give)`: how each of five requests ended, where the second one's sender gives what `give` does."""

    def events(give: Give) -> dict[str, Event]:
        backend: CallsBackend = request.param(BackendContext("http://x", None))
        backend.give = give  # type: ignore[attr-defined]
        asked = iter([Request(f"v1:{n}", "/e", "m", b"{}", str(n), "bio") for n in range(5)])
        work = Work(asked, Limits(concurrency=2, max_cost_usd=10.0), RetryPolicy(max_attempts=2, first_delay=0.0))
        found: dict[str, Event] = {}

        def run() -> None:
            for group in backend.execute(work):
                found.update({e.attempt.request.artist_id: e for e in group if not isinstance(e, Started)})  # type: ignore[union-attr]

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(30)
        assert not thread.is_alive(), "it hangs"
        return found

    return events


def raising(error: BaseException) -> Give:
    def give() -> Any:
        raise error

    return give


@pytest.mark.parametrize(
    ("give", "said"),
    [
        (raising(ZeroDivisionError("by zero")), "ZeroDivisionError: by zero"),
        (raising(SystemExit(3)), "SystemExit: 3"),
        (raising(KeyboardInterrupt()), "KeyboardInterrupt"),
        (raising(asyncio.CancelledError()), "CancelledError"),
        (lambda: None, "the sender gave None, expected an Outcome"),
        (lambda: Outcome(), "neither an answer nor a failure"),
        (lambda: Outcome(failure="late"), "'late', which is no Failure"),  # type: ignore[arg-type]
        (lambda: Outcome(answer="text"), "'text' as an answer"),  # type: ignore[arg-type]
        (lambda: Outcome(failure=FAILURE, retryable=True, retry_after="5"), "slow down (the sender gave retry_after '5')"),  # type: ignore[arg-type]
        (lambda: Outcome(failure=FAILURE, retryable=True, retry_after=float("nan")), "retry_after nan"),
        (lambda: Outcome(failure=FAILURE, retryable=True, retry_after=float("inf")), "retry_after inf"),
        (lambda: Outcome(failure=FAILURE, paid="no"), "paid 'no'"),  # type: ignore[arg-type]
        (lambda: Outcome(failure=FAILURE, seconds=None), "seconds None"),  # type: ignore[arg-type]
        (lambda: Outcome(failure=FAILURE, overloaded="yes"), "a flag"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_what_cannot_be_known_may_have_been_paid_and_is_not_sent_again(
    give: Give, said: str, events: Callable[[Give], dict[str, Event]]
) -> None:
    found = events(give)
    assert {name for name, event in found.items() if isinstance(event, Succeeded)} == {"0", "2", "3", "4"}
    failed = found["1"]
    assert isinstance(failed, Failed)
    assert (failed.failure.error_class, failed.paid, failed.final) == ("internal", Paid.MAYBE, True)
    assert said in failed.failure.message


@pytest.mark.parametrize(
    ("outcome", "cost"),
    [
        (Outcome(answer=Response(BODY, "t", cost_usd=Decimal("0.1"))), 0.1),  # type: ignore[arg-type]
        (Outcome(answer=Response(BODY, "t", cost_usd=float("nan"))), None),
        (Outcome(answer=Response(BODY, "t", cost_usd="free")), None),  # type: ignore[arg-type]
        (Outcome(answer=Response(BODY, "t", cost_usd=-1.0)), None),
        (Outcome(answer=Response(BODY, "t", cost_usd=0.1), seconds=None), 0.1),  # type: ignore[arg-type]
        (Outcome(answer=Response(BODY, "t", cost_usd=0.1), rate_limits=RateLimits("5", "0", "1s")), 0.1),  # type: ignore[arg-type]
        (Outcome(answer=Response(BODY, "t", cost_usd=0.1), retry_after="5"), 0.1),  # type: ignore[arg-type]
        (Outcome(answer=Response(BODY, "t", cost_usd=0.1), failure=FAILURE), 0.1),
        (Outcome(answer=Response(BODY, "t", Usage("12"), cost_usd=0.1)), 0.1),  # type: ignore[arg-type]
        (Outcome(answer=Response(BODY, "t", Usage(2**70), cost_usd=0.1)), 0.1),
        (Outcome(answer=Response(BODY, "t", model=3, cost_usd=0.1)), 0.1),  # type: ignore[arg-type]
        (Outcome(answer=Response(BODY.decode(), "t", cost_usd=0.1)), 0.1),  # type: ignore[arg-type]
    ],
)
def test_an_answer_is_kept_with_what_is_sound_of_it(
    outcome: Outcome, cost: float | None, events: Callable[[Give], dict[str, Event]]
) -> None:
    found = events(lambda: outcome)
    assert all(isinstance(event, Succeeded) for event in found.values())
    event = found["1"]
    assert isinstance(event, Succeeded)
    assert (event.answer.body, event.answer.text, event.answer.cost_usd, event.seconds) == (BODY, "t", cost, 0.0)
    assert event.answer.usage is None
    assert event.answer.model is None


def test_an_answer_without_a_usable_text_is_kept_whole_and_not_bought_again(
    events: Callable[[Give], dict[str, Event]],
) -> None:
    event = events(lambda: Outcome(answer=Response(BODY, {"text": "t"})))["1"]  # type: ignore[arg-type]
    assert isinstance(event, Unusable)
    assert event.answer.body == BODY
    assert event.answer.problem is not None
    assert event.answer.problem.message == "the sender gave the text {'text': 't'}, expected a str"


def test_half_a_surrogate_pair_can_be_kept_in_no_database() -> None:
    made = sanitize(Outcome(answer=Response(BODY, "a\ud800b", response_id="\udc00")))
    assert made.answer is not None
    assert (made.answer.text, made.answer.response_id) == ("a?b", "?")


def test_what_is_sound_is_passed_on_as_it_is() -> None:
    full = Outcome(
        answer=Response(BODY, "Łempicka", Usage(1, 2), "m", "r", "flex", 0, None, "{}", "v1:x"),
        rate_limits=RateLimits(1, 2, 0.5, 3, 4, 1),
        request_id="req",
        seconds=1,
    )
    failed = Outcome(failure=Failure("server", "–", "x", 503), retryable=True, retry_after=2, body=b"x", hint="wait")
    for outcome in (GOOD, full, failed):
        assert sanitize(outcome) is outcome


def test_what_arrived_of_a_failure_that_is_told_wrongly_is_kept() -> None:
    assert sanitize(Outcome(failure=FAILURE, retry_after="5", body=BODY)).body == BODY  # type: ignore[arg-type]


def test_calls_are_started_only_as_fast_as_answers_are_recorded() -> None:
    """Every answer arrives at once, so that most of those in flight wait to be recorded."""
    backend = Coroutines(BackendContext("http://x", None))
    backend.give = lambda: GOOD  # type: ignore[method-assign]
    asked = iter([Request(f"v1:{n}", "/e", "m", b"{}", str(n), "bio") for n in range(12_000)])
    work = Work(asked, Limits(concurrency=2_000))
    in_flight, events = 0, list[Event]()
    for group in backend.execute(work):
        in_flight = max(in_flight, work.control.gauges.in_flight)
        events += group
    assert sum(isinstance(event, Succeeded) for event in events) == 12_000
    assert 256 <= in_flight <= 1_100
    (notice,) = (event for event in events if isinstance(event, Notice))
    assert "2000 are configured" in notice.message


def test_a_repr_that_raises_is_nobodys_problem() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise ValueError

    made = sanitize(Odd())
    assert made.failure is not None
    assert made.failure.message == "the sender gave Odd, expected an Outcome"

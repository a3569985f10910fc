"""The scheduler, told as stories on a fake clock: what it sends, what it makes of what comes back."""

from __future__ import annotations

import heapq
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from random import Random
from typing import Any

import pytest

from bioforge.backends.scheduler.concurrency import IntakeLimit
from bioforge.backends.scheduler.scheduler import Scheduler
from bioforge.core.events import Attempt, Event, Failed, Notice, Succeeded, Unusable
from bioforge.core.interfaces import Limits, Outcome, RateLimits, RetryPolicy
from bioforge.core.types import Failure, Paid, Request, Response

OK = Outcome(answer=Response(b"{}", "A life."), paid=Paid.YES)
UNUSABLE = Outcome(answer=Response(b"{}", problem=Failure("truncated", "cut off")), paid=Paid.YES)
BAD = Outcome(failure=Failure("bad_request", "no"))
RATE_LIMIT = Outcome(failure=Failure("rate_limit", "slower"), retryable=True, overloaded=True)
OUTAGE = Outcome(failure=Failure("server_error", "down"), retryable=True, outage=True)
FAULT = Outcome(failure=Failure("conflict", "once more"), retryable=True)
LOST = Outcome(failure=Failure("timeout", "no answer"), paid=Paid.MAYBE, retryable=True)
QUOTA = Outcome(failure=Failure("quota", "no money", http_status=429), stops_run=True, hint="add credit to the account")
KEY = Outcome(failure=Failure("authentication", "who?", http_status=401), stops_run=True, hint="set the key")


def requests(total: int, **values: Any) -> Iterator[Request]:
    for number in range(total):
        name = f"a-{number:04d}"
        yield Request(f"v1:{number:064x}", "/v1/responses", "m", b"{}", name, "bio", **values)


Serve = Callable[[Attempt, float], tuple[float, Outcome]]
"""How an attempt sent at a time ends: after how many seconds, with what."""


class World:
    """A window and the clock it lives by: `run` plays everything that happens, in order."""

    def __init__(
        self,
        source: Iterator[Request],
        concurrency: int = 8,
        price: float = 0.0,
        retry: RetryPolicy | None = None,
        seed: int = 1,
        proven: bool = True,
        **limits: Any,
    ) -> None:
        self.now = 1000.0
        self.source = source
        self.window = Scheduler(
            Limits(concurrency, **limits),
            retry or RetryPolicy(),
            lambda _: price,
            self.now,
            Random(seed).random,
            proven=lambda _: proven,
        )
        self.sent: list[tuple[float, Attempt]] = []
        self.events: list[Event] = []
        self.flying: list[tuple[float, int, Attempt, Outcome]] = []
        self.most = 0
        self.order = count()

    def take(self) -> list[Attempt]:
        attempts = self.window.take(self.source, self.now, self.now)
        self.sent += [(self.now, attempt) for attempt in attempts]
        return attempts

    def settle(self, attempt: Attempt, outcome: Outcome) -> list[Event]:
        events = self.window.settle(attempt, outcome, self.now)
        self.events += events
        return events

    def run(self, serve: Serve, until: float = math.inf) -> World:
        """Until all is done, or so many seconds have passed."""
        end = self.now + until
        while self.now < end:
            for attempt in self.take():
                seconds, outcome = serve(attempt, self.now)
                heapq.heappush(self.flying, (self.now + seconds, next(self.order), attempt, outcome))
                self.sent_check(attempt)
            if self.window.done():
                break
            times = [self.flying[0][0]] if self.flying else []
            if (timeout := self.window.timeout(self.now)) is not None:
                times.append(self.now + timeout)
            assert times, "nothing in flight and nothing to wait for: it would hang"
            self.now = max(min(times), self.now)
            while self.flying and self.flying[0][0] <= self.now:
                _, _, attempt, outcome = heapq.heappop(self.flying)
                self.settle(attempt, replace(outcome, seconds=1.0))
        return self

    def sent_check(self, attempt: Attempt) -> None:
        self.most = max(self.most, len(self.flying))
        assert sum(attempt.worker == other.worker for _, _, other, _ in self.flying) == 1

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def lost(self) -> list[Failed]:
        return [event for event in self.of(Failed) if event.final]

    def notices(self, kind: str) -> list[str]:
        return [event.message for event in self.of(Notice) if event.kind == kind]


def always(outcome: Outcome, seconds: float = 1.0) -> Serve:
    return lambda attempt, now: (seconds, outcome)


class TestSlots:
    def test_no_more_are_sent_than_the_window_holds(self) -> None:
        world = World(requests(100), concurrency=8).run(always(OK))
        assert len(world.of(Succeeded)) == 100
        assert world.most == 8

    def test_workers_are_named_by_the_smallest_free_slot(self) -> None:
        world = World(requests(10), concurrency=3)
        first = world.take()
        assert [attempt.worker for attempt in first] == ["W01", "W02", "W03"]
        world.settle(first[1], OK)
        assert [attempt.worker for attempt in world.take()] == ["W02"]

    def test_requests_are_pulled_only_when_there_is_room(self) -> None:
        pulled = []

        def source() -> Iterator[Request]:
            for request in requests(100):
                pulled.append(request)
                yield request

        world = World(source(), concurrency=4)
        world.take()
        assert len(pulled) == 4

    def test_nothing_to_do_is_done_at_once(self) -> None:
        world = World(requests(0))
        assert world.take() == []
        assert world.window.done()
        assert not world.window.unfinished

    def test_every_attempt_has_a_name_of_its_own(self) -> None:
        world = World(requests(50, attempts=2), retry=RetryPolicy(max_attempts=3)).run(always(FAULT))
        names = [attempt.client_request_id for _, attempt in world.sent]
        assert len(set(names)) == len(names) == 150
        assert all(name.isascii() and len(name) < 64 and name.startswith("bioforge-") for name in names)
        assert {attempt.number for _, attempt in world.sent} == {3, 4, 5}

    def test_a_slow_answer_holds_nobody_up(self) -> None:
        world = World(requests(101), concurrency=4)
        world.run(lambda attempt, now: (1000.0 if attempt.request.artist_id == "a-0000" else 1.0, OK))
        assert sorted(world.sent, key=lambda sent: sent[0])[-1][0] < 1040.0


class TestRetries:
    def test_a_failure_is_tried_again_until_it_works(self) -> None:
        world = World(requests(1)).run(lambda attempt, now: (1.0, FAULT if attempt.number < 4 else OK))
        failures = world.of(Failed)
        assert [failure.attempt.number for failure in failures] == [1, 2, 3]
        assert not any(failure.final for failure in failures)
        assert all(failure.retry_in is not None for failure in failures)
        assert [event.attempt.number for event in world.of(Succeeded)] == [4]

    def test_it_is_over_after_the_last_allowed_attempt(self) -> None:
        world = World(requests(1), retry=RetryPolicy(max_attempts=3)).run(always(FAULT))
        assert [failure.final for failure in world.of(Failed)] == [False, False, True]
        assert world.window.done()

    def test_attempts_of_earlier_runs_give_numbers_but_take_none_away(self) -> None:
        world = World(requests(1, attempts=9), retry=RetryPolicy(max_attempts=2)).run(always(FAULT))
        assert [failure.attempt.number for failure in world.of(Failed)] == [10, 11]

    def test_what_will_fail_again_is_not_sent_again(self) -> None:
        world = World(requests(3)).run(always(BAD))
        assert [failure.final for failure in world.of(Failed)] == [True] * 3

    def test_unusable_answers_are_final_and_kept(self) -> None:
        world = World(requests(3)).run(always(UNUSABLE))
        assert len(world.of(Unusable)) == 3
        assert len(world.sent) == 3

    def test_due_retries_come_first_and_waiting_ones_block_nobody(self) -> None:
        world = World(requests(4), concurrency=1)
        (first,) = world.take()
        world.settle(first, replace(FAULT, retry_after=5.0))
        (second,) = world.take()
        assert second.request.artist_id == "a-0001"
        world.now += 20.0
        world.settle(second, OK)
        (third,) = world.take()
        assert third.request.artist_id == "a-0000"

    def test_retry_after_is_kept_to(self) -> None:
        world = World(requests(1)).run(
            lambda attempt, now: (0.0, replace(RATE_LIMIT, retry_after=7.0) if attempt.number == 1 else OK)
        )
        first, second = (at for at, _ in world.sent)
        assert 7.0 <= second - first <= 9.0

    def test_what_may_have_been_paid_is_sent_again_unless_that_is_turned_off(self) -> None:
        world = World(requests(1)).run(lambda attempt, now: (1.0, LOST if attempt.number == 1 else OK))
        assert len(world.of(Succeeded)) == 1
        world = World(requests(1), retry=RetryPolicy(maybe_paid=False)).run(always(LOST))
        assert [failure.final for failure in world.of(Failed)] == [True]

    def test_the_window_says_when_to_look_again(self) -> None:
        world = World(requests(1))
        (attempt,) = world.take()
        assert world.window.timeout(world.now) is None
        (event,) = world.settle(attempt, FAULT)
        assert isinstance(event, Failed)
        world.take()
        assert world.window.timeout(world.now) == pytest.approx(event.retry_in)
        assert world.window.gauges(world.now).retrying == 1


class TestOverload:
    def test_storm_of_429_halves_concurrency_and_recovers(self) -> None:
        def serve(attempt: Attempt, now: float) -> tuple[float, Outcome]:
            return (0.1, RATE_LIMIT) if 1005.0 < now < 1008.0 else (1.0, OK)

        world = World(requests(3000), concurrency=64).run(serve)
        assert len(world.of(Succeeded)) == 3000
        assert world.notices("concurrency")[0].endswith("concurrency 64 -> 32")
        assert world.notices("concurrency")[-1] == "concurrency back at 64"
        assert world.window.gauges(world.now).concurrency == 64
        assert not world.lost

    def test_a_capacity_of_sixteen_is_found_under_a_window_of_128(self) -> None:
        world = World(requests(3000), concurrency=128)

        def serve(attempt: Attempt, now: float) -> tuple[float, Outcome]:
            busy = sum(outcome is OK for _, _, _, outcome in world.flying)
            return (0.1, RATE_LIMIT) if busy >= 16 else (1.0, OK)

        world.run(serve, until=120.0)
        refused = sum(event.failure.error_class == "rate_limit" for event in world.of(Failed))
        answered = len(world.of(Succeeded))
        assert answered > 0.75 * 16 * 119
        assert refused < answered
        assert not world.lost

    def test_chance_does_not_slow_it_down(self) -> None:
        random = Random(4)

        def serve(attempt: Attempt, now: float) -> tuple[float, Outcome]:
            return (0.05, RATE_LIMIT) if random.random() < 0.05 else (random.lognormvariate(0, 0.7), OK)

        world = World(requests(5000), concurrency=256).run(serve)
        assert world.notices("concurrency") == []

    def test_a_long_retry_after_pauses_everything_and_costs_no_attempt(self) -> None:
        def serve(attempt: Attempt, now: float) -> tuple[float, Outcome]:
            return (1.0, replace(RATE_LIMIT, retry_after=600.0)) if now < 1600.0 else (1.0, OK)

        retry = RetryPolicy(max_attempts=1, outage_seconds=900.0)
        world = World(requests(20), concurrency=4, retry=retry).run(serve)
        assert len(world.of(Succeeded)) == 20
        assert len(world.of(Failed)) == 4
        assert not any(failure.counted for failure in world.of(Failed))
        assert len(world.notices("pause")) == 1
        assert not [at for at, _ in world.sent if 1001.0 <= at < 1601.0]

    def test_many_429_that_ask_for_time_are_given_it(self) -> None:
        def serve(attempt: Attempt, now: float) -> tuple[float, Outcome]:
            return (0.1, replace(RATE_LIMIT, retry_after=20.0)) if now < 1015.0 else (1.0, OK)

        world = World(requests(500), concurrency=32).run(serve)
        assert len(world.of(Succeeded)) == 500
        assert len(world.notices("pause")) == 1
        assert not [at for at, _ in world.sent if 1001.0 < at < 1020.0]
        # It comes back with few, not with everybody that was told the same.
        assert sum(1020.0 <= at < 1020.9 for at, _ in world.sent) <= 32 // 8

    def test_a_request_that_is_always_limited_fails_in_the_end(self) -> None:
        world = World(requests(1)).run(always(RATE_LIMIT))
        assert len(world.lost) == 1


class TestPace:
    def test_requests_per_minute_hold_from_the_first_second(self) -> None:
        world = World(requests(2000), concurrency=64, requests_per_minute=600).run(always(OK), until=60.0)
        times = [at for at, _ in world.sent]
        assert sum(at < 1001.0 for at in times) <= 40
        for start in range(50):
            assert sum(1000.0 + start <= at < 1010.0 + start for at in times) <= 131
        assert 600 <= len(times) <= 631

    def test_tokens_per_minute_count_what_may_come_out(self) -> None:
        source = requests(2000, input_tokens=100, output_tokens=5, max_output_tokens=900)
        world = World(source, concurrency=64, tokens_per_minute=60_000).run(always(OK), until=60.0)
        assert 60 <= len(world.sent) <= 63
        assert world.window.gauges(world.now).waiting == "rate limit"

    def test_a_request_larger_than_the_burst_still_goes(self) -> None:
        source = requests(3, input_tokens=50_000)
        world = World(source, tokens_per_minute=60_000).run(always(OK))
        assert len(world.of(Succeeded)) == 3
        assert world.sent[-1][0] - world.sent[0][0] >= 90.0

    def test_the_provider_s_headers_set_the_pace(self) -> None:
        """A server that allows 60 a minute, told by its headers alone: hardly a request is refused."""
        level, seen = 60.0, 1000.0

        def serve(attempt: Attempt, now: float) -> tuple[float, Outcome]:
            nonlocal level, seen
            level, seen = min(60.0, level + (now - seen)), now
            outcome = OK if level >= 1.0 else RATE_LIMIT
            level -= outcome is OK
            limits = RateLimits(60, int(level), 60.0 - level)
            return 0.5, replace(outcome, rate_limits=limits)

        world = World(requests(200), concurrency=8).run(serve)
        assert len(world.of(Succeeded)) == 200
        assert len(world.of(Failed)) <= 5
        assert world.now - 1000.0 == pytest.approx(140.0, rel=0.1)

    def test_late_reports_do_not_undo_newer_ones(self) -> None:
        world = World(requests(100), concurrency=2)
        early, late = world.take()
        world.settle(late, replace(OK, rate_limits=RateLimits(100, 0, 100.0)))
        assert world.take() == []
        world.settle(early, replace(OK, rate_limits=RateLimits(100, 99, 1.0)))
        assert world.take() == []
        assert world.window.timeout(world.now) == pytest.approx(1.0, abs=0.01)

    def test_zeros_of_a_server_without_limits_say_nothing(self) -> None:
        for zeros in (RateLimits(0, 0), RateLimits(0, 0, 5.0, 0, 0, 5.0), RateLimits(remaining_requests=0)):
            world = World(requests(200), concurrency=8).run(always(replace(OK, rate_limits=zeros)))
            assert len(world.of(Succeeded)) == 200
            assert world.now - 1000.0 == pytest.approx(25.0)

    def test_a_limit_that_comes_back_in_a_day_stops_the_run(self) -> None:
        used_up = replace(OK, rate_limits=RateLimits(1, 0, 86_340.0))
        world = World(requests(20), concurrency=1).run(always(used_up))
        assert world.now < 1010.0
        assert world.window.stopped is not None
        assert world.window.stopped.kind == "outage"
        assert "asks to wait 23 h 58 min, until 1970-01-0" in world.window.stopped.message

    @pytest.mark.parametrize("seconds", [7200.0, 999_999_999.0])
    def test_a_retry_after_of_hours_stops_the_run(self, seconds: float) -> None:
        world = World(requests(20), concurrency=4).run(always(replace(RATE_LIMIT, retry_after=seconds)))
        assert len(world.sent) == 4
        assert world.window.stopped is not None
        assert world.window.stopped.kind == "outage"

    def test_a_wait_with_nothing_in_flight_is_announced_once_a_minute(self) -> None:
        world = World(requests(1), concurrency=1)
        (attempt,) = world.take()
        world.settle(attempt, replace(RATE_LIMIT, retry_after=20.0))
        world.take()
        (notice,) = world.window.announce(world.now)
        assert isinstance(notice, Notice)
        assert re.fullmatch(r"nothing is sent for 2\d s, until \d\d:\d\d:\d\d: the next retry", notice.message)
        assert world.window.announce(world.now) == []


class TestOutages:
    def test_minute_of_outage_fails_nobody(self) -> None:
        for total, concurrency in ((2000, 64), (3, 64), (1, 8), (200, 1)):

            def serve(attempt: Attempt, now: float) -> tuple[float, Outcome]:
                return (0.05, OUTAGE) if 1002.0 <= now < 1062.0 else (1.0, OK)

            world = World(requests(total), concurrency=concurrency)
            world.now = 1002.0 if total < 10 else 1000.0
            world.run(serve)
            assert len(world.of(Succeeded)) == total
            assert not world.lost
            assert "failures in a row" in world.notices("breaker")[0]
            assert "is back" in world.notices("breaker")[-1]
            during = [at for at, _ in world.sent if 1004.0 < at < 1062.0]
            assert len(during) <= 12

    def test_failures_of_one_moment_open_it_once_and_cost_no_attempts(self) -> None:
        world = World(requests(500), concurrency=256)
        attempts = world.take()
        for attempt in attempts:
            world.settle(attempt, OUTAGE)
        assert len(world.notices("breaker")) == 1
        assert sum(failure.counted for failure in world.of(Failed)) == 10
        assert world.take() == []

    def test_one_probe_at_a_time(self) -> None:
        world = World(requests(500), concurrency=64)
        for attempt in world.take():
            world.settle(attempt, OUTAGE)
        world.now += 2.0
        (probe,) = world.take()
        assert world.take() == []
        assert world.window.gauges(world.now).waiting == "provider down"
        (failed, notice) = world.settle(probe, OUTAGE)
        assert isinstance(failed, Failed)
        assert not failed.counted
        assert isinstance(notice, Notice)
        world.now += 3.0
        (probe,) = world.take()
        world.settle(probe, OK)
        # That answer has already raised it by one.
        assert len(world.take()) == 64 // 8 + 1

    def test_late_answers_to_what_was_sent_before_do_not_close_it(self) -> None:
        world = World(requests(500), concurrency=64)
        attempts = world.take()
        for attempt in attempts[:20]:
            world.settle(attempt, OUTAGE)
        world.settle(attempts[20], OK)
        assert world.take() == []

    def test_nothing_but_outages_ends_the_run(self) -> None:
        world = World(requests(50), concurrency=8).run(always(OUTAGE))
        assert world.window.stopped is not None
        assert world.window.stopped.kind == "outage"
        assert "down" in world.window.stopped.message
        assert 300.0 <= world.now - 1000.0 <= 400.0
        assert not world.lost

    def test_a_request_that_breaks_the_server_is_found_out(self) -> None:
        """Alone at the end of a run it looks like an outage; it must neither end the run nor stay in it for ever."""

        def serve(attempt: Attempt, now: float) -> tuple[float, Outcome]:
            return (0.5, OUTAGE) if attempt.request.artist_id == "a-0003" else (1.0, OK)

        world = World(requests(10)).run(serve)
        assert world.window.stopped is None
        assert [failure.attempt.request.artist_id for failure in world.lost] == ["a-0003"]
        assert len(world.of(Succeeded)) == 9
        assert world.now - 1000.0 < 300.0

    def test_scattered_faults_of_the_server_do_not_open_it(self) -> None:
        random = Random(2)
        world = World(requests(5000), concurrency=64)
        world.run(lambda attempt, now: (1.0, OUTAGE if random.random() < 0.1 else OK))
        assert world.notices("breaker") == []

    def test_failures_of_one_request_hold_up_no_other(self) -> None:
        """The others come one by one, as the calls of a client do, while the failing one waits for its retries."""
        world = World(requests(40), concurrency=8)
        (broken, *others) = world.take()
        for other in others:
            world.settle(other, OK)
        sent = len(world.sent)
        for _ in range(3):
            world.settle(broken, OUTAGE)
            world.source, rest = iter(()), world.source
            world.now += 40.0
            (broken,) = world.take()
            world.source = rest
        world.settle(broken, OUTAGE)
        assert world.notices("breaker")[0].startswith("3 failures in a row: of 1 request, retried in ")
        before = len(world.sent)
        others = world.take()
        assert len(others) == 8
        assert before > sent
        world.settle(others[0], OK)
        assert "is back" in world.notices("breaker")[-1]
        assert world.window.gauges(world.now).concurrency == 8


class TestSetup:
    """Mistakes of the setup are found with few requests, and answers end the caution."""

    def test_the_first_request_of_a_recipe_goes_alone_until_it_is_answered(self) -> None:
        world = World(requests(50), concurrency=8, proven=False)
        (first,) = world.take()
        assert world.take() == []
        world.settle(first, OK)
        assert len(world.take()) == 8

    def test_an_answered_recipe_sends_many_at_once(self) -> None:
        assert len(World(requests(50), concurrency=8).take()) == 8

    def test_a_slow_first_answer_does_not_hold_up_the_rest(self) -> None:
        world = World(requests(50), concurrency=8, proven=False)
        world.take()
        assert world.window.timeout(world.now) == 2.0
        world.now += 2.0
        assert len(world.take()) == 7

    def test_after_ten_failures_that_may_pass_the_rest_is_sent(self) -> None:
        world = World(requests(50), concurrency=8, proven=False)
        for _ in range(10):
            (attempt,) = world.take()
            world.settle(attempt, FAULT)
        assert len(world.take()) == 8

    def test_a_withdrawn_first_request_lets_the_next_go(self) -> None:
        world = World(requests(50), concurrency=8, proven=False)
        world.window.withdraw(world.take())
        assert len(world.take()) == 1

    @pytest.mark.parametrize("proven", [True, False])
    @pytest.mark.parametrize(
        ("outcome", "words"),
        [
            (Outcome(failure=Failure("not_found", "no model m", "model_not_found", 404)), "check model"),
            (Outcome(failure=Failure("bad_request", "not allowed", None, 405)), "base_url"),
            (Outcome(failure=Failure("redirect", "redirected to https://new", None, 308)), "set base_url"),
        ],
    )
    def test_equal_refusals_without_an_answer_stop_the_run(self, outcome: Outcome, words: str, proven: bool) -> None:
        world = World(requests(300), concurrency=8, proven=proven).run(always(outcome))
        assert len(world.sent) == 10 if not proven else 10 <= len(world.sent) <= 10 + 7
        stopped = world.window.stopped
        assert stopped is not None
        assert stopped.kind == "refused"
        assert outcome.failure is not None
        assert outcome.failure.message in stopped.message
        assert "recipe 'bio'" in stopped.message
        assert words in stopped.hint

    def test_refusals_of_rows_do_not_stop_a_recipe_that_was_answered(self) -> None:
        refused = Outcome(failure=Failure("bad_request", "too long", None, 400))
        filtered = Outcome(failure=Failure("content_filter", "flagged", None, 400))
        for world, outcome in ((World(requests(30)), refused), (World(requests(30), proven=False), filtered)):
            assert len(world.run(always(outcome)).lost) == 30
            assert world.window.stopped is None

    def test_one_answer_among_refusals_is_enough(self) -> None:
        bad = Outcome(failure=Failure("bad_request", "no", None, 400))
        world = World(requests(60), proven=False)
        world.run(lambda attempt, now: (1.0, OK if attempt.request.artist_id == "a-0008" else bad))
        assert len(world.lost) == 59
        assert world.window.stopped is None

    def test_unreadable_answers_stop_the_run_and_are_retried_once(self) -> None:
        page = Outcome(failure=Failure("malformed", "text/html: Log in"), paid=Paid.MAYBE, retryable=True)
        world = World(requests(100), concurrency=8, proven=False).run(always(page))
        assert len(world.sent) == 15
        assert max(Counter(attempt.request.artist_id for _, attempt in world.sent).values()) <= 2
        assert world.window.stopped is not None
        assert world.window.stopped.kind == "refused"
        assert "15 unreadable answers in a row: text/html: Log in" in world.window.stopped.message

    def test_an_unreadable_answer_now_and_then_stops_nothing(self) -> None:
        page = Outcome(failure=Failure("malformed", "?"), paid=Paid.MAYBE, retryable=True)
        world = World(requests(200), concurrency=8)
        world.run(lambda attempt, now: (1.0, page if attempt.request.artist_id.endswith("7") else OK))
        assert len(world.of(Succeeded)) == 180
        assert Counter(attempt.request.artist_id for _, attempt in world.sent)["a-0007"] == 2
        assert world.window.stopped is None

    def test_403_stops_the_run_at_the_start_and_is_the_row_s_after_an_answer(self) -> None:
        forbidden = Outcome(failure=Failure("permission", "flagged", None, 403), stops_run=True)
        world = World(requests(30)).run(always(forbidden))
        assert world.window.stopped is not None
        assert world.window.stopped.kind == "key"
        world = World(requests(30), proven=False)
        world.run(lambda attempt, now: (1.0, forbidden if attempt.request.artist_id == "a-0003" else OK))
        assert [failure.attempt.request.artist_id for failure in world.lost] == ["a-0003"]
        assert world.window.stopped is None


class TestIntake:
    """Calls are started only as fast as answers are recorded."""

    def test_the_number_in_flight_doubles_while_answers_are_recorded_at_once(self) -> None:
        limit = IntakeLimit(4096)
        assert limit.limit == 256
        limit.record(256, 0, 256)
        assert limit.limit == 512

    def test_it_is_reduced_while_answers_wait_and_says_so_once(self) -> None:
        limit = IntakeLimit(16_000)
        for _ in range(8):
            limit.record(limit.limit, 0, limit.limit)
        assert limit.limit == 16_000
        notices = [limit.record(500, 3000, 16_000) for _ in range(700)]
        assert limit.limit == 256
        (notice,) = filter(None, notices)
        assert "16000 are configured" in notice.message

    def test_a_configured_number_below_the_start_is_kept(self) -> None:
        limit = IntakeLimit(64)
        assert limit.record(64, 64, 64) is None
        assert limit.limit == 64


class TestMoney:
    def test_the_budget_is_never_exceeded(self) -> None:
        cost = replace(OK, answer=Response(b"", "A life.", cost_usd=0.008))
        world = World(requests(1000), concurrency=16, price=0.01, max_cost_usd=1.0).run(always(cost))
        assert world.window.stopped is not None
        assert (world.window.stopped.kind, world.window.done()) == ("budget", True)
        assert 0.98 <= world.window.spent <= 1.0
        assert world.window.reserved == pytest.approx(0.0)
        assert "--max-cost" in world.window.stopped.hint

    def test_estimates_that_are_too_low_are_corrected(self) -> None:
        cost = replace(OK, answer=Response(b"", "A life.", cost_usd=0.02))
        world = World(requests(1000), concurrency=16, price=0.01, max_cost_usd=1.0).run(always(cost))
        assert 0.95 <= world.window.spent <= 1.0 + 1e-9

    def test_what_was_not_paid_is_free_again(self) -> None:
        world = World(requests(30), concurrency=4, price=0.3, max_cost_usd=1.0).run(always(BAD))
        assert len(world.lost) == 30
        assert world.window.stopped is None
        assert world.window.spent == 0.0

    def test_what_may_have_been_paid_counts_as_spent(self) -> None:
        world = World(requests(30), concurrency=1, price=0.3, max_cost_usd=1.0).run(always(LOST))
        assert world.window.spent == pytest.approx(0.9)
        assert world.window.stopped is not None
        assert world.window.stopped.kind == "budget"

    def test_it_waits_for_what_is_in_flight_before_it_gives_up(self) -> None:
        cost = replace(OK, answer=Response(b"", "A life.", cost_usd=0.1))
        world = World(requests(4), concurrency=8, price=0.5, max_cost_usd=1.0).run(always(cost))
        assert len(world.of(Succeeded)) == 4
        assert world.window.stopped is None

    def test_without_a_budget_prices_are_not_asked_for(self) -> None:
        def price(request: Request) -> float:
            raise AssertionError

        window = Scheduler(Limits(2), RetryPolicy(), price, 0.0)
        assert len(window.take(requests(2), 0.0, 0.0)) == 2


class TestStopping:
    @pytest.mark.parametrize(("outcome", "kind"), [(QUOTA, "quota"), (KEY, "key")])
    def test_no_request_can_succeed_so_none_is_sent(self, outcome: Outcome, kind: str) -> None:
        world = World(requests(100), concurrency=4)
        attempts = world.take()
        (failed,) = world.settle(attempts[0], outcome)
        assert isinstance(failed, Failed)
        assert (failed.final, failed.counted, failed.retry_in) == (False, False, None)
        assert world.take() == []
        assert not world.window.done()
        for attempt in attempts[1:]:
            world.settle(attempt, OK)
        assert world.window.done()
        assert world.window.stopped is not None
        assert (world.window.stopped.kind, world.window.stopped.hint) == (kind, outcome.hint)

    def test_requests_that_an_answer_brings_about_are_asked_for_after_the_end(self) -> None:
        world = World(requests(1))
        (attempt,) = world.take()
        assert world.window.exhausted
        world.source = iter(list(requests(2))[1:])
        world.settle(attempt, OK)
        (later,) = world.take()
        assert later.request.artist_id != attempt.request.artist_id
        assert not world.window.done()

    def test_draining_awaits_what_is_in_flight_and_drops_retries(self) -> None:
        world = World(requests(100), concurrency=4)
        attempts = world.take()
        world.settle(attempts[0], FAULT)
        world.window.drain()
        assert world.take() == []
        (failed,) = world.settle(attempts[1], FAULT)
        assert isinstance(failed, Failed)
        assert (failed.final, failed.retry_in) == (False, None)
        assert not world.window.done()
        for attempt in attempts[2:]:
            world.settle(attempt, OK)
        assert world.window.done()
        assert world.window.unfinished
        assert world.window.timeout(world.now) is None

    def test_what_was_announced_and_not_sent_is_taken_back(self) -> None:
        world = World(requests(4, max_output_tokens=50), concurrency=4, price=0.1, max_cost_usd=1.0)
        attempts = world.take()
        world.window.drain()
        events = world.window.withdraw(attempts)
        assert [(event.paid, event.final, event.counted) for event in events if isinstance(event, Failed)] == [
            (Paid.NO, False, False)
        ] * 4
        assert world.window.done()
        assert world.window.reserved == pytest.approx(0.0)


class TestThroughput:
    """Discrete-event simulation: seconds of a clock that nobody has to wait for."""

    @pytest.mark.parametrize("faults", ["mixed", "server_error"])
    def test_faults_of_five_percent_cost_less_than_five_percent(self, faults: str) -> None:
        random = Random(11)
        slots, total, sigma = 256, 20_000, 0.7
        kinds = [RATE_LIMIT, OUTAGE, LOST, FAULT] if faults == "mixed" else [OUTAGE]

        def serve(attempt: Attempt, now: float) -> tuple[float, Outcome]:
            return random.lognormvariate(0.0, sigma), random.choice(kinds) if random.random() < 0.05 else OK

        world = World(requests(total), concurrency=slots)
        world.run(serve, until=70.0)
        mean = math.exp(sigma * sigma / 2)
        attempts_per_second = len([event for event in world.events if not isinstance(event, Notice)]) / 70.0
        assert attempts_per_second >= 0.95 * slots / mean
        assert not world.lost

    def test_the_whole_run_with_its_tail_is_near_the_ideal(self) -> None:
        random = Random(12)
        world = World(requests(20_000), concurrency=256)
        world.run(
            lambda attempt, now: (
                random.lognormvariate(0.0, 0.7),
                RATE_LIMIT if random.random() < 0.05 else OK,
            )
        )
        outcomes = Counter(type(event).__name__ for event in world.events)
        assert outcomes["Succeeded"] == 20_000
        ideal = (20_000 + outcomes["Failed"]) * math.exp(0.245) / 256
        assert world.now - 1000.0 <= ideal / 0.9

"""Buying in several ways within one run: which way what is bought, in which order, and never in two ways at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from itertools import count
from random import Random
from typing import Any

import pytest

from bioforge.backends.auto import FLEX_ATTEMPTS, AutoDriver
from bioforge.backends.openai.plugin import AutoBackend
from bioforge.core.events import Attempt, Event, Failed, Notice, Started, Stopped, Succeeded
from bioforge.core.interfaces import PurchaseDecision, RetryPolicy, Work
from bioforge.core.types import BatchProblem, BatchState, Failure, Paid, Request, Response

from . import bench
from .fake_service import DROPPED, LOST, OUTAGE, POLL, USAGE, BatchBench, Clock, Course, World, requests

ASYNC = RetryPolicy(first_delay=0.0, max_attempts=6)

BATCH = PurchaseDecision("batch", "", (), tier="batch", then="standard")
BATCH_THEN_FLEX = PurchaseDecision("batch", "", (), tier="batch", then="flex")
FLEX = PurchaseDecision("flex", "", (), tier="flex", then="standard")
FLEX_ALONE = PurchaseDecision("flex", "", (), tier="flex")
STANDARD = PurchaseDecision("standard", "", ())


class Crash(Exception):
    """A process dies."""


def _die(now: bool) -> None:
    if now:
        raise Crash


class FakeCalls:
    """Calls that are answered at once. `fates` says how each artist's end, in order: answered, refused, lacking (no
    capacity at this tier), lost (nobody knows), broke (no money left), down (the whole way ends)."""

    def __init__(self, story: list[str], clock: Clock) -> None:
        self.story = story
        self.clock = clock
        self.fates: dict[str, list[str]] = {}
        self.parts: list[Work] = []
        self.cost_usd = 0.01

    def __call__(self, work: Work) -> Iterator[Sequence[Event]]:
        self.parts.append(work)
        for request in work.requests:
            if work.control.stop.level:
                yield [Stopped("interrupted", "")]
                return
            name = f"{request.artist_id}.{request.attempts + 1}"
            attempt = Attempt(request, request.attempts + 1, "W01", name, self.clock())
            yield [Started(attempt)]
            self.story.append(f"call {name} ({request.service_tier or 'standard'})")
            event = self._end(attempt)
            yield [event]
            if isinstance(event, Stopped):
                return

    def _end(self, attempt: Attempt) -> Event:
        told = self.fates.get(attempt.request.artist_id)
        match told.pop(0) if told else "answered":
            case "answered":
                return Succeeded(attempt, Response(b"{}", "A life.", USAGE, cost_usd=self.cost_usd), 1.0)
            case "refused":
                return Failed(attempt, Failure("bad_request", "no"), Paid.NO, 1.0, final=True)
            case "lacking":
                return Failed(attempt, Failure("overloaded", "no capacity"), Paid.NO, 1.0, final=True)
            case "crowded":
                return Failed(attempt, Failure("rate_limit", "slow down"), Paid.NO, 1.0, final=True)
            case "broke":
                return Stopped("budget", "no money left")
            case "lost":
                return Failed(attempt, Failure("overloaded", "cut off"), Paid.MAYBE, 1.0, final=True)
            case _:
                return Stopped("outage", "nothing but outages")


class AutoWorld(World):
    """A world in which requests are bought as a choice says, with calls beside the batches."""

    def __init__(self, asked: Any = (), choice: PurchaseDecision | None = None, **values: Any) -> None:
        super().__init__(asked, **{"retry": ASYNC, **values, "requeue": False})
        self.calls = FakeCalls(self.story, self.clock)
        object.__setattr__(self.work, "choice", choice)

    def buy(self, *, wait: bool = True) -> AutoWorld:
        object.__setattr__(self.work, "wait", wait)
        with closing(self.driver):
            self.play(AutoDriver(self.work, self.driver, self.calls).run())
        return self

    def later(self, asked: Any, choice: PurchaseDecision | None, *awaited: str, **values: Any) -> AutoWorld:
        self.book.recover()
        shared = {"clock": self.clock, "service": self.service, "book": self.book}
        return AutoWorld(asked, choice, **{**shared, "batches": self.book.open(*awaited), **values})

    @property
    def called(self) -> list[str]:
        return [word.removeprefix("call ") for word in self.story if word.startswith("call ")]


class TestEachWay:
    def test_by_batch_nothing_is_called(self) -> None:
        world = AutoWorld(requests(3), BATCH).buy()
        assert (world.sizes, world.calls.parts, world.stopped) == ([3], [], None)
        assert world.book.count() == {"answered": 3}

    def test_by_flex_every_call_says_so_and_gives_up_early(self) -> None:
        world = AutoWorld(requests(3), FLEX).buy()
        assert world.called == ["a-0.1 (flex)", "a-1.1 (flex)", "a-2.1 (flex)"]
        (part,) = world.calls.parts
        assert part.retry == replace(ASYNC, max_attempts=FLEX_ATTEMPTS)
        assert world.sizes == []

    def test_fewer_attempts_stay_fewer(self) -> None:
        world = AutoWorld(requests(1), FLEX, retry=RetryPolicy(max_attempts=2)).buy()
        assert world.calls.parts[0].retry.max_attempts == 2

    @pytest.mark.parametrize("choice", [STANDARD, None])
    def test_by_standard_nothing_is_said(self, choice: PurchaseDecision | None) -> None:
        world = AutoWorld(requests(2), choice).buy()
        assert world.called == ["a-0.1 (standard)", "a-1.1 (standard)"]
        assert world.calls.parts[0].retry == ASYNC
        assert world.of(Notice) == []

    @pytest.mark.parametrize("choice", [BATCH, FLEX, STANDARD, None])
    def test_nothing_to_ask_is_nothing_to_do(self, choice: PurchaseDecision | None) -> None:
        world = AutoWorld((), choice, max_cost_usd=1.0).buy()
        assert (world.story, world.events) == ([], [])


class TestLeftovers:
    def test_what_expired_is_bought_by_flex_and_what_flex_lacks_by_standard(self) -> None:
        world = AutoWorld(requests(5), BATCH_THEN_FLEX)
        world.service.courses, world.service.fates = [Course(end=BatchState.EXPIRED)], {"a-0": ["answered"]}
        world.calls.fates = {"a-2": ["lacking"], "a-3": ["crowded"]}
        world.buy()
        assert world.called == [
            *[f"a-{number}.2 (flex)" for number in (1, 2, 3, 4)],
            "a-2.3 (standard)",
            "a-3.3 (standard)",
        ]
        assert world.notices == [
            "the remaining requests are sent by flex",
            "the remaining requests are sent by standard",
        ]
        assert (world.sizes, world.book.count(), world.stopped) == ([5], {"answered": 5}, None)

    def test_without_flex_by_standard_at_once(self) -> None:
        world = AutoWorld(requests(2), BATCH)
        world.service.fates = {"a-1": ["expired"]}
        world.buy()
        assert world.called == ["a-1.2 (standard)"]

    def test_a_row_that_may_be_tried_again_is_left_over_too(self) -> None:
        world = AutoWorld(requests(3), BATCH)
        world.service.fates = {"a-0": ["busy"], "a-1": ["missing"], "a-2": ["refused"]}
        world.buy()
        assert world.called == ["a-0.2 (standard)", "a-1.2 (standard)"]
        assert world.book.count() == {"answered": 2, "failed": 1}

    def test_what_flex_lacks_is_not_the_last_word(self) -> None:
        world = AutoWorld(requests(3), FLEX)
        world.calls.fates = {"a-1": ["lacking"]}
        world.buy()
        assert world.called == ["a-0.1 (flex)", "a-1.1 (flex)", "a-2.1 (flex)", "a-1.2 (standard)"]
        assert [event.final for event in world.failed("a-1")] == [False]
        assert world.book.count() == {"answered": 3}

    def test_unless_nothing_comes_after_it(self) -> None:
        world = AutoWorld(requests(2), FLEX_ALONE)
        world.calls.fates = {"a-1": ["lacking"]}
        world.buy()
        assert [event.final for event in world.failed("a-1")] == [True]
        assert world.called == ["a-0.1 (flex)", "a-1.1 (flex)"]

    @pytest.mark.parametrize("fate", ["refused", "lost"])
    def test_what_failed_for_good_or_may_be_paid_is_not_bought_again(self, fate: str) -> None:
        world = AutoWorld(requests(2), FLEX)
        world.calls.fates = {"a-1": [fate]}
        world.buy()
        assert world.called == ["a-0.1 (flex)", "a-1.1 (flex)"]
        assert [event.final for event in world.failed("a-1")] == [True]

    def test_standard_is_the_last_way(self) -> None:
        world = AutoWorld(requests(1), BATCH_THEN_FLEX)
        world.service.fates = {"a-0": ["expired"]}
        world.calls.fates = {"a-0": ["lacking", "lacking"]}
        world.buy()
        assert world.called == ["a-0.2 (flex)", "a-0.3 (standard)"]
        assert [event.final for event in world.failed("a-0")] == [False, False, True]

    def test_a_limit_of_enqueued_tokens_is_no_reason_to_pay_twice_as_much(self) -> None:
        """Batches were chosen for their price: requests that found no room in one go into the next."""
        world = AutoWorld(requests(5), BATCH)
        world.service.limit = 30
        world.buy()
        assert (world.called, world.sizes) == ([], [3, 2])

    def test_not_even_for_who_does_not_wait(self) -> None:
        world = AutoWorld(requests(10), BATCH, max_requests=5)
        world.service.limit = 30
        world.buy(wait=False)
        assert (world.called, world.kind) == ([], "waiting")

    def test_not_even_beside_others_that_are_left_over(self) -> None:
        first = _left(requests(1, 20))
        first.service.fates = {"a-20": ["expired"]}
        first.service.limit = 30
        world = first.later(requests(5), BATCH).buy(wait=False)
        assert (world.called, world.kind) == (["a-20.2 (standard)"], "waiting")

    def test_nor_is_another_request_s_line_that_was_rejected(self) -> None:
        world = AutoWorld(requests(5), BATCH)
        problem = BatchProblem("invalid_json_line", "no JSON", 2)
        world.service.courses = [Course(end=BatchState.FAILED, problems=(problem,))]
        world.buy()
        assert (world.called, world.sizes) == ([], [5, 4])


class TestBudget:
    def test_calls_may_spend_what_batches_have_left(self) -> None:
        world = AutoWorld(requests(5), BATCH, price=0.02, max_cost_usd=1.0)
        world.service.fates = {"a-1": ["expired"], "a-2": ["busy"]}
        world.buy()
        budget = world.work.control.budget
        assert [part.control.budget for part in world.calls.parts] == [budget]
        assert budget.spent + budget.reserved == pytest.approx(0.03)

    def test_all_ways_share_the_budget_of_the_run(self) -> None:
        world = AutoWorld(requests(3), BATCH_THEN_FLEX, price=0.02, max_cost_usd=1.0)
        world.service.fates = {"a-1": ["expired"], "a-2": ["expired"]}
        world.calls.fates = {"a-1": ["lacking"]}
        world.buy()
        assert [part.control.budget for part in world.calls.parts] == [world.work.control.budget] * 2

    def test_nothing_is_called_without_money(self) -> None:
        world = AutoWorld(requests(2), BATCH, price=0.01, max_cost_usd=0.02)
        world.service.cost_usd = 0.02
        world.service.fates = {"a-1": ["expired"]}
        world.buy()
        assert (world.kind, world.calls.parts) == ("budget", [])
        assert world.book.count() == {"answered": 1, "waiting": 1}

    def test_without_money_for_more_open_batches_are_collected_all_the_same(self) -> None:
        first = _left(requests(2), Course(looks=3))
        world = first.later(requests(3, 2), STANDARD, max_cost_usd=1.0)
        world.calls.fates = {"a-3": ["broke"]}
        world.buy()
        assert (world.kind, world.called) == ("budget", ["a-2.1 (standard)", "a-3.1 (standard)"])
        assert world.book.count() == {"answered": 3, "in flight": 1}

    def test_without_a_limit_there_is_none(self) -> None:
        world = AutoWorld(requests(2), BATCH, price=9.0)
        world.service.fates = {"a-1": ["expired"]}
        world.buy()
        assert world.calls.parts[0].control.budget.limit is None


class TestOpenBatches:
    """Batches that an earlier run has left, whatever way this one buys."""

    @pytest.mark.parametrize("choice", [FLEX, STANDARD])
    def test_what_is_ready_is_collected_first_and_what_is_to_be_called_is_called(
        self, choice: PurchaseDecision
    ) -> None:
        world = _left(requests(2)).later(requests(2, 2), choice)
        world.buy()
        assert len(world.called) == 2, "they were to be called, and went into a batch"
        assert world.sizes == [2]
        assert world.story.index("b1 collected") < world.story.index(f"call {world.called[0]}")
        assert (world.stopped, world.book.count()) == (None, {"answered": 4})

    def test_what_is_not_ready_is_awaited_after_the_calls(self) -> None:
        first = _left(requests(2), Course(looks=3))
        world = first.later(requests(2, 2), STANDARD).buy()
        assert world.called == ["a-2.1 (standard)", "a-3.1 (standard)"]
        assert world.story.index("call a-3.1 (standard)") < world.story.index("b1 collected")
        assert (world.stopped, world.book.count()) == (None, {"answered": 4})

    def test_or_left_if_nobody_wants_to_wait(self) -> None:
        first = _left(requests(2), Course(looks=9))
        world = first.later((), STANDARD).buy(wait=False)
        assert (world.kind, world.waits) == ("waiting", [])

    def test_what_they_leave_over_is_bought_too(self) -> None:
        first = _left(requests(2), Course(looks=2))
        first.service.fates = {"a-1": ["expired"]}
        world = first.later((), STANDARD).buy()
        assert world.called == ["a-1.2 (standard)"]
        assert world.book.count() == {"answered": 2}

    @pytest.mark.parametrize("choice", [BATCH, STANDARD, None])
    def test_those_of_others_are_collected_if_they_are_ready(self, choice: PurchaseDecision | None) -> None:
        """As for a run with another backend, which collects what `auto` has prepared."""
        world = _left(requests(2)).later((), choice, "nobody's").buy()
        assert (world.stopped, world.book.count()) == (None, {"answered": 2})

    def test_what_is_given_back_as_its_batch_is_refused_is_called_and_not_waited_for(self) -> None:
        first = AutoWorld(requests(2), BATCH)
        first.look = lambda group: _die(first.story[-1:] == ["b1 uploaded"])
        with pytest.raises(Crash):
            first.buy()
        first.service.limit = 10
        world = first.later(requests(2), STANDARD).buy()
        assert world.called == ["a-0.2 (standard)", "a-1.2 (standard)"]
        assert (world.stopped, world.book.count()) == (None, {"answered": 2})

    def test_they_are_shown_while_calls_are_made(self) -> None:
        first = _left(requests(2), Course(looks=3))
        world = first.later(requests(1, 2), STANDARD)
        shown: list[int] = []
        world.look = lambda group: (
            shown.append(len(world.work.control.gauges.batches))
            if any(isinstance(e, Succeeded) for e in group)
            else None
        )
        world.buy()
        assert shown[0] == 1

    def test_an_unclear_creation_is_cleared_up_before_anything_is_called(self) -> None:
        first = AutoWorld(requests(2), BATCH)
        first.service.trouble = {"create": [LOST]}
        first.service.after = _stops(first, "create b1")
        first.buy()
        assert first.book.count() == {"in batch": 2}
        world = first.later(requests(2), STANDARD).buy()
        assert (world.called, len(world.service.jobs), world.book.count()) == ([], 1, {"answered": 2})


def _left(asked: list[Request], course: Course | None = None) -> AutoWorld:
    """A run that submitted these and left."""
    world = AutoWorld(asked, BATCH)
    world.service.courses = [course] if course else []
    return world.buy(wait=False)


def _stops(world: World, call: str) -> Callable[[str], None]:
    def after(words: str) -> None:
        if words == call:
            world.stop.raise_level()

    return after


class TestStopping:
    def test_a_way_that_ends_before_its_time_ends_the_run(self) -> None:
        world = AutoWorld(requests(3), FLEX)
        world.calls.fates = {"a-0": ["lacking"], "a-1": ["down"]}
        world.buy()
        assert (world.kind, world.called) == ("outage", ["a-0.1 (flex)", "a-1.1 (flex)"])

    def test_a_batch_that_ends_it_leaves_nothing_to_be_called(self) -> None:
        world = AutoWorld(requests(4), BATCH, max_requests=2)
        world.service.fates = {"a-0": ["expired"], "a-1": ["quota"]}
        world.buy()
        assert (world.kind, world.calls.parts) == ("quota", [])

    def test_ctrl_c_while_calling_leaves_the_batches_alone(self) -> None:
        world = _left(requests(2), Course(looks=9)).later(requests(3, 2), STANDARD)
        world.look = lambda group: (
            world.stop.raise_level() if any(isinstance(event, Succeeded) for event in group) else None
        )
        world.buy()
        assert world.kind == "interrupted"
        assert world.book.count() == {"in batch": 2, "answered": 1}

    def test_ctrl_c_while_waiting_for_a_batch(self) -> None:
        world = AutoWorld(requests(2), BATCH)
        world.tick = lambda moment: world.stop.raise_level()
        world.buy()
        assert (world.kind, world.calls.parts, world.book.count()) == ("interrupted", [], {"in batch": 2})


class TestEverythingAtOnce:
    @pytest.mark.parametrize("seed", range(20))
    def test_whatever_way_and_whatever_goes_wrong_a_request_is_in_one_place_at_a_time(self, seed: int) -> None:
        random = Random(seed)
        asked = requests(random.randint(1, 10))
        world = AutoWorld(asked, random.choice(CHOICES), max_requests=random.choice([2, 50]))
        service = world.service
        kinds = ["busy", "missing", "expired", "twice", "answered", "refused"]
        service.fates = {f"a-{number}": random.choices(kinds, k=random.randint(0, 3)) for number in range(10)}
        service.courses = [Course(random.randint(1, 3)) for _ in range(9)]
        service.limit, service.others = random.choice([(None, 0), (30, 0), (30, 25)])
        world.clock.step = POLL / 2 + 0.5
        for _ in range(4):
            world.calls.fates = {
                f"a-{n}": random.choices(["answered", "lacking", "refused", "down"], k=2) for n in range(10)
            }
            for call in ("upload", "create", "look at", "download output of"):
                service.trouble[call] = random.choices([None, None, LOST, DROPPED, OUTAGE], k=4)
            groups, end = count(), random.randint(3, 50)
            world.look = lambda group, groups=groups, end=end: _die(next(groups) == end)  # type: ignore[misc]
            with suppress(Crash):
                world.buy(wait=random.random() < 0.7)
            world = world.later(asked, random.choice(CHOICES), max_cost_usd=random.choice([None, 0.03]))
        service.trouble, service.others = {}, 0
        world = world.later(asked, random.choice(CHOICES))
        world.buy()
        assert (world.stopped, world.book.open()) == (None, [])
        assert set(world.book.states) == {request.request_hash for request in asked}
        assert not set(world.book.count()) - {"answered", "failed"}
        kept = {name for name, state in world.book.ends.items() if state == "answered" and name[0] is not None}
        assert kept == service.delivered()


CHOICES = [BATCH, BATCH_THEN_FLEX, FLEX, FLEX_ALONE, STANDARD, None]


class TestAgainstAServer:
    """With the real backend: what was charged, and how."""

    @staticmethod
    def buys(stack: ExitStack, choice: PurchaseDecision, **options: Any) -> BatchBench:
        return BatchBench(AutoBackend, stack, choice)(**options)

    @staticmethod
    def tiers(auto: BatchBench) -> dict[str, int]:
        totals = auto.server.ledger.totals()
        assert totals.charges == totals.bodies, "something was bought twice"
        return dict(Counter(charge.service_tier for charge in auto.server.ledger.entries()))

    def test_the_tail_of_a_batch_is_bought_by_flex(self, stack: ExitStack) -> None:
        auto = self.buys(stack, BATCH_THEN_FLEX, batch_script=["expired=0.75"])
        recorded = auto.run(bench.requests(20))
        assert self.tiers(auto) == {"batch": 15, "flex": 5}
        assert len(recorded.succeeded) == 20
        recorded.check(auto.server.ledger)

    def test_what_flex_has_no_capacity_for_is_bought_by_standard(self, stack: ExitStack) -> None:
        names = ["Absalon", "Björk", "Abakanowicz"]
        auto = self.buys(stack, FLEX, script={"Björk": ["unavailable"] * FLEX_ATTEMPTS}, retry_after=0.01)
        recorded = auto.run(bench.requests(names))
        assert self.tiers(auto) == {"flex": 2, "default": 1}
        assert (len(recorded.succeeded), recorded.lost) == (3, [])

    def test_a_run_by_calls_collects_the_batch_that_another_left(self, stack: ExitStack) -> None:
        auto = self.buys(stack, BATCH)
        assert auto.run(bench.requests(5), wait=False).stopped is not None
        auto.choice = STANDARD
        recorded = auto.run(auto.book.source(bench.requests(9)))
        assert len(recorded.succeeded) == 9
        assert self.tiers(auto) == {"batch": 5, "default": 4}
        assert recorded.stopped is None

    def test_more_tokens_than_may_be_enqueued_are_bought_in_several_batches(self, stack: ExitStack) -> None:
        auto = self.buys(stack, BATCH, batch_script=["token_limit"])
        recorded = auto.run(bench.requests(20))
        assert len(recorded.succeeded) == 20
        assert self.tiers(auto) == {"batch": 20}

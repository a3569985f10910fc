"""Backends that are wrong, each in a way of its own. `caught_by` has the stories that have to fail, and what they say."""

# ruff: noqa: RUF012 - tables that nobody changes

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

from bioforge.backends.openai.plugin import ThreadsBackend
from bioforge.core.budget import Budget
from bioforge.core.errors import UsageError
from bioforge.core.events import Event, Failed, Started, Stopped, Succeeded, Unusable
from bioforge.core.interfaces import Gauges, RetryPolicy, Stop, Work
from bioforge.core.types import Failure, Paid, Response, Usage
from bioforge.testing import BackendContract, bench

bench.THREADS_END_WITHIN = 0.3


class Threads(BackendContract):
    """Our own backend, as it should be but for what a class says."""

    needs_key = True
    caught_by: dict[str, str]

    def factory(self) -> Any:
        made = type("Wrong", (ThreadsBackend,), {"execute": lambda backend, work: self.execute(backend, work)})
        return self.with_more(made)

    def with_more(self, made: Any) -> Any:
        return made

    def execute(self, backend: Any, work: Work) -> Iterator[list[Event]]:
        """Groups of events, each event as `change` has it."""
        groups = ThreadsBackend.execute(backend, self.given(work))
        try:
            for group in groups:
                yield [changed for event in group for changed in self.change(event)]
        finally:
            groups.close()  # type: ignore[attr-defined]

    def given(self, work: Work) -> Work:
        return work

    def change(self, event: Event) -> list[Event]:
        return [event]


class TestNothingIsGiven(BackendContract):
    caught_by = {"test_work_without_requests_ends": "give the backend"}


class TestSendsBeforeItIsDurable(Threads):
    caught_by = {"test_nothing_is_sent_before_its_start_was_recorded": "before `Started` was durable"}

    def execute(self, backend, work):
        groups = ThreadsBackend.execute(backend, work)
        for before, group in itertools.batched(groups, 2) if hasattr(itertools, "batched") else _pairs(groups):
            yield [*before, *group]


def _pairs(groups):
    """Two groups at a time: the second is asked for before the first was stored."""
    for group in groups:
        yield group, next(groups, [])


class TestLosesAnAnswer(Threads):
    caught_by = {
        "test_every_request_is_answered_once": "without saying what became of 1 attempt",
        "test_three_hundred_requests_through_every_fault": "without saying what became of 1 attempt",
    }

    def change(self, event):
        return [] if isinstance(event, Succeeded) and event.attempt.request.artist_id == "a-7" else [event]


class TestSaysAnAnswerTwice(Threads):
    caught_by = {"test_every_request_is_answered_once": "a second end of"}

    def change(self, event):
        return [event] * (2 if isinstance(event, Succeeded) else 1)


class TestAsksTwice(Threads):
    caught_by = {"test_every_request_is_answered_once": "asked again although in flight"}

    def given(self, work):
        return replace(work, requests=iter([one for one in work.requests for _ in range(2)]))


class TestKeepsNoBody(Threads):
    caught_by = {"test_answers_have_what_is_kept_of_them": "body=b''"}

    def change(self, event):
        return [replace(event, answer=replace(event.answer, body=b""))] if isinstance(event, Succeeded) else [event]


class TestGivesTheAnswerOfTheNext(Threads):
    """Of those that come together, each has the answer of the one after it."""

    caught_by = {"test_each_answer_is_of_its_own_request": "the answer of another request"}

    def execute(self, backend, work):
        held = []
        for group in ThreadsBackend.execute(backend, work):
            good = [event for event in group if isinstance(event, Succeeded)]
            held += good
            if others := [event for event in group if event not in good]:
                yield others
            if len(held) > 1:
                answers = [event.answer for event in held]
                rotated = zip(held, answers[1:] + answers[:1], strict=True)
                yield [replace(event, answer=answer) for event, answer in rotated]
                held = []
        yield held


class TestGivesTheAnswerOfTheNextOfAServerOfItsOwn(TestGivesTheAnswerOfTheNext):
    """What the server says to each request is found out by asking it alone."""

    def mark(self, request):
        return None


class TestHasAServerThatSaysTheSameToAll(Threads):
    caught_by = {"test_each_answer_is_of_its_own_request": "every answer has the same text"}

    def mark(self, request):
        return None

    def change(self, event):
        return (
            [replace(event, answer=replace(event.answer, text="A life."))] if isinstance(event, Succeeded) else [event]
        )


class TestGivesTheAnswerUnderAnotherRequest(Threads):
    caught_by = {"test_every_request_is_answered_once": "the end of another request than"}
    before = None

    def change(self, event):
        if not isinstance(event, Succeeded):
            return [event]
        self.before, request = event.attempt.request, self.before or event.attempt.request
        return [replace(event, attempt=replace(event.attempt, request=request))]


class TestSendsAnotherBody(Threads):
    caught_by = {"test_every_request_is_answered_once": "another request than the one it was given"}

    def change(self, event):
        request = replace(event.attempt.request, body=b"{}")
        return [replace(event, attempt=replace(event.attempt, request=request))]


class TestNumbersTheAttempts(Threads):
    caught_by = {"test_every_request_is_answered_once": "a backend leaves it 0"}

    def change(self, event):
        return [replace(event, attempt=replace(event.attempt, row=1))] if isinstance(event, Succeeded) else [event]


class TestGivesAnObjectForItsText(Threads):
    caught_by = {"test_answers_have_what_is_kept_of_them": "Response.parsed: expected str | None, found {'a': 1}"}
    wrong: dict[str, Any] = {"parsed": {"a": 1}}

    def change(self, event):
        return [replace(event, answer=replace(event.answer, **self.wrong))] if isinstance(event, Succeeded) else [event]


class TestCountsHalfATokens(TestGivesAnObjectForItsText):
    caught_by = {"test_answers_have_what_is_kept_of_them": "Usage.input_tokens: expected int, found 1.5"}
    wrong = {"usage": Usage(1.5, 2.5)}  # type: ignore[arg-type]


class TestCountsInDecimals(TestGivesAnObjectForItsText):
    caught_by = {
        "test_answers_have_what_is_kept_of_them": "Response.cost_usd: expected float | int | None, found Decimal"
    }
    wrong = {"cost_usd": Decimal("0.1")}


class TestGivesANegativeCost(TestGivesAnObjectForItsText):
    """What is right by its type, and what bioforge would not keep as it is."""

    caught_by = {"test_every_request_is_answered_once": "bioforge had to mend what was reported"}
    wrong = {"cost_usd": -0.5}


class TestSaysAnUnusableAnswerIsGood(Threads):
    """Bioforge takes it for what it is, and a backend that says otherwise counts it wrong."""

    caught_by = {"test_every_request_is_answered_once": "bioforge takes it for unusable"}

    def change(self, event):
        if not isinstance(event, Succeeded):
            return [event]
        return [replace(event, answer=replace(event.answer, problem=Failure("refusal", "it refused")))]


class TestSpeaksNoDialect(Threads):
    caught_by = {"test_endpoints_and_dialect_are_texts": "dialect: expected a text, found None"}
    attributes: dict[str, Any] = {"dialect": None}

    def with_more(self, made):
        for name, value in self.attributes.items():
            setattr(made, name, value)
        return made


class TestHasAListOfEndpoints(TestSpeaksNoDialect):
    caught_by = {"test_endpoints_and_dialect_are_texts": "expected a tuple of texts, found ['/v1/responses']"}
    attributes = {"endpoints": ["/v1/responses"]}


class TestHasNoEndpoint(TestSpeaksNoDialect):
    caught_by = {"test_endpoints_and_dialect_are_texts": "expected one at least"}
    attributes = {"endpoints": ()}


class TestHasAnEndpointWithoutASlash(TestSpeaksNoDialect):
    caught_by = {"test_endpoints_and_dialect_are_texts": "expected paths like '/v1/responses', found 'v1/responses'"}
    attributes = {"endpoints": ("v1/responses",)}


class TestPricesInDecimals(Threads):
    caught_by = {"test_a_price_is_known_or_not": "expected a number or None, found Decimal"}

    def with_more(self, made):
        made.price = lambda backend, model, usage, tier=None: Decimal("0.5")
        return made


class TestPullsAllAtOnce(Threads):
    caught_by = {
        "test_requests_are_pulled_as_they_can_be_sent": "more was pulled than can be in flight",
        "test_what_an_answer_brings_about_is_sent_too": "assert 3 == 6",
        "test_what_comes_while_more_is_announced_is_sent_too": "assert 2 == 4",
    }

    def given(self, work):
        return replace(work, requests=iter(list(work.requests)), control=replace(work.control, more=lambda: False))


class TestDoesNotWaitForMore(Threads):
    caught_by = {"test_what_comes_while_more_is_announced_is_sent_too": "assert 2 == 4"}

    def given(self, work):
        return replace(work, control=replace(work.control, more=lambda: False))


class TestIsStoppedByNothingToDo(Threads):
    caught_by = {"test_work_without_requests_ends": "Stopped("}

    def execute(self, backend, work):
        yield from ThreadsBackend.execute(backend, work)
        yield [Stopped("outage", "nothing came back")]


class TestSaysThatItIsBusyAtTheEnd(Threads):
    caught_by = {"test_work_without_requests_ends": "3 requests are said to be in flight"}

    def execute(self, backend, work):
        yield from ThreadsBackend.execute(backend, work)
        work.control.gauges = Gauges(in_flight=3)


class TestPutsSomethingNewIntoEachBody(Threads):
    caught_by = {"test_the_same_texts_give_the_same_body": "assert b'"}

    def with_more(self, made):
        numbers = itertools.count()
        made.body = lambda backend, rendered: {**ThreadsBackend.body(backend, rendered), "user": str(next(numbers))}
        return made


class TestLeavesTheInputOut(Threads):
    caught_by = {"test_the_same_texts_give_the_same_body": "the input is not in the body"}

    def with_more(self, made):
        made.body = lambda backend, rendered: {"model": rendered.model}
        return made


class TestTakesAnUnknownPriceForNothing(Threads):
    caught_by = {"test_a_price_is_known_or_not": "assert 0.0 is None"}

    def with_more(self, made):
        made.price = lambda backend, model, usage, tier=None: ThreadsBackend.price(backend, model, usage, tier) or 0.0
        return made


class TestGivesMoneyBack(Threads):
    caught_by = {"test_a_price_is_known_or_not": "-0.5"}

    def with_more(self, made):
        made.price = lambda backend, model, usage, tier=None: -0.5
        return made


class TestGivesUpAtTheFirstRefusal(Threads):
    caught_by = {
        "test_a_refusal_is_named_and_survived[rate_limit]": "True",
        "test_an_outage_of_the_server_costs_nobody_an_answer": "== 60",
    }

    def given(self, work):
        return replace(work, retry=RetryPolicy(max_attempts=1))


class TestCallsEveryFailureTheSame(Threads):
    caught_by = {
        "test_a_refusal_is_named_and_survived[unavailable]": "'error'",
        "test_a_refused_request_fails_alone": "'error'",
        "test_a_hanging_answer_is_given_up_and_may_have_been_paid": "'error'",
        "test_nobody_listening_is_an_outage_that_cost_nothing": "'error'",
    }

    def change(self, event):
        return [replace(event, failure=Failure("error", "it failed"))] if isinstance(event, Failed) else [event]


class TestKeepsNothingOfWhatFailed(Threads):
    caught_by = {"test_a_refusal_is_named_and_survived[rate_limit]": "what was received is kept"}

    def change(self, event):
        return [replace(event, body=None)] if isinstance(event, Failed) else [event]


class TestSaysThatBrokenAnswersCostNothing(Threads):
    caught_by = {
        "test_a_broken_answer_is_named_and_survived[drop_after]": "Paid.NO",
        "test_a_hanging_answer_is_given_up_and_may_have_been_paid": "Paid.NO",
        "test_a_server_that_speaks_something_else_is_survived": "Paid.NO",
        "test_three_hundred_requests_through_every_fault": "said to cost nothing",
    }

    def change(self, event):
        return [replace(event, paid=Paid.NO)] if isinstance(event, Failed) else [event]


class TestSaysThatEverythingMayBePaid(Threads):
    caught_by = {
        "test_a_refusal_is_named_and_survived[server_error]": "Paid.MAYBE",
        "test_nobody_listening_is_an_outage_that_cost_nothing": "Paid.MAYBE",
        "test_the_first_stop_awaits_what_is_in_flight": "assert",
        "test_a_stop_while_the_starts_are_stored_sends_nothing": "Paid.MAYBE",
    }

    def change(self, event):
        return [replace(event, paid=Paid.MAYBE)] if isinstance(event, Failed) else [event]

    def given(self, work):
        wanted = iter(work.requests)
        return replace(work, requests=wanted)

    def execute(self, backend, work):
        for group in super().execute(backend, work):
            if work.control.stop.level and any(isinstance(event, Stopped) for event in group):
                attempts = [event.attempt for event in group if isinstance(event, Failed)]
                assert not attempts
            yield group


class TestForgetsWhatWasPaidFor(Threads):
    caught_by = {"test_an_answer_that_cannot_be_used_is_kept_and_final[refusal]": "not enough values to unpack"}

    def change(self, event):
        if not isinstance(event, Unusable):
            return [event]
        return [Failed(event.attempt, Failure("refusal", "it refused"), Paid.NO, event.seconds, final=True)]


class TestTakesEveryAnswerForUsable(Threads):
    caught_by = {"test_an_answer_that_cannot_be_used_is_kept_and_final[incomplete]": "bioforge takes it for unusable"}

    def change(self, event):
        return [Succeeded(event.attempt, event.answer, 0.1)] if isinstance(event, Unusable) else [event]


class TestMakesAnswersUp(Threads):
    caught_by = {"test_nobody_listening_is_an_outage_that_cost_nothing": "assert set()"}

    def change(self, event):
        if not isinstance(event, Failed):
            return [event]
        return [Succeeded(event.attempt, Response(b"{}", "A life.", Usage(1, 1)), 0.1)]


class TestChecksNoKey(Threads):
    caught_by = {"test_a_missing_key_is_said_before_anything_is_sent": "DID NOT RAISE"}

    def with_more(self, made):
        made.check = lambda backend: None
        return made


class TestAlwaysComplains(Threads):
    caught_by = {"test_with_a_key_there_is_nothing_to_complain_about": "no key"}

    def with_more(self, made):
        def check(backend):
            raise UsageError("no key")

        made.check = check
        return made


class TestDoesNotStop(Threads):
    caught_by = {
        "test_the_first_stop_awaits_what_is_in_flight": "assert 200 < 40",
        "test_a_stop_while_the_starts_are_stored_sends_nothing": "assert not",
    }

    def given(self, work):
        return replace(work, control=replace(work.control, stop=Stop()))


class TestGivesUpWhatIsInFlight(Threads):
    """The first Ctrl-C is taken for the second one."""

    caught_by = {"test_the_first_stop_awaits_what_is_in_flight": "no end, or more than one"}

    def given(self, work):
        stop = Stop()
        work.control.stop.subscribe(lambda: [stop.raise_level() for _ in range(2)])
        return replace(work, control=replace(work.control, stop=stop))


class TestSaysThatWhatIsInFlightCostNothing(Threads):
    caught_by = {"test_the_second_stop_leaves_at_once": "nobody knows that it cost nothing"}

    def execute(self, backend, work):
        attempts = []
        for group in ThreadsBackend.execute(backend, work):
            attempts += [event.attempt for event in group if isinstance(event, Started)]
            if work.control.stop.level > 1:
                yield [Failed(one, Failure("interrupted", "left"), Paid.NO, 0.0, final=False) for one in attempts]
            yield group


class TestCountsWhatWasNeverSent(Threads):
    caught_by = {
        "test_a_stop_while_the_starts_are_stored_sends_nothing": "True",
        "test_no_money_left_stops_the_run_and_blames_nobody": "counted",
    }

    def change(self, event):
        return [replace(event, counted=True)] if isinstance(event, Failed) else [event]


class TestLeavesAThread(Threads):
    caught_by = {
        "test_a_consumer_that_leaves_early_leaves_nothing_running": "threads that were left behind",
        "test_who_leaves_at_once_leaves_no_call_behind": "threads that were left behind",
    }

    def given(self, work):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        return work


class TestHidesAnErrorOfTheSource(Threads):
    caught_by = {"test_an_error_of_the_source_is_raised_when_all_is_settled": "DID NOT RAISE"}

    def given(self, work):
        def source():
            try:
                yield from work.requests
            except UsageError:
                return

        return replace(work, requests=source())


class TestRaisesAnErrorOfTheSourceAtOnce(Threads):
    caught_by = {"test_an_error_of_the_source_is_raised_when_all_is_settled": "assert 0 == 3"}

    def given(self, work):
        return replace(work, requests=iter(list(work.requests)))


class TestNamesNoReason(Threads):
    caught_by = {
        "test_no_money_left_stops_the_run_and_blames_nobody": "'outage'",
        "test_a_wrong_key_stops_the_run": "'outage'",
        "test_the_budget_holds_to_the_cent": "'outage'",
        "test_the_second_stop_leaves_at_once": "'outage'",
    }

    def change(self, event):
        return [Stopped("outage", "it stopped")] if isinstance(event, Stopped) else [event]


class TestFailsRequestsForAWrongKey(Threads):
    caught_by = {"test_a_wrong_key_stops_the_run": "assert not ["}

    def change(self, event):
        return [replace(event, final=True)] if isinstance(event, Failed) else [event]


class TestKnowsNoBudget(Threads):
    caught_by = {"test_the_budget_holds_to_the_cent": "goes on although the budget is used up"}

    def given(self, work):
        return replace(work, control=replace(work.control, budget=Budget()))


class TestSpendsTwiceTheBudget(Threads):
    caught_by = {"test_the_budget_holds_to_the_cent": "goes on although the budget is used up"}

    def given(self, work):
        budget = Budget(2 * (work.limits.max_cost_usd or 0))
        return replace(work, control=replace(work.control, budget=budget))

"""Backends of plugins at work: whatever they do wrong, no answer that they delivered is lost, and they are named."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from bioforge.core.errors import BrokenBackendError
from bioforge.core.events import Attempt, BatchChanged, Event, Failed, Notice, Started, Stopped, Succeeded, Unusable
from bioforge.core.interfaces import Limits, Member, Work
from bioforge.core.types import Batch, Failure, Paid, Request, Response, Usage
from bioforge.plugins.validate import guarded

REQUESTS = {name: Request(f"v1:{name}", "/v1/responses", "m", b"{}", name, "bio") for name in "abcd"}
ANSWER = Response(b"{}", "Born in 1965.", Usage(3, 4), "m", "resp_1", None, 0.5)
WHO = "backend 'echo' of plugin 'bioforge-echo' "


class OneMember:
    """A batch of an earlier run with one request, which is still open."""

    def attempts_of(self, batch: str, *, open_only: bool = False) -> Iterator[Attempt]:
        return iter(())

    def find(self, batch: str, custom_ids: Sequence[str]) -> Mapping[str, Member]:
        known = {"a": Member(attempt(batch="k", row=7), True)} if batch == "k" else {}
        return {name: known[name] for name in custom_ids if name in known}


def attempt(name: str = "a", **changed: Any) -> Attempt:
    made = Attempt(REQUESTS[name], 1, "W01", name, 0.0)
    return replace(made, **changed)


def kept(*groups: Any, limits: Limits | None = None, asked_to_stop: bool = True) -> tuple[list[Event], str]:
    """What of these groups is handed on, and what is said about the rest. The backend pulled everything before, and
    leaves with what is still in flight, which it may when it was asked to."""
    events: list[Event] = []

    def execute(work: Work) -> Iterator[Any]:
        assert len(list(work.requests)) == len(REQUESTS)
        yield from groups

    work = Work(iter(REQUESTS.values()), limits or Limits(), members=OneMember())
    if asked_to_stop:
        work.control.stop.raise_level()
    said = ""
    try:
        for group in guarded(execute, work, "echo", "bioforge-echo"):
            events += group
    except BrokenBackendError as error:
        said = error.message.removeprefix(WHO)
    return events, said


def end(name: str = "a", answer: Any = ANSWER, seconds: Any = 0.1, **changed: Any) -> Succeeded:
    return Succeeded(attempt(name, **changed), answer, seconds)


def test_a_backend_without_fault_is_left_alone() -> None:
    events = [Started(attempt()), Started(attempt("b")), Notice("pause", "waiting")]
    ends = [end(), Failed(attempt("b"), Failure("timeout", ""), Paid.MAYBE, 0.1, False)]
    again = [Started(attempt("b", client_request_id="b2", number=2)), Stopped("interrupted", "", "")]
    assert kept(events, ends, again) == ([*events, *ends, *again], "")


def test_an_attempt_that_begins_and_ends_in_one_group_begins_before_it_ends() -> None:
    def execute(work: Work) -> Iterator[list[Event]]:
        list(work.requests)
        yield [Started(attempt()), Started(attempt("b")), end(), Started(attempt("c"))]

    work = Work(iter(REQUESTS.values()))
    work.control.stop.raise_level()
    groups = guarded(execute, work, "echo", "bioforge-echo")
    assert [list(group) for group in groups] == [
        [Started(attempt()), Started(attempt("b"))],
        [end(), Started(attempt("c"))],
    ]


def test_requests_that_come_later_are_known_too() -> None:
    waiting: deque[Request] = deque()

    class Source(Iterator[Request]):
        def __next__(self) -> Request:
            if not waiting:
                raise StopIteration
            return waiting.popleft()

    def execute(work: Work) -> Iterator[list[Event]]:
        assert list(work.requests) == []
        waiting.append(REQUESTS["a"])
        assert [one.artist_id for one in work.requests] == ["a"]
        assert [one.artist_id for one in work.retries()] == ["b"]
        yield [Started(attempt()), Started(attempt("b"))]

    work = Work(Source(), retries=lambda: iter([REQUESTS["b"]]))
    work.control.stop.raise_level()
    assert sum(map(len, guarded(execute, work, "echo", "bioforge-echo"))) == 2


class TestMoney:
    def test_an_answer_that_nobody_announced_is_kept_before_everything_stops(self) -> None:
        assert kept([end()], [Started(attempt("b"))]) == (
            [Started(attempt()), end()],
            "answered attempt 'a', which it had not announced",
        )

    def test_an_answer_that_comes_twice_is_kept_twice_since_both_may_have_been_paid_for(self) -> None:
        events, said = kept([Started(attempt()), end()], [end()])
        assert events.count(end()) == 2
        assert said == "answered attempt 'a', which it had not announced"

    @pytest.mark.parametrize(
        "second",
        [
            [Started(attempt(client_request_id="again"))],
            [end(), Started(attempt(client_request_id="again"))],
            [Started(Attempt(Request("v1:made up", "/x", "m", b"", "x", "bio"), 1, "W01", "x", 0.0))],
        ],
        ids=["under way", "answered", "never given"],
    )
    def test_what_is_not_to_be_asked_is_not_announced_so_it_is_never_sent(self, second: list[Event]) -> None:
        events, said = kept([Started(attempt())], second)
        assert [event for event in events if isinstance(event, Started)] == [Started(attempt())]
        assert said.startswith("announced a request that it was not given, or that was answered or is under way: v1:")

    def test_the_answer_of_one_is_never_given_to_another(self) -> None:
        """Its name says a, its request says b: it was paid for, and nobody knows by whom."""
        events, said = kept([Started(attempt()), Started(attempt("b"))], [end("b", client_request_id="a")])
        (unclear,) = [event for event in events if isinstance(event, Unusable)]
        assert unclear.attempt == attempt()
        assert unclear.answer.problem is not None
        assert unclear.answer.problem.error_class == "attribution"
        assert said == "gave the answer of one request under attempt 'a', which is another's"

    def test_an_end_without_the_ends_of_all_attempts_is_not_passed_over(self) -> None:
        assert kept([Started(attempt()), Started(attempt("b"))], [end()], asked_to_stop=False)[1] == (
            "ended without saying what became of 1 attempt: they may have been paid for"
        )
        assert kept([Started(attempt())], [Stopped("outage", "", "")], asked_to_stop=False)[1] == ""
        assert kept([Started(attempt())], [end()], asked_to_stop=False)[1] == ""

    def test_a_budget_that_is_used_up_ends_the_beginnings(self) -> None:
        events, said = kept(
            [Started(attempt()), Started(attempt("b"))],
            [end(), end("b"), Started(attempt("c"))],
            limits=Limits(max_cost_usd=0.9),
        )
        assert len(events) == 4
        assert said == "goes on although the budget is used up ($1.0000 of $0.9)"

    def test_answers_count_in_the_budget_of_the_run(self) -> None:
        def execute(work: Work) -> Iterator[list[Event]]:
            request = next(work.requests)
            started = attempt(request=request)
            yield [Started(started)]
            yield [Succeeded(started, ANSWER, 0.1)]

        work = Work(iter(REQUESTS.values()), Limits(max_cost_usd=2.0))
        work.control.stop.raise_level()
        for spent in (0.5, 1.0):
            list(guarded(execute, work, "echo", "bioforge-echo"))
            assert work.control.budget.spent == spent, "of a backend that does not count"

    @pytest.mark.parametrize(
        ("paid", "taken"), [("maybe", Paid.MAYBE), ("yes", Paid.YES), ("perhaps", Paid.MAYBE), (None, Paid.MAYBE)]
    )
    def test_what_is_said_of_the_money_is_never_taken_for_no(self, paid: Any, taken: Paid) -> None:
        events, said = kept([Started(attempt())], [Failed(attempt(), Failure("x", ""), paid, 0.1, True)])
        assert (events[-1].paid, said) == (taken, "")  # type: ignore[union-attr]


class TestBatches:
    def test_a_member_was_announced_by_an_earlier_run(self) -> None:
        assert kept([end(batch="k", row=0)]) == ([end(batch="k", row=7)], "")

    def test_an_answer_of_no_known_member_is_kept_all_the_same(self) -> None:
        events, said = kept([end("b", batch="k", row=3)])
        assert events == [Started(attempt("b")), end("b")]
        assert said == "answered attempt 'b', which it had not announced"

    def test_the_members_of_a_group_are_looked_up_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[tuple[str, list[str]]] = []
        find = OneMember.find

        def noted(members: OneMember, batch: str, custom_ids: Sequence[str]) -> Mapping[str, Member]:
            asked.append((batch, list(custom_ids)))
            return find(members, batch, custom_ids)

        monkeypatch.setattr(OneMember, "find", noted)
        events, _ = kept(
            [end("b", batch="k"), Notice("pause", ""), end("c", batch="l"), end(batch="k")], [end(batch="k")]
        )
        assert asked == [("k", ["b", "a"]), ("l", ["c"])]
        assert end(batch="k", row=7) in events

    @pytest.mark.parametrize("changed", [{"batch": 5}, {"batch": "k", "client_request_id": None}, {"batch": ["k"]}])
    def test_a_name_that_is_none_finds_nobody(self, changed: dict[str, Any]) -> None:
        assert kept([end(**changed), end(batch="k")])[0][-1] == end(batch="k", row=7)

    def test_a_member_has_a_batch(self) -> None:
        batch = BatchChanged(Batch("k", "/v1/responses", "m"))
        assert kept([batch, Started(attempt(batch="k"))])[1] == ""
        assert kept([Started(attempt(batch="k"))])[1] == "announced a member of batch 'k', which it had not recorded"

    def test_no_attempt_of_others_is_written_over(self) -> None:
        events, said = kept([Started(attempt(row=1))], [end(row=1)])
        assert (events, said) == ([Started(attempt()), end()], "")


class TestSlips:
    """Of what was paid for everything that can be read is kept, and what was wrong is said."""

    @pytest.mark.parametrize(
        ("change", "value", "read"),
        [
            ("cost_usd", Decimal("0.25"), 0.25),
            ("cost_usd", "0.25", None),
            ("cost_usd", float("nan"), None),
            ("cost_usd", -1.0, None),
            ("usage", {"input_tokens": 3, "other": 4}, Usage(3)),
            ("usage", Usage(2.0, None), Usage(2)),  # type: ignore[arg-type]
            ("parsed", {"born": 1965}, '{"born": 1965}'),
            ("model", 3, "3"),
            ("body", "{}", b"{}"),
        ],
    )
    def test_a_value_of_another_type(self, change: str, value: Any, read: Any) -> None:
        events, said = kept([Started(attempt())], [end(answer=replace(ANSWER, **{change: value}))])
        told = [event for event in events if isinstance(event, Notice)]
        assert events[-1] == end(answer=replace(ANSWER, **{change: read}))
        assert said == ""
        assert told or change == "usage"

    def test_implausible_usage_counts_as_unknown(self) -> None:
        answer = replace(ANSWER, usage=Usage(3, 2**53), cost_usd=8e9)
        events, said = kept([Started(attempt())], [end(answer=answer)])
        assert events[-1] == end(answer=replace(answer, usage=None, cost_usd=None))
        assert [event.kind for event in events if isinstance(event, Notice)] == ["usage"]
        assert said == ""

    def test_half_of_a_surrogate_pair(self) -> None:
        events, said = kept([Started(attempt())], [end(answer=replace(ANSWER, text="Bj\ud800rk"))])
        assert (events[-1].answer.text, said) == ("Bj?rk", "")  # type: ignore[union-attr]

    @pytest.mark.parametrize(
        "answer", ["text", b"{}", replace(ANSWER, text=["x"]), replace(ANSWER, problem="refused")], ids=str
    )
    def test_an_answer_that_is_none_is_kept_and_not_used(self, answer: Any) -> None:
        events, said = kept([Started(attempt())], [end(answer=answer), Started(attempt("b"))])
        assert said == ""
        (unusable,) = [event for event in events if isinstance(event, Unusable)]
        assert isinstance(unusable.answer.body, bytes)
        assert unusable.answer.problem is not None

    def test_a_problem_makes_an_answer_unusable_whatever_the_backend_calls_it(self) -> None:
        refused = Response(b"{}", problem=Failure("refusal", "no"))
        assert kept([Started(attempt())], [end(answer=refused)])[0][-1] == Unusable(attempt(), refused, 0.1)
        events, _ = kept([Started(attempt())], [Unusable(attempt(), ANSWER, 0.1)])
        assert isinstance(events[-1], Unusable)
        assert events[-1].answer.problem is not None

    @pytest.mark.parametrize("failure", [ValueError("no"), "no", None])
    def test_a_failure_that_is_none(self, failure: Any) -> None:
        events, said = kept([Started(attempt())], [Failed(attempt(), failure, Paid.NO, None, True)])  # type: ignore[arg-type]
        (failed,) = [event for event in events if isinstance(event, Failed)]
        assert (failed.failure.error_class, failed.seconds, said) == ("internal", 0.0, "")

    @pytest.mark.parametrize(
        "slip",
        [Started(None), Started(REQUESTS["b"]), end("b", None), "done", 3],
        ids=lambda slip: type(slip).__name__,  # type: ignore[arg-type]
    )
    @pytest.mark.parametrize("make", [list, tuple, deque, iter])
    def test_one_slip_does_not_take_the_others_of_its_group_with_it(
        self, slip: Any, make: Callable[[list[Any]], Any]
    ) -> None:
        events, said = kept([Started(attempt()), Started(attempt("b"))], make([slip, end()]))
        assert end() in events
        assert said or any(isinstance(event, Notice) for event in events)

    def test_an_event_that_is_no_group_is_kept(self) -> None:
        events, said = kept([Started(attempt())], end())
        assert (events, said) == ([Started(attempt()), end()], "yielded Succeeded, expected a list of events")

    @pytest.mark.parametrize("group", [None, 3, "done", {}])
    def test_what_is_no_group_at_all(self, group: Any) -> None:
        assert kept(group) == ([], f"yielded {type(group).__name__}, expected a list of events")

    def test_an_attempt_that_is_not_under_way_cannot_fail(self) -> None:
        assert kept([Failed(attempt(), Failure("x", ""), Paid.NO, 0.1, True)])[1] == (
            "ended attempt 'a', which is not under way"
        )

    def test_an_attempt_is_announced_once(self) -> None:
        events, said = kept([Started(attempt()), Started(attempt("b", client_request_id="a"))])
        assert (events, said) == ([Started(attempt())], "announced attempt 'a' twice")


@pytest.mark.parametrize(
    ("error", "words"), [(KeyError("workers"), "KeyError: 'workers'"), (SystemExit(0), "SystemExit: 0")]
)
def test_an_exception_names_the_plugin_after_what_it_had_reported(error: BaseException, words: str) -> None:
    closed = []

    def execute(work: Work) -> Iterator[Sequence[Event]]:
        try:
            next(work.requests)
            yield [Started(attempt())]
            raise error
        finally:
            closed.append(True)

    found = guarded(execute, Work(iter(REQUESTS.values())), "echo", "bioforge-echo")
    assert list(next(found)) == [Started(attempt())]
    with pytest.raises(BrokenBackendError, match=f"^{WHO}failed: {words}$"):
        next(found)
    assert closed


def test_one_that_fails_before_it_begins_is_named_too() -> None:
    def execute(work: Work) -> Iterator[Sequence[Event]]:
        raise KeyError("workers")

    with pytest.raises(BrokenBackendError, match=f"^{WHO}failed: KeyError: 'workers'$"):
        next(guarded(execute, Work(iter(())), "echo", "bioforge-echo"))


def test_whoever_leaves_early_closes_the_backend() -> None:
    closed = []

    def execute(work: Work) -> Iterator[Sequence[Event]]:
        try:
            next(work.requests)
            yield [Started(attempt())]
        finally:
            closed.append(True)

    found = guarded(execute, Work(iter(REQUESTS.values())), "echo", "bioforge-echo")
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert closed

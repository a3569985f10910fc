"""Backends of plugins at work: whatever they do wrong, no answer that they delivered is lost, and they are named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from bioforge.errors import StoppedError
from bioforge.events import Event, Failed, Launch, Noticed, Started, Succeeded, Unusable
from bioforge.model import Answer, Failure, Paid, Request
from bioforge.supervising import supervised

REQUEST = Request("v1:aa", "/v1/responses", "m", b"{}", "1", "bio")
ANSWER = Answer(b"{}", "Born in 1965.")
WHO = "backend 'echo' of plugin 'bioforge-echo' "


def launch(name: str = "a", **changed: object) -> Launch:
    return Launch(**{"request": REQUEST, "number": 1, "worker": "W01", "client_request_id": name, "at": 0.0, **changed})  # type: ignore[arg-type]


def kept(*groups: object) -> tuple[list[Event], str]:
    """What of these groups is handed on, and what is said about the rest."""
    events: list[Event] = []
    said = ""
    try:
        for group in supervised(iter(groups), "echo", "bioforge-echo"):  # type: ignore[arg-type]
            events += group
    except StoppedError as error:
        said = error.message
    return events, said


def test_a_backend_without_fault_is_left_alone() -> None:
    events = [Started(launch()), Started(launch("b")), Noticed("pause", "waiting")]
    ends = [Succeeded(launch(), ANSWER, 0.1), Failed(launch("b"), Failure("timeout", ""), Paid.MAYBE, 0.1, False)]
    assert kept(events, ends, [Started(launch("c"))]) == ([*events, *ends, Started(launch("c"))], "")


def test_an_attempt_that_begins_and_ends_in_one_group_begins_before_it_ends() -> None:
    one, other = launch(), launch("b")
    end = Succeeded(one, ANSWER, 0.1)
    groups = supervised(iter([[Started(one), Started(other), end, Started(launch("c"))]]), "echo", "bioforge-echo")
    assert [list(group) for group in groups] == [[Started(one), Started(other)], [end, Started(launch("c"))]]


def test_a_member_of_a_batch_was_announced_by_an_earlier_run() -> None:
    end = Succeeded(launch(batch="k", attempt=7), ANSWER, 0.1)
    assert kept([end]) == ([end], "")


def test_an_answer_that_nobody_announced_is_kept_before_everything_stops() -> None:
    end = Succeeded(launch(), ANSWER, 0.1)
    assert kept([end], [Started(launch("b"))]) == (
        [Started(launch()), end],
        WHO + "answered attempt 'a', which it had not announced",
    )


def test_an_answer_that_comes_twice_is_kept_twice_since_both_may_have_been_paid_for() -> None:
    end = Succeeded(launch(), ANSWER, 0.1)
    events, said = kept([Started(launch()), end], [end])
    assert events.count(end) == 2
    assert said == WHO + "answered attempt 'a', which it had not announced"


@pytest.mark.parametrize(
    ("group", "said"),
    [
        ([Started(launch()), Started(launch())], "announced attempt 'a' twice"),
        ([Started(launch()), "done"], "yielded str, which is no event"),
        (Started(launch()), "yielded Started, expected a list of events"),
        (
            [Started(launch()), Failed(launch("b"), Failure("timeout", ""), Paid.NO, 0.1, True)],
            "ended attempt 'b', which is not under way",
        ),
        ([Started(launch()), Succeeded(launch(), "text", 0.1)], "gave an answer that is none: str"),  # type: ignore[arg-type]
    ],
)
def test_what_is_wrong_stops_the_run_after_what_is_right(group: object, said: str) -> None:
    events, message = kept(group)
    assert message == WHO + said
    assert events in ([Started(launch())], [])


def test_a_problem_makes_an_answer_unusable_whatever_the_backend_calls_it() -> None:
    refused = Answer(b"{}", problem=Failure("refusal", "no"))
    events, said = kept([Started(launch()), Succeeded(launch(), refused, 0.1)])
    assert (events[1], said) == (Unusable(launch(), refused, 0.1), "")
    events, said = kept([Started(launch()), Unusable(launch(), ANSWER, 0.1)])
    assert isinstance(events[1], Unusable)
    assert events[1].answer.problem is not None


def test_an_exception_names_the_plugin_after_what_it_had_reported() -> None:
    closed = []

    def groups() -> Iterator[Sequence[Event]]:
        try:
            yield [Started(launch())]
            raise KeyError("workers")
        finally:
            closed.append(True)

    found = supervised(groups(), "echo", "bioforge-echo")
    assert list(next(found)) == [Started(launch())]
    with pytest.raises(StoppedError, match=r"^backend 'echo' of plugin 'bioforge-echo' failed: KeyError: 'workers'$"):
        next(found)
    assert closed


def test_whoever_leaves_early_closes_the_backend() -> None:
    closed = []

    def groups() -> Iterator[Sequence[Event]]:
        try:
            yield [Started(launch())]
        finally:
            closed.append(True)

    found = supervised(groups(), "echo", "bioforge-echo")
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert closed

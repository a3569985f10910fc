"""Decisions: fresh, or stale for one reason."""

from __future__ import annotations

import pytest

from bioforge.core.reasons import REASONS, STATES, Decision, KnownRequest, KnownTarget, Reason, RequestState
from bioforge.planner.decide import decide
from bioforge.planner.diff import column_changes, definition_changes

BUILT = KnownTarget("v1:old", None, 5, 1, "row", None)


def known(state: str, response: int | None = None, detail: str | None = None) -> KnownRequest:
    return KnownRequest(state, response, detail)


def test_an_unknown_target_is_new() -> None:
    assert decide("v1:a", None, None, None) == Decision("new")


def test_a_target_that_was_never_built_is_still_new_when_it_changes() -> None:
    assert decide("v1:b", KnownTarget("v1:a", "new", None, None, None, None), None, "column x") == Decision("new")


def test_an_answered_request_makes_any_target_fresh() -> None:
    assert decide("v1:a", None, known("answered", 9), None) == Decision(None, response=9)
    assert decide("v1:a", BUILT, known("answered", 9), "model") == Decision(None, response=9)


def test_a_changed_target_names_the_changes() -> None:
    assert decide("v1:new", BUILT, None, "instructions") == Decision("changed", "instructions")


def test_an_unusable_answer_is_held_back() -> None:
    assert decide("v1:a", None, known("unusable", 9, "truncated"), None) == Decision("failed", "truncated", held=True)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("failed", "failed"),
        ("maybe paid", "maybe paid"),
        ("started", "maybe paid"),
        ("waiting", "interrupted"),
        ("interrupted", "interrupted"),
        ("forgotten", "forgotten"),
    ],
)
def test_the_state_of_the_request_gives_the_reason(state: str, reason: str) -> None:
    assert decide("v1:a", BUILT, known(state, None, "class"), "model").reason == reason


def test_forced_lasts_until_the_answer_or_a_change() -> None:
    forced = KnownTarget("v1:a", "forced", 5, 1, "row", None)
    assert decide("v1:a", forced, known("answered", 5), None).reason == "forced"
    assert decide("v1:b", forced, None, "model").reason == "changed"


def test_an_accepted_answer_is_fresh_for_its_request_only() -> None:
    accepted = KnownTarget("v1:b", None, 7, 1, "row", "v1:b", 5)
    assert decide("v1:b", accepted, None, "model") == Decision(None, response=5)
    assert decide("v1:c", accepted, None, "model").reason == "changed"


def test_changes_of_a_definition_are_named_with_short_values() -> None:
    old = {"model": "a", "instructions": "x" * 99, "input": "i", "parameters": {"temperature": 0.2, "top_p": 1}}
    new = {"model": "b", "instructions": "y" * 99, "input": "i", "parameters": {"temperature": 0.9, "seed": 1}}
    assert [change.short() for change in definition_changes(old, new)] == [
        "model a → b",
        "instructions",
        "parameter seed nothing → 1",
        "parameter temperature 0.2 → 0.9",
        "parameter top_p 1 → nothing",
    ]


def test_only_used_columns_count() -> None:
    old, new = {"a": "1", "b": "1"}, {"a": "2", "b": "2"}
    assert [change.part for change in column_changes(old, new, frozenset({"b"}))] == ["column b"]
    assert [change.part for change in column_changes(old, new, None)] == ["column a", "column b"]


def test_every_reason_and_state_has_a_row() -> None:
    assert list(REASONS) == list(Reason)
    assert set(STATES) == set(RequestState)


@pytest.mark.parametrize("state", [state for state in RequestState if state is not RequestState.ANSWERED])
def test_a_decision_follows_the_table(state: RequestState) -> None:
    decision = decide("v1:a", BUILT, known(state, None, "detail"), "model")
    assert (decision.reason, decision.held) == (STATES[state].reason, STATES[state].held)

"""Decisions: fresh, or stale for one reason."""

from __future__ import annotations

import pytest

from bioforge.core.reasons import Decision, KnownRequest, KnownTarget
from bioforge.planner.decide import decide
from bioforge.planner.diff import column_changes, definition_changes

BUILT = KnownTarget("v1:old", None, 5, 1, "row", None)


def known(state: str, response: int | None = None, detail: str | None = None) -> KnownRequest:
    return KnownRequest(state, response, detail)


def test_an_unknown_target_is_new() -> None:
    assert decide("v1:a", None, None, None) == Decision("new")


def test_a_target_that_was_never_built_is_still_new_when_it_changes() -> None:
    assert decide("v1:b", KnownTarget("v1:a", "new", None, None, None, None), None, "column x") == Decision("new")


def test_a_request_answered_before_makes_it_fresh_whoever_asked() -> None:
    assert decide("v1:a", None, known("answered", 9), None) == Decision(None, response=9)
    assert decide("v1:a", BUILT, known("answered", 9), "model") == Decision(None, response=9)


def test_a_changed_target_says_what_changed() -> None:
    assert decide("v1:new", BUILT, None, "instructions") == Decision("changed", "instructions")


def test_an_answer_that_was_paid_for_and_is_unusable_is_held_back() -> None:
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
def test_what_became_of_the_request_is_the_reason(state: str, reason: str) -> None:
    assert decide("v1:a", BUILT, known(state, None, "class"), "model").reason == reason


def test_forced_stays_until_it_is_answered_or_changes() -> None:
    forced = KnownTarget("v1:a", "forced", 5, 1, "row", None)
    assert decide("v1:a", forced, known("answered", 5), None).reason == "forced"
    assert decide("v1:b", forced, None, "model").reason == "changed"


def test_an_accepted_answer_stays_fresh_for_what_it_was_accepted_for() -> None:
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

"""Decisions about targets with upstream recipes, and about answers with schemas."""

from __future__ import annotations

import pytest

from bioforge.core.reasons import (
    Decision,
    KnownRequest,
    KnownTarget,
    Reason,
    RequestState,
    Upstream,
)
from bioforge.planner.decide import blocked, decide
from bioforge.planner.diff import definition_changes, upstream_changes

FRESH = Upstream("facts", None, None, 7)


def target(**known: object) -> KnownTarget:
    """Return a target that was built, with these changes."""
    values: dict[str, object] = dict.fromkeys(
        ("request_hash", "reason", "built_response", "built_definition", "built_row", "accepted_hash")
    )
    return KnownTarget(**{**values, "request_hash": "v1:a", "built_response": 5, **known})  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ waiting and skipping


def test_available_answers_block_nothing() -> None:
    assert blocked([], None) is None
    assert blocked([FRESH, Upstream("style", None, None, 9)], None) is None


@pytest.mark.parametrize(
    "reason", ["new", "changed", "forced", "interrupted", "invalid", "repair", "in batch", "upstream"]
)
def test_a_target_waits_for_upstream_requests_that_will_be_sent(reason: str) -> None:
    assert blocked([FRESH, Upstream("style", reason, "why", 3)], None) == Decision(Reason.UPSTREAM, "style")


def test_the_detail_names_every_upstream_recipe_it_waits_for() -> None:
    needs = [Upstream("facts", "new", None, None), FRESH, Upstream("style", "failed", "timeout", None)]
    assert blocked(needs, None) == Decision(Reason.UPSTREAM, "facts, style")


def test_a_target_waits_for_an_upstream_target_without_answer() -> None:
    assert blocked([Upstream("facts", None, None, None)], None) == Decision(Reason.UPSTREAM, "facts")


@pytest.mark.parametrize(
    ("reason", "detail", "shown"),
    [
        ("failed", "refusal: I'm sorry", "facts (refusal)"),
        ("failed", "schema: facts.json: born: missing", "facts (schema)"),
        ("failed", "template: input: 'x' is undefined", "facts (template)"),
        ("failed", None, "facts (failed)"),
        ("maybe paid", "timeout: after 600 s", "facts (maybe paid)"),
        ("removed", None, "facts (removed)"),
    ],
)
def test_a_target_is_skipped_if_its_upstream_request_will_not_be_sent(
    reason: str, detail: str | None, shown: str
) -> None:
    assert blocked([Upstream("facts", reason, detail, None, stuck=True)], None) == Decision(Reason.SKIPPED, shown)


def test_one_stuck_upstream_target_skips_it() -> None:
    needs = [Upstream("style", "new", None, None), Upstream("facts", "failed", "refusal: no", None, stuck=True)]
    assert blocked(needs, None) == Decision(Reason.SKIPPED, "facts (refusal)")


def test_a_skipped_target_names_the_first_failure_of_its_chain() -> None:
    skipped = Upstream("bio", "skipped", "facts (refusal)", None, stuck=True)
    assert blocked([skipped], None) == Decision(Reason.SKIPPED, "facts (refusal)")


@pytest.mark.parametrize("known", [target(reason="forced"), target(reason="upstream", reason_before="forced")])
def test_a_forced_target_stays_forced_while_it_waits(known: KnownTarget) -> None:
    waiting = blocked([Upstream("facts", "new", None, None)], known)
    assert waiting == Decision(Reason.UPSTREAM, "facts", reason_before=Reason.FORCED)
    skipped = blocked([Upstream("facts", "failed", "refusal: no", None, stuck=True)], known)
    assert skipped == Decision(Reason.SKIPPED, "facts (refusal)", reason_before=Reason.FORCED)


@pytest.mark.parametrize("reason", [Reason.UPSTREAM, Reason.SKIPPED])
def test_a_forced_target_is_built_after_waiting_even_if_its_request_has_an_answer(reason: str) -> None:
    known = target(reason=reason, reason_before=Reason.FORCED, request_hash=None)
    assert decide("v1:b", known, KnownRequest("answered", 5, None), None).reason == Reason.FORCED


def test_a_waiting_target_is_fresh_if_its_request_has_an_answer() -> None:
    known = target(reason=Reason.UPSTREAM, request_hash=None)
    assert decide("v1:a", known, KnownRequest("answered", 5, None), None) == Decision(None, response=5)


# --------------------------------------------------------------------------------------------------- answers and schemas


def test_an_answer_that_no_longer_fits_is_sent_again() -> None:
    known = KnownRequest(RequestState.INVALID, 5, "schema: works: missing", "schema")
    assert decide("v1:a", target(), known, "model") == Decision(Reason.INVALID, "schema: works: missing")
    assert known.misfit


def test_an_answer_that_never_fitted_is_held_back() -> None:
    known = KnownRequest(RequestState.UNUSABLE, 5, "schema: works: missing", "schema")
    assert decide("v1:a", target(), known, None) == Decision("failed", "schema: works: missing", held=True)
    assert known.misfit


def test_other_unusable_answers_are_no_misfits() -> None:
    assert not KnownRequest(RequestState.UNUSABLE, 5, "refusal: no", "refusal").misfit
    assert not KnownRequest("answered", 5, None).misfit


def test_an_accepted_answer_is_fresh_even_if_it_does_not_fit() -> None:
    known = KnownRequest(RequestState.INVALID, 5, "schema: works: missing", "schema")
    accepted = target(accepted_hash="v1:a", accepted_response=5)
    assert decide("v1:a", accepted, known, None) == Decision(None, response=5)


def test_a_request_in_a_batch_is_not_sent_even_if_forced() -> None:
    forced = target(reason="forced")
    assert decide("v1:a", forced, KnownRequest("in batch", None, "batch_1"), None) == Decision("in batch", "batch_1")


# --------------------------------------------------------------------------------------------------- what has changed


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ('{"facts": 1}', '{"facts": 1}', []),
        ('{"facts": 1}', '{"facts": 2}', ["facts"]),
        ('{"facts": 1, "style": 2}', '{"facts": 2, "style": 3}', ["facts", "style"]),
        ('{"facts": 1, "style": 2}', '{"facts": 1, "style": 3}', ["style"]),
        ('{"facts": 1}', '{"facts": 1, "style": 3}', ["style"]),
        ('{"facts": 1, "style": 3}', '{"facts": 1}', []),
        (None, '{"facts": 1}', []),
        ('{"facts": 1}', None, []),
    ],
)
def test_changed_upstream_answers_are_named(old: str | None, new: str | None, changed: list[str]) -> None:
    assert list(upstream_changes(old, new)) == changed


def test_upstream_recipes_and_schema_are_part_of_the_definition() -> None:
    before: dict[str, object] = {"model": "m", "parameters": {}}
    after = {**before, "needs": {"facts": ""}, "for": "all", "schema": {"name": "x", "properties": {"a": "b" * 50}}}
    assert [change.short() for change in definition_changes(before, after)] == [
        "schema",
        'needs nothing → {"facts": ""}',
        "for nothing → all",
    ]
    validation = {**after, "validation": "v1:other", "repair": True, "fallback": ["terra"], "sample": 2}
    assert list(definition_changes(after, validation)) == [], "these parts do not change the first request"

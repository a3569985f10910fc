"""What targets depend on: changes are noted by the state itself, and a needed target is fresh, to come, or stuck."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filled_state import FilledState

from bioforge.core.reasons import Upstream
from bioforge.store import Store, dependencies, stale_counts
from bioforge.store.targets import ALL_ARTISTS, ALL_ARTISTS_ID

FACTS = ("facts", "")
ALL_STALE = {"reason": "new", "request_hash": "v1:stale"}
RUN = 7


@pytest.fixture
def state(tmp_path: Path) -> Iterator[FilledState]:
    """Three artists with fresh facts, which others need."""
    with Store.open(tmp_path / "state.db") as store:
        state = FilledState(store)
        for number in "123":
            state.answered(state.artist(number), recipe="facts", text=f"facts {number}", parsed=f'{{"n": {number}}}')
        dependencies.set_needed(store, [FACTS])
        yield state


def change(state: FilledState, artist: int, **columns: object) -> None:
    """The facts of an artist become something else."""
    sets = ", ".join(f"{name} = ?" for name in columns)
    with state.store.transaction() as connection:
        connection.execute(
            f"UPDATE targets SET {sets} WHERE artist = ? AND recipe = 'facts'", (*columns.values(), artist)
        )


def changed(state: FilledState, *needs: tuple[str, str]) -> list[int]:
    return [number for page in dependencies.changed_artists(state.store, needs or [FACTS]) for number in page]


def stuck_reason(state: FilledState, again: bool = True, run: int | None = None) -> Upstream:
    """The facts of the first artist, as those who need them see them."""
    found = dependencies.answers(state.store, {"facts": ""}, [1], run=run, resend_maybe_paid=again)
    return found[1]["facts"].state


# ------------------------------------------------------------------------------------------------------- noted changes


@pytest.mark.parametrize(
    "columns", [{"reason": "changed"}, {"built_response": 99}, {"reason": None, "built_response": 9}]
)
def test_a_changed_target_is_noted(state: FilledState, columns: dict[str, Any]) -> None:
    change(state, 2, **columns)
    assert changed(state) == [2]
    assert dependencies.any_change(state.store)


@pytest.mark.parametrize("columns", [{"reason": None}, {"detail": "x"}, {"held": 1}, {"request_hash": "v1:other"}])
def test_what_others_do_not_depend_on_is_not_noted(state: FilledState, columns: dict[str, Any]) -> None:
    change(state, 2, **columns)
    assert not dependencies.any_change(state.store)


def test_a_change_that_is_rolled_back_is_not_noted(state: FilledState) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        # the second one has a number already
        change(state, 2, reason="changed", id=1)
    assert not dependencies.any_change(state.store)


@pytest.mark.parametrize("statement", ["UPDATE", "UPDATE OR REPLACE", "UPDATE OR IGNORE", "UPDATE OR ABORT"])
def test_the_same_target_changes_twice_and_is_noted_once(state: FilledState, statement: str) -> None:
    for reason in ("changed", "failed"):
        with state.store.transaction() as connection:
            connection.execute(f"{statement} targets SET reason = ? WHERE recipe = 'facts'", (reason,))
    assert changed(state) == [1, 2, 3]


def test_only_recipes_that_others_need_are_watched(state: FilledState) -> None:
    state.answered(1, recipe="bio")
    with state.store.transaction() as connection:
        connection.execute("UPDATE targets SET reason = 'changed' WHERE recipe = 'bio'")
    assert not dependencies.any_change(state.store)
    assert changed(state, ("bio", "")) == []


def test_one_variant_does_not_stand_for_another(state: FilledState) -> None:
    state.answered(1, "sample=2", recipe="facts")
    dependencies.set_needed(state.store, [FACTS, ("facts", "sample=2")])
    with state.store.transaction() as connection:
        connection.execute("UPDATE targets SET reason = 'changed' WHERE variant = 'sample=2'")
    assert changed(state) == []
    assert changed(state, FACTS, ("facts", "sample=2")) == [1]


def test_what_is_needed_no_longer_is_forgotten(state: FilledState) -> None:
    change(state, 1, reason="changed")
    dependencies.set_needed(state.store, [FACTS])
    assert changed(state) == [1], "needed as before"
    dependencies.set_needed(state.store, [("style", "")])
    assert not dependencies.any_change(state.store)
    change(state, 2, reason="changed")
    assert not dependencies.any_change(state.store)


def test_changes_of_many_artists_are_read_in_pages_and_in_order(state: FilledState) -> None:
    with state.store.transaction() as connection:
        connection.executemany(
            "INSERT INTO upstream_changes VALUES ('facts', '', ?)", [(number,) for number in range(4, 4_104)]
        )
    pages = list(dependencies.changed_artists(state.store, [FACTS]))
    assert len(pages) == 3
    assert [number for page in pages for number in page] == list(range(4, 4_104))
    dependencies.forget_changes(state.store)
    assert not dependencies.any_change(state.store)


def test_a_failure_is_noted_although_nothing_has_changed(state: FilledState) -> None:
    change(state, 1, reason="failed", request_hash="v1:one")
    change(state, 3, reason="failed", request_hash="v1:one")
    dependencies.forget_changes(state.store)
    dependencies.note_failures(state.store, ["v1:one", "v1:unknown"])
    assert changed(state) == [1, 3]
    dependencies.note_failures(state.store, ["v1:one"])
    dependencies.note_failures(state.store, [])
    assert changed(state) == [1, 3]


# ---------------------------------------------------------------------------------------------------- one artist's needs


def test_a_fresh_answer_is_given_with_its_text_and_its_data(state: FilledState) -> None:
    found = dependencies.answers(state.store, {"facts": "", "style": ""}, [1, 3, 9], run=None, resend_maybe_paid=True)
    assert found.keys() == {1, 3}
    assert found[3].keys() == {"facts"}, "what was never planned is not there"
    answer = found[3]["facts"]
    assert (answer.text, answer.parsed) == ("facts 3", '{"n": 3}')
    assert answer.state == Upstream("facts", None, None, 3)


@pytest.mark.parametrize(
    ("columns", "stuck"),
    [
        ({"reason": "new"}, False),
        ({"reason": "changed"}, False),
        ({"reason": "forced"}, False),
        ({"reason": "failed"}, False),
        ({"reason": "failed", "held": 1}, True),
        ({"reason": "failed", "request_hash": None}, True),
        ({"reason": "upstream", "request_hash": None}, False),
        ({"reason": "skipped", "request_hash": None}, True),
        ({"reason": "maybe paid"}, False),
        ({"reason": "in batch"}, False),
        ({"reason": "in batch", "held": 1}, False),
        ({"reason": "removed"}, True),
    ],
)
def test_a_stale_target_is_to_come_or_stuck(state: FilledState, columns: dict[str, Any], stuck: bool) -> None:
    change(state, 1, **columns)
    assert stuck_reason(state) == Upstream("facts", columns["reason"], None, 1, stuck)


def test_maybe_paid_is_stuck_where_it_is_never_asked_again(state: FilledState) -> None:
    change(state, 1, reason="maybe paid", request_hash="v1:one")
    assert not stuck_reason(state).stuck
    assert stuck_reason(state, again=False).stuck


@pytest.mark.parametrize("reason", ["failed", "maybe paid"])
def test_what_has_failed_in_this_run_is_not_waited_for(state: FilledState, reason: str) -> None:
    change(state, 1, reason=reason, request_hash="v1:one")
    state.attempt("v1:one", run=RUN, outcome="failed")
    assert stuck_reason(state, run=RUN).stuck
    assert not stuck_reason(state, run=RUN + 1).stuck
    assert not stuck_reason(state).stuck


# --------------------------------------------------------------------------------------------------- everybody's at once


def gathered(state: FilledState, again: bool = True, run: int | None = None) -> Upstream:
    return dependencies.combined(state.store, *FACTS, run, again)


def test_all_together_are_fresh_when_each_is(state: FilledState) -> None:
    assert gathered(state).reason is None
    assert gathered(state).response is not None


def test_one_that_is_to_come_is_waited_for_although_another_is_stuck(state: FilledState) -> None:
    change(state, 1, reason="failed", detail="refusal: no", held=1)
    assert gathered(state) == Upstream("facts", "failed", "refusal: no", None, stuck=True)
    change(state, 2, reason="changed", request_hash="v1:two")
    assert gathered(state, run=1) == Upstream("facts", "changed", None, None)
    assert gathered(state).stuck, "a plan says that it will not be asked in the end"


@pytest.mark.parametrize(
    ("columns", "stuck"),
    [
        ({"reason": "failed", "request_hash": None}, True),
        ({"reason": "failed", "request_hash": "v1:one"}, False),
        ({"reason": "upstream", "request_hash": None}, False),
        ({"reason": "skipped", "request_hash": None}, True),
        ({"reason": "maybe paid", "request_hash": "v1:one"}, False),
        ({"reason": "in batch", "request_hash": "v1:one"}, False),
    ],
)
def test_all_together_are_stuck_when_nothing_is_to_come(
    state: FilledState, columns: dict[str, Any], stuck: bool
) -> None:
    change(state, 1, **columns)
    assert gathered(state) == Upstream("facts", columns["reason"], None, None, stuck)


def test_all_together_know_this_run_and_what_is_never_asked_again(state: FilledState) -> None:
    change(state, 1, reason="maybe paid", request_hash="v1:one")
    assert gathered(state, again=False).stuck
    assert not gathered(state).stuck
    state.attempt("v1:one", run=RUN, outcome="maybe paid", paid="maybe")
    assert gathered(state, run=RUN).stuck


def test_removed_artists_and_other_variants_keep_nobody_waiting(state: FilledState) -> None:
    change(state, 1, reason="removed")
    state.target(2, "sample=2", recipe="facts", **ALL_STALE)
    state.target(2, "", recipe="style", **ALL_STALE)
    assert gathered(state).reason is None


# ------------------------------------------------------------------------------------------------- who stands for all


def test_everybody_is_an_artist_that_counts_as_none(state: FilledState) -> None:
    dependencies.ensure_all_artists_row(state.store)
    dependencies.ensure_all_artists_row(state.store)
    assert state.store.rows("SELECT id, artist_id FROM artists WHERE id < 1") == [(ALL_ARTISTS, ALL_ARTISTS_ID)]
    assert stale_counts.total_artists(state.store) == 3
    assert state.artist("4") == 4, "the next artist has the next number"

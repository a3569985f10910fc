"""Reading the variants of a recipe: which targets count, which numbers their answers have, and what they have cost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from filled_state import FilledState

from bioforge.store import Selection, Store
from bioforge.store.export import records
from bioforge.store.variants import Judgement, MeasuredState, Measurement, judgements, measured, read_snapshot, spent

BIO = Selection(recipes=("bio",))


def targets_of(state: FilledState, selection: Selection = BIO) -> list[Measurement]:
    return [found for artist in measured(state.store, selection) for found in artist]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[FilledState]:
    with Store.open(tmp_path / "state.db") as opened:
        yield FilledState(opened)


# ---------------------------------------------------------------------------------------------------------- targets


def test_an_answer_has_its_numbers(state: FilledState) -> None:
    artist = state.artist("7")
    response, digest = state.response(
        "v1:one",
        state.attempt("v1:one", seconds=2.5),
        text="Zoë",
        model="m-2026",
        input_tokens=10,
        output_tokens=20,
        cost_usd=0.5,
    )
    state.target(artist, "temperature=0.2", request_hash=digest, built_response=response)
    assert targets_of(state) == [
        Measurement(artist, "7", "temperature=0.2", MeasuredState.ANSWERED, False, "m-2026", 3, 10, 20, 0.5, 2.5)
    ]


def test_an_answer_that_was_adopted_or_came_in_a_batch_has_no_latency(state: FilledState) -> None:
    for variant, columns in (
        ("batch", {"batch": "b1", "seconds": 3600.0}),
        ("imported", {"outcome": "imported", "seconds": 0.0}),
    ):
        response, digest = state.response(f"v1:{variant}", state.attempt(f"v1:{variant}", **columns), text="text")
        state.target(state.artist(variant), request_hash=digest, built_response=response)
    state.answered(state.artist("no attempt"), text="text")
    assert [found.seconds for found in targets_of(state)] == [None, None, None]
    assert [found.characters for found in targets_of(state)] == [4, 4, 4]


@pytest.mark.parametrize(
    ("reason", "held", "expected"),
    [
        ("failed", 0, MeasuredState.FAILED),
        ("failed", 1, MeasuredState.FAILED),
        ("new", 0, MeasuredState.STALE),
        ("changed", 0, MeasuredState.STALE),
        ("in batch", 0, MeasuredState.STALE),
        ("maybe paid", 0, MeasuredState.STALE),
        ("forced", 0, MeasuredState.STALE),
    ],
)
def test_a_stale_target_has_no_numbers_not_even_of_an_older_answer(
    state: FilledState, reason: str, held: int, expected: MeasuredState
) -> None:
    artist = state.artist("1")
    older, _ = state.response(text="an older text", output_tokens=99, cost_usd=1.0)
    state.target(artist, reason=reason, held=held, built_response=older, request_hash="v1:newer")
    assert targets_of(state) == [Measurement(artist, "1", "", expected, bool(held))]


def test_what_is_gone_stays_out(state: FilledState) -> None:
    here, gone = state.artist("here"), state.artist("gone", removed=True)
    for artist in (here, gone):
        state.answered(artist, "model=a", text="text")
        state.answered(artist, "model=a", recipe="motto", text="text")
    older, digest = state.response(text="text", cost_usd=8.0)
    state.target(here, "model=old", reason="removed", built_response=older, request_hash=digest)
    assert [(found.artist_id, found.variant) for found in targets_of(state)] == [("here", "model=a")]
    assert spent(state.store, BIO) == {}


def test_targets_come_artist_by_artist_over_all_pages(state: FilledState) -> None:
    variants = ["model=a", "model=b", "model=b,sample=2"]
    with state.store.transaction() as connection:
        connection.executemany(
            "INSERT INTO artists (id, artist_id, artist_name, row_hash, generation) VALUES (?, ?, 'x', 'row', 1)",
            ((number, f"id-{5000 - number}") for number in range(1, 1101)),
        )
        connection.executemany(
            "INSERT INTO targets (artist, recipe, variant, definition, row_hash, reason) VALUES (?, 'bio', ?, 1, 'r', 'new')",
            ((number, variant) for variant in variants for number in range(1, 1101)),
        )
    found = list(measured(state.store, BIO))
    assert [artist[0].artist for artist in found] == list(range(1, 1101)), "each artist once, none cut by a page"
    assert all([target.variant for target in artist] == variants for artist in found)


def test_a_selection_restricts_the_artists(state: FilledState) -> None:
    for artist_id in ("10", "11", "20"):
        state.answered(state.artist(artist_id), text="text", cost_usd=1.0)
    chosen = Selection(recipes=("bio",), ids=("1*",))
    assert [found.artist_id for found in targets_of(state, chosen)] == ["10", "11"]
    assert spent(state.store, chosen) == {"": 2.0}


def test_every_answer_has_its_record_in_the_same_order(state: FilledState) -> None:
    """Scorers read records beside measurements: both must come alike, whatever else stands between them."""
    for artist_id in ("b", "a", "[c]"):
        artist = state.artist(artist_id)
        state.answered(artist, "model=b", text="text")
        state.answered(artist, "", text="text")
        older, _ = state.response(text="older")
        state.target(artist, "model=a", reason="changed", built_response=older, request_hash="v1:newer")
        state.target(artist, "model=c", reason="failed", detail="refusal: no", request_hash="v1:failed")
    answers = [(found.artist_id, found.variant) for found in targets_of(state) if found.state == MeasuredState.ANSWERED]
    of_records = iter([(found["artist_id"], found.get("variant", "")) for found in records(state.store, BIO)])
    assert len(answers) == 6
    assert all(answer in of_records for answer in answers), "a subsequence"


# --------------------------------------------------------------------------------------------------------- judgements


def test_judging_answers_come_in_the_order_of_the_artists(state: FilledState) -> None:
    second, first = state.artist("2"), state.artist("1")
    for artist in (first, second):
        state.answered(artist, "bio.sample=2", recipe="quality", text="4")
        state.answered(artist, "", recipe="quality", text='{"score": 5}', parsed='{"score": 5}')
        state.answered(artist, recipe="bio", text="a bio")
    stale, _ = state.response(text="1")
    state.target(first, "sample=2", recipe="quality", reason="changed", built_response=stale)
    state.answered(state.artist("gone", removed=True), recipe="quality", text="3")
    of_each = [Judgement("", '{"score": 5}', '{"score": 5}'), Judgement("bio.sample=2", "4", None)]
    assert list(judgements(state.store, Selection(recipes=("quality",)))) == [(second, of_each), (first, of_each)]


# -------------------------------------------------------------------------------------------------------------- money


def test_spent_is_everything_that_was_paid_for_a_variant(state: FilledState) -> None:
    one, two, three = (state.artist(artist_id) for artist_id in "123")
    state.answered(one, "model=a", cost_usd=1.0)
    _, refused = state.response(usable=0, cost_usd=0.25)
    state.target(two, "model=a", request_hash=refused, reason="failed", held=1)
    twice, digest = state.response(cost_usd=0.5)
    state.response(digest, cost_usd=0.5)
    state.target(three, "model=a", request_hash=digest, built_response=twice)
    state.answered(one, "model=b", cost_usd=9.0)
    state.answered(two, "model=c", cost_usd=None)
    assert spent(state.store, BIO) == {"model=a": 1.0 + 0.25 + 0.5 + 0.5, "model=b": 9.0}


def test_artists_with_the_same_request_have_paid_once(state: FilledState) -> None:
    response, digest = state.response(cost_usd=1.0)
    for artist_id in "12":
        state.target(state.artist(artist_id), request_hash=digest, built_response=response)
    assert spent(state.store, BIO) == {"": 1.0}


def test_an_accepted_answer_has_cost_what_it_cost_and_an_older_one_of_a_stale_target_nothing(
    state: FilledState,
) -> None:
    accepted, _ = state.response(cost_usd=1.0)
    state.target(state.artist("1"), request_hash="v1:today", built_response=accepted, accepted_hash="v1:today")
    older, _ = state.response(cost_usd=9.0)
    state.target(state.artist("2"), request_hash="v1:newer", built_response=older, reason="changed")
    assert spent(state.store, BIO) == {"": 1.0}


def test_what_stood_in_for_a_request_that_failed_is_part_of_its_price(state: FilledState) -> None:
    _, failed = state.response(usable=0, cost_usd=0.25)
    repaired, repair = state.response(cost_usd=0.5)
    state.insert("follow_ups", request_hash=repair, root=failed, kind="repair", body="{}")
    state.target(state.artist("1"), request_hash=failed, built_response=repaired)

    _, refused = state.response(usable=0, cost_usd=2.0)
    _, other = state.response(usable=0, cost_usd=4.0)
    state.insert("follow_ups", request_hash=other, root=refused, kind="fallback", body="{}")
    state.target(state.artist("2"), "model=b", request_hash=refused, reason="failed", held=1)
    assert spent(state.store, BIO) == {"": 0.75, "model=b": 6.0}


# ------------------------------------------------------------------------------------------------------- one moment


def test_a_comparison_sees_one_moment_of_a_run(state: FilledState) -> None:
    state.answered(state.artist("1"), text="text", cost_usd=1.0)
    with Store.read(state.store.path) as reader:
        with read_snapshot(reader):
            before = list(measured(reader, BIO))
            state.answered(state.artist("2"), text="text", cost_usd=1.0)
            assert list(measured(reader, BIO)) == before
            assert spent(reader, BIO) == {"": 1.0}
        assert len(list(measured(reader, BIO))) == 2

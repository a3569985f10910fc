"""Counting what is stale: few targets and many are counted in different ways, and come to the same."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import pytest

from bioforge.store import Selection, Store, stale_counts
from bioforge.store.stale_counts import StaleGroup

REASONS = [
    (None, None, 0),
    ("new", None, 0),
    ("changed", "model", 0),
    ("failed", "timeout: it took too long", 0),
    ("failed", "timeout: another text", 0),
    ("failed", "refusal: no", 1),
    ("maybe paid", "connection: lost", 0),
    ("in batch", "batch_1", 0),
    ("upstream", "facts", 0),
    ("skipped", "facts (failed)", 0),
    ("removed", None, 0),
]
SELECTIONS = {
    "everything": Selection(),
    "a recipe": Selection(recipes=("bio",)),
    "ids": Selection(ids=("a1*", "a7")),
    "reasons": Selection(reasons=("failed", "new")),
    "nobody": Selection(ids=("nobody",)),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """60 artists with two recipes, stale for every reason there is."""
    with Store.open(Path(tmp_path_factory.mktemp("state"), "state.db")) as opened:
        with opened.transaction() as connection:
            connection.executemany(
                "INSERT INTO artists (id, artist_id, artist_name, row_hash, generation) VALUES (?, ?, ?, '', 1)",
                [(number, f"a{number}", f"Artist {number}") for number in range(1, 61)],
            )
            reasons = islice(cycle(REASONS), 120)
            rows = []
            for place, (reason, detail, held) in enumerate(reasons):
                artist, recipe = place // 2 + 1, ("bio", "facts")[place % 2]
                nothing = reason in ("upstream", "skipped") or place % 17 == 0
                rows.append((artist, recipe, None if nothing else _hash(place), reason, detail, held, 10 + place))
            connection.executemany(
                "INSERT INTO targets (artist, recipe, request_hash, definition, row_hash, reason, detail, held,"
                " input_tokens) VALUES (?, ?, ?, 1, '', ?, ?, ?, ?)",
                rows,
            )
        yield opened


def _hash(place: int) -> str:
    """Some are wanted once, some by two targets, and one by many."""
    return f"v1:{0 if place % 5 == 0 else place // 2 if place % 3 == 0 else place}"


@pytest.fixture
def alone(store: Store) -> Iterator[Store]:
    """The same, and no two targets want the same request."""
    with store.transaction() as connection:
        connection.execute("CREATE TEMP TABLE before AS SELECT id, request_hash FROM targets")
        connection.execute("UPDATE targets SET request_hash = 'v1:' || id WHERE request_hash IS NOT NULL")
    yield store
    with store.transaction() as connection:
        connection.execute(
            "UPDATE targets SET request_hash = (SELECT b.request_hash FROM before b WHERE b.id = targets.id)"
        )
        connection.execute("DROP TABLE before")


def counted(store: Store, selection: Selection, again: bool) -> tuple[list[StaleGroup], int]:
    return (
        stale_counts.stale_groups(store, selection, resend_maybe_paid=again),
        stale_counts.requests_to_send(store, selection, resend_maybe_paid=again),
    )


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("which", SELECTIONS)
@pytest.mark.parametrize("state", ["store", "alone"])
def test_many_are_counted_as_few_are(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, state: str, which: str, again: bool
) -> None:
    opened: Store = request.getfixturevalue(state)
    few = counted(opened, SELECTIONS[which], again)
    monkeypatch.setattr(stale_counts, "_FEW", 0)
    assert counted(opened, SELECTIONS[which], again) == few
    assert bool(few[0]) == (which != "nobody")


def test_what_two_targets_want_is_counted_once(store: Store) -> None:
    groups, requests = counted(store, Selection(), again=True)
    wanted = store.rows(
        "SELECT DISTINCT request_hash FROM targets WHERE reason IN ('new', 'changed', 'failed', 'maybe paid')"
        " AND held = 0 AND request_hash IS NOT NULL"
    )
    waiting = store.value("SELECT count(*) FROM targets WHERE reason = 'upstream'")
    assert requests == len(wanted) + waiting
    assert sum(group.requests for group in groups) > requests


def test_the_example_is_the_first_one_of_the_input(store: Store) -> None:
    new = [group for group in counted(store, Selection(recipes=("facts",)), again=True)[0] if group.reason == "new"]
    assert [group.example for group in new] == ["a1"]

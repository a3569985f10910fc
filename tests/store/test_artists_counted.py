"""How many artists there are is noted by the reading that found them, and counted where there is no such note."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bioforge.core.errors import InputError
from bioforge.core.types import Artist, BadRow
from bioforge.store import Store, artists, dependencies, stale_counts


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "state.db") as opened:
        yield opened


def read(store: Store, *ids: str) -> artists.InputReading:
    return artists.read_into(store, [Artist(one, f"Artist {one}") for one in ids])


def counted(store: Store) -> tuple[int, int]:
    """(in the input, removed), as they are noted; they are what is in the table."""
    there = store.row("SELECT sum(removed_at IS NULL), sum(removed_at IS NOT NULL) FROM artists WHERE id > 0")
    found = stale_counts.total_artists(store), stale_counts.removed_artists(store)
    assert found == (there[0] or 0, there[1] or 0)
    return found


def test_before_the_first_reading_there_are_none(store: Store) -> None:
    assert counted(store) == (0, 0)


def test_each_reading_notes_what_it_found(store: Store) -> None:
    read(store, "a", "b", "c", "b")
    assert counted(store) == (3, 0)
    dependencies.ensure_all_artists_row(store)
    assert counted(store) == (3, 0)
    assert read(store, "a", "d").removed == 2
    assert counted(store) == (2, 2)
    assert read(store, "a", "d").removed == 0
    assert read(store, "d", "b").removed == 1
    assert counted(store) == (2, 2)


def test_one_comes_and_one_goes(store: Store) -> None:
    read(store, "a", "b")
    assert read(store, "a", "c").removed == 1, "as many as before, and not the same"
    assert counted(store) == (2, 1)


def test_a_reading_that_is_cut_off_leaves_no_note(store: Store) -> None:
    read(store, "a", "b")

    def rows() -> Iterator[Artist | BadRow]:
        for number in range(5_000):
            yield Artist(f"n{number}", "X")
        raise InputError("the file ends here")

    with pytest.raises(InputError):
        artists.read_into(store, rows())
    assert counted(store)[0] > 2
    read(store, "a")
    assert counted(store)[0] == 1

"""An index that is built after many rows are written: whatever happens meanwhile, it is there for the next writer."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from filled_state import FilledState, handed_out

from bioforge.store import Selection, Store, planned, queue, stale_counts, targets

INDEX = "targets_by_request"


def schema(path: Path) -> set[tuple[str, str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        return set(connection.execute("SELECT type, name, sql FROM sqlite_master"))


def is_deferred(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        missing = not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (INDEX,)).fetchall()
        noted = connection.execute("SELECT value FROM facts WHERE name GLOB 'index put off *'").fetchall()
    assert bool(noted) == missing, "it is noted by the same transaction that drops it"
    return missing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Store.open(tmp_path / "state.db").close()
    return tmp_path / "state.db"


def test_it_is_built_as_it_was(path: Path) -> None:
    before = schema(path)
    with Store.open(path) as store:
        store.defer_index(INDEX)
        assert is_deferred(path)
        store.defer_index(INDEX)  # it may be asked for by several recipes
        store.build_indexes()
        assert not is_deferred(path)
        store.build_indexes()
    assert schema(path) == before


def test_the_next_writer_builds_it(path: Path) -> None:
    before = schema(path)
    with Store.open(path) as store:
        store.defer_index(INDEX)
    assert is_deferred(path)
    Store.open(path).close()
    assert schema(path) == before
    assert not is_deferred(path)


def test_readers_do_without_it(path: Path) -> None:
    with Store.open(path) as store:
        store.defer_index(INDEX)
        artist = FilledState(store).artist("a")
        targets.add(store, "bio", "", 1, [(artist, "v1:x", "", 7)])
        with Store.read(path) as reader:
            assert [group.requests for group in stale_counts.stale_groups(reader, Selection())] == [1]
            assert [found.target for found in queue.shared_requests(reader, ["v1:x"])] == [1]
            assert [item.request_hash for item in handed_out(reader, Selection(), resend_maybe_paid=True)] == ["v1:x"]
    assert is_deferred(path)


def test_few_targets_are_written_with_it(path: Path) -> None:
    with Store.open(path) as store:
        planned.defer_index(store)
    assert not is_deferred(path)

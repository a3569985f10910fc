"""Statements for whole sets: many rows in one statement come to the same as one row at a time, by the same index."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bioforge.store import Store, statements
from bioforge.store.statements import Insert, Update

THINGS = Insert("things", "name, size", "ON CONFLICT (name) DO UPDATE SET size = excluded.size, seen = seen + 1")
SIZES = Update(
    "things",
    "new_size, old_name",
    "size = coalesce({new_size}, size), seen = seen + 1",
    "name = {old_name} AND size > 0",
)


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE things (name TEXT PRIMARY KEY, size, seen INTEGER DEFAULT 1)")
        yield connection


def things(database: sqlite3.Connection) -> list[tuple[object, ...]]:
    return database.execute("SELECT name, size, seen FROM things ORDER BY name").fetchall()


@pytest.mark.parametrize("number", [1, 2, 63, 64, 65, 200])
@pytest.mark.parametrize("together", [False, True])
def test_any_number_of_rows(database: sqlite3.Connection, number: int, together: bool) -> None:
    names = [f"n{i:03}" for i in range(number)]
    THINGS.run(database, [(name, 5) for name in names], together)
    THINGS.run(database, [(names[0], b"\x00\xff")], together)
    SIZES.run(database, [(None if i % 2 else 0.1, name) for i, name in enumerate(names[1:])], together)
    assert things(database) == [
        (names[0], b"\x00\xff", 2),
        *((name, 5 if i % 2 else 0.1, 2) for i, name in enumerate(names[1:])),
    ]


@pytest.mark.parametrize("together", [False, True])
def test_no_rows(database: sqlite3.Connection, together: bool) -> None:
    THINGS.run(database, [], together)
    SIZES.run(database, [], together)
    assert things(database) == []


@pytest.mark.parametrize("together", [False, True])
def test_one_row_changed_twice_is_changed_in_order(database: sqlite3.Connection, together: bool) -> None:
    THINGS.run(database, [("a", 1), ("b", 1), ("a", 2)], together)
    SIZES.run(database, [(3, "a"), (0, "b"), (4, "a"), (5, "b")], together)
    assert things(database) == [("a", 4, 4), ("b", 0, 2)]


@pytest.mark.parametrize("name", [name for name, value in vars(statements).items() if isinstance(value, Update)])
def test_many_changes_look_each_row_up_and_read_no_table_through(name: str, tmp_path: Path) -> None:
    statement: Update = getattr(statements, name)
    with Store.open(tmp_path / "s.db") as store:
        sql = statement.sql(3)
        plan = [row[3] for row in store.rows("EXPLAIN QUERY PLAN " + sql, (None,) * sql.count("?"))]
    table = sql.split("UPDATE ")[1].split()[0]
    (way,) = [step for step in plan if table in step]
    assert way.startswith(f"SEARCH {table} USING"), plan


@pytest.mark.parametrize(
    "sql", ["SELECT sum(cost_usd) FROM responses WHERE imported = 0", "SELECT avg(cost_usd) FROM responses"]
)
def test_costs_are_added_up_without_reading_the_answers(sql: str, tmp_path: Path) -> None:
    with Store.open(tmp_path / "s.db") as store:
        (plan,) = [row[3] for row in store.rows("EXPLAIN QUERY PLAN " + sql)]
    assert "COVERING INDEX" in plan

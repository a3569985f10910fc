"""A state of the version before, with answers in it, becomes one of today: the same tables, and nothing is asked again."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from projects import ProjectFolder
from sqlite_utils import Database

from bioforge.store import Store
from bioforge.store.migrations import migrations

HAIKU = """
[recipe.haiku]
needs = ["bio"]
model = "gpt-6-luna"
input = "A haiku of this: {{ bio.text }}"
"""


def schema(connection: sqlite3.Connection) -> dict[str, str]:
    """Every table, index, view and trigger by name, as it was written."""
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {name: " ".join(sql.replace('"', "").split()) for name, sql in rows}


def old_state(path: Path) -> None:
    """An empty state as the version before made it."""
    with closing(Database(str(path))) as database:
        migrations().apply(database, stop_before="0003_richer_recipes")


def as_before(path: Path) -> None:
    """Turn a state into what the version before would have written."""
    old = path.with_name("old.db")
    old_state(old)
    with closing(sqlite3.connect(old, isolation_level=None)) as connection:
        connection.execute("ATTACH ? AS newer", (str(path),))
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            if table == "_sqlite_migrations":
                continue
            columns = ", ".join(f'"{row[1]}"' for row in connection.execute(f"PRAGMA table_info({table})"))
            connection.execute(f"DELETE FROM {table}")
            connection.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM newer.{table}")
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)
    old.rename(path)


@pytest.fixture
def state(project: ProjectFolder) -> Path:
    """Of the version before: three answers, and one that was refused."""
    project.run("run").ok()
    project.run("forget", "3", "--yes").ok()
    as_before(project.root / "bioforge.db")
    assert "follow_ups" not in tables(project)
    return project.root / "bioforge.db"


def tables(project: ProjectFolder) -> set[str]:
    return {row[0] for row in project.rows("SELECT name FROM sqlite_master")}


def test_a_migrated_state_has_the_schema_of_a_fresh_one(tmp_path: Path) -> None:
    old_state(tmp_path / "old.db")
    with Store.open(tmp_path / "old.db") as migrated, Store.open(tmp_path / "fresh.db") as fresh:
        assert schema(migrated.connection) == schema(fresh.connection)
        assert {"note_upstream_changes", "follow_ups", "needed", "upstream_changes"} <= schema(fresh.connection).keys()


def test_answers_and_what_is_known_of_them_stay(project: ProjectFolder, state: Path) -> None:
    kept = "SELECT id, request_hash, text, cost_usd, body FROM responses ORDER BY id"
    shown = "SELECT artist_id, recipe, variant, state, text FROM results ORDER BY artist_id"
    before: list[list[Any]] = [project.rows(kept), project.rows(shown)]
    assert len(before[0]) == 3
    project.run("status").ok()
    assert "follow_ups" in tables(project), "reading migrates too"
    assert [project.rows(kept), project.rows(shown)] == before
    assert project.rows("SELECT DISTINCT answered_by FROM results") == [(None,)]


def test_it_goes_on_and_asks_only_for_what_was_left(project: ProjectFolder, state: Path) -> None:
    assert project.reasons() == {"forgotten": 1}
    project.run("run").ok()
    assert project.charged() == 5
    project.run("run").ok()
    assert project.charged() == 5
    assert project.run("audit").ok().out.splitlines()[-1].startswith("rows paid twice: 0, paid answers lost: 0")


def test_recipes_can_build_on_its_answers(project: ProjectFolder, state: Path) -> None:
    project.configure(more=HAIKU)
    project.run("run", "--select", "1").ok()
    assert project.charged() == 5
    assert project.rows("SELECT state, built_upstream IS NOT NULL FROM results JOIN targets USING (request_hash)"
                        " WHERE results.recipe = 'haiku' AND artist_id = '1'") == [("fresh", 1)]  # fmt: skip
    project.run("run").ok()
    assert project.charged() == 9


def test_migrating_twice_changes_nothing(state: Path) -> None:
    with Store.open(state) as store:
        first = schema(store.connection)
    with Store.open(state) as store:
        assert schema(store.connection) == first
        assert store.value("SELECT count(*) FROM _sqlite_migrations") == 5


def test_a_migration_that_breaks_off_leaves_the_state_as_it_was(state: Path) -> None:
    """A table of this name is in the way: nothing of the migration stays, and nothing is lost."""
    with closing(sqlite3.connect(state)) as connection:
        connection.execute("CREATE TABLE follow_ups (x)")
        before = schema(connection)
    with pytest.raises(sqlite3.OperationalError), Store.open(state):
        pass
    with closing(sqlite3.connect(state)) as connection:
        assert schema(connection) == before
        connection.execute("DROP TABLE follow_ups")
    Store.open(state).close()

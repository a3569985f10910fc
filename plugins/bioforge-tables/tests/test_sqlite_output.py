"""Write results as a SQLite table: all or nothing, with everything else unchanged."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from bioforge_tables import bioforge_writers

from bioforge.plugin import OutputError, Record
from bioforge.testing import MakeProject, record


def write(path: Path, records: Iterable[Record], **options: Any) -> str:
    writer: Any = bioforge_writers()["sqlite-table"]
    said: str = writer(iter(records), path, writer.Options(**options))
    return said


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def refused(path: Path, records: Iterable[Record] = (), **options: Any) -> str:
    with pytest.raises(OutputError) as caught:
        write(path, records, **options)
    return f"{caught.value.message} | {caught.value.hint}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


def test_a_new_database_gets_the_table(path: Path) -> None:
    parsed = {"born": 1965}
    assert write(path, [record(1, parsed=parsed), record(2, None)]) == "2 records in table results"
    assert rows(path, "SELECT artist_id, variant, created, input_tokens, cost_usd, error_class FROM results") == [
        ("a1", "", "2026-05-01T12:00:00+00:00", 10, 0.0001, None),
        ("a2", "", None, None, None, "rate_limit"),
    ]
    ((found, request),) = rows(path, "SELECT parsed, request FROM results WHERE parsed IS NOT NULL")
    assert json.loads(found) == parsed
    assert json.loads(request)["model"] == "gpt-6-luna"
    assert rows(path, "SELECT name FROM pragma_table_info('results') WHERE pk ORDER BY pk") == [
        ("artist_id",),
        ("recipe",),
        ("variant",),
    ]
    assert write(path, [record(1)]) == "1 record in table results"


def test_other_tables_and_what_hangs_on_this_one_stay(path: Path) -> None:
    write(path, [record(1)], table="bios of all")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE notes (text); INSERT INTO notes VALUES ('mine');"
            'CREATE INDEX by_model ON "bios of all" (model);'
            "CREATE TABLE log (id);"
            'CREATE TRIGGER kept AFTER INSERT ON "bios of all" BEGIN INSERT INTO log VALUES (new.artist_id); END;'
        )
    write(path, [record(2), record(3)], table="bios of all")
    assert rows(path, 'SELECT artist_id FROM "bios of all"') == [("a2",), ("a3",)]
    assert rows(path, "SELECT text FROM notes") == [("mine",)]
    assert rows(path, "SELECT id FROM log") == [("a2",), ("a3",)]
    assert rows(path, "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL") == [("by_model",)]


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_readers_see_the_old_rows_until_all_new_ones_are_there(path: Path, mode: str) -> None:
    write(path, [record(1)])
    with closing(sqlite3.connect(path, timeout=0)) as reader:
        reader.execute(f"PRAGMA journal_mode = {mode}")
        seen = []

        def watched() -> Iterator[Record]:
            for number in range(2, 12):
                yield record(number)
                seen.append(reader.execute("SELECT artist_id FROM results").fetchall())

        write(path, watched())
        assert seen == [[("a1",)]] * 10
        assert reader.execute("SELECT count(*) FROM results").fetchall() == [(10,)]
        assert reader.execute("PRAGMA journal_mode").fetchall() == [(mode,)]


def test_a_writer_that_is_killed_leaves_the_old_rows(path: Path) -> None:
    write(path, [record(1)])
    code = f"""
import sys
from pathlib import Path
from bioforge.testing import record
from bioforge_tables import bioforge_writers

def records():
    for number in range(5_000):
        yield record(number, "x" * 2_000)
    print("written", flush=True)
    sys.stdin.read()

writer = bioforge_writers()["sqlite-table"]
writer(records(), Path({str(path)!r}), writer.Options())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"written\n"
        process.kill()
    assert rows(path, "SELECT artist_id FROM results") == [("a1",)]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    assert write(path, [record(2)]) == "1 record in table results"


def test_records_that_break_off_leave_the_old_rows(path: Path) -> None:
    write(path, [record(1)])

    def broken() -> Iterator[Record]:
        yield record(2)
        raise RuntimeError("the state is gone")

    with pytest.raises(RuntimeError, match="the state is gone"):
        write(path, broken())
    assert rows(path, "SELECT artist_id FROM results") == [("a1",)]


def test_a_database_that_others_write_to_is_waited_for_and_named(path: Path) -> None:
    write(path, [record(1)])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert "another process is using it (waited 0.05 s) | the state is intact" in refused(path, timeout=0.05)
        other.execute("ROLLBACK")
    assert write(path, [record(1)], timeout=0) == "1 record in table results"


def test_a_table_with_other_columns_is_not_changed(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE Results (artist, grade); INSERT INTO Results VALUES ('Björk', 1);"
            "CREATE VIEW shown AS SELECT * FROM Results;"
        )
    assert "has a table 'results' with other columns than results of bioforge" in refused(path, [record(1)])
    assert "has a view 'shown' with other columns" in refused(path, [record(1)], table="shown")
    assert rows(path, "SELECT * FROM Results") == [("Björk", 1)]


def test_a_state_of_bioforge_is_never_written_into(make_project: MakeProject) -> None:
    """The writer refuses states of other projects too; bioforge checks only the current one."""
    other = make_project()
    other.run("run").ok()
    project = make_project(toml={"output": [{"path": str(other.root / "bioforge.db"), "writer": "sqlite-table"}]})
    ran = project.run("run").failed(1)
    assert "bioforge.db is a bioforge state file" in ran.err + ran.out
    assert other.value("SELECT type FROM sqlite_master WHERE name = 'results'") == "view"
    other.assert_ledger_equals_state(charges=[name for (name,) in other.rows("SELECT client_request_id FROM attempts")])


def test_a_state_is_recognized_without_its_header(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for table in ("facts", "targets", "attempts", "responses"):
            connection.execute(f"CREATE TABLE {table} (id)")
    assert "is a bioforge state file" in refused(path)


def test_a_file_that_is_not_a_database_is_not_changed(path: Path) -> None:
    path.write_text("artist_name\n" * 200)
    assert "it is not a SQLite database | the state is intact: choose another path" in refused(path)
    assert path.read_text() == "artist_name\n" * 200


def test_a_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "results.db").mkdir()
    assert "unable to open database file" in refused(tmp_path / "results.db")

"""Query SQLite: read-only, one statement, errors with positions."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from pydantic import ValidationError

from bioforge.plugin import Artist, BadRow

Read = Callable[..., list[Artist | BadRow]]

SCHEMA = """
CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, born INTEGER, photo BLOB);
INSERT INTO people VALUES (0, 'Abbey', 1852, NULL), (12, 'Björk', 1965, x'00ff');
CREATE TABLE works (id INTEGER, person INTEGER, title TEXT);
INSERT INTO works VALUES (1, 12, 'Debut'), (2, 12, 'Post');
CREATE VIEW singers AS SELECT id AS artist_id, name AS artist_name FROM people WHERE born > 1900;
"""


@pytest.fixture
def museum(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "museum.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA)
    yield path
    assert sorted(one.name for one in tmp_path.iterdir() if one.name.startswith("museum")) == ["museum.sqlite"]


def test_a_query_makes_the_artists(museum: Path, read: Read) -> None:
    query = """
        SELECT p.id AS artist_id, p.name AS artist_name, p.born, json_group_array(w.title) AS works
        FROM people p LEFT JOIN works w ON w.person = p.id GROUP BY p.id
    """
    before = museum.read_bytes()
    found = read(museum, query=query)
    assert [
        (row.artist_id, row.artist_name, dict(row.columns), row.line) for row in found if isinstance(row, Artist)
    ] == [
        ("0", "Abbey", {"born": 1852, "works": "[null]"}, 1),
        ("12", "Björk", {"born": 1965, "works": '["Debut","Post"]'}, 2),
    ]
    assert museum.read_bytes() == before


def test_a_table_or_view_is_named(museum: Path, read: Read, refused: Callable[..., str]) -> None:
    assert [row.artist_id for row in read(museum, table="singers") if isinstance(row, Artist)] == ["12"]
    (_, bjork) = read(museum, table="people", columns={"artist_id": "id", "artist_name": "name"})
    assert isinstance(bjork, Artist)
    assert dict(bjork.columns) == {"born": 1965, "photo": "AP8="}
    assert "no table 'poeple' | did you mean 'people'?" in refused(museum, table="poeple")
    assert 'museum.sqlite has 2 tables: people, works | choose one under [input]: table = "people"' in refused(museum)


def test_the_only_table_needs_no_name(tmp_path: Path, read: Read, refused: Callable[..., str]) -> None:
    """The internal tables of a full-text index do not count."""
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        assert connection.execute("CREATE VIEW v AS SELECT 'Abbey' AS artist_name")
        assert [row.artist_name for row in read(tmp_path / "a.db") if isinstance(row, Artist)] == ["Abbey"]
        connection.executescript("CREATE TABLE people (artist_name); INSERT INTO people VALUES ('Björk');")
    assert [row.artist_name for row in read(tmp_path / "a.db") if isinstance(row, Artist)] == ["Björk"]
    with closing(sqlite3.connect(tmp_path / "empty.db")) as connection:
        connection.execute("PRAGMA user_version = 1")
    assert "empty.db has no tables" in refused(tmp_path / "empty.db")


def test_query_and_table_together_are_refused(museum: Path, read: Read) -> None:
    with pytest.raises(ValidationError, match="only one of them"):
        read(museum, query="SELECT 1", table="people")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT id,\n  nme FROM people", "query, line 2, column 3: no such column: nme | did you mean 'name'?"),
        ("SELEC id FROM people", 'query, line 1, column 1: near "SELEC": syntax error'),
        ("SELECT * FROM poeple", "query, line 1, column 15: no such table: poeple | did you mean 'people'?"),
        ("SELECT p.brn FROM people p", "column 8: no such column: p.brn | did you mean 'born'?"),
        ("SELECT name, name FROM people", "more than one column 'name'"),
        ("SELECT 1; SELECT 2", "more than one statement"),
        ("DELETE FROM people", "does more than read"),
        ("ATTACH '/tmp/other.db' AS other", "does more than read"),
        ("PRAGMA journal_mode = WAL", "does more than read"),
        ("VACUUM", "does more than read"),
        ("-- nothing", "returns no rows"),
        ("SELECT load_extension('x') AS artist_name", "does more than read"),
    ],
)
def test_an_invalid_query_is_an_error(query: str, said: str, museum: Path, refused: Callable[..., str]) -> None:
    assert said in refused(museum, query=query)


def test_an_error_in_the_middle_says_after_which_row(museum: Path, refused: Callable[..., str]) -> None:
    query = """
        WITH RECURSIVE numbers (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM numbers LIMIT 5)
        SELECT 'A' AS artist_name, abs(CASE n WHEN 3 THEN -9223372036854775807 - 1 ELSE n END) AS n FROM numbers
    """
    assert "reading stopped after row 1: integer overflow" in refused(museum, query=query)


def test_texts_that_are_none_keep_their_row_out(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE people (artist_name, note);"
            "INSERT INTO people VALUES ('A', CAST(x'ff' AS TEXT)), (x'42', 'b'), ('C', 'c'), ('D', 'a' || char(0));"
        )
    found = read(path)
    assert [(row.line, row.message) for row in found if isinstance(row, BadRow)] == [
        (1, "note is not valid UTF-8"),
        (2, "artist_name is bytes, expected text"),
        (4, "note has a NUL character"),
    ]


def test_a_database_in_use_is_read_as_it_is(tmp_path: Path, read: Read) -> None:
    """In WAL mode committed rows are read from the WAL, without waiting for the writer."""
    path = tmp_path / "live.sqlite"
    with closing(sqlite3.connect(path)) as writer:
        writer.executescript("PRAGMA journal_mode = WAL; CREATE TABLE people (artist_name); BEGIN;")
        writer.execute("INSERT INTO people VALUES ('Björk')")
        writer.commit()
        writer.execute("INSERT INTO people VALUES ('not yet')")
        assert [row.artist_name for row in read(path) if isinstance(row, Artist)] == ["Björk"]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="folders are guarded otherwise here")
def test_a_database_in_a_read_only_folder() -> None:
    """A WAL database in a read-only folder is read as immutable."""
    code = """
import os, sys
from pathlib import Path
from bioforge_tables import sqlite
from bioforge_tables.options import DatabaseOptions
path = Path(sys.argv[1])
os.chmod(path.parent, 0o555)
if os.geteuid() == 0:  # root ignores permissions
    os.seteuid(65534)
print(*(row.artist_name for row in sqlite.read(path, path.name, DatabaseOptions())))
"""
    with TemporaryDirectory() as folder:  # parents of pytest's folders are closed to other users
        path = Path(folder, "wal.sqlite")
        with closing(sqlite3.connect(path)) as writer:
            writer.executescript("PRAGMA journal_mode = WAL; CREATE TABLE people (artist_name);")
            writer.execute("INSERT INTO people VALUES ('Bjork')")
            writer.commit()
        run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
        os.chmod(folder, 0o700)
        assert run.stdout == "Bjork\n", run.stderr
        assert os.listdir(folder) == ["wal.sqlite"]


def test_a_file_that_is_not_a_database_is_an_error(tmp_path: Path, museum: Path, refused: Callable[..., str]) -> None:
    content = museum.read_bytes()
    cases: list[tuple[str, bytes, str]] = [
        ("text.sqlite", b"artist_name\nA\n", "is not a SQLite database"),
        ("secret.sqlite", bytes(range(256)) * 16, "that it is a SQLite database without encryption"),
        ("duck.sqlite", b"\0" * 8 + b"DUCK" + b"\0" * 99, 'it looks like a DuckDB database: reader = "duckdb"'),
        ("short.sqlite", content[: len(content) // 2], "is truncated"),
        (
            "odd.sqlite",
            content[:100] + b"\xaa" * (len(content) - 100),
            "cannot be opened: database disk image is malformed",
        ),
    ]
    for name, data, said in cases:
        (tmp_path / name).write_bytes(data)
        assert said in refused(tmp_path / name), name

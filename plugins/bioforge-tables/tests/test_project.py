"""Run projects from each table format; the same artists are never requested twice."""

from __future__ import annotations

import io
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq

from bioforge.testing import MakeProject

ARTISTS: dict[str, list[Any]] = {
    "artist_id": [0, 12, 7],
    "artist_name": ["Abbey, Edwin", "Björk", "Łempicka"],
    "artist_data": ["American painter", "Icelandic singer", None],
}


def parquet() -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(ARTISTS), stream)
    return stream.getvalue()


def test_parquet_in_and_parquet_out(make_project: MakeProject) -> None:
    project = make_project(
        {"artists.parquet": parquet()},
        toml={
            "input": {"path": "artists.parquet"},
            "output": [{"path": "out/bios.parquet"}, {"path": "out/bios.db", "table": "bios"}],
        },
    )
    ran = project.process("run").ok()
    assert "wrote out/bios.parquet (3 records)" in ran.out + ran.err
    assert "wrote out/bios.db (3 records in table bios)" in ran.out + ran.err
    project.assert_ledger_equals_state()
    table = pq.read_table(project.root / "out" / "bios.parquet")
    assert table["artist_id"].to_pylist() == ["0", "12", "7"]
    assert table["artist_name"].to_pylist() == ARTISTS["artist_name"]
    assert all(table["response_text"].to_pylist())
    assert sum(table["cost_usd"].to_pylist()) > 0
    with closing(sqlite3.connect(project.root / "out" / "bios.db")) as connection:
        rows = connection.execute("SELECT artist_id, response_text FROM bios ORDER BY rowid").fetchall()
    assert rows == list(zip(table["artist_id"].to_pylist(), table["response_text"].to_pylist(), strict=True))
    assert project.charged() == 3
    again = project.process("run").ok()
    assert "everything is up to date" in again.out + again.err
    assert project.charged() == 3


def test_the_same_artists_in_another_format_cost_nothing(make_project: MakeProject) -> None:
    """Ids, names and data are equal, so the requests are equal."""
    project = make_project({"artists.parquet": parquet()}, toml={"input": {"path": "artists.parquet"}})
    project.run("run").ok()
    book = openpyxl.Workbook()
    book.active.append(list(ARTISTS))
    for row in zip(*ARTISTS.values(), strict=True):
        book.active.append(row)
    book.save(project.root / "artists.xlsx")
    with closing(sqlite3.connect(project.root / "artists.db")) as connection, connection:
        connection.execute("CREATE TABLE a (artist_id, artist_name, artist_data)")
        connection.executemany("INSERT INTO a VALUES (?, ?, ?)", zip(*ARTISTS.values(), strict=True))
    project.write(
        "plain.csv", 'id,name,data\n0,"Abbey, Edwin",American painter\n12,Björk,Icelandic singer\n7,Łempicka,\n'
    )
    query = "SELECT id AS artist_id, name AS artist_name, data AS artist_data FROM input"
    text = project.read("bioforge.toml")
    for table in (
        'path = "artists.xlsx"',
        'path = "artists.db"',
        f'path = "plain.csv"\nreader = "duckdb"\nquery = "{query}"',
        'path = "artists.parquet"\nreader = "duckdb"',
    ):
        project.write("bioforge.toml", text.replace('path = "artists.parquet"', table))
        assert project.reasons() == {}, table
    project.run("run").ok()
    assert project.charged() == 3


def test_mistakes_in_the_project_file_are_named(make_project: MakeProject) -> None:
    project = make_project({"artists.parquet": parquet()}, toml={"input": {"path": "artists.parquet", "selct": ["a"]}})
    assert "input.selct" in project.run("plan").failed(2).err
    project.edit("bioforge.toml", "selct", "select")
    assert "no column 'a', which is in [input] select" in project.run("plan").failed(2).err
    output = {"path": "out.parquet", "compression": "zip"}
    wrong = make_project({"a.parquet": parquet()}, toml={"input": {"path": "a.parquet"}, "output": [output]})
    assert "compression" in wrong.run("run").failed(2).err
    assert wrong.charged() == 0


def test_bad_rows_are_shown_by_their_row(make_project: MakeProject) -> None:
    book = openpyxl.Workbook()
    for row in (["artist_id", "artist_name"], [1, "Björk"], [2, None]):
        book.active.append(row)
    stream = io.BytesIO()
    book.save(stream)
    project = make_project({"a.xlsx": stream.getvalue()}, toml={"input": {"path": "a.xlsx"}})
    ran = project.run("plan").ok()
    assert "a.xlsx:3" in ran.out + ran.err
    assert "no artist_name" in ran.out + ran.err


def test_no_format_is_imported_before_it_is_needed(tmp_path: Path) -> None:
    """Every command loads the plugin, so loading must not import unused libraries."""
    code = "import sys, bioforge_tables as t; t.bioforge_readers(); t.bioforge_writers(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pyarrow", "duckdb", "openpyxl", "sqlite3"} & set(loaded)


def test_what_stands_only_in_the_write_ahead_log_is_seen(make_project: MakeProject) -> None:
    project = make_project({}, toml={"input": {"path": "artists.sqlite"}})
    with closing(sqlite3.connect(project.root / "artists.sqlite")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        with connection:
            connection.execute("CREATE TABLE a (artist_id, artist_name, artist_data)")
            connection.execute("INSERT INTO a VALUES (1, 'Björk', 'singer')")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        project.age("artists.sqlite")
        project.run("run").ok()
        with connection:
            connection.execute("INSERT INTO a VALUES (2, 'Absalon', '')")
        project.run("run").ok()
        assert project.charged() == 2
    project.run("run").ok()  # closing writes the WAL into the database
    assert project.charged() == 2

"""Write results as a table of a SQLite database, replaced in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from bioforge.plugin import OutputError, Record
from bioforge_tables import records as columns
from bioforge_tables.databases import quoted
from bioforge_tables.options import SQLiteOutputOptions

_STATE_ID = 0x62696F66
_STATE_TABLES = {"facts", "targets", "attempts", "responses"}
"""A bioforge state is recognized by the id in its header or by its tables."""

_KINDS = {columns.TEXT: "TEXT", columns.TIME: "TEXT", columns.INTEGER: "INTEGER", columns.REAL: "REAL"}
_INTACT = "the state is intact"


def write(records: Iterable[Record], path: Path, options: SQLiteOutputOptions) -> str:
    """Replace the rows of the table and nothing else. Other readers see the old rows until the commit.

    An existing table keeps its indexes and triggers. Raises `OutputError` if the file is a bioforge state or not a
    database, stays locked, or has a table of this name with other columns.
    """
    try:
        with closing(sqlite3.connect(path, timeout=options.timeout, isolation_level=None)) as connection:
            _check_not_state(connection, path)
            connection.execute("BEGIN IMMEDIATE")
            try:
                count = _replace(connection, records, path, options.table)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
    except sqlite3.Error as error:
        raise _refused(error, path, options) from error
    return f"{count:,} {'record' if count == 1 else 'records'} in table {options.table}"


def _check_not_state(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if application == _STATE_ID or tables >= _STATE_TABLES:
        raise OutputError(
            f"{path} is a bioforge state file; outputs are not written into it",
            'choose another database, like path = "out/results.db"; to read the state, use its view `results`',
        )


def _replace(connection: sqlite3.Connection, records: Iterable[Record], path: Path, table: str) -> int:
    names = list(columns.COLUMNS)
    found = connection.execute("SELECT type FROM sqlite_master WHERE lower(name) = lower(?)", (table,)).fetchone()
    if found is None:
        connection.execute(_definition(table))
    else:
        there = [row[1] for row in connection.execute(f"PRAGMA table_info({quoted(table)})")]
        if found[0] != "table" or there != names:
            raise OutputError(
                f"{path} has a {found[0]} {table!r} with other columns than results of bioforge; it was not changed",
                'choose another name under [[output]]: table = "bioforge_results"; or rename or drop the existing one',
            )
        connection.execute(f"DELETE FROM {quoted(table)}")
    marks = ", ".join("?" * len(names))
    return connection.executemany(f"INSERT INTO {quoted(table)} VALUES ({marks})", map(columns.row, records)).rowcount


def _definition(table: str) -> str:
    """Return the CREATE TABLE statement, with artist, recipe and variant as key."""
    needed = (*columns.KEY, "artist_name")
    lines = [
        f"  {name} {_KINDS[kind]}{' NOT NULL' if name in needed else ''}" for name, (kind, _) in columns.COLUMNS.items()
    ]
    return (
        f"CREATE TABLE {quoted(table)} (\n" + ",\n".join([*lines, f"  PRIMARY KEY ({', '.join(columns.KEY)})"]) + "\n)"
    )


def _refused(error: sqlite3.Error, path: Path, options: SQLiteOutputOptions) -> OutputError:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return OutputError(
            f"cannot write {path}: another process is using it (waited {options.timeout:g} s)",
            f"{_INTACT}: close that program, or set a longer timeout under [[output]], and run again",
        )
    if name == "SQLITE_NOTADB":
        return OutputError(f"cannot write {path}: it is not a SQLite database", f"{_INTACT}: choose another path")
    if name.startswith("SQLITE_CONSTRAINT"):
        return OutputError(f"cannot write {path}, table {options.table!r}: {error}", "check the triggers of the table")
    return OutputError(f"cannot write {path}: {error}", f"{_INTACT}: fix this and run again")

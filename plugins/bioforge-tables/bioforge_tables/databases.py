"""Reading a `.db` file, which may be one of SQLite or of DuckDB: its first bytes say which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bioforge.plugin import Artist, BadRow, InputError
from bioforge_tables import looks, naming
from bioforge_tables.options import DatabaseOptions, DuckDBOptions


def read(path: Path, source: str, options: DatabaseOptions) -> Iterator[Artist | BadRow]:
    """As `sqlite.read` or `duck.read`."""
    if looks.is_duckdb(path):
        from bioforge_tables import duck

        yield from duck.read(path, source, DuckDBOptions(**options.model_dump()))
    else:
        from bioforge_tables import sqlite

        yield from sqlite.read(path, source, options)


def chosen_table(wanted: str | None, tables: Sequence[str], views: Sequence[str], source: str) -> str:
    """The table to read: the one that is named, else the only one there is. Raises `InputError`."""
    known = [*tables, *views]
    if not known:
        raise InputError(f"{source} has no tables", "is it the right database?")
    if wanted is not None:
        if wanted not in known:
            raise naming.missing(f"{source} has no table {wanted!r}", wanted, known)
        return wanted
    candidates = tables or views
    if len(candidates) > 1:
        raise InputError(
            f"{source} has {len(candidates)} tables: {naming.listed(candidates)}",
            f'say which under [input]: table = "{candidates[0]}", or query = "SELECT …"',
        )
    return candidates[0]


def quoted(name: str) -> str:
    """A name as both databases take it in SQL."""
    return '"' + name.replace('"', '""') + '"'

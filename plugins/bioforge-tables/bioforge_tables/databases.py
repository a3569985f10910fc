"""Read a `.db` file as SQLite or DuckDB, depending on its first bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bioforge.plugin import Artist, BadRow, InputError
from bioforge_tables import column_names, file_kinds
from bioforge_tables.options import DatabaseOptions, DuckDBOptions


def read(path: Path, source: str, options: DatabaseOptions) -> Iterator[Artist | BadRow]:
    """Yield rows as `sqlite.read` or `duck.read` does."""
    if file_kinds.is_duckdb(path):
        from bioforge_tables import duck

        yield from duck.read(path, source, DuckDBOptions(**options.model_dump()))
    else:
        from bioforge_tables import sqlite

        yield from sqlite.read(path, source, options)


def chosen_table(wanted: str | None, tables: Sequence[str], views: Sequence[str], source: str) -> str:
    """Return the named table, or the only one. Raises `InputError`."""
    known = [*tables, *views]
    if not known:
        raise InputError(f"{source} has no tables", "check that it is the right database")
    if wanted is not None:
        if wanted not in known:
            raise column_names.missing(f"{source} has no table {wanted!r}", wanted, known)
        return wanted
    candidates = tables or views
    if len(candidates) > 1:
        raise InputError(
            f"{source} has {len(candidates)} tables: {column_names.listed(candidates)}",
            f'choose one under [input]: table = "{candidates[0]}", or query = "SELECT …"',
        )
    return candidates[0]


def quoted(name: str) -> str:
    """Quote a name for SQL of both databases."""
    return '"' + name.replace('"', '""') + '"'

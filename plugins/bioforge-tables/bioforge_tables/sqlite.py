"""Read one SELECT or one table of a SQLite database, read-only and row by row."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from bioforge.plugin import Artist, BadRow, InputError, RowError, artists, nearest
from bioforge_tables import column_names, file_kinds
from bioforge_tables.databases import chosen_table, quoted
from bioforge_tables.options import DatabaseOptions
from bioforge_tables.values import base64_text

_ALLOWED = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}
"""Allowed actions of a query: no writes, no ATTACH, no settings."""

_NAMED = re.compile(r'^near "(.+)": syntax error|^no such (?:column|table|function): (.+)|^ambiguous column name: (.+)')
_BUSY = 10.0


def read(path: Path, source: str, options: DatabaseOptions) -> Iterator[Artist | BadRow]:
    """Yield the rows of the query or table, read-only. Raises `InputError`."""
    if not file_kinds.head(path).startswith(file_kinds.SQLITE):
        raise InputError(
            f"{source} is not a SQLite database", file_kinds.remedy_for(path, "a SQLite database without encryption")
        )
    if (missing := _missing_bytes(path)) > 0:
        raise InputError(f"{source} is truncated: {missing:,} bytes are missing", "copy the whole file again")
    try:
        connection = _opened(path)
    except sqlite3.Error as error:
        raise InputError(f"{source} cannot be opened: {error}", _remedy(error)) from error
    with closing(connection):
        try:
            query = options.query or f"SELECT * FROM {quoted(_table(connection, options.table, source))}"
            connection.set_authorizer(_authorize)
            connection.text_factory = _text
            cursor = connection.execute(query)
        except sqlite3.Error as error:
            raise _refused(error, connection, options.query, source) from error
        if cursor.description is None:
            raise InputError(f"{source}: [input] query returns no rows", "expected one SELECT")
        names = column_names.checked([column[0] for column in cursor.description], source)
        rows = _numbered(cursor, names, column_names.own_columns(options.columns), source)
        yield from artists(rows, source, options.columns, names)


def _opened(path: Path) -> sqlite3.Connection:
    """Open a connection that cannot write.

    A reader in WAL mode needs to create files beside the database. If it cannot, and there is no WAL file, the
    database is opened as immutable.
    """
    address = path.resolve().as_uri()
    try:
        return _connected(f"{address}?mode=ro")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname.startswith("SQLITE_BUSY") or _has_wal(path):
            raise
    return _connected(f"{address}?mode=ro&immutable=1")


def _connected(address: str) -> sqlite3.Connection:
    connection = sqlite3.connect(address, uri=True, timeout=_BUSY)
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _has_wal(path: Path) -> bool:
    """Return True if the WAL file beside the database has content."""
    wal = path.with_name(f"{path.name}-wal")
    return wal.exists() and wal.stat().st_size > 0


def _missing_bytes(path: Path) -> int:
    """Return the bytes missing from the size in the header. SQLite itself notices only when it reads that part."""
    with path.open("rb") as file:
        header = file.read(100)
    if len(header) < 100 or header[24:28] != header[92:96] or _has_wal(path):
        return 0  # an old SQLite did not store the size, or the WAL has a part
    page = int.from_bytes(header[16:18]) or 1
    return (65_536 if page == 1 else page) * int.from_bytes(header[28:32]) - path.stat().st_size


def _table(connection: sqlite3.Connection, wanted: str | None, source: str) -> str:
    found: dict[str, list[str]] = {"table": [], "view": []}
    shadows = {f"{name}_" for (name,) in connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL TABLE%'"
    )}  # fmt: skip
    for kind, name in connection.execute(
        "SELECT type, name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"
        " ORDER BY name"
    ):
        if not any(name.startswith(shadow) for shadow in shadows):
            found[kind].append(name)
    return chosen_table(wanted, found["table"], found["view"], source)


def _authorize(action: int, *_: str | None) -> int:
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY


class _InvalidText:
    """A placeholder for text that is not valid UTF-8."""


_INVALID_TEXT = _InvalidText()


def _text(value: bytes) -> str | _InvalidText:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return _INVALID_TEXT


def _numbered(
    cursor: sqlite3.Cursor, names: Sequence[str], own: frozenset[str], source: str
) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    line = 0
    try:
        for line, values in enumerate(cursor, 1):
            row: dict[str, Any] = dict(zip(names, values, strict=True))
            flaw: RowError | None = None
            for name, value in row.items():
                if value is _INVALID_TEXT:
                    flaw = flaw or RowError(f"{name} is not valid UTF-8")
                elif isinstance(value, bytes):
                    if name in own:
                        flaw = flaw or RowError(f"{name} is bytes, expected text")
                    row[name] = base64_text(value)
            yield line, flaw or row
    except sqlite3.Error as error:
        place = f"after row {line}" if line else "at its beginning"
        raise InputError(f"{source}: reading stopped {place}: {error}", _remedy(error)) from error


def _refused(error: sqlite3.Error, connection: sqlite3.Connection, query: str | None, source: str) -> InputError:
    """Return the error with its position in the query, if the word it names occurs there once."""
    message = str(error)
    if query is None:
        return InputError(f"{source} cannot be read: {message}", _remedy(error))
    if isinstance(error, sqlite3.ProgrammingError | sqlite3.Warning) and "one statement" in message:
        return InputError(f"{source}: [input] query has more than one statement", "expected one SELECT")
    if message in ("not authorized", "authorization denied") or "prohibited" in message:
        return InputError(f"{source}: [input] query does more than read this database", "expected one SELECT")
    named = _NAMED.match(message)
    word = next(filter(None, named.groups()), "") if named else ""
    hint = _nearest(connection, message, word) or _remedy(error)
    return InputError(f"{source}: [input] query{_place(query, word)}: {message}", hint)


def _place(query: str, word: str) -> str:
    places = [found.start() for found in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", query)] if word else []
    if len(places) != 1:
        return ""
    before = query[: places[0]]
    return f", line {before.count(chr(10)) + 1}, column {places[0] - before.rfind(chr(10))}"


def _nearest(connection: sqlite3.Connection, message: str, word: str) -> str:
    """Suggest existing names for a missing table or column."""
    names = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
    if message.startswith("no such column"):
        names = f"SELECT DISTINCT p.name FROM ({names}) AS m, pragma_table_info(m.name) AS p"
    elif not message.startswith("no such table"):
        return ""
    connection.set_authorizer(None)
    connection.text_factory = str
    try:
        return nearest(word.rpartition(".")[2], [name for (name,) in connection.execute(names)])
    except sqlite3.Error:  # for example a view over a deleted table
        return ""


def _remedy(error: sqlite3.Error) -> str:
    match getattr(error, "sqlite_errorname", ""):
        case "SQLITE_CORRUPT" | "SQLITE_NOTADB" | "SQLITE_IOERR_SHORT_READ":
            return "the file is damaged: copy it again, or save readable rows with `sqlite3 FILE .recover`"
        case "SQLITE_BUSY" | "SQLITE_LOCKED":
            return "another process is writing to it: try again after that has ended"
        case "SQLITE_CANTOPEN":
            return "check the permissions of the file and its folder"
    return "expected one SELECT over its tables"

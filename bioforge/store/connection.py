"""Connections to the state: settings, migrations, and SQLite's errors with their remedies."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bioforge.core.errors import NoSpaceError, StateError
from bioforge.store.migrations import APPLICATION_ID, migrations
from bioforge.store.state_file import open_hint

_MIGRATIONS = "_sqlite_migrations"
"""The table in which sqlite-utils notes applied migrations; created first."""

_WRITER_KB = 24_000
"""Page cache of a writer: answers are written all over the indexes of a large state."""

READER_KB = 8_000
"""Page cache of a reader, which reads pages once and in order; also the size of a sort in memory."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into sentences with a remedy."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if text == "interrupted":  # Ctrl-C came in the middle of a statement
            raise KeyboardInterrupt from None
        if "disk is full" in text:
            raise NoSpaceError(
                f"{path}: {text}", "free some space and run again; everything committed so far is kept"
            ) from None
        if "disk I/O error" in text or "locking protocol" in text:
            raise NoSpaceError(
                f"{path}: {text}",
                "the disk is full, damaged or a network disk: free some space or keep the state on a local disk, and run"
                " again; everything committed so far is kept",
            ) from None
        if "readonly" in text or "unable to open" in text:
            raise StateError(f"{path}: {text}", open_hint("check the permissions of the file and its folder")) from None
        if "locked" in text:
            raise StateError(
                f"{path}: {text}", "another program holds the file; close it (a GUI browser?) and run again"
            ) from None
        if "malformed" in text:
            raise damaged(path, text) from None
        if "file format" in text:
            raise StateError(
                f"{path}: {text}", "the file is damaged, or of another kind; it was left as it is"
            ) from None
        raise
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
            raise
        if "malformed" in str(error):
            raise damaged(path, str(error)) from None
        raise StateError(
            f"{path}: {error}", "the file is no SQLite database or is damaged; it was left as it is"
        ) from None


def damaged(path: Path, found: str) -> StateError:
    """Return the error for damaged pages, with a remedy."""
    return StateError(
        f"{path}: the state is damaged: {found}",
        f"restore it from a backup, or save what can be read: `sqlite3 {path} .recover | sqlite3 recovered.db`",
    )


def connect(path: Path, *, read_only: bool, immutable: bool = False) -> sqlite3.Connection:
    """Open a connection. `immutable` reads the file without its log, in a folder that cannot be written."""
    real = path.resolve()
    uri = real.as_uri() + ("?mode=ro&immutable=1" if immutable else "?mode=ro" if read_only else "")
    with explained(path):
        connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, timeout=60.0, cached_statements=256, check_same_thread=False
        )
    try:
        with explained(path):
            # lets Python look at signals while a long statement runs
            connection.set_progress_handler(lambda: 0, 1_000_000)
            connection.execute(f"PRAGMA cache_size = -{READER_KB if read_only else _WRITER_KB}")
            connection.execute("PRAGMA temp_store = FILE")
            # a foreign file is refused before it is touched
            connection.execute("SELECT count(*) FROM sqlite_master")
    except BaseException as error:
        connection.close()
        if isinstance(error, StateError) and read_only and not immutable and _is_whole(real):
            return connect(path, read_only=True, immutable=True)
        raise
    return connection


def _is_whole(real: Path) -> bool:
    """Return True for a state without a log in a folder that cannot be written, where SQLite cannot share memory."""
    wal = Path(f"{real}-wal")
    return not os.access(real.parent, os.W_OK) and not (wal.exists() and wal.stat().st_size)


def refuse_foreign(path: Path, connection: sqlite3.Connection) -> None:
    """Raise `StateError` for a database of another program."""
    (ours,) = connection.execute("PRAGMA application_id").fetchone()
    if ours == APPLICATION_ID:
        return
    tables = {name for (name,) in connection.execute("SELECT tbl_name FROM sqlite_master")}
    if not tables or (tables == {_MIGRATIONS} and not connection.execute(f"SELECT 1 FROM {_MIGRATIONS}").fetchone()):
        return  # nothing is in it, or its making was cut off before anything was
    raise StateError(f"{path}: this SQLite file was not made by bioforge", "name another file as `state` in [project]")


def is_outdated(path: Path, connection: sqlite3.Connection) -> bool:
    """Return True if migrations are pending. Raises `StateError` for a file of a newer version."""
    from sqlite_utils import Database

    known = migrations()
    database = Database(connection)
    applied = {migration.name for migration in known.applied(database)} if _has_migrations(connection) else set()
    names = {migration.name for migration in known.pending(database)} | applied
    unknown = applied - _names()
    if unknown:
        raise StateError(
            f"{path}: written by a newer bioforge (it has {', '.join(sorted(unknown))})",
            "upgrade bioforge: `pip install -U bioforge-llm`; the file was left as it is",
        )
    return bool(names - applied)


def _has_migrations(connection: sqlite3.Connection) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (_MIGRATIONS,)).fetchone()
    return found is not None


def _names() -> set[str]:
    from sqlite_utils import Database

    memory = Database(memory=True)
    try:
        return {migration.name for migration in migrations().pending(memory)}
    finally:
        memory.close()


def initialize(path: Path, connection: sqlite3.Connection, finish: Callable[[], None]) -> None:
    """Complete what a killed process left, so that migrations find a consistent file, and apply migrations."""
    from sqlite_utils import Database

    with explained(path):
        refuse_foreign(path, connection)
        if connection.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
            connection.execute(
                f"PRAGMA application_id = {APPLICATION_ID}"
            )  # first: what is cut off from here on is ours
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StateError(
                f"{path}: its file system cannot share memory between processes (a network disk?)",
                "name a file on a local disk as `state` in [project]",
            )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = OFF")  # the tables outlive what they point to, on purpose
        outdated = is_outdated(path, connection)  # a newer file is refused before anything in it is changed
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'facts'").fetchone() is not None:
            finish()
        if outdated:
            migrations().apply(Database(connection))

"""The record of deliveries: a SQLite file with the newest delivery of each result, written before the next post."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from bioforge.plugin import OutputError
from bioforge_webhook.messages import Content, Delivery

_APPLICATION = 0x42465748  # "BFWH", identifies the file
_VERSION = 1
_SCHEMA = """
CREATE TABLE deliveries (
  target TEXT PRIMARY KEY,
  content TEXT NOT NULL,
  revision INTEGER NOT NULL,
  id TEXT NOT NULL,
  artist_id TEXT NOT NULL,
  recipe TEXT NOT NULL,
  variant TEXT NOT NULL,
  delivered_at TEXT NOT NULL,
  status INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE failures (
  id TEXT PRIMARY KEY,
  artist_id TEXT NOT NULL,
  recipe TEXT NOT NULL,
  variant TEXT NOT NULL,
  failed_at TEXT NOT NULL,
  attempts INTEGER NOT NULL,
  error TEXT NOT NULL
) WITHOUT ROWID;
"""


@contextmanager
def open_record(path: Path) -> Iterator[DeliveryRecord]:
    """Open or create the record at `path` and lock it for this process; other processes may read it.

    Raises OutputError if the file is something else, is locked, or cannot be opened or written.
    """
    lock = FileLock(f"{path.resolve()}.lock")  # resolve links, so that one file has one lock
    with _output_errors(path):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise OutputError(
                f"another process is delivering with the record {path}", "wait until it has ended, then run again"
            ) from None
    try:
        with _output_errors(path):
            connection = sqlite3.connect(path, isolation_level=None)
        with closing(connection):
            with _output_errors(path):
                _prepare(path, connection)
            yield DeliveryRecord(path, connection)
    finally:
        lock.release()


@contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise OutputError(
            f"cannot use the record of deliveries {path}: {getattr(error, 'strerror', None) or error}",
            "the state is intact; the next run posts unrecorded deliveries again",
        ) from error


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    try:
        application, version, tables = (
            connection.execute(sql).fetchone()[0]
            for sql in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
        )
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        application, version, tables = 0, 0, 1
    if tables and application != _APPLICATION:
        raise OutputError(f"{path} exists and is not a record of deliveries", "choose another path for this output")
    if version > _VERSION:
        raise OutputError(f"{path} was written by a newer bioforge-webhook", "pip install -U bioforge-webhook")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    if not tables:
        connection.executescript(
            f"BEGIN; PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_VERSION}; {_SCHEMA} COMMIT;"
        )


class DeliveryRecord:
    """The open record; used by one thread. Each method's writes are on disk when it returns."""

    def __init__(self, path: Path, connection: sqlite3.Connection, now: Callable[[], datetime] | None = None) -> None:
        self.path = path
        self._connection = connection
        self._now = now or (lambda: datetime.now(UTC))

    def begin(self) -> None:
        """Delete the failures of the last run, which are tried again.

        Also checks that the file is writable before anything is posted.
        """
        with _output_errors(self.path):
            self._connection.execute("DELETE FROM failures")

    def revision(self, content: Content) -> int | None:
        """Return the number of earlier deliveries for the target; None if the newest has the same content."""
        with _output_errors(self.path):
            found = self._connection.execute(
                "SELECT content, revision FROM deliveries WHERE target = ?", (content.target,)
            ).fetchone()
        if found is None:
            return 0
        return None if found[0] == content.digest else int(found[1]) + 1

    def mark_in_flight(self, deliveries: Iterable[Delivery]) -> None:
        """Clear the stored content of changed targets before they are posted.

        Until the outcome is known the receiver may have either version, so an answer that changes back is posted too.
        """
        changes = [(one.target,) for one in deliveries if one.revision]
        if changes:
            with _output_errors(self.path), self._transaction():
                self._connection.executemany("UPDATE deliveries SET content = '' WHERE target = ?", changes)

    def delivered(self, deliveries: Iterable[Delivery], status: int) -> None:
        now = self._now().isoformat(timespec="seconds")
        self._insert(
            "deliveries", [(one.target, one.digest, one.revision, *_key(one), now, status) for one in deliveries]
        )

    def failed(self, deliveries: Iterable[Delivery], attempts: int, error: str) -> None:
        now = self._now().isoformat(timespec="seconds")
        self._insert("failures", [(*_key(one), now, attempts, error) for one in deliveries])

    def _insert(self, table: str, rows: list[tuple[object, ...]]) -> None:
        marks = ", ".join("?" * len(rows[0]))
        with _output_errors(self.path), self._transaction():
            self._connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", rows)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def _key(one: Delivery) -> tuple[str, str, str, str]:
    """Return id, artist, recipe and variant as SQLite can store them: a lone surrogate becomes `?`."""
    artist_id, recipe, variant = (
        text.encode(errors="replace").decode() for text in (one.artist_id, one.recipe, one.variant)
    )
    return one.id, artist_id, recipe, variant

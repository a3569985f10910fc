"""The record of deliveries: a small SQLite file that knows what was delivered, durable before the next step."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from bioforge.plugin import OutputError
from bioforge_webhook.messages import Content, Delivery

_APPLICATION = 0x42465748  # "BFWH": whose file it is
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
    """The record at `path`, made where there is none, for this process alone as long as the block lasts.

    Others may read it meanwhile. Raises OutputError for a file that is something else, and for whatever SQLite or the
    operating system refuses.
    """
    lock = FileLock(f"{path.resolve()}.lock")  # two names of one file are one file
    with _refusals(path):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise OutputError(
                f"{path}: another process is delivering with this record", "wait until it has ended, then run again"
            ) from None
    try:
        with _refusals(path):
            connection = sqlite3.connect(path, isolation_level=None)
        with closing(connection):
            with _refusals(path):
                _prepare(path, connection)
            yield DeliveryRecord(path, connection)
    finally:
        lock.release()


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise OutputError(
            f"cannot keep the record of deliveries in {path}: {getattr(error, 'strerror', None) or error}",
            "the state is intact; what could not be recorded is posted again by the next run",
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
        raise OutputError(f"{path} exists and is no record of deliveries", "give the output a path of its own")
    if version > _VERSION:
        raise OutputError(f"{path} was made by a newer bioforge-webhook", "pip install -U bioforge-webhook")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    if not tables:
        connection.executescript(
            f"BEGIN; PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_VERSION}; {_SCHEMA} COMMIT;"
        )


class DeliveryRecord:
    """Used by one thread. What a method has written is on the disk when it returns."""

    def __init__(self, path: Path, connection: sqlite3.Connection, now: Callable[[], datetime] | None = None) -> None:
        self.path = path
        self._connection = connection
        self._now = now or (lambda: datetime.now(UTC))

    def begin(self) -> None:
        """Forget the failures of the run before: they are tried again.

        Shows also that the file can be written to, before anything is posted.
        """
        with _refusals(self.path):
            self._connection.execute("DELETE FROM failures")

    def revision(self, told: Content) -> int | None:
        """How often something was delivered about its target before; None where the last was exactly this."""
        with _refusals(self.path):
            found = self._connection.execute(
                "SELECT content, revision FROM deliveries WHERE target = ?", (told.target,)
            ).fetchone()
        if found is None:
            return 0
        return None if found[0] == told.digest else int(found[1]) + 1

    def sending(self, deliveries: Iterable[Delivery]) -> None:
        """Before something is posted that changes what was delivered: from now on nobody knows what the receiver has.

        And an answer that changes back must be posted too.
        """
        changes = [(one.target,) for one in deliveries if one.revision]
        if changes:
            with _refusals(self.path), self._transaction():
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
        with _refusals(self.path), self._transaction():
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
    """Half of a surrogate pair, which SQLite cannot hold, is `?`; the id is made of the texts as they are."""
    artist_id, recipe, variant = (
        text.encode(errors="replace").decode() for text in (one.artist_id, one.recipe, one.variant)
    )
    return one.id, artist_id, recipe, variant

"""Open the state file: durability, migrations, one writer at a time, and clear refusals."""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import fmean, median_low
from types import TracebackType
from typing import Any, Self

from bioforge.core.errors import StateError, StateMovedError
from bioforge.core.interfaces import Step, run_inline
from bioforge.store.connection import READER_KB, connect, damaged, explained, initialize, is_outdated, refuse_foreign
from bioforge.store.state_file import StateFile, check_kind

_DEFERRED = "index put off "
"""Prefix of a fact's name: the SQL that builds a deferred index."""


_LONG_LOG = 8_000
"""Pages of 4 KB in the write-ahead log while rows are written that could be derived again."""

_QUICKLY_CHECKED = 32_000_000
"""Bytes of a state whose pages are checked at each opening."""

_OUTLIER = 10
"""Multiple of the median that a number counts for in averages, at most: a single wrong one must not ruin them."""


class Store:
    """An open state file. A writer holds a lock that the system releases however the process ends."""

    def __init__(self, path: Path, connection: sqlite3.Connection, file: StateFile | None) -> None:
        self.path = path
        self.connection = connection
        self._file = file

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open for writing; create or migrate the file as needed.

        Raises `StateError` if another process is writing (named), or the file is newer, foreign, damaged or
        not writable.
        """
        file = StateFile.acquire(path, cls._build, lambda: _holder(path))
        try:
            return cls._opened(path, file)
        except BaseException:
            file.close()
            raise

    @classmethod
    def _opened(cls, path: Path, file: StateFile | None) -> Self:
        connection = connect(path, read_only=False)
        try:
            store = cls(path, connection, file)
            store.check_if_small()
            initialize(path, connection, store.build_indexes)
        except BaseException:
            connection.close()
            raise
        return store

    @classmethod
    def _build(cls, path: Path) -> None:
        """Make a new, complete state."""
        cls._opened(path, None).close()

    @classmethod
    def read(cls, path: Path) -> Self:
        """Open for reading, also while another process writes. Raises `StateError` if there is no state yet."""
        check_kind(path)
        if not path.exists():
            raise StateError(f"{path}: there is no state yet", "`bioforge run` or `bioforge plan` creates it")
        connection = connect(path, read_only=True)
        try:
            with explained(path):
                refuse_foreign(path, connection)
                outdated = is_outdated(path, connection)
        except BaseException:
            connection.close()
            raise
        if outdated:
            connection.close()
            cls.open(path).close()
            connection = connect(path, read_only=True)
        store = cls(path, connection, None)
        try:
            store.check_if_small()
        except BaseException:
            connection.close()
            raise
        return store

    def close(self) -> None:
        try:
            self.check_place()
            moved = self._file is not None and self._file.moved
        except StateMovedError:
            moved = True
        if moved:  # SQLite would leave the last answers in a log at the old place
            with suppress(StateError, sqlite3.Error):
                self.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        self.connection.close()
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Make everything inside durable together, or nothing of it."""
        with explained(self.path):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    def write(self, prepare: Callable[[], Step], commit: Callable[[Step], None] = run_inline) -> None:
        """Run a transaction whose prepared step and commit go through `commit`, perhaps on another thread.

        It is durable when this returns; until then nothing else may use the connection.
        """
        if commit is run_inline:
            with self.transaction():
                prepare()()
            return
        connection = self.connection

        def finish() -> None:
            step()
            connection.execute("COMMIT")

        with explained(self.path):
            connection.execute("BEGIN IMMEDIATE")
            try:
                step = prepare()
                commit(finish)
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def relaxed_sync(self) -> Iterator[None]:
        """Relax durability for data that can be derived again: input and plans.

        Transactions stay whole and ordered, but a power cut may lose the last ones; a later durable commit
        includes them.
        """
        with explained(self.path):
            self.connection.execute("PRAGMA synchronous = NORMAL")
            # pages that are written again and again are copied into the file, and waited for, less often
            self.connection.execute(f"PRAGMA wal_autocheckpoint = {_LONG_LOG}")
        try:
            yield
        finally:
            with explained(self.path):
                self.connection.execute("PRAGMA wal_autocheckpoint = 1000")
                self.connection.execute("PRAGMA synchronous = FULL")

    def defer_index(self, index: str) -> None:
        """Drop an index that many new rows would update in random order.

        `build_indexes` builds it from all of them at once.

        If the process ends before that, the next writer builds it.
        """
        with self.transaction() as connection:
            found = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'index' AND name = ?", (index,))
            if (row := found.fetchone()) is not None:
                connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (_DEFERRED + index, row[0]))
                connection.execute(f"DROP INDEX {index}")

    def build_indexes(self) -> None:
        """Build the deferred indexes."""
        for name, sql in self.rows("SELECT name, value FROM facts WHERE name GLOB ?", (_DEFERRED + "*",)):
            with self.limited_sort(), self.transaction() as connection:
                connection.execute(sql)
                connection.execute("DELETE FROM facts WHERE name = ?", (name,))

    @contextmanager
    def limited_sort(self) -> Iterator[None]:
        """Limit the memory of a large sort to the page cache, for statements that order a million rows."""
        before = self.value("PRAGMA cache_size")
        self.rows(f"PRAGMA cache_size = -{READER_KB}")
        try:
            yield
        finally:
            self.rows(f"PRAGMA cache_size = {before}")

    def reserve_space(self, size: int) -> None:
        """Reserve disk space for answers that arrive when the disk is full. Raises `NoSpaceError` if it is full."""
        if self._file is not None:
            self._file.reserve_space(size)

    def free_reserved_space(self) -> bool:
        """Free the reserved disk space. Return False if there was none."""
        return self._file is not None and self._file.free_reserved_space()

    def check_place(self) -> None:
        """Raise `StateMovedError`, once, if the state was moved, deleted or replaced since it was opened."""
        if self._file is not None:
            self._file.check_place()

    def secure(self) -> str:
        """Complete a moved or replaced file, save a copy of a deleted one, and return a sentence that names it."""
        assert self._file is not None
        self.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        place = self._file.location()
        if place == self._file.real:
            return f"all answers are in {place}: run again"
        if place is not None:
            return f"all answers of this run are in {place}: move it back to {self.path}, then run again"
        copy = self._file.create_copy()
        self.rows("VACUUM INTO ?", (str(copy),))
        return f"all answers of this run are in {copy}: `mv {copy} {self._file.real}` brings them back; then run again"

    def rows(self, sql: str, parameters: Sequence[object] | dict[str, object] = ()) -> list[Any]:
        with explained(self.path):
            return self.connection.execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Sequence[object] | dict[str, object] = ()) -> Any:
        """Return the first row, or None."""
        with explained(self.path):
            return self.connection.execute(sql, parameters).fetchone()

    def value(self, sql: str, parameters: Sequence[object] | dict[str, object] = ()) -> Any:
        """Return the first column of the first row, or None."""
        row = self.row(sql, parameters)
        return None if row is None else row[0]

    def limited_average(self, sql: str) -> float | None:
        """Return the average of the numbers that a query selects, each limited to ten times their median."""
        numbers = [row[0] for row in self.rows(sql) if row[0] is not None]
        return fmean(limit_outliers(numbers)) if numbers else None

    def check_if_small(self) -> None:
        """Check the pages of a file of at most 32 MB, which takes no noticeable time."""
        if self.path.stat().st_size <= _QUICKLY_CHECKED:
            self.check_pages()

    def check_pages(self) -> None:
        """Raise `StateError` for damaged pages. Reads the whole file (about 1 s per GB)."""
        found = self.value("PRAGMA quick_check(1)")
        if found != "ok":
            raise damaged(self.path, str(found).replace("\n", " "))

    def vacuum(self) -> None:
        """Return the space of deleted rows to the disk."""
        with explained(self.path):
            self.connection.execute("VACUUM")

    def fact(self, name: str) -> int:
        return int(self.value("SELECT value FROM facts WHERE name = ?", (name,)) or 0)

    def set_fact(self, name: str) -> None:
        with self.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO facts VALUES (?, 1)", (name,))

    def next_id(self, table: str) -> int:
        """Return the next free id.

        Ids are assigned here, so that whole groups are inserted at once; only one process writes.
        """
        return int(self.value("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)) or 0) + 1


def limit_outliers(numbers: Sequence[float]) -> list[float]:
    """Return the numbers, each limited to ten times their median."""
    most = _OUTLIER * median_low(numbers) if numbers else 0
    return [min(number, most) for number in numbers]


def bump_results(connection: sqlite3.Connection) -> None:
    """Note that the content of the outputs has changed."""
    connection.execute("UPDATE facts SET value = value + 1 WHERE name = 'results_version'")


def _holder(path: Path) -> str:
    """Describe the process that writes, from the newest run in the state."""
    try:
        with Store(path, connect(path, read_only=True), None) as store:
            row = store.row("SELECT command, pid, host, started_at FROM runs WHERE ended_at IS NULL ORDER BY id DESC")
    except (StateError, sqlite3.Error):
        row = None
    if row is None:
        return "another bioforge process"
    command, pid, host, started = row
    where = f"process {pid}" + ("" if host == socket.gethostname() else f" on {host}")
    return f"`bioforge {command}`, {where}, since {time.strftime('%H:%M:%S', time.localtime(started))}"


def identity() -> tuple[int, str]:
    """Return process id and host name of this process."""
    return os.getpid(), socket.gethostname()

"""Open the state file: durability, migrations, one writer at a time, and clear refusals."""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bioforge.core.errors import NoSpaceError, StateError, StateMovedError
from bioforge.core.interfaces import Step, run_inline
from bioforge.store.migrations import APPLICATION_ID, migrations
from bioforge.store.state_file import StateFile, check_kind, open_hint

_MIGRATIONS = "_sqlite_migrations"
"""The table in which sqlite-utils notes applied migrations; created first."""

_DEFERRED = "index put off "
"""Prefix of a fact's name: the SQL that builds a deferred index."""


_WRITER_KB = 24_000
"""Page cache of a writer: answers are written all over the indexes of a large state."""

_LONG_LOG = 8_000
"""Pages of 4 KB in the write-ahead log while rows are written that could be derived again."""

_QUICKLY_CHECKED = 32_000_000
"""Bytes of a state whose pages are checked at each opening."""

_READER_KB = 8_000
"""Page cache of a reader, which reads pages once and in order; also the size of a sort in memory."""


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
        connection = _connect(path, read_only=False)
        try:
            store = cls(path, connection, file)
            store.check_if_small()
            _prepare(path, connection, store.build_indexes)
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
        connection = _connect(path, read_only=True)
        try:
            with _explained(path):
                _refuse_foreign(path, connection)
                pending = _pending(path, connection)
        except BaseException:
            connection.close()
            raise
        if pending:
            connection.close()
            cls.open(path).close()
            connection = _connect(path, read_only=True)
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
        with _explained(self.path):
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

        with _explained(self.path):
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
        with _explained(self.path):
            self.connection.execute("PRAGMA synchronous = NORMAL")
            # pages that are written again and again are copied into the file, and waited for, less often
            self.connection.execute(f"PRAGMA wal_autocheckpoint = {_LONG_LOG}")
        try:
            yield
        finally:
            with _explained(self.path):
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
        self.rows(f"PRAGMA cache_size = -{_READER_KB}")
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
        with _explained(self.path):
            return self.connection.execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Sequence[object] | dict[str, object] = ()) -> Any:
        """Return the first row, or None."""
        with _explained(self.path):
            return self.connection.execute(sql, parameters).fetchone()

    def value(self, sql: str, parameters: Sequence[object] | dict[str, object] = ()) -> Any:
        """Return the first column of the first row, or None."""
        row = self.row(sql, parameters)
        return None if row is None else row[0]

    def check_if_small(self) -> None:
        """Check the pages of a file of at most 32 MB, which takes no noticeable time."""
        if self.path.stat().st_size <= _QUICKLY_CHECKED:
            self.check_pages()

    def check_pages(self) -> None:
        """Raise `StateError` for damaged pages. Reads the whole file (about 1 s per GB)."""
        found = self.value("PRAGMA quick_check(1)")
        if found != "ok":
            raise _damaged(self.path, str(found).replace("\n", " "))

    def vacuum(self) -> None:
        """Return the space of deleted rows to the disk."""
        with _explained(self.path):
            self.connection.execute("VACUUM")

    def fact(self, name: str) -> int:
        return int(self.value("SELECT value FROM facts WHERE name = ?", (name,)) or 0)

    def next_id(self, table: str) -> int:
        """Return the next free id.

        Ids are assigned here, so that whole groups are inserted at once; only one process writes.
        """
        return int(self.value("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)) or 0) + 1


def bump_results(connection: sqlite3.Connection) -> None:
    """Note that the content of the outputs has changed."""
    connection.execute("UPDATE facts SET value = value + 1 WHERE name = 'results_version'")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
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
            raise _damaged(path, text) from None
        if "file format" in text:
            raise StateError(
                f"{path}: {text}", "the file is damaged, or of another kind; it was left as it is"
            ) from None
        raise
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
            raise
        if "malformed" in str(error):
            raise _damaged(path, str(error)) from None
        raise StateError(
            f"{path}: {error}", "the file is no SQLite database or is damaged; it was left as it is"
        ) from None


def _damaged(path: Path, found: str) -> StateError:
    return StateError(
        f"{path}: the state is damaged: {found}",
        f"restore it from a backup, or save what can be read: `sqlite3 {path} .recover | sqlite3 recovered.db`",
    )


def _connect(path: Path, *, read_only: bool, immutable: bool = False) -> sqlite3.Connection:
    """Open a connection. `immutable` reads the file without its log, in a folder that cannot be written."""
    real = path.resolve()
    uri = real.as_uri() + ("?mode=ro&immutable=1" if immutable else "?mode=ro" if read_only else "")
    with _explained(path):
        connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, timeout=60.0, cached_statements=256, check_same_thread=False
        )
    try:
        with _explained(path):
            # lets Python look at signals while a long statement runs
            connection.set_progress_handler(lambda: 0, 1_000_000)
            connection.execute(f"PRAGMA cache_size = -{_READER_KB if read_only else _WRITER_KB}")
            connection.execute("PRAGMA temp_store = FILE")
            # a foreign file is refused before it is touched
            connection.execute("SELECT count(*) FROM sqlite_master")
    except BaseException as error:
        connection.close()
        if isinstance(error, StateError) and read_only and not immutable and _is_whole(real):
            return _connect(path, read_only=True, immutable=True)
        raise
    return connection


def _is_whole(real: Path) -> bool:
    """Return True for a state without a log in a folder that cannot be written, where SQLite cannot share memory."""
    wal = Path(f"{real}-wal")
    return not os.access(real.parent, os.W_OK) and not (wal.exists() and wal.stat().st_size)


def _refuse_foreign(path: Path, connection: sqlite3.Connection) -> None:
    (ours,) = connection.execute("PRAGMA application_id").fetchone()
    if ours == APPLICATION_ID:
        return
    tables = {name for (name,) in connection.execute("SELECT tbl_name FROM sqlite_master")}
    if not tables or (tables == {_MIGRATIONS} and not connection.execute(f"SELECT 1 FROM {_MIGRATIONS}").fetchone()):
        return  # nothing is in it, or its making was cut off before anything was
    raise StateError(f"{path}: this SQLite file was not made by bioforge", "name another file as `state` in [project]")


def _pending(path: Path, connection: sqlite3.Connection) -> bool:
    from sqlite_utils import Database

    known = migrations()
    database = Database(connection)
    applied = {migration.name for migration in known.applied(database)} if _has_migrations(connection) else set()
    names = {migration.name for migration in known.pending(database)} | applied
    unknown = applied - _names()
    if unknown:
        raise StateError(
            f"{path}: written by a newer bioforge (it has {', '.join(sorted(unknown))})",
            "upgrade bioforge: `pip install -U bioforge`; the file was left as it is",
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


def _prepare(path: Path, connection: sqlite3.Connection, finish: Callable[[], None]) -> None:
    """Complete what a killed process left, so that migrations find a consistent file, and apply migrations."""
    from sqlite_utils import Database

    with _explained(path):
        _refuse_foreign(path, connection)
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
        outdated = _pending(path, connection)  # a newer file is refused before anything in it is changed
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'facts'").fetchone() is not None:
            finish()
        if outdated:
            migrations().apply(Database(connection))


def _holder(path: Path) -> str:
    """Describe the process that writes, from the newest run in the state."""
    try:
        with Store(path, _connect(path, read_only=True), None) as store:
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

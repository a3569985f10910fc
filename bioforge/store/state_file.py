"""The state file on disk: its kind, its lock, its place during a run, and the space kept free beside it."""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bioforge.core.errors import NoSpaceError, StateError, StateMovedError
from bioforge.core.files import create_private, sync_folder

if TYPE_CHECKING:
    from filelock import BaseFileLock

_LOCKED_BYTE = 1 << 60
"""Offset of the byte that a writer locks, far beyond the bytes that SQLite locks itself."""

_PIECE = 1 << 20


class StateFile:
    """The state file of one writer: locked until it is closed, however the process ends.

    `bioforge.db.lock` is locked, and a byte of the database too: other names of the file and a removed lock file do not
    let a second writer in.
    """

    def __init__(self, path: Path, lock: BaseFileLock, descriptor: int) -> None:
        self.path = Path(os.path.abspath(path))  # the program may change its folder
        self.real = path.resolve()
        self._lock = lock
        self._descriptor = descriptor
        found = os.fstat(descriptor)
        self._identity = (found.st_dev, found.st_ino)
        self.moved = False
        """True once `check_place` has raised."""

    @classmethod
    def acquire(cls, path: Path, build: Callable[[Path], None], holder: Callable[[], str]) -> Self:
        """Lock the file; `build` makes a new one under another name first if there is none.

        Raises `StateError` if another process writes (`holder` describes it), or the file cannot be used.
        """
        check_kind(path, to_write=True)
        lock = _lock_beside(path, holder)
        try:
            real = path.resolve()
            if not real.exists():
                _create(real, build)
            try:
                descriptor = os.open(real, os.O_RDWR)
            except OSError as error:
                raise StateError(f"{path}: cannot be written: {error.strerror}", _remedy(error)) from None
            try:
                _lock_database(path, descriptor, holder)
                return cls(path, lock, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
        except BaseException:
            lock.release()
            raise

    def close(self) -> None:
        """Release both locks. SQLite's connections must be closed before: closing a file drops their locks."""
        self.free_reserved_space()
        os.close(self._descriptor)
        self._lock.release()

    def check_place(self) -> None:
        """Raise `StateMovedError`, once, if the path leads to another file than the open one or its log is gone."""
        if self.moved:
            return
        try:
            found = os.stat(self.path)
        except OSError:
            problem = f"{self.path}: the state was moved or deleted during the run"
        else:
            problem = ""
            if (found.st_dev, found.st_ino) != self._identity:
                problem = f"{self.path}: the state was replaced by another file during the run"
            elif not os.path.exists(f"{self.real}-wal"):
                problem = f"{self.path}-wal was removed during the run"
        if problem:
            self.moved = True
            raise StateMovedError(problem)

    def location(self) -> Path | None:
        """Return the present path of the open file; None if it was deleted or is unknown."""
        place = None
        with suppress(OSError):
            place = Path(os.readlink(f"/proc/self/fd/{self._descriptor}"))
        for path in (self.real, place):
            with suppress(OSError):
                if path is not None and (found := path.stat()) and (found.st_dev, found.st_ino) == self._identity:
                    return path
        return None

    def create_copy(self) -> Path:
        """Create an empty file for a copy of a deleted state: beside it, or else in the folder for temporary files."""
        path = Path(f"{self.real}-rescued")
        with suppress(OSError):
            os.close(create_private(path))
            return path
        descriptor, name = tempfile.mkstemp("-rescued", "bioforge-")
        os.close(descriptor)
        return Path(name)

    def reserve_space(self, size: int) -> None:
        """Reserve disk space for answers that arrive when the disk is full. Raises `NoSpaceError` if it is full."""
        try:
            with suppress(FileNotFoundError):
                self._room.unlink()  # a killed run left it, or it is a link
            with os.fdopen(create_private(self._room), "wb") as stream:
                for _ in range(0, size, _PIECE):
                    stream.write(bytes(_PIECE))  # a hole would hold nothing
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            self.free_reserved_space()
            raise NoSpaceError(
                f"{self._room}: {size / 1e6:.0f} MB cannot be kept free for answers: {error.strerror or error}",
                "free some space and run again; nothing was sent",
            ) from None

    def free_reserved_space(self) -> bool:
        """Free the reserved disk space. Return False if there was none."""
        try:
            self._room.unlink()
        except OSError:
            return False
        return True

    @property
    def _room(self) -> Path:
        return Path(f"{self.real}-room")  # beside the file itself, which a link may have on another disk


def check_kind(path: Path, *, to_write: bool = False) -> None:
    """Raise `StateError` for anything but a state file: a folder, a FIFO, an emptied file, remains of a lost one."""
    real = path.resolve()
    try:
        found = real.stat()
    except FileNotFoundError:
        found = None
    except OSError as error:
        raise StateError(f"{path}: cannot be read: {error.strerror}", _remedy(error)) from None
    if found is not None and not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a FIFO or a device"
        raise StateError(f"{path}: is {kind}, not a state file", "name a file as `state` in [project]")
    wal, rescued = Path(f"{real}-wal"), Path(f"{real}-rescued")
    if found is None or found.st_size == 0:
        if _size(wal):
            lost = "it has no database" if found is None else "its database is empty"
            raise StateError(
                f"{wal}: this is a part of a state with paid answers, and {lost}",
                f"put the database back as {real}, from a backup or from where it was moved;"
                f" to start with an empty state, move both files away",
            )
        if found is not None:
            raise StateError(
                f"{path}: the state is empty (0 bytes)",
                "restore it from a backup; to start with an empty state, delete this file",
            )
    if not to_write:
        return
    if _size(rescued):
        raise StateError(
            f"{rescued}: a run saved its answers here when its state was deleted or replaced",
            f"to use them, `mv {rescued} {real}`; otherwise move {rescued.name} away",
        )
    if found is not None and found.st_nlink > 1:
        raise StateError(
            f"{path}: the state has {found.st_nlink} names (hard links), and answers could be stored beside the wrong one",
            f"keep one name: `cp {real} {real}-copy && mv {real}-copy {real}`",
        )
    for suffix in ("-wal", "-shm", "-journal", ".lock"):
        if os.path.islink(beside := f"{real}{suffix}"):
            raise StateError(f"{beside}: is a link, and would be written through", "remove the link")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _lock_beside(path: Path, holder: Callable[[], str]) -> BaseFileLock:
    from filelock import FileLock, Timeout

    real = path.resolve()  # two names of one file are one file
    mode = real.stat().st_mode & 0o666 if real.exists() else 0o600
    lock = FileLock(f"{real}.lock", mode=mode)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise _in_use(path, holder) from None
    except NotImplementedError:
        raise _no_locks(path) from None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise _no_locks(path) from None
        raise StateError(f"{path}: cannot be written: {error.strerror or error}", _remedy(error)) from None
    return lock


def _lock_database(path: Path, descriptor: int, holder: Callable[[], str]) -> None:
    """Lock a byte of the file itself, which all of its names share."""
    try:
        import fcntl
    except ImportError:  # Windows, where an open file cannot be moved or deleted
        return
    try:
        if sys.platform == "linux":  # belongs to this descriptor: other uses of the file in this process keep it
            lock = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, _LOCKED_BYTE, 1, 0)
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
        else:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _LOCKED_BYTE)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise _in_use(path, holder) from None
        if error.errno in _NO_LOCKS:
            raise _no_locks(path) from None
        raise StateError(f"{path}: cannot be locked: {error.strerror}", _remedy(error)) from None


_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def _no_locks(path: Path) -> StateError:
    return StateError(
        f"{path}: cannot be locked: its file system has no locks (a network disk?)",
        "name a file on a local disk as `state` in [project]",
    )


def _in_use(path: Path, holder: Callable[[], str]) -> StateError:
    return StateError(
        f"{path}: in use by {holder()}",
        "wait for it to end; `status`, `why`, `export` and `audit` work during that time",
    )


def _remedy(error: OSError) -> str:
    if error.errno == errno.EROFS:
        return "the disk is read-only: name a file elsewhere as `state` in [project]"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space and run again"
    if error.errno == errno.ENOTDIR:
        return "a part of the path is a file: name another path as `state` in [project]"
    return open_hint("check the permissions of the file and its folder")


def open_hint(otherwise: str) -> str:
    """Return the hint for a file that cannot be opened."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return "too many open files (EMFILE): raise `ulimit -n` or lower the concurrency, then run again"
    return otherwise


def _create(real: Path, build: Callable[[Path], None]) -> None:
    """Make a complete state under another name, and rename it: no state is ever an empty file."""
    new = Path(f"{real}-new")
    try:
        for suffix in ("", "-wal", "-shm", "-journal"):  # a killed command may have left them
            Path(f"{new}{suffix}").unlink(missing_ok=True)
        os.close(create_private(new))
        build(new)
        os.rename(new, real)
        sync_folder(real.parent)
    except OSError as error:
        kind = NoSpaceError if error.errno in (errno.ENOSPC, errno.EDQUOT) else StateError
        raise kind(f"{real}: cannot be written: {error.strerror or error}", _remedy(error)) from None
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)

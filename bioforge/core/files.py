"""Replace files atomically: a reader sees the old content or the new one."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from bioforge.core.errors import OutputError

_HINTS = {
    errno.ENOSPC: "free space on the disk",
    errno.EDQUOT: "free space: your quota is used up",
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
    errno.EROFS: "choose a location that is not read-only",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "a part of the path is a file: choose another path",
}


STATE_SUFFIXES = ("", "-wal", "-shm", "-journal", ".lock", "-room", "-new", "-rescued")
"""Of the state file and the files beside it."""


def create_private(path: Path) -> int:
    """Create a file that only its owner may read, and return its descriptor. Never opens an existing file or a link."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)


def private(path: str, flags: int) -> int:
    """Open a file as an `opener` of `open`; a new one can be read by its owner only."""
    return os.open(path, flags, 0o600)


@contextmanager
def atomic_write(path: Path, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a binary stream whose content replaces `path` when the block ends; nothing is written if it fails.

    The new file keeps the permissions of the old one; links keep their target; missing folders are created. Devices and
    pipes, which cannot be replaced, are written directly. Raises `OutputError` for any error of the operating system.
    `durable=False` leaves it to the system when the content reaches the disk: for many small files that can be written
    again.
    """
    try:
        with _replacing(path, durable) as stream:
            yield stream
    except OSError as error:
        remedy = _HINTS.get(error.errno or 0, "solve the problem")
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}",
            f"the state is intact: {remedy}, then `bioforge export` writes it again",
        ) from error


@contextmanager
def _replacing(path: Path, durable: bool) -> Iterator[IO[bytes]]:
    """Do the same as `atomic_write`, with the operating system's own errors."""
    try:
        mode: int | None = path.stat().st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if mode is not None and not stat.S_ISREG(mode):
        with path.open("wb") as stream:
            yield stream
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".bioforge-{secrets.token_hex(8)}.tmp"
    stream = os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb")
    try:
        if mode is not None:
            os.chmod(temporary, stat.S_IMODE(mode))
        yield stream
        stream.flush()
        if durable:
            os.fsync(stream.fileno())
        stream.close()
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # closing flushes, which fails again on a full disk
            stream.close()
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the new name durable, if the system supports it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

"""Find the input files of a project and open them as byte streams."""

from __future__ import annotations

import errno
import glob
import gzip
import io
import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast
from urllib.parse import urlsplit

from bioforge.core.errors import InputError, nearest

STDIN = "-"
_RACY_NS = 100_000_000
_BESIDE = ("-wal", ".wal")
"""Suffixes of the files in which SQLite and DuckDB keep recent changes of a database."""
_GZIP = b"\x1f\x8b"
_SAFE_SIZE = 64 << 20
_MOST_EXPANSION = 200
"""Real tables shrink to a thirtieth; gzip reaches a thousandth."""


@dataclass(frozen=True, slots=True)
class Signature:
    """The state of a file, without its content. Times are nanoseconds since 1970.

    Equal signatures have equal size, modification time and inode, for the file and those `beside` it.
    """

    size: int
    mtime_ns: int
    inode: int
    looked_ns: int = field(compare=False)
    beside: tuple[Signature, ...] = ()

    @property
    def trusted(self) -> bool:
        """Return True if an equal signature later means unchanged content.

        File systems have coarse clocks: a file changed less than 0.1 s before this look (or in the future)
        can change again under the same time and size.
        """
        return self.looked_ns - self.mtime_ns >= _RACY_NS and all(other.trusted for other in self.beside)

    def as_text(self) -> str:
        return ";".join(f"{file.size}:{file.mtime_ns}:{file.inode}" for file in (self, *self.beside))


@dataclass(frozen=True, slots=True)
class Source:
    """A stream of input that can be opened. `name` is for messages; `path` is None for standard input."""

    name: str
    path: Path | None

    @property
    def suffix(self) -> str:
        """Return `csv` for `artists.csv` and `artists.csv.gz`, in lower case; empty without a suffix."""
        name = urlsplit(self.name).path if is_url(self.name) else self.name
        name = PurePosixPath(name).name.lower().removesuffix(".gz")
        return PurePosixPath(name).suffix[1:]

    @property
    def is_plain(self) -> bool:
        """Return True if it is an uncompressed file."""
        if self.path is None:
            return False
        try:
            with self.path.open("rb") as stream:
                return stat.S_ISREG(os.fstat(stream.fileno()).st_mode) and stream.read(2) != _GZIP
        except OSError as error:
            raise _refused(self.name, error) from error

    def signature(self) -> Signature | None:
        """Return the signature of the file and those beside it; None for standard input and other streams."""
        if self.path is None:
            return None
        now = time.time_ns()  # before `stat`: a change in between then makes the signature less trusted, not more
        try:
            found = self.path.stat()
        except (OSError, ValueError) as error:
            raise _refused(self.name, error) from error
        if not stat.S_ISREG(found.st_mode):
            return None
        beside = tuple(_beside(self.path, now))
        return Signature(found.st_size, found.st_mtime_ns, found.st_ino, now, beside)

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the content, decompressed if it is gzip. Raises `InputError`; standard input stays open."""
        with _opened(self.name, self.path) as raw:
            try:
                head = raw.peek(2)[:2]
            except OSError as error:
                raise _refused(self.name, error) from error
            if not head:
                raise _empty(self.name)
            if head != _GZIP:
                yield raw
                return
            with io.BufferedReader(_Unpacked(self.name, raw), 1 << 16) as unpacked:
                yield unpacked


class _Unpacked(io.RawIOBase):
    """The content of a gzip stream. Raises `InputError` where it grows out of proportion."""

    def __init__(self, name: str, raw: IO[bytes]) -> None:
        self._name = name
        self._packed = _Counted(raw)
        self._content = gzip.GzipFile(fileobj=cast(IO[bytes], self._packed))
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._content.read(len(buffer))
        self._size += len(block)
        check_expansion(self._name, self._packed.size, self._size)
        buffer[: len(block)] = block
        return len(block)


class _Counted:
    """A stream that counts the bytes read from it."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        block = self._raw.read(size)
        self.size += len(block)
        return block


def check_expansion(name: str, packed: int, unpacked: int) -> None:
    """Raise `InputError` for content that grew from `packed` bytes as only a decompression bomb does."""
    if unpacked > _SAFE_SIZE and unpacked > _MOST_EXPANSION * packed:
        raise InputError(
            f"{name} grows more than {_MOST_EXPANSION} times when decompressed",
            "if it is not a decompression bomb, decompress it yourself, and name that file in [input] path",
        )


def _beside(path: Path, now: int) -> Iterator[Signature]:
    for suffix in _BESIDE:
        try:
            found = os.stat(f"{path}{suffix}")
        except (OSError, ValueError):
            continue
        if stat.S_ISREG(found.st_mode) and found.st_size:  # readers create and remove empty ones
            yield Signature(found.st_size, found.st_mtime_ns, found.st_ino, now)


@contextmanager
def _opened(name: str, path: Path | None) -> Iterator[io.BufferedReader[Any]]:
    if path is not None:
        try:
            stream = path.open("rb")
        except (OSError, ValueError) as error:
            raise _refused(name, error) from error
        with stream:
            yield stream
        return
    if sys.stdin is None:
        raise InputError("the input is standard input, which is closed", "name a file under [input] path")
    raw = sys.stdin.buffer
    if isinstance(raw, io.BufferedReader):
        yield raw
        return
    wrapped = io.BufferedReader(cast(io.RawIOBase, raw))
    try:
        yield wrapped
    finally:
        wrapped.detach()


def is_url(path: str) -> bool:
    """Return True if `[input] path` must be downloaded (`bioforge.readers.download`)."""
    return path.lower().startswith(("http://", "https://"))


def find(path: str, root: Path) -> list[Source]:
    """Return the sources of `[input] path`: a file, a glob (in sorted order), or `-` for standard input.

    Relative to `root`, the folder of the project file; `~` is the home folder. Nothing is read. Raises
    `InputError` for a missing or empty file, or another kind of path.
    """
    if is_url(path):
        raise ValueError(f"{path} must be downloaded first")
    if path == STDIN:
        return [Source("standard input", None)]
    if not path.strip():
        raise InputError("[input] path is empty", 'path = "artists.csv"')
    expanded = os.path.expanduser(path)
    if glob.has_magic(expanded) and not os.path.lexists(root / expanded):
        found = [_checked(name, root) for name in _matches(expanded, root)]
        if not found:
            fixed = os.path.dirname(re.split(r"[*?[]", expanded)[0])
            raise InputError(
                f"no file matches the input {path!r} in {root.resolve()}",
                _neighbour(root / fixed / os.path.basename(expanded), root) or "check [input] path in the project file",
            )
        return found
    return [_checked(expanded, root)]


def _matches(pattern: str, root: Path) -> list[str]:
    names = set(glob.glob(pattern, root_dir=root, recursive=True))
    return sorted(name for name in names if not os.path.isdir(root / name))


def _checked(name: str, root: Path) -> Source:
    path = root / name
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise InputError(
            f"input {name!r} does not exist in {root.resolve()}",
            _neighbour(path, root) or "check [input] path in the project file",
        ) from error
    except (OSError, ValueError) as error:
        raise _refused(name, error) from error
    if stat.S_ISDIR(found.st_mode):
        raise InputError(
            f"input {name!r} is a folder, not a file", f'for all CSV files in it: path = "{name.rstrip("/")}/*.csv"'
        )
    if stat.S_ISREG(found.st_mode) and found.st_size == 0:
        raise _empty(name)
    return Source(name, path)


def _neighbour(path: Path, root: Path) -> str:
    """Return a hint for a missing path: the nearest existing name, or the missing folder."""
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {os.path.relpath(folder, root)!r}"
    try:
        return nearest(path.name, sorted(os.listdir(folder)))
    except OSError:
        return ""


def _empty(name: str) -> InputError:
    return InputError(f"input {name!r} is empty", "it needs at least a header row: was it written completely?")


def _refused(name: str, error: Exception) -> InputError:
    code = error.errno if isinstance(error, OSError) else None
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    allowed = code in (errno.EACCES, errno.EPERM)
    hint = "check its permissions (ls -l)" if allowed else "check [input] path in the project file"
    return InputError(f"cannot read input {name!r}: {reason}", hint)

"""Files of batch lines, in parts as large as the API allows. They appear together, when all are complete."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from bioforge.cli.batch.check import MOST_BYTES, MOST_LINES
from bioforge.core.errors import OutputError
from bioforge.core.files import create_private


@dataclass(slots=True)
class Part:
    """One file of the result. `path` is its final name."""

    path: Path
    lines: int = 0
    bytes: int = 0


class Parts:
    """A context manager that writes `name.jsonl`, or `name-001.jsonl`, `name-002.jsonl` … as needed.

    Unfinished files leave nothing behind. Raises `OutputError`.
    """

    def __init__(self, path: Path, most_lines: int = MOST_LINES, most_bytes: int = MOST_BYTES) -> None:
        # write through a symbolic link instead of replacing it
        self._path = Path(os.path.realpath(path)) if path.is_symlink() else path
        self._most = (most_lines, most_bytes)
        self._parts: list[Part] = []
        self._temporary: list[Path] = []
        self._stream: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._stream is not None:
            with suppress(OSError):  # closing flushes, which fails again on a full disk
                self._stream.close()
        for path in self._temporary:
            path.unlink(missing_ok=True)

    def write(self, line: bytes) -> None:
        try:
            part = self._parts[-1] if self._parts else None
            if part is None or part.lines >= self._most[0] or part.bytes + len(line) > self._most[1]:
                part = self._next()
            assert self._stream is not None
            self._stream.write(line)
        except OSError as error:
            raise self._error(error) from error
        part.lines += 1
        part.bytes += len(line)

    def finish(self) -> list[Part]:
        """Give every part its final name, and replace earlier files."""
        try:
            self._close()
            if len(self._parts) > 1:
                for number, part in enumerate(self._parts, 1):
                    part.path = self._numbered(number)
            for part, temporary in zip(self._parts, self._temporary, strict=True):
                with suppress(FileNotFoundError):
                    os.chmod(temporary, stat.S_IMODE(part.path.stat().st_mode))
                os.replace(temporary, part.path)
        except OSError as error:
            raise self._error(error) from error
        self._temporary = []
        return self._parts

    def leftovers(self) -> list[Path]:
        """Return numbered files of an earlier command that were not replaced and look like parts of this one."""
        number = len(self._parts) + 1 if len(self._parts) > 1 else 1
        paths = []
        while (path := self._numbered(number)).exists():
            paths.append(path)
            number += 1
        return paths

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.stem}-{number:03d}{self._path.suffix}")

    def _next(self) -> Part:
        self._close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.parent / f".bioforge-{secrets.token_hex(8)}.tmp"
        self._temporary.append(temporary)
        self._stream = os.fdopen(create_private(temporary), "wb")
        self._parts.append(Part(self._path))
        return self._parts[-1]

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            self._stream = None

    def _error(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write {self._path}: {error.strerror or error}", "fix this and run it again")


class Stream:
    """Standard output, a pipe or a device as one part. It gets everything at the end, or nothing."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream = stream
        self._buffer = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object
        self._part = Part(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._buffer.close()

    def write(self, line: bytes) -> None:
        self._buffer.write(line)
        self._part.lines += 1
        self._part.bytes += len(line)

    def finish(self) -> list[Part]:
        self._buffer.seek(0)
        shutil.copyfileobj(self._buffer, self._stream)
        self._stream.flush()
        return [self._part] if self._part.lines else []

    def leftovers(self) -> list[Path]:
        return []

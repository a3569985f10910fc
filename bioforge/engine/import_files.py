"""Read files with answers that were paid for elsewhere.

The kind of a line follows from its content, not from the file name.

custom_id, url, body                  a request: a line of a Batch API input file
custom_id, response and/or error      a result: a line of an output or error file
artist_id, recipe, error              a record of `bioforge export --format jsonl`
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Self

from bioforge.core.errors import InputError, nearest
from bioforge.core.hashing import canonical, request_hash

STDIN = "-"
GROUP = 500
GROUP_BYTES = 8 << 20
"""Upper limits of a group of lines that is read and committed together: number of lines, and about this many bytes."""

LONGEST = 64 << 20
"""Longest line in bytes. Answers are shorter; a file without line ends is not read into memory."""

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its line end; `cut` if it was longer than `LONGEST`: `content` is then its start."""

    source: str
    number: int
    content: bytes
    cut: bool = False

    @property
    def place(self) -> str:
        return f"{self.source}:{self.number}"


class Kind(Enum):
    REQUEST = auto()
    RESULT = auto()
    RECORD = auto()
    UNKNOWN = auto()


def kind_of(entry: object) -> Kind:
    if not isinstance(entry, dict):
        return Kind.UNKNOWN
    if isinstance(entry.get("custom_id"), str) and entry["custom_id"]:
        if isinstance(entry.get("url"), str) and isinstance(entry.get("body"), dict | str):
            return Kind.REQUEST
        if "response" in entry or "error" in entry:
            return Kind.RESULT
    if isinstance(entry.get("artist_id"), str) and isinstance(entry.get("recipe"), str) and "error" in entry:
        return Kind.RECORD
    return Kind.UNKNOWN


def parse(line: Line) -> Any:
    """Parse a line as JSON. Raises `ValueError` with a message for users."""
    if line.cut:
        raise ValueError(f"longer than {LONGEST >> 20} MB")
    try:
        return json.loads(line.content)
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not usable JSON: {error}") from None


def may_be_request(line: Line) -> bool:
    """Return False if the line is certainly not a request, without parsing it."""
    return b'"url"' in line.content and b'"body"' in line.content


@dataclass(frozen=True, slots=True)
class RequestLine:
    """A request in a line of an input file; `body` is canonical JSON."""

    custom_id: str
    request_hash: str
    endpoint: str
    model: str
    body: str


def read_request(entry: Mapping[str, Any], dialect: str) -> RequestLine:
    """Return the request in a line of an input file. Raises `ValueError` if its body is not a JSON object."""
    body, endpoint = entry["body"], entry["url"]
    try:
        if isinstance(body, str):  # some scripts write the body as a JSON string
            body = json.loads(body)
        content = canonical(body)
        text = content.decode()
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"body: {error}") from None
    if not isinstance(body, dict):
        raise ValueError("body: not an object")
    model = body.get("model")
    return RequestLine(
        custom_id_of(entry),
        request_hash(readable(endpoint), content, dialect),
        readable(endpoint),
        readable(model) if isinstance(model, str) else "",
        text,
    )


def has_other_instructions(entry: Mapping[str, Any], body: str) -> bool:
    """Return True if a result has other instructions than the request `body`.

    `/v1/responses` returns the instructions. With custom_ids like 1, 2, 3 they distinguish files of different recipes.
    """
    response = entry.get("response")
    answer = response.get("body") if isinstance(response, dict) else None
    repeated = answer.get("instructions") if isinstance(answer, dict) else None
    if not isinstance(repeated, str):
        return False
    given = json.loads(body).get("instructions")
    return isinstance(given, str) and repeated.strip() != given.strip()


def answered_at(entry: Mapping[str, Any], now: float) -> float:
    """Return the time of a result in seconds since 1970, or `now` if it has none."""
    response = entry.get("response")
    answer = response.get("body") if isinstance(response, dict) else None
    if not isinstance(answer, dict):
        return now
    at = answer.get("created_at") or answer.get("created")
    return float(at) if isinstance(at, int | float) and 1e9 < at < now + 86_400 else now


def custom_id_of(entry: Mapping[str, Any]) -> str:
    return readable(entry["custom_id"])


def readable(text: str) -> str:
    """Replace lone surrogates, which JSON allows and the database does not."""
    return text.encode("utf-8", "replace").decode()


class AnswerFiles:
    """The lines of several files, which can be read repeatedly. Use it in a `with` block.

    Input that can be read only once (standard input, pipes) is copied to a temporary file. Raises `InputError`
    for a path that is not a file, before anything is read.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._stack = ExitStack()
        self._copies: dict[str, IO[bytes]] = {}
        self._paths: dict[str, str] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for name in [name for name in self._names if self._must_copy(name)]:
                if name not in self._copies:
                    self._copies[name] = stack.enter_context(TemporaryFile())
                    _copy(name, self._copies[name])
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _must_copy(self, name: str) -> bool:
        """Return True for input that can be read only once. Add regular files to `_paths`. Raises `InputError`."""
        if name == STDIN:
            return True
        try:
            mode = os.stat(name).st_mode
        except (OSError, ValueError) as error:
            raise _refused(name, error) from None
        if stat.S_ISDIR(mode):
            raise InputError(f"{name} is a folder, not a file", f"name the files in it: {name.rstrip('/')}/*.jsonl")
        if stat.S_ISREG(mode):
            self._paths.setdefault(os.path.realpath(name), name)  # the same file twice is one file
            return False
        return True

    @property
    def names(self) -> list[str]:
        """Return the name of each file once."""
        return [*self._paths.values(), *map(_format_name, self._copies)]

    def groups(self) -> Iterator[list[Line]]:
        """Yield every line that is not blank, in groups."""
        group: list[Line] = []
        size = 0
        for line in self._lines():
            group.append(line)
            size += len(line.content)
            if len(group) == GROUP or size >= GROUP_BYTES:
                yield group
                group, size = [], 0
        if group:
            yield group

    def _lines(self) -> Iterator[Line]:
        for name in self._paths.values():
            with _open(name) as stream:
                yield from _lines_of(stream, name)
        for name, copy in self._copies.items():
            copy.seek(0)
            yield from _lines_of(copy, _format_name(name))


def _format_name(name: str) -> str:
    return "standard input" if name == STDIN else name


def _lines_of(stream: IO[bytes], source: str) -> Iterator[Line]:
    number = 0
    while content := stream.readline(LONGEST):
        number += 1
        cut = len(content) == LONGEST and not content.endswith(b"\n")
        if cut:
            content = content[:100]
            while (rest := stream.readline(LONGEST)) and not rest.endswith(b"\n"):
                pass
        # concatenated files may have a byte order mark on any line
        if content := content.removeprefix(_BOM).strip():
            yield Line(source, number, content, cut)


def _copy(name: str, target: IO[bytes]) -> None:
    if name != STDIN:
        with _open(name) as stream:
            shutil.copyfileobj(stream, target)
    elif sys.stdin is not None:
        shutil.copyfileobj(sys.stdin.buffer, target)


def _open(name: str) -> IO[bytes]:
    try:
        return open(name, "rb")
    except (OSError, ValueError) as error:
        raise _refused(name, error) from None


def _refused(name: str, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        folder = Path(name).parent
        near = nearest(Path(name).name, sorted(os.listdir(folder))) if folder.is_dir() else ""
        return InputError(f"{name} does not exist", near or "check the name")
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return InputError(f"cannot read {name}: {reason}", "check its permissions (ls -l)")

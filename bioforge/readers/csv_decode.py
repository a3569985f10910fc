"""Decode bytes to lines of text at the speed of the standard library; undecodable bytes are marked, never fatal."""

from __future__ import annotations

import codecs
import io
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from typing import IO

from bioforge.core.errors import InputError

MARK = "\udcff"
"""Marks bytes that are not valid in the encoding. No decoder produces it."""

_BLOCK = 1 << 16
_NOT_FOR_FILES = {"utf-7", "idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined"}


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return MARK, max(error.end, error.start + 1)


codecs.register_error("bioforge.mark", _mark)


def encoding_name(name: str) -> str:
    """Return the codec for an encoding; a byte order mark is part of UTF-8. Raises `InputError`."""
    try:
        found = codecs.lookup(name).name.replace("_", "-")
        io.TextIOWrapper(io.BytesIO(), encoding=found)
    except (LookupError, ValueError):
        found = ""
    if not found or found in _NOT_FOR_FILES:
        raise InputError(
            f"[input] encoding: {name!r} is not a known text encoding",
            'usual ones are "utf-8", "utf-16", "latin-1" and "cp1252"',
        )
    return "utf-8-sig" if found == "utf-8" else found


def excerpt(value: str) -> str:
    """Return the surroundings of the first undecodable byte or NUL in `value`, quoted."""
    at = min(place for place in (value.find(MARK), value.find("\0")) if place >= 0)
    return repr(value[max(0, at - 20) : at + 20].replace(MARK, "\ufffd"))


@contextmanager
def open_text(stream: IO[bytes], source: str, encoding: str, newline: str) -> Iterator[io.TextIOWrapper]:
    """Open `stream` as text with its line ends untouched; it is left open. Failed reads become `InputError`."""
    text = io.TextIOWrapper(stream, encoding=encoding, errors="bioforge.mark", newline=newline)
    try:
        yield text
    except (OSError, EOFError, zlib.error, UnicodeError) as error:
        raise InputError(
            f"{source} cannot be read to its end: {error}",
            "the file may be damaged or truncated: get it again; nothing was sent",
        ) from error
    finally:
        with suppress(ValueError):  # the owner may have closed the stream before this generator ends
            text.detach()


class CsvLines:
    """The lines of a CSV text, for `csv.reader`.

    The consumer sets `row_end` to `reader.line_num` after each row, so the next line is known to start a row. Only
    such a line can be a comment, and a text that ends elsewhere ends inside quotes. Comments are passed on as empty
    lines, which keeps `line_num` the physical line. Each block of lines is checked as a whole: this is fast.
    """

    def __init__(self, text: io.TextIOWrapper, comment: str) -> None:
        self.row_end = 0
        self.suspect_until = 0
        """Rows that begin at or before this line may have undecodable bytes or NUL characters."""
        self.open_at_end = False
        """The text ended inside a quoted value."""
        self._text = text
        self._comment = comment
        self._first = text.readlines(_BLOCK)
        if self._first:
            self._first[0] = self._first[0].removeprefix("\ufeff")

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self._blocks())

    def first_row(self) -> str:
        """Return the first line that is neither blank nor a comment, or an empty text."""
        comment = self._comment
        for line in self._first:
            if line.strip() and not (comment and line.startswith(comment)):
                return line
        return ""

    def _blocks(self) -> Iterator[Iterable[str]]:
        comment = self._comment
        count = 0
        lines = self._first
        while lines:
            block = "".join(lines)
            if MARK in block or "\0" in block:
                self.suspect_until = count + len(lines)
            if comment and (block.startswith(comment) or f"\n{comment}" in block or f"\r{comment}" in block):
                yield self._without_comments(lines, count)
            else:
                yield lines
            count += len(lines)
            lines = self._text.readlines(_BLOCK)
        self.open_at_end = count != self.row_end
        if self.open_at_end:
            self.suspect_until = count

    def _without_comments(self, lines: list[str], before: int) -> Iterator[str]:
        for count, line in enumerate(lines, before):
            yield "\n" if count == self.row_end and line.startswith(self._comment) else line

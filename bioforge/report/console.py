"""Terminal output: colours, columns that fit the screen, lines wrapped at words. Plain text for files and pipes."""

from __future__ import annotations

import codecs
import io
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from bioforge.core.text import printable

NARROWEST = 16
"""Least width of a wrapped cell; a less important column is left out before."""

_CODES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_WORD = re.compile(r"\s*\S+")
_CELL_WORD = re.compile(r"\s*(?:[^\s,;/]+[,;/]?|[,;/])")
_LABEL = re.compile(r"\s*\S+( \S+)*\s{2,}(?=\S)")

LEVELS = {"error": "red", "warning": "yellow", "hint": "cyan", "note": "dim"}
"""Colour of the first word of a message, by that word."""

REASONS = {
    "fresh": "green",
    "new": "cyan",
    "changed": "yellow",
    "failed": "red",
    "invalid": "red",
    "unusable": "red",
    "maybe paid": "magenta",
    "in batch": "blue",
    "succeeded": "green",
}
"""Colour of a reason, a state or an outcome."""


class Clean(str):
    """A line that a terminal may get as it is: its control characters are our colours, all others are escaped."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Screen:
    """The output of lines: `width` in columns (None: not a terminal, lines are not wrapped), and colours."""

    width: int | None = None
    colours: bool = False

    @classmethod
    def of(cls, stream: IO[str]) -> Screen:
        """Return the screen behind a stream. NO_COLOR and TERM=dumb switch colours off."""
        from bioforge.report.logs import colourful, is_terminal

        if not is_terminal(stream):
            return PLAIN
        try:
            columns = int(os.environ.get("COLUMNS") or 0) or os.get_terminal_size(stream.fileno()).columns
        except (OSError, ValueError):
            columns = 0
        return cls(columns or None, colourful(stream))

    def paint(self, text: str, style: str | None) -> str:
        """Return `text` printable, and in a colour of `_CODES` if there are colours."""
        text = printable(text)
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if self.colours and style and text.strip() else text

    def paint_reason(self, text: str) -> str:
        """Return a reason or outcome like `failed: timeout` in its colour."""
        return self.paint(text, REASONS.get(text.strip().partition(":")[0].strip()))

    def message(self, text: str, *, breaks: bool = False) -> Iterator[str]:
        """Yield a message in printable lines that fit, its first word (`error:`, `warning:` …) coloured.

        `breaks` keeps line breaks and indents what follows one, so that no text from elsewhere looks like a message.
        """
        head, *more = text.split("\n") if breaks else (text,)
        for line in (head, *(line if line.startswith("  ") else f"  {line}" for line in more)):
            first, *rest = wrap(line, self.width)
            level, colon, message = first.partition(":")
            if colon and level in LEVELS:
                first = self.paint(f"{level}:", LEVELS[level]) + message
            yield from (first, *rest)


PLAIN = Screen()


class TerminalBytes(io.RawIOBase):
    """Content for a terminal: UTF-8 that is printed with its line breaks, and all other control characters escaped."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")("replace"), translate=True)

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self._stream.write(printable(self._decoder.decode(bytes(content)), lines=True))
        return len(content)

    def flush(self) -> None:
        self._stream.flush()


def wrap(line: str, width: int | None) -> list[str]:
    """Return a line, printable, in pieces of at most `width` columns, broken at spaces.

    The rest is indented below the first piece.
    """
    line = line if isinstance(line, Clean) else printable(line)
    if width is None or _length(line) <= width:
        return [line]
    labelled = _LABEL.match(_ANSI.sub("", line))
    indent = len(line) - len(line.lstrip())
    hanging = " " * (labelled.end() if labelled and labelled.end() <= width // 3 else indent + 2)
    pieces, piece = [], ""
    for word in _WORD.findall(line):
        if piece.strip() and _length(piece + word) > width:
            pieces.append(piece)
            piece = hanging + word.strip()
        else:
            piece += word
    return [*pieces, piece]


def table(
    rows: Sequence[Sequence[str]],
    right: Iterable[int] = (),
    indent: str = "",
    *,
    screen: Screen = PLAIN,
    drop: Sequence[int] = (),
    reasons: Collection[int] = (),
) -> Iterator[str]:
    """Yield rows as aligned columns, two spaces apart, printable.

    `right`: numbers of right-aligned columns. On a narrow screen the widest of the others are wrapped; where they would
    get too narrow, the columns of `drop` are left out in their order. Cells in the columns `reasons` are coloured.
    """
    rows = [[printable(str(cell)) for cell in row] for row in rows]
    columns = list(range(max(map(len, rows), default=0)))
    aligned, optional = set(right), list(drop)
    while True:
        widths = {i: max((_length(row[i]) for row in rows if i < len(row)), default=0) for i in columns}
        least = {i: _least_width(rows, i) for i in columns if i not in aligned}
        if _shrink(widths, least, _excess(widths, indent, screen)) or not optional:
            break
        columns = [i for i in columns if i != optional[0]]
        del optional[0]
    for number, row in enumerate(rows):
        yield from (
            Clean(indent + line) for line in _format_row(row, widths, aligned, reasons if number else (), screen)
        )


def _excess(widths: Mapping[int, int], indent: str, screen: Screen) -> int:
    """Return how many columns the table is too wide."""
    return 0 if screen.width is None else len(indent) + sum(widths.values()) + 2 * (len(widths) - 1) - screen.width


def _least_width(rows: Sequence[Sequence[str]], column: int) -> int:
    """Return the width of a column in which no word is broken."""
    words = (_length(word.strip()) for row in rows if column < len(row) for word in _CELL_WORD.findall(row[column]))
    return max([NARROWEST, *words])


def _shrink(widths: dict[int, int], least: Mapping[int, int], excess: int) -> bool:
    """Take `excess` columns from the flexible ones. Return False, and change nothing, where words would be broken."""
    if sum(max(0, widths[i] - width) for i, width in least.items()) < excess:
        return False
    for _ in range(excess):
        widths[max(least, key=lambda i: widths[i] - least[i])] -= 1
    return True


def _format_row(
    row: Sequence[str], widths: Mapping[int, int], aligned: Collection[int], reasons: Collection[int], screen: Screen
) -> Iterator[str]:
    cells = {i: _wrap_cell(row[i] if i < len(row) else "", width) for i, width in widths.items()}
    for number in range(max(map(len, cells.values()), default=0)):
        shown = []
        for i, width in widths.items():
            text = cells[i][number] if number < len(cells[i]) else ""
            space = " " * (width - _length(text))
            text = screen.paint_reason(text) if i in reasons else text
            shown.append(space + text if i in aligned else text + space)
        yield "  ".join(shown).rstrip()


def _wrap_cell(text: str, width: int) -> list[str]:
    """Return the lines of a cell, broken at spaces, commas and slashes, else anywhere."""
    if _length(text) <= width:
        return [text]
    pieces = [""]
    for part in _CELL_WORD.findall(text):
        if pieces[-1] and _length(pieces[-1] + part) > width:
            pieces.append("")
        part = part if pieces[-1] else part.lstrip()
        while _length(part) > width:
            pieces[-1:] = [part[:width], ""]
            part = part[width:]
        pieces[-1] += part
    return pieces


def _length(text: str) -> int:
    """Return the columns that a text takes on a screen."""
    if text.isascii() and "\x1b" not in text:
        return len(text)
    from rich.cells import cell_len

    return cell_len(_ANSI.sub("", text))

"""Read artists from CSV and TSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import IO, Any

from bioforge.core.errors import InputError
from bioforge.core.text import derived_id
from bioforge.core.types import Artist, BadRow
from bioforge.readers import rows
from bioforge.readers.csv_decode import MARK, CsvLines, excerpt, open_text
from bioforge.readers.rows import ColumnMap, RowError

LONGEST_VALUE = 1 << 24
"""Characters of one CSV value: the most that an unclosed quote can swallow."""

_OPTIONS = ("columns", "header", "delimiter", "encoding", "quote", "comment")
_WITHOUT_HEADER = {1: ("artist_name",), 2: ("artist_name", "artist_data")}


@dataclass(frozen=True, slots=True)
class CsvOptions:
    """CSV options of the `[input]` table. A `delimiter` of None is guessed from the first row."""

    columns: ColumnMap
    header: bool
    delimiter: str | None
    encoding: str
    quote: str
    comment: str

    @classmethod
    def of(cls, options: Mapping[str, object], delimiter: str) -> CsvOptions:
        """Read the options of the `[input]` table; raise `InputError`. `delimiter` is the format's own."""
        rows.check_options(options, _OPTIONS)
        quote = rows.text_option(options, "quote", '"')
        if len(quote) > 1:
            raise InputError(f"[input] quote: found {quote!r}, expected one character", '"" reads quotes as text')
        given = rows.text_option(options, "delimiter", delimiter)
        given = {"tab": "\t", "\\t": "\t"}.get(given, given)
        if given != "auto" and (len(given) != 1 or given in (quote, "\0", "\ufeff")):
            raise InputError(
                f"[input] delimiter: found {given!r}, expected one character",
                'one like "," or ";", or "tab", or "auto"',
            )
        return cls(
            columns=ColumnMap.of(options.get("columns", {})),
            header=rows.flag_option(options, "header", True),
            delimiter=None if given == "auto" else given,
            encoding=rows.encoding_option(options),
            quote=quote,
            comment=rows.text_option(options, "comment", "#"),
        )


def csv_reader(stream: IO[bytes], source: str, options: Mapping[str, object]) -> Iterator[Artist | BadRow]:
    """Read a CSV with a header row. Options: columns, header, delimiter, encoding, quote, comment.

    Values are trimmed. A row without an id gets one made from its name. Raises `InputError` at once for invalid
    options, and at the first row for a header without the needed columns.
    """
    return _csv_rows(stream, source, CsvOptions.of(options, ","))


def tsv_reader(stream: IO[bytes], source: str, options: Mapping[str, object]) -> Iterator[Artist | BadRow]:
    """Read like `csv_reader`, with values separated by tabs."""
    return _csv_rows(stream, source, CsvOptions.of(options, "\t"))


def _csv_rows(stream: IO[bytes], source: str, options: CsvOptions) -> Iterator[Artist | BadRow]:
    if csv.field_size_limit() < LONGEST_VALUE:
        csv.field_size_limit(LONGEST_VALUE)
    with open_text(stream, source, options.encoding, newline="") as text:
        lines = CsvLines(text, options.comment)
        reader = csv.reader(
            lines,
            delimiter=options.delimiter or _likely_delimiter(lines.first_row()),
            quotechar=options.quote or None,
            quoting=csv.QUOTE_MINIMAL if options.quote else csv.QUOTE_NONE,
        )
        before, first = _first_row(reader, lines, source)
        if options.header:
            found = _header(first, lines.open_at_end, source)
            names = options.columns.header(found, source)
            yield from _artists(reader, reader, lines, source, found, names, options.columns, reader.line_num)
        elif first:
            found = _numbered(len(first))
            names = options.columns.header(found, source)
            every = chain((first,), reader)
            yield from _artists(every, reader, lines, source, found, names, options.columns, before)


def _first_row(reader: Any, lines: CsvLines, source: str) -> tuple[int, list[str]]:
    """Return the number of lines before the first row that is not blank, and that row (empty if there is none)."""
    before = 0
    try:
        for row in reader:
            lines.row_end = reader.line_num
            if any(map(str.strip, row)):
                return before, row
            before = reader.line_num
    except csv.Error as error:
        raise InputError(f"{source}, line {before + 1}: {error}", "is this a CSV file?") from None
    return before, []


def _artists(
    every: Iterable[list[str]],
    reader: Any,
    lines: CsvLines,
    source: str,
    found: Sequence[str],
    names: Sequence[str],
    columns: ColumnMap,
    end: int,
) -> Iterator[Artist | BadRow]:
    """Yield the artists of `every` row that `reader` reads; `end` is the last line before them. The hot path."""
    width = len(names)
    computes = columns.computes
    strip = str.strip
    while True:
        try:
            for cells in every:
                start = end + 1
                end = lines.row_end = reader.line_num
                if len(cells) != width or start <= lines.suspect_until:
                    flaw = _flaw(cells, names, start, end, lines.open_at_end)
                    if flaw:
                        yield BadRow(source, start, flaw)
                    if flaw is not None:
                        continue
                row: dict[str, Any] = dict(zip(names, map(strip, cells)))  # noqa: B905 - lengths are equal: see above
                if computes:
                    try:
                        columns.compute(row, dict(zip(found, row.values(), strict=True)))
                    except RowError as error:
                        columns.check_templates(found, source)
                        yield BadRow(source, start, str(error))
                        continue
                name = row.pop("artist_name")
                if name:
                    artist_id = row.pop("artist_id", "") or derived_id(name)
                    yield Artist(artist_id, name, row.pop("artist_data", ""), row, source, start)
                elif any(map(strip, cells)):
                    yield BadRow(source, start, "no artist_name")
            return
        except csv.Error as error:  # the reader continues with the next line
            start, end = end + 1, reader.line_num
            lines.row_end = end
            yield BadRow(source, start, _unreadable(error, start, end))


def _header(first: Sequence[str], is_open: bool, source: str) -> list[str]:
    if not first:
        raise InputError(f"{source} has no header row", "the first row must name the columns")
    if is_open:
        raise InputError(f"{source}: a quote in the header row is never closed", 'close it, or set quote = ""')
    names = [name.strip() or f"column_{number}" for number, name in enumerate(first, 1)]
    for name in names:
        if MARK in name or "\0" in name:
            raise InputError(
                f"{source}: the header row is not valid in this encoding",
                'set the file\'s encoding under [input]: encoding = "utf-16", "cp1252", …',
            )
    return names


def _numbered(width: int) -> list[str]:
    more = (f"column_{number}" for number in range(4, width + 1))
    return list(_WITHOUT_HEADER.get(width) or (*rows.OWN_COLUMNS, *more))


def _likely_delimiter(line: str) -> str:
    outside = re.sub('"[^"]*"', "", line)
    return max(",;\t|", key=outside.count)


def _flaw(row: Sequence[str], names: Sequence[str], start: int, end: int, is_open: bool) -> str | None:
    """Return the problem of a row: an empty text for a blank row, None for a good one."""
    if is_open:
        return "a quote in this row is never closed" + (
            f"; the rows in lines {start + 1} to {end} could not be read" if end > start else ""
        )
    if not any(map(str.strip, row)):
        return ""
    for name, value in zip(names, row):  # noqa: B905 - the lengths may differ: that is the next flaw
        if MARK in value:
            return f'{name} has bytes that are not valid in this encoding: {excerpt(value)} (encoding = "cp1252"?)'
        if "\0" in value:
            return f"{name} has a NUL character: {excerpt(value)}"
    if len(row) != len(names):
        found = f"found {_fields(len(row))}, expected {len(names)}"
        loose = any(value.lstrip() != value and value.lstrip().startswith('"') for value in row)
        return f"{found}; an opening quote must follow the delimiter without a space" if loose else found
    return None


def _fields(count: int) -> str:
    return "1 field" if count == 1 else f"{count} fields"


def _unreadable(error: csv.Error, start: int, end: int) -> str:
    if "field limit" in str(error):
        return (
            f"a value is longer than {LONGEST_VALUE:,} characters, perhaps because a quote is never closed; "
            f"lines {start} to {end} could not be read"
        )
    return str(error)

"""Built-in input formats: CSV, TSV and JSON lines."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import IO, Any

from bioforge.core.errors import InputError
from bioforge.core.interfaces import Reader
from bioforge.core.text import derived_id
from bioforge.core.types import Artist, BadRow
from bioforge.plugins.hookspecs import hookimpl
from bioforge.readers import rows
from bioforge.readers.csv_decode import MARK, CsvLines, open_text
from bioforge.readers.rows import ColumnMap, RowError

LONGEST_VALUE = 1 << 24
"""Characters of one CSV value. A quote that is never closed takes no more than this much of the file with it."""

_CSV_OPTIONS = ("columns", "header", "delimiter", "encoding", "quote", "comment")
_JSONL_OPTIONS = ("columns", "encoding", "comment")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_ARRAY = re.compile(r"\[\s*($|\{)")
_WITHOUT_HEADER = {1: ("artist_name",), 2: ("artist_name", "artist_data")}


@hookimpl
def bioforge_readers() -> Mapping[str, Reader]:
    return {"csv": csv_reader, "tsv": tsv_reader, "jsonl": jsonl_reader, "ndjson": jsonl_reader}


# -------------------------------------------------------------------------------------------------------------- CSV


@dataclass(frozen=True, slots=True)
class CsvOptions:
    """What the `[input]` table says about a CSV. Without a `delimiter`, the first row tells."""

    columns: ColumnMap
    header: bool
    delimiter: str | None
    encoding: str
    quote: str
    comment: str

    @classmethod
    def of(cls, options: Mapping[str, object], delimiter: str) -> CsvOptions:
        """From the `[input]` table; raises `InputError`. `delimiter` is the format's own."""
        rows.check_options(options, _CSV_OPTIONS)
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
    """Rows of a CSV with a header row. Options: columns, header, delimiter, encoding, quote, comment.

    Values are trimmed. A row without an id gets one made from its name. Raises `InputError` for options that cannot
    be meant, at once, and for a header that cannot make artists, with the first row.
    """
    return _csv_rows(stream, source, CsvOptions.of(options, ","))


def tsv_reader(stream: IO[bytes], source: str, options: Mapping[str, object]) -> Iterator[Artist | BadRow]:
    """As `csv_reader`, with values separated by tabs."""
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
    """How many lines stand before the first row that is not blank, and the row; an empty one when there is none."""
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
    """The artists of `every` row that `reader` reads; `end` is the last line before them. The hot path."""
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
        except csv.Error as error:  # the reader goes on with the line after the one it gave up at
            start, end = end + 1, reader.line_num
            lines.row_end = end
            yield BadRow(source, start, _unreadable(error, start, end))


def _header(first: Sequence[str], is_open: bool, source: str) -> list[str]:
    if not first:
        raise InputError(f"{source} has no header row", "its first row has to name the columns")
    if is_open:
        raise InputError(f"{source}: a quote in the header row is never closed", 'close it, or set quote = ""')
    names = [name.strip() or f"column_{number}" for number, name in enumerate(first, 1)]
    for name in names:
        if MARK in name or "\0" in name:
            raise InputError(
                f"{source}: the header row cannot be read as text in this encoding",
                'name the file\'s own under [input]: encoding = "utf-16", "cp1252", …',
            )
    return names


def _numbered(width: int) -> list[str]:
    more = (f"column_{number}" for number in range(4, width + 1))
    return list(_WITHOUT_HEADER.get(width) or (*rows.OWN_COLUMNS, *more))


def _likely_delimiter(line: str) -> str:
    outside = re.sub('"[^"]*"', "", line)
    return max(",;\t|", key=outside.count)


def _flaw(row: Sequence[str], names: Sequence[str], start: int, end: int, is_open: bool) -> str | None:
    """What is wrong with a row; an empty text for a blank one, None for a good one."""
    if is_open:
        return "a quote in this row is never closed" + (
            f"; the rows in lines {start + 1} to {end} could not be read" if end > start else ""
        )
    if not any(map(str.strip, row)):
        return ""
    for name, value in zip(names, row):  # noqa: B905 - the lengths may differ: that is the next flaw
        if MARK in value:
            return f'{name} has bytes that are no text in this encoding: {_shown(value)} (encoding = "cp1252"?)'
        if "\0" in value:
            return f"{name} has a NUL character: {_shown(value)}"
    if len(row) != len(names):
        found = f"found {_fields(len(row))}, expected {len(names)}"
        loose = any(value.lstrip() != value and value.lstrip().startswith('"') for value in row)
        return f"{found}; a quote has to follow the delimiter without a space" if loose else found
    return None


def _fields(count: int) -> str:
    return "1 field" if count == 1 else f"{count} fields"


def _unreadable(error: csv.Error, start: int, end: int) -> str:
    if "field limit" in str(error):
        return (
            f"a value is longer than {LONGEST_VALUE:,} characters, perhaps for a quote that is never closed; "
            f"lines {start} to {end} could not be read"
        )
    return str(error)


def _shown(value: str) -> str:
    """The surroundings of what cannot be shown itself."""
    at = min(place for place in (value.find(MARK), value.find("\0")) if place >= 0)
    return repr(value[max(0, at - 20) : at + 20].replace(MARK, "\ufffd"))


# ------------------------------------------------------------------------------------------------------- JSON lines


def jsonl_reader(stream: IO[bytes], source: str, options: Mapping[str, object]) -> Iterator[Artist | BadRow]:
    """One JSON object a line. Options: columns, encoding, comment; blank lines and comments are skipped.

    Further keys keep their JSON values. Raises `InputError` for options that cannot be meant, at once, and when no
    row has a key for the name.
    """
    rows.check_options(options, _JSONL_OPTIONS)
    columns = ColumnMap.of(options.get("columns", {}))
    encoding = rows.encoding_option(options)
    comment = rows.text_option(options, "comment", "#")
    return _jsonl_rows(stream, source, columns, encoding, comment)


def _jsonl_rows(
    stream: IO[bytes], source: str, columns: ColumnMap, encoding: str, comment: str
) -> Iterator[Artist | BadRow]:
    with open_text(stream, source, encoding, newline="\n") as text:
        yield from rows.artists(_json_rows(text, comment, source), source, columns)


def _json_rows(text: Iterable[str], comment: str, source: str) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    for line, content in _json_lines(text, comment, source):
        try:
            yield line, _json_object(content)
        except RowError as error:
            yield line, error


def _json_lines(text: Iterable[str], comment: str, source: str) -> Iterator[tuple[int, str]]:
    """(number, content) of each line that is neither blank nor a comment."""
    first = True
    for number, line in enumerate(text, 1):
        content = line.strip() if number > 1 else line.removeprefix("\ufeff").strip()
        if not content or (comment and content.startswith(comment)):
            continue
        if first and _ARRAY.match(content):
            raise InputError(
                f"{source} is one JSON array, not one object a line",
                f"turn it into JSON lines, for example with: jq -c '.[]' {source}",
            )
        first = False
        yield number, content


def _json_object(content: str) -> dict[str, Any]:
    if MARK in content:
        raise RowError(f"bytes that are no text in this encoding: {_shown(content)}")
    try:
        value = _decode(content)
        if "\\u" in content and (flaw := next(filter(_UNSTORABLE.search, rows.texts(value)), None)) is not None:
            character = "a NUL character" if "\0" in flaw else "half of a surrogate pair"
            raise RowError(f"{character} in {flaw[:40]!a}")
    except json.JSONDecodeError as error:
        raise RowError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise RowError("not usable JSON: nested too deeply") from None
    except RowError:
        raise
    except ValueError as error:
        raise RowError(f"not usable JSON: {error}") from None
    if not isinstance(value, dict):
        raise RowError(f"not a JSON object: {content if len(content) <= 40 else content[:40] + '…'}")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _no_constant(digits)


_decode = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite).decode

"""Read artists from JSON Lines."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

from bioforge.core.errors import InputError
from bioforge.core.types import Artist, BadRow
from bioforge.readers import rows
from bioforge.readers.csv_decode import MARK, excerpt, open_text
from bioforge.readers.rows import ColumnMap, RowError

_OPTIONS = ("columns", "encoding", "comment")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_ARRAY = re.compile(r"\[\s*($|\{)")


def jsonl_reader(stream: IO[bytes], source: str, options: Mapping[str, object]) -> Iterator[Artist | BadRow]:
    """Read one JSON object per line. Options: columns, encoding, comment; blank lines and comments are skipped.

    Further keys keep their JSON values. Raises `InputError` at once for invalid options, and when no row has a
    key for the name.
    """
    rows.check_options(options, _OPTIONS)
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
    """Yield (number, content) of each line that is neither blank nor a comment."""
    first = True
    for number, line in enumerate(text, 1):
        content = line.strip() if number > 1 else line.removeprefix("\ufeff").strip()
        if not content or (comment and content.startswith(comment)):
            continue
        if first and _ARRAY.match(content):
            raise InputError(
                f"{source} is a JSON array, expected one object per line",
                f"convert it to JSON Lines, for example with: jq -c '.[]' {source}",
            )
        first = False
        yield number, content


def _json_object(content: str) -> dict[str, Any]:
    if MARK in content:
        raise RowError(f"bytes that are not valid in this encoding: {excerpt(content)}")
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
    raise ValueError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _no_constant(digits)


_decode = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite).decode

"""Run readers of plugins: turn their rows into artists, and their exceptions into errors that name the plugin.

Values of databases and spreadsheets become JSON values: dates and times ISO text, decimals and UUIDs text, NaN and
infinity null.
"""

from __future__ import annotations

import json
import math
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast
from uuid import UUID

from bioforge.core.errors import BioforgeError, InputError
from bioforge.core.interfaces import AnyReader, PathReader, Reader
from bioforge.core.types import Artist, BadRow
from bioforge.readers import rows
from bioforge.readers.rows import ColumnMap, RowError
from bioforge.readers.sources import Source


def artists(
    numbered: Iterable[tuple[int, Mapping[str, Any] | RowError]],
    source: str,
    columns: Mapping[str, str] | None = None,
    header: Sequence[str] | None = None,
) -> Iterator[Artist | BadRow]:
    """Yield rows as artists: renamed by `columns`, with an id made from the name where there is none.

    `numbered` yields (number of the row or line, from 1; its values by column, or a `RowError` for an unreadable
    row). `header` names all columns, if the format knows them before its rows: then a missing one is an error at
    once. Raises `InputError` if there is no column for the name.
    """
    return rows.artists(_with_json_values(numbered), source, ColumnMap.of(columns or {}), header)


def _with_json_values(
    numbered: Iterable[tuple[int, Mapping[str, Any] | RowError]],
) -> Iterator[tuple[int, Mapping[str, Any] | RowError]]:
    for line, row in numbered:
        if isinstance(row, RowError):
            yield line, row
            continue
        try:
            yield line, {name: json_value(value, name) for name, value in row.items()}
        except RowError as error:
            yield line, error


def json_value(value: Any, column: str = "value") -> Any:
    """Convert `value` to JSON. Raises `RowError` for a value without a JSON form, such as bytes."""
    match value:
        case None | bool() | int():
            return value
        case str():
            if "\0" in value:
                raise RowError(f"{column} has a NUL character")
            if not value.isascii():
                try:
                    value.encode()
                except UnicodeEncodeError:
                    raise RowError(f"{column} has half of a surrogate pair") from None
            return value
        case float():
            return value if math.isfinite(value) else None
        case date() | time():
            return value.isoformat()
        case Decimal():
            return str(value) if value.is_finite() else None
        case UUID() | timedelta():
            return str(value)
        case Mapping():
            return {str(json_value(name, column)): json_value(item, f"{column}.{name}") for name, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [json_value(item, column) for item in value]
    if callable(getattr(value, "item", None)) and getattr(value, "shape", None) == ():  # a NumPy scalar
        return json_value(value.item(), column)
    raise RowError(f"{column} is {type(value).__name__}, which has no JSON form")


# ---------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class BoundReader:
    """A reader with its options. `plugin` and `version` are empty for a built-in one."""

    reader: AnyReader
    options: object
    plugin: str = ""
    version: str = ""

    def rows(self, source: Source) -> Iterator[Artist | BadRow]:
        """Yield the rows of a source; exceptions of a plugin become an `InputError` that names it."""
        found = _opened(source, self.reader, self.options)
        return _checked(found, source.name, self.plugin) if self.plugin else found


FindReader = Callable[[str], BoundReader]
"""Returns the reader of a name. Raises `PluginError` and `ConfigError`."""


def _opened(source: Source, reader: AnyReader, options: object) -> Iterator[Artist | BadRow]:
    if getattr(reader, "reads_path", False):
        with _as_file(source) as path:
            yield from cast("PathReader", reader)(path, source.name, options)
    else:
        with source.open() as stream:
            yield from cast("Reader", reader)(stream, source.name, options)


@contextmanager
def _as_file(source: Source) -> Iterator[Path]:
    """Yield the path of a source's content; a stream or compressed file is copied to a temporary file."""
    if source.path is not None and source.is_plain:
        with source.open():  # raises the common error for an empty file
            pass
        yield source.path
        return
    with source.open() as stream, TemporaryDirectory(prefix="bioforge-") as folder:
        path = Path(folder, f"input.{source.suffix}" if source.suffix else "input")
        try:
            with path.open("wb") as file:
                shutil.copyfileobj(stream, file, 1 << 20)
        except (OSError, EOFError, zlib.error) as error:  # the disk is full, or the gzip file is damaged
            raise InputError(f"{source.name} cannot be copied to a temporary file: {error}") from None
        yield path


def _checked(found: Iterator[Artist | BadRow], source: str, plugin: str) -> Iterator[Artist | BadRow]:
    label = f"{source}: the reader of plugin {plugin!r}"
    hint = "this is a mistake of the plugin; BIOFORGE_DEBUG=1 shows where"
    try:
        for row in found:
            if isinstance(row, Artist):
                _check(row, label, hint)
            elif isinstance(row, BadRow):
                line = row.line if isinstance(row.line, int) else 0
                row = BadRow(str(row.source or source), line, json_text(str(row.message)))
            else:
                raise InputError(f"{label} gave {type(row).__name__}, expected an Artist or a BadRow", hint)
            yield row
    except (BioforgeError, GeneratorExit):
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{label} failed: {type(error).__name__}: {error}", hint) from error


def _check(row: Artist, label: str, hint: str) -> None:
    for name in ("artist_id", "artist_name", "artist_data"):
        if not isinstance(getattr(row, name), str):
            raise InputError(f"{label} gave an Artist whose {name} is not text: {getattr(row, name)!r:.60}", hint)
    if not row.artist_id or not row.artist_name:
        raise InputError(f"{label} gave an Artist without {'an artist_id' if row.artist_name else 'a name'}", hint)
    if not isinstance(row.line, int) or not isinstance(row.source, str):
        raise InputError(f"{label} gave an Artist whose line is {row.line!r:.20} of {row.source!r:.40}", hint)
    if not isinstance(row.columns, Mapping) or not all(isinstance(name, str) for name in row.columns):
        raise InputError(f"{label} gave columns that are not a mapping with text keys (row {row.line})", hint)
    try:
        text = f"{row.artist_id}{row.artist_name}{row.artist_data}{json.dumps(dict(row.columns), allow_nan=False)}"
        if not text.isascii() or "\\ud" in text:
            json.dumps(
                [row.artist_id, row.artist_name, row.artist_data, dict(row.columns)], ensure_ascii=False
            ).encode()
    except (TypeError, ValueError) as error:
        raise InputError(f"{label} gave values without a JSON form (row {row.line}): {error}", hint) from None


def json_text(text: str) -> str:
    """Return `text` without halves of surrogate pairs, which cannot be stored."""
    return text.encode("utf-8", "replace").decode("utf-8")

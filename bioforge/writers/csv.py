"""Write records as CSV and TSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any

from bioforge.core.errors import ConfigError, nearest
from bioforge.core.interfaces import Record
from bioforge.writers.options import check_options, open_text

CSV_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "artist_id": ("artist_id",),
    "artist_name": ("artist_name",),
    "artist_data": ("artist_data",),
    "recipe": ("recipe",),
    "variant": ("variant",),
    "response_text": ("response_text",),
    "parsed": ("parsed",),
    "response_id": ("response_id",),
    "created": ("created",),
    "model": ("model",),
    "input_tokens": ("usage", "input_tokens"),
    "output_tokens": ("usage", "output_tokens"),
    "cost_usd": ("cost_usd",),
    "error_class": ("error", "class"),
    "error_message": ("error", "message"),
}
"""The columns in order, each with the keys of its value in a record."""

_FURTHER: Mapping[str, tuple[str, ...]] = {
    "request": ("request",),
    "usage": ("usage",),
    "cached_tokens": ("usage", "cached_tokens"),
    "reasoning_tokens": ("usage", "reasoning_tokens"),
    "error_code": ("error", "code"),
}
"""Columns that are written only if the option `columns` names them."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_writer(records: Iterable[Record], stream: IO[bytes], options: Mapping[str, object]) -> None:
    """Write a row per record under a header. Options: columns (a list of names), delimiter, bom, formulas.

    `bom = true` lets Excel detect UTF-8. `formulas = "escape"` puts an apostrophe before text that a spreadsheet
    would run as a formula. Objects and lists become JSON text. Rows end with CRLF (RFC 4180).
    """
    _write_csv(records, stream, options, ",")


def tsv_writer(records: Iterable[Record], stream: IO[bytes], options: Mapping[str, object]) -> None:
    """Write like `csv_writer`, with values separated by tabs."""
    _write_csv(records, stream, options, "\t")


def _write_csv(records: Iterable[Record], stream: IO[bytes], options: Mapping[str, object], delimiter: str) -> None:
    check_options(options, ("columns", "delimiter", "bom", "formulas"))
    names = _columns_option(options)
    paths = [CSV_COLUMNS.get(name) or _FURTHER[name] for name in names]
    bom = options.get("bom", False)
    if not isinstance(bom, bool):
        raise ConfigError(f"[[output]] bom: found {bom!r}, expected true or false")
    formulas = options.get("formulas", "keep")
    if formulas not in ("keep", "escape"):
        raise ConfigError(f"[[output]] formulas: found {formulas!r}", 'expected "keep" or "escape"')
    cell: Callable[[object], object] = _escaped if formulas == "escape" else _cell
    with open_text(stream, "utf-8-sig" if bom else "utf-8") as text:
        writer = csv.writer(text, delimiter=_delimiter_option(options, delimiter))
        writer.writerow(names)
        for record in records:
            writer.writerow([cell(_at(record, path)) for path in paths])


def _columns_option(options: Mapping[str, object]) -> list[str]:
    given = options.get("columns", list(CSV_COLUMNS))
    if not isinstance(given, list) or not given:
        raise ConfigError(f"[[output]] columns: found {given!r}, expected a list of names", 'columns = ["artist_id"]')
    known = [*CSV_COLUMNS, *_FURTHER]
    for name in given:
        if name not in known:
            hint = nearest(str(name), known) or f"columns are: {', '.join(known)}"
            raise ConfigError(f"[[output]] columns: {name!r} is not a column of a record", hint)
    return given


def _delimiter_option(options: Mapping[str, object], default: str) -> str:
    given = options.get("delimiter", default)
    given = "\t" if given in ("tab", "\\t") else given
    if not isinstance(given, str) or len(given) != 1 or given in '"\r\n':
        raise ConfigError(f"[[output]] delimiter: found {given!r}, expected one character", 'one like "," or "tab"')
    return given


def _at(record: Record, path: tuple[str, ...]) -> object:
    value: Any = record
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _cell(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | bool) else value


def _escaped(value: object) -> object:
    cell = _cell(value)
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell

"""The columns of a result, in order: the same in Parquet and in SQLite."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bioforge.plugin import Record

TEXT, TIME, INTEGER, REAL = "text", "time", "integer", "real"

COLUMNS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "artist_id": (TEXT, ("artist_id",)),
    "artist_name": (TEXT, ("artist_name",)),
    "artist_data": (TEXT, ("artist_data",)),
    "recipe": (TEXT, ("recipe",)),
    "variant": (TEXT, ("variant",)),
    "response_text": (TEXT, ("response_text",)),
    "parsed": (TEXT, ("parsed",)),
    "response_id": (TEXT, ("response_id",)),
    "created": (TIME, ("created",)),
    "model": (TEXT, ("model",)),
    "input_tokens": (INTEGER, ("usage", "input_tokens")),
    "output_tokens": (INTEGER, ("usage", "output_tokens")),
    "cached_tokens": (INTEGER, ("usage", "cached_tokens")),
    "reasoning_tokens": (INTEGER, ("usage", "reasoning_tokens")),
    "cost_usd": (REAL, ("cost_usd",)),
    "error_class": (TEXT, ("error", "class")),
    "error_code": (TEXT, ("error", "code")),
    "error_message": (TEXT, ("error", "message")),
    "request": (TEXT, ("request",)),
}
"""Each with what it holds, and the keys that lead to its value in a record."""

KEY = ("artist_id", "recipe", "variant")
"""What tells results apart. Their texts are empty where a record has none, those of other columns null."""


def row(record: Record) -> tuple[Any, ...]:
    """The values of a record in the order of `COLUMNS`; objects and lists are JSON text."""
    return tuple(_value(record, name, path) for name, (_, path) in COLUMNS.items())


def _value(record: Record, name: str, path: tuple[str, ...]) -> Any:
    value: Any = record
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    if value is None:
        return "" if name in KEY else None
    if name in ("parsed", "request"):  # an answer that is the text "1" and one that is the number 1 differ
        value = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str):
        # Half of a surrogate pair, which a model can return and no file can hold, is "?".
        return value if value.isascii() else value.encode(errors="replace").decode()
    return value

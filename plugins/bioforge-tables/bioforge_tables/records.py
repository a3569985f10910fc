"""The ordered columns of a result, equal in Parquet and SQLite."""

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
"""Name → (type, path of keys to the value in a record)."""

KEY = ("artist_id", "recipe", "variant")
"""The columns that identify a result. A missing value is empty text in these and null in others."""


def row(record: Record) -> tuple[Any, ...]:
    """Return a record's values in the order of `COLUMNS`; objects and lists become JSON text."""
    return tuple(_value(record, name, path) for name, (_, path) in COLUMNS.items())


def _value(record: Record, name: str, path: tuple[str, ...]) -> Any:
    value: Any = record
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    if value is None:
        return "" if name in KEY else None
    if name in ("parsed", "request"):  # keeps the text "1" and the number 1 apart
        value = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str):
        # A model can return a lone surrogate, which has no UTF-8 form: it becomes "?".
        return value if value.isascii() else value.encode(errors="replace").decode()
    return value

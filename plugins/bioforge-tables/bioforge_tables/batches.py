"""Convert Arrow record batches to rows of JSON values without loss of digits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from bioforge.plugin import InputError, RowError
from bioforge_tables.file_kinds import remedy_for
from bioforge_tables.values import UNITS, base64_text, iso_duration, iso_time, iso_timestamp, zone_of

ROWS = 2_000
"""Rows converted to Python values at a time."""

Row = tuple[int, Mapping[str, Any] | RowError]


@contextmanager
def input_errors(kind: str, path: Path, source: str) -> Iterator[None]:
    """Raise errors of Arrow as `InputError`. `kind` is like "a Parquet file"."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        problem = str(error).partition("\n")[0].strip().rstrip(".")
        raise InputError(f"{source} cannot be read as {kind}: {problem}", remedy_for(path, kind)) from error


def numbered_rows(batches: Iterable[pa.RecordBatch], own: frozenset[str]) -> Iterator[Row]:
    """Yield rows with their numbers, from 1. Bytes become base64, but are errors in the `own` columns of an artist."""
    line = 1
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS):
            piece = batch.slice(start, ROWS)
            yield from _rows(piece, line, own)
            line += piece.num_rows


def _rows(batch: pa.RecordBatch, line: int, own: frozenset[str]) -> Iterator[Row]:
    names = batch.schema.names
    row_errors: dict[int, RowError] = {}
    columns = [_column(name, array, name in own, row_errors) for name, array in zip(names, batch.columns, strict=True)]
    for place, values in enumerate(zip(*columns, strict=True)):
        yield line + place, row_errors.get(place) or dict(zip(names, values, strict=True))


def _column(name: str, array: pa.Array, is_own: bool, row_errors: dict[int, RowError]) -> list[Any]:
    """Return a column's values; store the first error of each row in `row_errors`, by index."""
    if is_own and _is_bytes(array.type):
        for place, there in enumerate(array.is_valid().to_pylist()):
            if there:
                row_errors.setdefault(place, RowError(f"{name} is bytes, expected text"))
        return [None] * len(array)
    try:
        return _values(array)
    except (ValueError, OverflowError):  # at least one bad value: convert one by one
        return [_value(name, array.slice(place, 1), place, row_errors) for place in range(len(array))]


def _value(name: str, array: pa.Array, place: int, row_errors: dict[int, RowError]) -> Any:
    try:
        return _values(array)[0]
    except UnicodeDecodeError:
        problem = "is not valid UTF-8"
    except (ValueError, OverflowError):
        problem = f"has a {array.type} outside the years 1 to 9999"
    row_errors.setdefault(place, RowError(f"{name} {problem}"))
    return None


def _values(array: pa.Array) -> list[Any]:
    """Return JSON values, or types that bioforge converts itself (dates, times, decimals, UUIDs, NaN)."""
    kind = array.type
    if kinds.is_timestamp(kind):
        zone = zone_of(kind.tz) if kind.tz else None
        return _each(array.cast(pa.int64()), lambda value: iso_timestamp(value, kind.unit, zone))
    if kinds.is_time64(kind) and kind.unit == "ns":
        return _each(array.cast(pa.int64()), lambda value: iso_time(value, "ns"))
    if kinds.is_duration(kind):
        size = UNITS["ns"] // UNITS[kind.unit]
        return _each(array.cast(pa.int64()), lambda value: iso_duration(nanoseconds=value * size))
    if kinds.is_interval(kind):
        return _each(array, lambda value: iso_duration(value.months, value.days, value.nanoseconds))
    if kinds.is_decimal(kind) and kind.scale <= 0:
        return _each(array, int)
    if _is_bytes(kind):
        return _each(array, base64_text)
    if kinds.is_dictionary(kind):
        return _values(array.dictionary_decode())
    if kinds.is_run_end_encoded(kind):
        return _values(pc.run_end_decode(array))
    if kinds.is_struct(kind):
        return _structs(array)
    if kinds.is_map(kind):
        return _maps(array)
    if kinds.is_nested(kind) and not kinds.is_union(kind):
        return _lists(_values(array.flatten()), pc.list_value_length(array).to_pylist())
    if isinstance(kind, pa.BaseExtensionType) and kind.extension_name != "arrow.uuid":
        return _values(array.storage)
    found: list[Any] = array.to_pylist()
    return found


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        kinds.is_binary(kind)
        or kinds.is_large_binary(kind)
        or kinds.is_fixed_size_binary(kind)
        or kinds.is_binary_view(kind)
    )


def _each(array: pa.Array, convert: Callable[[Any], Any]) -> list[Any]:
    return [None if value is None else convert(value) for value in array.to_pylist()]


def _structs(array: pa.Array) -> list[Any]:
    names = [field.name for field in array.type]
    if not names:
        return [{} if there else None for there in array.is_valid().to_pylist()]
    children = [_values(child) for child in array.flatten()]
    there = array.is_valid().to_pylist()
    return [
        dict(zip(names, values, strict=True)) if is_there else None
        for is_there, *values in zip(there, *children, strict=True)
    ]


def _maps(array: pa.Array) -> list[Any]:
    entries = pa.struct([("key", array.type.key_type), ("value", array.type.item_type)])
    pairs = _values(array.cast(pa.list_(entries)))
    return [None if found is None else {_key(one["key"]): one["value"] for one in found} for found in pairs]


def _key(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _lists(flat: list[Any], lengths: list[int | None]) -> list[Any]:
    found: list[Any] = []
    start = 0
    for length in lengths:
        if length is None:
            found.append(None)
        else:
            found.append(flat[start : start + length])
            start += length
    return found

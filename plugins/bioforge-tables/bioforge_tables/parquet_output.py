"""Write results as Parquet, one row group at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from bioforge.plugin import Record
from bioforge_tables import records as columns
from bioforge_tables.options import ParquetOutputOptions

_KINDS = {
    columns.TEXT: pa.string(),
    columns.TIME: pa.timestamp("us", tz="UTC"),
    columns.INTEGER: pa.int64(),
    columns.REAL: pa.float64(),
}
SCHEMA = pa.schema(
    [
        pa.field(name, _KINDS[kind], nullable=name not in columns.KEY and name != "artist_name")
        for name, (kind, _) in columns.COLUMNS.items()
    ]
)
"""The same for every project, so that files can be read together."""

_ROWS = 1_000
_GROUP_BYTES = 64 << 20


def write(records: Iterable[Record], stream: IO[bytes], options: ParquetOutputOptions) -> None:
    """Write a row per record. Full row groups are written at once, so memory does not grow with the results."""
    with pq.ParquetWriter(pa.PythonFile(stream, mode="w"), SCHEMA, compression=options.compression) as writer:
        for group in _groups(records, options.row_group_size):
            writer.write_table(group, row_group_size=options.row_group_size)


def _groups(records: Iterable[Record], size: int) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    rows = held_bytes = 0
    for batch in _batches(records, min(size, _ROWS)):
        if rows + batch.num_rows > size or held_bytes + batch.nbytes > _GROUP_BYTES:
            if held:
                yield pa.Table.from_batches(held)
            held, rows, held_bytes = [], 0, 0
        held.append(batch)
        rows += batch.num_rows
        held_bytes += batch.nbytes
    if held:
        yield pa.Table.from_batches(held)


def _batches(records: Iterable[Record], size: int) -> Iterator[pa.RecordBatch]:
    rows = map(columns.row, records)
    while piece := list(islice(rows, size)):
        arrays = [
            pa.array(_times(values) if field.type == _KINDS[columns.TIME] else values, field.type)
            for field, values in zip(SCHEMA, zip(*piece, strict=True), strict=True)
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _times(values: Iterable[Any]) -> list[datetime | None]:
    return [None if value is None else datetime.fromisoformat(value) for value in values]

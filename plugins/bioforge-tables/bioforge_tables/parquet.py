"""Reading Parquet: a batch of rows at a time, only the columns that are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from bioforge.plugin import Artist, BadRow, artists
from bioforge_tables.batches import ROWS, numbered_rows, unreadable_as
from bioforge_tables.naming import own_columns, selected
from bioforge_tables.options import ParquetOptions

_BUFFER = 1 << 20


def read(path: Path, source: str, options: ParquetOptions) -> Iterator[Artist | BadRow]:
    """The rows of a Parquet file. Raises `InputError` when it is none, is encrypted, or breaks off."""
    with (
        unreadable_as("a Parquet file", path, source),
        # Buffered, and not read ahead: a file of one large row group is held in pages, never whole.
        pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False) as file,
    ):
        names = selected(file.schema_arrow.names, options.select, source)
        batches = file.iter_batches(ROWS, columns=names if options.select else None)
        yield from artists(numbered_rows(batches, own_columns(options.columns)), source, options.columns, names)

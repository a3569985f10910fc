"""Read selected columns of Parquet files in batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from bioforge.plugin import Artist, BadRow, artists
from bioforge_tables.batches import ROWS, input_errors, numbered_rows
from bioforge_tables.column_names import own_columns, selected
from bioforge_tables.options import ParquetOptions

_BUFFER = 1 << 20


def read(path: Path, source: str, options: ParquetOptions) -> Iterator[Artist | BadRow]:
    """Yield the rows. Raises `InputError` if the file is not Parquet, encrypted or truncated."""
    with (
        input_errors("a Parquet file", path, source),
        # Buffered without read-ahead, so that one large row group is held in pages.
        pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False) as file,
    ):
        names = selected(file.schema_arrow.names, options.select, source)
        batches = file.iter_batches(ROWS, columns=names if options.select else None)
        yield from artists(numbered_rows(batches, own_columns(options.columns)), source, options.columns, names)

"""Read Arrow IPC files (including Feather 2) and streams, recognized by their first bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from bioforge.plugin import Artist, BadRow, InputError, artists
from bioforge_tables.batches import input_errors, numbered_rows
from bioforge_tables.column_names import own_columns, selected
from bioforge_tables.file_kinds import head, identify
from bioforge_tables.options import ArrowOptions

_FILE = b"ARROW1"
_OLD_FEATHER = b"FEA1"


def read(path: Path, source: str, options: ArrowOptions) -> Iterator[Artist | BadRow]:
    """Yield the rows with one record batch in memory at a time. Raises `InputError` if the file is not Arrow data."""
    first = head(path)
    if first.startswith(_OLD_FEATHER):
        kind, remedy = identify(path)
        raise InputError(f"{source} is {kind}, which is not supported", remedy)
    with input_errors("an Arrow file", path, source), pa.OSFile(str(path)) as file:
        is_file = first.startswith(_FILE)
        with _opened(file, is_file, None) as reader:
            schema = reader.schema
        names = selected(schema.names, options.select, source)
        wanted = [schema.names.index(name) for name in names] if options.select else None
        file.seek(0)
        with _opened(file, is_file, wanted) as reader:
            batches = (reader.get_batch(number) for number in range(reader.num_record_batches)) if is_file else reader
            yield from artists(numbered_rows(batches, own_columns(options.columns)), source, options.columns, names)


def _opened(file: pa.NativeFile, is_file: bool, wanted: list[int] | None) -> pa.RecordBatchReader:
    options = pa.ipc.IpcReadOptions(included_fields=wanted)
    return pa.ipc.open_file(file, options=options) if is_file else pa.ipc.open_stream(file, options=options)

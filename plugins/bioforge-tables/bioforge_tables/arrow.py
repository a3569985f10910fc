"""Reading Arrow: IPC files (which Feather is) and IPC streams, told apart by their first bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from bioforge.plugin import Artist, BadRow, InputError, artists
from bioforge_tables.batches import numbered_rows, unreadable_as
from bioforge_tables.looks import head, looks_like
from bioforge_tables.naming import own_columns, selected
from bioforge_tables.options import ArrowOptions

_FILE = b"ARROW1"
_OLD_FEATHER = b"FEA1"


def read(path: Path, source: str, options: ArrowOptions) -> Iterator[Artist | BadRow]:
    """The rows of all record batches, one batch in memory at a time. Raises `InputError` when it is no Arrow data."""
    first = head(path)
    if first.startswith(_OLD_FEATHER):
        kind, remedy = looks_like(path)
        raise InputError(f"{source} is {kind}, which is not read", remedy)
    with unreadable_as("an Arrow file", path, source), pa.OSFile(str(path)) as file:
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

"""Register the built-in readers."""

from __future__ import annotations

from collections.abc import Mapping

from bioforge.core.interfaces import Reader
from bioforge.plugins.hookspecs import hookimpl
from bioforge.readers.csv import csv_reader, tsv_reader
from bioforge.readers.jsonl import jsonl_reader


@hookimpl
def bioforge_readers() -> Mapping[str, Reader]:
    return {"csv": csv_reader, "tsv": tsv_reader, "jsonl": jsonl_reader, "ndjson": jsonl_reader}

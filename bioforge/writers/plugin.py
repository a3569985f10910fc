"""Register the built-in writers."""

from __future__ import annotations

from collections.abc import Mapping

from bioforge.core.interfaces import FolderWriter, Writer
from bioforge.plugins.hookspecs import hookimpl
from bioforge.writers.csv import csv_writer, tsv_writer
from bioforge.writers.jsonl import jsonl_writer
from bioforge.writers.markdown import MarkdownFolder, markdown_writer


@hookimpl
def bioforge_writers() -> Mapping[str, Writer | FolderWriter]:
    return {
        "jsonl": jsonl_writer,
        "ndjson": jsonl_writer,
        "csv": csv_writer,
        "tsv": tsv_writer,
        "md": markdown_writer,
        "markdown": markdown_writer,
        "markdown-folder": MarkdownFolder(),
    }

"""Handle a plugin as a run does: validate its table, open its file, put its output in place."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bioforge.config.plugin_options import PluginOptions
from bioforge.core.files import atomic_write
from bioforge.core.interfaces import Record
from bioforge.core.types import Artist, BadRow
from bioforge.engine.outputs import BoundWriter
from bioforge.readers.reader_plugin import BoundReader
from bioforge.readers.sources import Source

_OPTIONS = PluginOptions("bioforge.toml", lambda name: os.environ.get(name) or None)


def handed(plugin: Any, table: Mapping[str, object], key: str) -> Any:
    """Return the options for a plugin from a table of the project file (`key` is its name). Raises `ConfigError`."""
    return _OPTIONS.read(plugin, table, key)


def read(reader: Any, path: Path, table: Mapping[str, object]) -> Iterator[Artist | BadRow]:
    """Yield the rows of a file as a run reads them, but let a plugin's exceptions through."""
    return BoundReader(reader, handed(reader, table, "input")).rows(Source(path.name, path))


def deliver(writer: Any, records: Iterable[Record], path: Path, table: Mapping[str, object]) -> str:
    """Write an output as a run does. Return the note of a writer of a path."""
    chosen = BoundWriter("tested", writer, handed(writer, table, "output"))
    if chosen.to_path:
        return chosen.path(records, path)
    if chosen.to_folder:
        for name, content in chosen.files(records):
            with atomic_write(path / name, durable=False) as stream:
                stream.write(content)
    else:
        with atomic_write(path) as stream:
            chosen.stream(records, stream)
    return ""

"""Writing the outputs a project names, atomically, and only those whose content may have changed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from bioforge.config import Output, ProjectConfig
from bioforge.errors import BioforgeError
from bioforge.files import atomic_write
from bioforge.fingerprint import canonical
from bioforge.interfaces import FolderWriter, Record, Writer
from bioforge.plugins import Plugins
from bioforge.store import Selection, Store, upkeep
from bioforge.store.results import records


@dataclass(frozen=True, slots=True)
class Written:
    """An output as it is now; `changed` False: it was left as it was."""

    path: str
    records: int
    changed: bool


def write_outputs(
    store: Store, config: ProjectConfig, plugins: Plugins, variants: Mapping[str, Sequence[str]]
) -> tuple[list[Written], list[str]]:
    """Write each output; one that cannot be written does not keep the others from it. Returns (written, errors).

    `variants` are those of each recipe; the first is written where an output does not ask for all.
    """
    written: list[Written] = []
    errors: list[str] = []
    for output in config.outputs:
        try:
            written.append(_write(store, config, plugins, output, variants))
        except BioforgeError as error:
            errors.append(error.message + (f" ({error.hint})" if error.hint else ""))
        except Exception as error:  # whatever a plugin's writer does, the answers are kept and shown as done
            errors.append(f"{output.path}: the writer failed: {type(error).__name__}: {error} (the state is intact)")
    return written, errors


def check_outputs(config: ProjectConfig, plugins: Plugins) -> None:
    """Raise `PluginError` or `ConfigError` for an output nobody can write: better before anything is paid for than
    after. Options are checked by the writer itself, which is given no records and a place that is thrown away."""
    for output in config.outputs:
        writer = plugins.writer(writer_name(output.path, output.writer))
        try:
            if getattr(writer, "writes_folder", False):
                list(cast("FolderWriter", writer)((), output.options))
            else:
                cast("Writer", writer)((), io.BytesIO(), output.options)
        except BioforgeError:
            raise
        except Exception:  # a plugin's writer that cannot do without records: that says nothing about its options
            continue


def writer_name(path: str, given: str | None) -> str:
    """By option, else by suffix; a path that ends with a slash is a folder of files."""
    if given:
        return given
    if path.endswith("/"):
        return "markdown-folder"
    return Path(path).suffix.lstrip(".").lower() or "jsonl"


def _write(
    store: Store, config: ProjectConfig, plugins: Plugins, output: Output, variants: Mapping[str, Sequence[str]]
) -> Written:
    path = config.root / output.path
    name = writer_name(output.path, output.writer)
    writer = plugins.writer(name)
    recipes = (output.recipe,) if output.recipe else tuple(config.recipes)
    most = None if output.all else 1
    chosen = tuple((recipe, name) for recipe in recipes for name in variants[recipe][:most])
    options = canonical({"writer": name, "options": output.options, "recipes": recipes, "variants": chosen}).decode()
    version = store.fact("results_version")
    before = upkeep.output_written(store, output.path)
    if before is not None and before[:2] == (options, version) and before[2] == _signature(path):
        return Written(output.path, 0, changed=False)
    counter = _Counter(records(store, Selection(recipes=recipes, variants=chosen)))
    files: str | None = None
    if getattr(writer, "writes_folder", False):
        files = json.dumps(_write_folder(path, cast("FolderWriter", writer), counter, output, before and before[3]))
    else:
        with atomic_write(path) as stream:
            cast("Writer", writer)(counter, stream, output.options)
    upkeep.remember_output(store, output.path, options, version, _signature(path) or "", files)
    return Written(output.path, counter.count, changed=True)


def _write_folder(
    folder: Path, writer: FolderWriter, rows: Iterator[Record], output: Output, before: str | None
) -> list[str]:
    """Files that an earlier run wrote and this one does not are removed; files of others are left alone."""
    names: list[str] = []
    for name, content in writer(rows, output.options):
        with atomic_write(folder / name, durable=False) as stream:
            stream.write(content)
        names.append(name)
    for name in set(json.loads(before or "[]")) - set(names):
        with suppress(OSError):
            (folder / name).unlink()
    return names


def _signature(path: Path) -> str | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ino}"


class _Counter(Iterator[Record]):
    def __init__(self, rows: Iterator[dict[str, object]]) -> None:
        self._rows = rows
        self.count = 0

    def __next__(self) -> Record:
        row = next(self._rows)
        self.count += 1
        return row

"""Write the outputs of a project atomically, and only those whose content may have changed."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from bioforge.config.loader import OutputTable, ProjectConfig
from bioforge.config.plugin_options import PluginOptions, plugin_options
from bioforge.config.taken import TakenFiles
from bioforge.core.errors import BioforgeError, ConfigError, OutputError, PluginError
from bioforge.core.files import atomic_write
from bioforge.core.hashing import definition_hash
from bioforge.core.interfaces import AnyWriter, FolderWriter, PathWriter, Record, Writer
from bioforge.plugins.manager import Plugins
from bioforge.store import Selection, Store, maintenance
from bioforge.store.export import records


@dataclass(frozen=True, slots=True)
class Written:
    """An output. `changed` is False if it was not rewritten; `note` is a message of its writer."""

    path: str
    records: int
    changed: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class BoundWriter:
    """A writer with its options."""

    name: str
    writer: AnyWriter
    options: object
    plugin: str = ""
    version: str = ""
    """Plugin and version; empty for a built-in writer."""

    @property
    def to_folder(self) -> bool:
        return bool(getattr(self.writer, "writes_folder", False))

    @property
    def to_path(self) -> bool:
        return bool(getattr(self.writer, "writes_path", False))

    def stream(self, rows: Iterable[Record], stream: IO[bytes]) -> None:
        """Write a stream. Raises `OutputError` if records are missing."""
        rows = iter(rows)
        with self._plugin_errors(), redirect_stdout(sys.stderr):
            given: object = cast("Writer", self.writer)(rows, stream, self.options)
        if given is not None:
            raise OutputError(
                f"{self._label} returned {type(given).__name__}, expected nothing",
                "a writer writes to its stream and must not be a generator",
            )
        self._check_complete(rows)

    def files(self, rows: Iterable[Record]) -> Iterator[tuple[str, bytes]]:
        """Yield names and contents of the files of a folder. Raises `OutputError` for a name outside of it."""
        rows = iter(rows)
        with self._plugin_errors():
            for name, content in cast("FolderWriter", self.writer)(rows, self.options):
                place = Path(name)
                if place.is_absolute() or ".." in place.parts or not place.parts:
                    raise OutputError(f"{self._label} names a file outside of its folder: {name!r}")
                if not isinstance(content, bytes):
                    raise OutputError(
                        f"{self._label} gave {type(content).__name__} for the content of {name}, expected bytes"
                    )
                yield name, content
        self._check_complete(rows)

    def path(self, rows: Iterable[Record], path: Path) -> str:
        """Write to a path and return the writer's note. Raises `OutputError` if something failed."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
        with self._plugin_errors(), redirect_stdout(sys.stderr):
            note = cast("PathWriter", self.writer)(rows, path, self.options)
        return note if isinstance(note, str) else ""

    @property
    def _label(self) -> str:
        return f"writer {self.name!r}" + (f" of plugin {self.plugin!r}" if self.plugin else "")

    def _check_complete(self, rows: Iterator[Record]) -> None:
        if next(rows, None) is not None:
            raise OutputError(f"{self._label} did not take all records; some are missing")

    @contextmanager
    def _plugin_errors(self) -> Iterator[None]:
        """Turn a plugin's exceptions into errors that name it. `OSError` (a full disk) passes through."""
        try:
            yield
        except (BioforgeError, OSError):
            raise
        except (Exception, SystemExit) as error:
            if not self.plugin:
                raise
            raise OutputError(
                f"{self._label} failed: {type(error).__name__}: {error}",
                "the state is intact; BIOFORGE_DEBUG=1 shows where the plugin went wrong",
            ) from error


def bind_writer(
    plugins: Plugins, options: PluginOptions, name: str, table: Mapping[str, object], key: str
) -> BoundWriter:
    """Return the writer of this name with the options in `table`. Raises `PluginError` and `ConfigError`."""
    writer = plugins.writer(name)
    plugin = plugins.third_party("bioforge_writers", name)
    return BoundWriter(name, writer, options.read(writer, table, key), plugin, plugins.version(plugin))


def write_outputs(
    store: Store, config: ProjectConfig, plugins: Plugins, variants: Mapping[str, Sequence[str]]
) -> tuple[list[Written], list[str]]:
    """Write every output that can be written. Return what was written, and error messages for the others.

    `variants` are the variants of each recipe; an output without `all` has the first.
    """
    written: list[Written] = []
    errors: list[str] = []
    for output in config.outputs:
        try:
            written.append(_write(store, config, plugins, output, variants))
        except BioforgeError as error:
            place = "" if Path(output.path).name in error.message else f"{output.path}: "
            errors.append(place + error.message + (f" ({error.hint})" if error.hint else ""))
        except Exception as error:  # answers are stored: a plugin's error must not fail the run
            errors.append(f"{output.path}: the writer failed: {type(error).__name__}: {error} (the state is intact)")
    return written, errors


def check_outputs(config: ProjectConfig, plugins: Plugins) -> None:
    """Raise `PluginError` or `ConfigError` for an output that cannot be written, before anything is paid for.

    A writer without an `Options` model checks its options when it writes, so it is run without records.
    """
    ledger = config.simulator.get("ledger")
    taken = TakenFiles(config)
    if ledger is not None and (use := taken.use(Path(ledger))):
        raise ConfigError(f"simulator.ledger: {ledger} is {use}", "name another file; nothing was written")
    for output in config.outputs:
        writer = _bound_writer(config, plugins, output)
        if not writer.to_folder:
            _check_free(taken, config.root / output.path, ConfigError)
        if writer.to_path or getattr(writer.writer, "Options", None) is not None:
            continue
        try:
            if writer.to_folder:
                list(writer.files(()))
            else:
                writer.stream((), io.BytesIO())
        except OutputError as error:
            if not writer.plugin:
                raise
            if isinstance(error.__cause__, Exception | SystemExit):  # it may need records
                continue
            raise PluginError(f"{output.path}: {error.message}", error.hint) from None
        except BioforgeError:
            raise
        except Exception:  # it may need records: its options may be valid
            continue


def _check_free(taken: TakenFiles, path: Path, error: type[BioforgeError]) -> None:
    """Raise an error for an output that would overwrite a file of the project, directly or through a link."""
    if use := taken.use(path):
        raise error(f"output {path}: this is {use}", "name another file as its path; nothing was written there")


def writer_name(path: str, given: str | None) -> str:
    """Return the name of an output's writer: the option, else by suffix; a trailing slash means a folder."""
    if given:
        return given
    if path.endswith("/"):
        return "markdown-folder"
    return Path(path).suffix.lstrip(".").lower() or "jsonl"


def _write(
    store: Store, config: ProjectConfig, plugins: Plugins, output: OutputTable, variants: Mapping[str, Sequence[str]]
) -> Written:
    path = config.root / output.path
    name = writer_name(output.path, output.writer)
    writer = _bound_writer(config, plugins, output)
    recipes = (output.recipe,) if output.recipe else tuple(config.recipes)
    most = None if output.all else 1
    chosen = tuple((recipe, name) for recipe in recipes for name in variants[recipe][:most])
    # hashed, because an option may be a secret; another version of the plugin may write differently
    definition = {"writer": name, "options": output.options, "recipes": recipes, "variants": chosen}
    if writer.plugin:
        definition["plugin"] = f"{writer.plugin} {writer.version}"
    options = definition_hash(json.loads(json.dumps(definition, default=str)))
    version = store.fact("results_version")
    before = maintenance.output_written(store, output.path)
    if before is not None and before[:2] == (options, version) and before[2] == _signature(path):
        return Written(output.path, 0, changed=False)
    counter = _Counter(records(store, Selection(recipes=recipes, variants=chosen)))
    files: str | None = None
    note = ""
    taken = TakenFiles(config)
    if not writer.to_folder:
        _check_free(taken, path, OutputError)
    if writer.to_folder:
        files = json.dumps(_write_folder(taken, path, writer, counter, before and before[3]))
    elif writer.to_path:
        note = writer.path(counter, path)
    else:
        with atomic_write(path) as stream:
            writer.stream(counter, stream)
    maintenance.remember_output(store, output.path, options, version, _signature(path) or "", files)
    return Written(output.path, counter.count, changed=True, note=note)


def _bound_writer(config: ProjectConfig, plugins: Plugins, output: OutputTable) -> BoundWriter:
    key = "output" if len(config.outputs) == 1 else f"output {config.outputs.index(output) + 1}"
    return bind_writer(plugins, plugin_options(config), writer_name(output.path, output.writer), output.options, key)


def _write_folder(
    taken: TakenFiles, folder: Path, writer: BoundWriter, rows: Iterator[Record], before: str | None
) -> list[str]:
    """Write the files of a folder and remove those that only an earlier run wrote; leave other files alone."""
    names: list[str] = []
    for name, content in writer.files(rows):
        _check_free(taken, folder / name, OutputError)
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

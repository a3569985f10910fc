"""Bring the state up to date with the input and the recipes: read changed sources, then plan."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bioforge.core.errors import PluginError
from bioforge.core.hashing import definition_hash
from bioforge.core.progress import ProgressCallback, ProgressCounter, no_progress
from bioforge.core.text import plural
from bioforge.core.types import Artist, BadRow
from bioforge.planner.context import PlanContext
from bioforge.planner.planner import Planner
from bioforge.readers.reader_plugin import FindReader
from bioforge.readers.sources import Signature, Source, find, is_url
from bioforge.store import Store, artists
from bioforge.store.artists import InputReading


@dataclass(frozen=True, slots=True)
class InputSpec:
    """Location, reader and options of the input; `reader` None: by suffix."""

    path: str
    reader: str | None
    options: Mapping[str, object]
    root: Path
    cache: Path


@dataclass(slots=True)
class RefreshResult:
    """Result of a refresh. `reading` is None if the input is unchanged and was not read.

    `rendered` targets were planned, `reused` of them are fresh by a stored answer. `checked` stored answers were validated,
    `misfits` of them do not fit the schema.
    """

    reading: InputReading | None = None
    rendered: int = 0
    reused: int = 0
    notes: list[str] = field(default_factory=list)
    checked: int = 0
    misfits: int = 0


def refresh(
    context: PlanContext, spec: InputSpec, find_reader: FindReader, progress: ProgressCallback = no_progress
) -> RefreshResult:
    """Read the input and plan all targets. Rows that cannot be used are counted in `reading`.

    Raises `InputError` and `TemplateError`.
    """
    reading = read_input(context.store, spec, find_reader, progress)
    planner = Planner(context, progress)
    planner.plan()
    stats = planner.stats
    done = RefreshResult(reading, stats.planned, stats.reused, checked=stats.checked, misfits=stats.misfits)
    if stats.kept:
        kept = plural(stats.kept, "answer")
        done.notes.append(f"the backend now serializes requests differently: {kept} kept; `run -B` buys them again")
    return done


# ------------------------------------------------------------------------------------------------------------ input


def read_input(
    store: Store, spec: InputSpec, find_reader: FindReader, progress: ProgressCallback = no_progress
) -> InputReading | None:
    """Read the input into the state; return None if every source is unchanged."""
    known = artists.sources(store)
    # a hash, because a path may be a URL that carries a token
    read_as: dict[str, object] = {"reader": spec.reader, "options": spec.options, "path": spec.path}
    if plugin := _plugin(spec, find_reader):  # another version of the plugin may read other rows
        read_as["plugin"] = plugin
    reader = definition_hash(json.loads(json.dumps(read_as, default=str)))  # TOML has dates
    same_reader = artists.remembered_reader(store) == reader
    sources: list[Source]
    seen: dict[str, dict[str, Any]] = {}
    if is_url(spec.path):
        from bioforge.readers.download import Validators, fetch, shown

        name = shown(spec.path)
        before = known.get(name) if same_reader else None
        validators = Validators(before["etag"], before["last_modified"]) if before else None
        fetched = fetch(spec.path, spec.cache, validators)
        if fetched.unchanged and before is not None:
            return None
        sources = [fetched.source]
        seen[name] = {
            "etag": fetched.validators.etag,
            "last_modified": fetched.validators.last_modified,
            "cached_as": str(fetched.path),
        }
    else:
        sources = find(spec.path, spec.root)
        for source in sources:
            signature = source.signature()
            seen[source.name] = {"signature": _signature_text(signature)}
        if (
            same_reader
            and seen.keys() == known.keys()
            and all(
                entry["signature"] and entry["signature"] == known[name]["signature"] for name, entry in seen.items()
            )
        ):
            return None
    counter = ProgressCounter("reading the input", "rows", progress)
    reading = artists.read_into(store, counter.over(_rows(sources, spec, find_reader)))
    # last, so that an interrupted reading is repeated
    artists.remember_sources(store, seen, reader)
    return reading


def _plugin(spec: InputSpec, find_reader: FindReader) -> str:
    """Return name and version of the plugin that reads the input; empty for a built-in reader."""
    name = spec.reader or Source(spec.path, None).suffix or "csv"
    try:
        found = find_reader(name)
    except PluginError:  # the path is a pattern; reading its files raises the error
        return ""
    return f"{found.plugin} {found.version}".strip()


def _signature_text(signature: Signature | None) -> str | None:
    """Return None for sources to read each time: streams, and files too recently changed to trust their timestamp."""
    if signature is None or not signature.trusted:
        return None
    return signature.as_text()


def _rows(sources: Iterable[Source], spec: InputSpec, find_reader: FindReader) -> Iterator[Artist | BadRow]:
    for source in sources:
        yield from find_reader(spec.reader or source.suffix or "csv").rows(source)

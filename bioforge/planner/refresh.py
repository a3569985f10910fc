"""Bringing the state up to date with the input and the recipes: read what changed, then plan."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bioforge.core.errors import PluginError
from bioforge.core.hashing import definition_hash
from bioforge.core.interfaces import Backend
from bioforge.core.progress import ProgressCallback, ProgressCounter, no_progress
from bioforge.core.text import plural
from bioforge.core.types import Artist, BadRow
from bioforge.planner.planner import Planner
from bioforge.readers.reader_plugin import FindReader
from bioforge.readers.sources import Signature, Source, find, is_url
from bioforge.recipes.template import RecipeVariant
from bioforge.store import Store, artists
from bioforge.store.artists import InputReading


@dataclass(frozen=True, slots=True)
class InputSpec:
    """Where the rows come from and how they are read; `reader` None means by suffix."""

    path: str
    reader: str | None
    options: Mapping[str, object]
    root: Path
    cache: Path


@dataclass(slots=True)
class Refreshed:
    """`reading` is None when the input was untouched and not read. `rendered` counts targets that were planned anew,
    `reused` those among them that an answer already in the state serves; `checked` and `misfits` are answers that were
    checked by a schema anew, and those of them that do not fit it."""

    reading: InputReading | None = None
    rendered: int = 0
    reused: int = 0
    notes: list[str] = field(default_factory=list)
    checked: int = 0
    misfits: int = 0


def refresh(
    store: Store,
    spec: InputSpec,
    find_reader: FindReader,
    recipes: Sequence[RecipeVariant],
    backend: Backend,
    *,
    resend_maybe_paid: bool,
    tell: ProgressCallback = no_progress,
) -> Refreshed:
    """Raises `InputError` and `TemplateError`; rows that cannot be used are counted in `reading`. `tell` hears now and then
    how far it is."""
    reading = read_input(store, spec, find_reader, tell)
    planner = Planner(store, recipes, backend, resend_maybe_paid=resend_maybe_paid, tell=tell)
    planner.plan()
    counts = planner.counts
    done = Refreshed(reading, counts.planned, counts.reused, checked=counts.checked, misfits=counts.misfits)
    if counts.kept:
        kept = plural(counts.kept, "answer")
        done.notes.append(f"the backend writes requests in another way now: {kept} kept; `run -B` asks for them anew")
    return done


# ------------------------------------------------------------------------------------------------------------ input


def read_input(
    store: Store, spec: InputSpec, find_reader: FindReader, tell: ProgressCallback = no_progress
) -> InputReading | None:
    """Read the input into the state, unless every source is known to be untouched."""
    known = artists.sources(store)
    # a hash, because a path may be a URL that carries a token
    read_as: dict[str, object] = {"reader": spec.reader, "options": spec.options, "path": spec.path}
    if plugin := _plugin(spec, find_reader):  # another version of it may read something else
        read_as["plugin"] = plugin
    reader = definition_hash(json.loads(json.dumps(read_as, default=str)))  # TOML has dates
    same_reader = artists.remembered_reader(store) == reader
    found: list[Source]
    seen: dict[str, dict[str, Any]] = {}
    if is_url(spec.path):
        from bioforge.readers.download import Validators, fetch, shown

        name = shown(spec.path)
        before = known.get(name) if same_reader else None
        validators = Validators(before["etag"], before["last_modified"]) if before else None
        fetched = fetch(spec.path, spec.cache, validators)
        if fetched.unchanged and before is not None:
            return None
        found = [fetched.source]
        seen[name] = {
            "etag": fetched.validators.etag,
            "last_modified": fetched.validators.last_modified,
            "cached_as": str(fetched.path),
        }
    else:
        found = find(spec.path, spec.root)
        for source in found:
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
    told = ProgressCounter("reading the input", "rows", tell)
    reading = artists.read_into(store, told.over(_rows(found, spec, find_reader)))
    # Only now: a reading that was cut off is read again.
    artists.remember_sources(store, seen, reader)
    return reading


def _plugin(spec: InputSpec, find_reader: FindReader) -> str:
    """Which plugin reads the input, and its version; empty for what is built in."""
    name = spec.reader or Source(spec.path, None).suffix or "csv"
    try:
        found = find_reader(name)
    except PluginError:  # the name of a path that is a pattern; whoever reads its files says what is wrong
        return ""
    return f"{found.plugin} {found.version}".strip()


def _signature_text(signature: Signature | None) -> str | None:
    """None for what has to be read each time: streams, and files too young for their clock to be trusted."""
    if signature is None or not signature.trusted:
        return None
    return signature.as_text()


def _rows(sources: Iterable[Source], spec: InputSpec, find_reader: FindReader) -> Iterator[Artist | BadRow]:
    for source in sources:
        yield from find_reader(spec.reader or source.suffix or "csv").rows(source)

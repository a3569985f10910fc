"""Bringing the state up to date with the input and the recipes: read what changed, render, decide, remember why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bioforge.fingerprint import canonical, definition_hash, request_hash
from bioforge.interfaces import Backend, Reader
from bioforge.model import Artist, BadRow, Rendered
from bioforge.plan import FAILED, Decision, column_changes, decide, definition_changes
from bioforge.prompts import Prompts, RenderError, estimate_tokens
from bioforge.readers.sources import Signature, Source, find, is_url
from bioforge.store import Store, inputs, targets
from bioforge.store.inputs import Reading
from bioforge.store.targets import Planned, PlannedArtist

FindReader = Callable[[str], Reader]


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
    `reused` those among them that an answer already in the state serves."""

    reading: Reading | None = None
    rendered: int = 0
    reused: int = 0
    notes: list[str] = field(default_factory=list)


def refresh(
    store: Store, spec: InputSpec, find_reader: FindReader, recipes: Sequence[Prompts], backend: Backend
) -> Refreshed:
    """Raises `InputError` and `TemplateError`; rows that cannot be used are counted in `reading`."""
    done = Refreshed()
    done.reading = read_input(store, spec, find_reader)
    generation = store.fact("generation")
    for prompts in recipes:
        _plan_recipe(store, prompts, backend, generation, done)
    return done


# ------------------------------------------------------------------------------------------------------------ input


def read_input(store: Store, spec: InputSpec, find_reader: FindReader) -> Reading | None:
    """Read the input into the state, unless every source is known to be untouched."""
    known = inputs.sources(store)
    # a hash, because a path may be a URL that carries a token
    reader = definition_hash({"reader": spec.reader, "options": spec.options, "path": spec.path})
    same_reader = inputs.remembered_reader(store) == reader
    found: list[Source]
    seen: dict[str, dict[str, Any]] = {}
    if is_url(spec.path):
        from bioforge.readers.downloads import Validators, fetch, shown

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
    reading = inputs.read_into(store, _rows(found, spec, find_reader))
    # Only now: a reading that was cut off is read again.
    inputs.remember_sources(store, seen, reader)
    return reading


def _signature_text(signature: Signature | None) -> str | None:
    """None for what has to be read each time: streams, and files too young for their clock to be trusted."""
    if signature is None or not signature.trusted:
        return None
    return f"{signature.size}:{signature.mtime_ns}:{signature.inode}"


def _rows(sources: Iterable[Source], spec: InputSpec, find_reader: FindReader) -> Iterator[Artist | BadRow]:
    for source in sources:
        reader = find_reader(spec.reader or source.suffix or "csv")
        with source.open() as stream:
            yield from reader(stream, source.name, spec.options)


# ---------------------------------------------------------------------------------------------------------- targets


def render(prompts: Prompts, backend: Backend, artist: Artist) -> tuple[str, bytes, int]:
    """(request hash, body, estimated input tokens). Raises `RenderError`."""
    rendered = prompts.render(artist)
    body = canonical(backend.body(rendered))
    return request_hash(rendered.endpoint, body, prompts.definition.dialect), body, _tokens(rendered)


def _tokens(rendered: Rendered) -> int:
    texts = [rendered.instructions or "", rendered.input or ""]
    if rendered.prompt is not None:
        variables = rendered.prompt.get("variables")
        texts += [str(value) for value in variables.values()] if isinstance(variables, Mapping) else []
    return 8 + sum(estimate_tokens(text) for text in texts if text)


def _plan_recipe(store: Store, prompts: Prompts, backend: Backend, generation: int, done: Refreshed) -> None:
    """Render what may have changed: everything for a new definition, else only artists whose rows changed."""
    recipe, variant = prompts.definition.recipe, prompts.definition.variant
    wanted = prompts.definition.as_dict()
    definition = targets.definition_id(store, recipe, variant, wanted)
    planned = targets.planned_up_to(store, recipe, variant)
    if planned == (definition, generation):
        return
    prompts.check_names(inputs.columns(store))
    since = planned[1] if planned is not None and planned[0] == definition else -1
    changes = _Changes(store, wanted, prompts.used_columns)
    for page in targets.artists(store, since):
        _plan_page(store, prompts, backend, definition, page, changes, done)
    targets.set_planned(store, recipe, variant, definition, generation)


def _plan_page(
    store: Store,
    prompts: Prompts,
    backend: Backend,
    definition: int,
    page: Sequence[PlannedArtist],
    changes: _Changes,
    done: Refreshed,
) -> None:
    recipe, variant = prompts.definition.recipe, prompts.definition.variant
    rendered: list[tuple[str, int] | RenderError] = []
    for item in page:
        try:
            digest, _, tokens = render(prompts, backend, item.artist)
            rendered.append((digest, tokens))
        except RenderError as error:
            rendered.append(error)
    known = targets.known_targets(store, recipe, variant, [item.id for item in page])
    requests = targets.known_requests(store, [result[0] for result in rendered if isinstance(result, tuple)])
    decided: list[Planned] = []
    for item, result in zip(page, rendered, strict=True):
        if isinstance(result, RenderError):
            decided.append(Planned(item.id, None, item.row_hash, 0, Decision(FAILED, f"template: {result}")))
            continue
        digest, tokens = result
        target = known.get(item.id)
        built = target is not None and target.built_response is not None
        decision = decide(
            digest,
            target,
            requests.get(digest),
            changes.since(target.built_definition, target.built_row, item) if target is not None and built else None,
        )
        done.reused += decision.reason is None and (target is None or target.built_response != decision.response)
        decided.append(Planned(item.id, digest, item.row_hash, tokens, decision))
    targets.save(store, recipe, variant, definition, decided)
    done.rendered += len(decided)


class _Changes:
    """What differs between what a target was built from and what it is wanted from, in a few words."""

    def __init__(self, store: Store, wanted: dict[str, object], used: frozenset[str] | None) -> None:
        self._store = store
        self._wanted = wanted
        self._used = used
        self._definitions: dict[int, list[str]] = {}

    def since(self, definition: int | None, row: str | None, item: PlannedArtist) -> str:
        parts: list[str] = []
        if definition is not None:
            if definition not in self._definitions:
                old = targets.definition(self._store, definition)
                self._definitions[definition] = [change.short() for change in definition_changes(old, self._wanted)]
            parts += self._definitions[definition]
        if row is not None and row != item.row_hash:
            before = targets.old_columns(self._store, item.id, row)
            if before is not None:
                now = {
                    "artist_name": item.artist.artist_name,
                    "artist_data": item.artist.artist_data,
                    **item.artist.columns,
                }
                parts += [change.short() for change in column_changes(before, now, self._used)]
        return ", ".join(parts)

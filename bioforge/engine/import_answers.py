"""Import answers that were paid for elsewhere, from result files and exports.

A line of a result file belongs, by its custom_id, to
1. an attempt in a batch of this state: recorded as if the batch had been collected
2. a line of an input file that was passed along, and so to a body and its hash
3. the request whose hash `custom_id` starts with, if a target wants it or it was sent before
and a record of an export to the request whose hash it names. Other lines are counted and not stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from bioforge.backends.batch.service import BatchResult
from bioforge.core.events import Attempt, Failed, Succeeded, Unusable
from bioforge.core.interfaces import Backend, Member
from bioforge.core.reasons import RequestState
from bioforge.core.types import Batch, Failure, Usage
from bioforge.engine.import_exports import Exported, read_record
from bioforge.engine.import_files import (
    AnswerFiles,
    Kind,
    Line,
    answered_at,
    answers_another,
    asked,
    kind_of,
    may_ask,
    name_of,
    parse,
    readable,
)
from bioforge.engine.import_result import ImportResult, Why
from bioforge.planner.context import PlanContext
from bioforge.planner.render import RenderedRequest, Renderer
from bioforge.recipes.template import RecipeVariant
from bioforge.store import Store, batches, imports
from bioforge.store.imports import ImportTarget, KnownImport, StoredImport
from bioforge.store.recorder import Recorder
from bioforge.store.recovery import recover
from bioforge.store.targets import PlannedArtist

Price = Callable[[str, Usage, str | None], float | None]


class Format(Protocol):
    """The format of a vendor's batch files. Pure; `bioforge.backends.openai.batch_lines` is one."""

    def read_line(self, batch: Batch, line: bytes, price: Price | None) -> BatchResult: ...
    def hash_of(self, custom_id: str) -> str | None: ...


Found = tuple[Line, dict[str, Any]]
Kept = tuple[Line, StoredImport]


class AnswerImporter:
    """Imports answers within one run. The targets must be up to date with the input."""

    def __init__(
        self, store: Store, run: int, recipes: Sequence[RecipeVariant], backend: Backend, format: Format
    ) -> None:
        self.result = ImportResult()
        self._store = store
        self._run = run
        self._recipes = {variant.key: variant for variant in recipes}
        self._renderer = Renderer(PlanContext(store, recipes, backend))
        self._dialect = recipes[0].definition.dialect
        self._backend = backend
        self._format = format
        self._now = time.time()
        self._batches: dict[str, Batch] = {}

    def adopt(self, files: AnswerFiles) -> ImportResult:
        """Import the lines of a group; they are durable before the next group.

        An invalid line is counted, never an error.
        """
        imports.prepare(self._store)
        for group in files.groups():
            self._note_requests(group)
        for group in files.groups():
            self._take(group)
        if self.result.settled:
            recover(self._store)  # what failed in a batch waits for the next run
        return self.result

    # ------------------------------------------------------------------------------------------------------- the lines

    def _note_requests(self, group: Sequence[Line]) -> None:
        found = []
        for line in filter(may_ask, group):
            try:
                entry = parse(line)
            except ValueError:
                continue  # counted when it is its turn
            if kind_of(entry) is not Kind.ASKS:
                continue
            self.result.requests += 1
            try:
                found.append(asked(entry, self._dialect))
            except ValueError as problem:
                self.result.unreadable.add(f"{line.place}: {problem}")
        imports.add_asked(
            self._store, [(item.custom_id, item.request_hash, item.endpoint, item.model, item.body) for item in found]
        )

    def _take(self, group: Sequence[Line]) -> None:
        results: list[Found] = []
        records: list[Found] = []
        for line in group:
            self.result.lines += 1
            try:
                entry = parse(line)
            except ValueError as problem:
                self.result.unreadable.add(f"{line.place}: {problem}")
                continue
            match kind_of(entry):
                case Kind.RESULT:
                    results.append((line, entry))
                case Kind.RECORD:
                    records.append((line, entry))
                case Kind.UNKNOWN:
                    self.result.unknown.add(f"{line.place}: neither a line of a batch nor a record of an export")
                case Kind.ASKS:
                    pass
        kept = self._of_results(results) + self._of_records(records)
        if kept:
            self._keep(kept)

    # --------------------------------------------------------------------------------------------- lines of result files

    def _of_results(self, results: Sequence[Found]) -> list[Kept]:
        if not results:
            return []
        left, wanted = self._settle_members(results)
        names = [name for name in map(_name, left) if name not in wanted]
        wanted |= self._by_input_files(names)
        hashes = {name: digest for name in names if name not in wanted and (digest := self._format.hash_of(name))}
        whole = imports.complete_hashes(self._store, list(hashes.values()))
        known = self._wanted(list(whole.values()))
        wanted |= {name: known[whole[digest]] for name, digest in hashes.items() if whole.get(digest) in known}
        artists = imports.artists_named(self._store, [name for name in names if name not in wanted])
        kept: list[Kept] = []
        for line, entry in left:
            name = name_of(entry)
            found = wanted.get(name, _why(name, hashes, artists))
            if (item := self._read(line, entry, found)) is not None:
                kept.append((line, item))
        return kept

    def _settle_members(self, results: Sequence[Found]) -> tuple[list[Found], dict[str, ImportTarget | Why]]:
        """Record the lines of open members. Return the other lines, and the requests of members that are closed.

        An answer that the batch itself never delivered is kept from such a line.
        """
        names = list(map(_name, results))
        keys = imports.batches_of(self._store, names)
        members: dict[str, Member] = {}
        for key in set(keys.values()):
            members |= batches.StoredMembers(self._store).find(key, [name for name in names if keys.get(name) == key])
        left: list[Found] = []
        wanted: dict[str, ImportTarget | Why] = {}
        events: list[Succeeded | Unusable | Failed] = []
        for line, entry in results:
            member = members.get(name := name_of(entry))
            if member is None or not member.open or name in wanted:
                left.append((line, entry))
            else:
                events.append(self._collected(member.attempt, line))
            if member is not None:
                request = member.attempt.request
                wanted[name] = ImportTarget(request.request_hash, request.endpoint, request.model)
        if events:
            answered = [event.attempt.request.request_hash for event in events if isinstance(event, Succeeded)]
            self.result.fresh += imports.stale_targets(self._store, answered)
            Recorder(self._store, self._run, imports.BACKEND).record(events)
        return left, wanted

    def _collected(self, attempt: Attempt, line: Line) -> Succeeded | Unusable | Failed:
        """Return the event that the batch driver would have recorded for this line."""
        key = attempt.batch or ""
        batch = self._batches.get(key) or batches.by_key(self._store, key) or Batch(key, attempt.request.endpoint, "")
        self._batches[key] = batch
        row = self._format.read_line(batch, line.content, self._backend.price)
        seconds = max(0.0, (batch.ended_at or self._now) - attempt.at)
        if row.answer is not None:
            kind = Succeeded if row.answer.problem is None else Unusable
            self.result.settled["answered" if row.answer.problem is None else "unusable"] += 1
            self.result.settled_usd += row.answer.cost_usd or 0.0
            return kind(attempt, row.answer, seconds, row.request_id)
        self.result.settled["failed"] += 1
        failure = row.failure or Failure("batch_error", "the line has neither an answer nor an error")
        final = failure.error_class == "cancelled" or not (row.retryable or row.stops_run)
        return Failed(attempt, failure, row.paid, seconds, final, request_id=row.request_id, body=row.body)

    def _by_input_files(self, names: Sequence[str]) -> dict[str, ImportTarget | Why]:
        found: dict[str, ImportTarget | Why] = {}
        for name, requests in imports.asked(self._store, names).items():
            digest = self._format.hash_of(name)
            fitting = [item for item in requests if digest is None or item.request_hash.startswith(digest)]
            found[name] = fitting[0] if len(fitting) == 1 else Why.AMBIGUOUS if fitting else Why.OTHER_BODY
        return found

    def _read(self, line: Line, entry: Mapping[str, Any], found: ImportTarget | Why) -> StoredImport | None:
        """Return the answer of a line with its request; None if it has neither, after counting it."""
        matched = isinstance(found, ImportTarget)
        batch = Batch("", found.endpoint, found.model) if isinstance(found, ImportTarget) else Batch("", "", "")
        row = self._format.read_line(batch, line.content, self._backend.price)
        failure = row.failure
        # without its endpoint an answer cannot be read, and seems malformed
        if failure is not None and (matched or failure.error_class != "malformed"):
            self.result.failed[failure.error_class] += 1
            return None
        if isinstance(found, ImportTarget) and found.body is not None and self._format.hash_of(name_of(entry)) is None:
            found = Why.OTHER_QUESTION if answers_another(entry, found.body) else found
        if isinstance(found, Why) or row.answer is None:
            why = found if isinstance(found, Why) else Why.NOT_ASKED
            self.result.leave(why, name_of(entry))
            return None
        return StoredImport(found, row.answer, answered_at(entry, self._now), name_of(entry), row.request_id)

    # ---------------------------------------------------------------------------------------------- records of exports

    def _of_records(self, records: Sequence[Found]) -> list[Kept]:
        read = [(line, entry, read_record(entry, line.content)) for line, entry in records]
        hashes = {item.request_hash for *_, item in read if isinstance(item, Exported) and item.request_hash}
        wanted = self._wanted(list(hashes))
        kept: list[Kept] = []
        for line, entry, item in read:
            if isinstance(item, Failure):
                self.result.failed[item.error_class] += 1
            elif (found := wanted.get(item.request_hash or "")) is None:
                self.result.leave(Why.EXPORTED, readable(entry["artist_id"]))
            else:
                kept.append((line, StoredImport(found, item.answer, item.at or self._now, parsed=item.parsed)))
        return kept

    # --------------------------------------------------------------------------------------------------------- requests

    def _wanted(self, hashes: Sequence[str]) -> dict[str, ImportTarget]:
        """Return the requests of these hashes that were sent before or that a target wants now."""
        if not hashes:
            return {}
        known = imports.known(self._store, hashes)
        found = {digest: ImportTarget(digest, item.endpoint, item.model) for digest, item in known.items()}
        missing = [digest for digest in hashes if digest not in known]
        recipes = [recipe for recipe, _ in self._recipes]
        for digest, target in imports.targets_wanting(self._store, missing, recipes).items():
            variant = self._recipes.get((target.recipe, target.variant))
            if variant is None:
                continue
            page = self._renderer.page(variant, [PlannedArtist(target.number, "", target.artist)])
            (rendered,) = page.outcomes
            if not isinstance(rendered, RenderedRequest) or rendered.request_hash != digest:
                continue
            try:
                text = rendered.body.decode()
            except UnicodeDecodeError:
                continue
            found[digest] = ImportTarget(digest, variant.endpoint, variant.model or "", text)
        return found

    def _keep(self, items: Sequence[Kept]) -> None:
        """Store new answers; of several answers to one request, the first usable one."""
        result = self.result
        hashes = [item.wanted.request_hash for _, item in items]
        known, targets = imports.known(self._store, hashes), imports.targets_of(self._store, hashes)
        adoptions: list[StoredImport] = []
        for line, item in items:
            digest, usable = item.wanted.request_hash, item.answer.problem is None
            before = known.get(digest)
            if before is not None and before.usable is not None and (before.usable or not usable):
                if item.custom_id is not None and (before.run, before.custom_id) == (self._run, item.custom_id):
                    result.duplicated.add(f"{line.place}: {item.custom_id}")
                else:
                    result.known += 1
                continue
            if before is not None and before.in_batch:
                result.in_batches += 1
                continue
            adoptions.append(item)
            known[digest] = KnownImport(
                RequestState.ANSWERED, item.wanted.endpoint, item.wanted.model, usable, self._run, item.custom_id
            )
            result.adopted += 1
            result.unusable += not usable
            result.unwanted += digest not in targets
            result.adopted_usd += item.answer.cost_usd or 0.0
            result.unpriced += item.answer.cost_usd is None
        if adoptions:
            answered = [item.wanted.request_hash for item in adoptions if item.answer.problem is None]
            result.fresh += imports.stale_targets(self._store, answered)
            imports.adopt(self._store, self._run, adoptions, targets)


def _name(found: Found) -> str:
    return name_of(found[1])


def _why(name: str, hashes: Mapping[str, str], artists: set[str]) -> Why:
    return Why.OTHER_HASH if name in hashes else Why.ARTIST if name in artists else Why.NOT_ASKED

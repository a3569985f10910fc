"""Import answers that were paid for elsewhere, from result files and exports.

The custom_id of a result line names one of
1. an attempt in a batch of this state: it is recorded as if the batch had been collected
2. a line of an imported input file, which has the body and so the request hash
3. the start of a request hash that was sent before or that a target needs now
A record of an export names its request hash. Other lines are counted and not stored.
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
from bioforge.core.usage import UsageLimits
from bioforge.engine.import_exports import Exported, read_record
from bioforge.engine.import_files import (
    AnswerFiles,
    Kind,
    Line,
    answered_at,
    custom_id_of,
    has_other_instructions,
    kind_of,
    may_be_request,
    parse,
    read_request,
    readable,
)
from bioforge.engine.import_result import ImportResult, Mismatch
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


Entry = tuple[Line, dict[str, Any]]
Match = tuple[Line, StoredImport]


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
        self._limited = UsageLimits()
        self._batches: dict[str, Batch] = {}

    def run(self, files: AnswerFiles) -> ImportResult:
        """Import all lines; each group of lines is committed before the next is read.

        Invalid lines are counted and raise no error.
        """
        imports.prepare(self._store)
        for group in files.groups():
            self._add_requests(group)
        for group in files.groups():
            self._import_group(group)
        if self.result.collected:
            recover(self._store)  # failed members of batches are sent by the next run
        return self.result

    # ------------------------------------------------------------------------------------------------------- the lines

    def _add_requests(self, group: Sequence[Line]) -> None:
        found = []
        for line in filter(may_be_request, group):
            try:
                entry = parse(line)
            except ValueError:
                continue  # counted by `_import_group`
            if kind_of(entry) is not Kind.REQUEST:
                continue
            self.result.requests += 1
            try:
                found.append(read_request(entry, self._dialect))
            except ValueError as problem:
                self.result.unreadable.add(f"{line.place}: {problem}")
        imports.add_asked(
            self._store, [(item.custom_id, item.request_hash, item.endpoint, item.model, item.body) for item in found]
        )

    def _import_group(self, group: Sequence[Line]) -> None:
        results: list[Entry] = []
        records: list[Entry] = []
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
                case Kind.REQUEST:
                    pass
        matches = self._match_results(results) + self._match_records(records)
        if matches:
            self._save(matches)

    # --------------------------------------------------------------------------------------------- lines of result files

    def _match_results(self, results: Sequence[Entry]) -> list[Match]:
        if not results:
            return []
        left, wanted = self._record_members(results)
        names = [name for name in map(_custom_id, left) if name not in wanted]
        wanted |= self._match_input_files(names)
        hashes = {name: digest for name in names if name not in wanted and (digest := self._format.hash_of(name))}
        whole = imports.complete_hashes(self._store, list(hashes.values()))
        known = self._find_requests(list(whole.values()))
        wanted |= {name: known[whole[digest]] for name, digest in hashes.items() if whole.get(digest) in known}
        artists = imports.artists_named(self._store, [name for name in names if name not in wanted])
        matches: list[Match] = []
        for line, entry in left:
            name = custom_id_of(entry)
            found = wanted.get(name, _mismatch(name, hashes, artists))
            if (item := self._read_answer(line, entry, found)) is not None:
                matches.append((line, item))
        return matches

    def _record_members(self, results: Sequence[Entry]) -> tuple[list[Entry], dict[str, ImportTarget | Mismatch]]:
        """Record the lines of open members. Return the other lines, and the requests of all members by custom_id.

        A line of a closed member may have an answer that its batch did not deliver.
        """
        names = list(map(_custom_id, results))
        keys = imports.batches_of(self._store, names)
        members: dict[str, Member] = {}
        for key in set(keys.values()):
            members |= batches.StoredMembers(self._store).find(key, [name for name in names if keys.get(name) == key])
        left: list[Entry] = []
        wanted: dict[str, ImportTarget | Mismatch] = {}
        events: list[Succeeded | Unusable | Failed] = []
        for line, entry in results:
            member = members.get(name := custom_id_of(entry))
            if member is None or not member.open or name in wanted:
                left.append((line, entry))
            else:
                events.append(self._collected_event(member.attempt, line))
            if member is not None:
                request = member.attempt.request
                wanted[name] = ImportTarget(request.request_hash, request.endpoint, request.model)
        if events:
            answered = [event.attempt.request.request_hash for event in events if isinstance(event, Succeeded)]
            self.result.fresh += imports.stale_targets(self._store, answered)
            Recorder(self._store, self._run, imports.BACKEND).record(events)
        return left, wanted

    def _collected_event(self, attempt: Attempt, line: Line) -> Succeeded | Unusable | Failed:
        """Return the event that the batch driver would have recorded for this line."""
        key = attempt.batch or ""
        batch = self._batches.get(key) or batches.by_key(self._store, key) or Batch(key, attempt.request.endpoint, "")
        self._batches[key] = batch
        row = self._format.read_line(batch, line.content, self._backend.price)
        seconds = max(0.0, (batch.ended_at or self._now) - attempt.at)
        answer = self._limited(row.answer, attempt.request)
        if answer is not None:
            kind = Succeeded if answer.problem is None else Unusable
            self.result.collected["answered" if answer.problem is None else "unusable"] += 1
            self.result.collected_usd += answer.cost_usd or 0.0
            return kind(attempt, answer, seconds, row.request_id)
        self.result.collected["failed"] += 1
        failure = row.failure or Failure("batch_error", "the line has neither an answer nor an error")
        final = failure.error_class == "cancelled" or not (row.retryable or row.stops_run)
        return Failed(attempt, failure, row.paid, seconds, final, request_id=row.request_id, body=row.body)

    def _match_input_files(self, names: Sequence[str]) -> dict[str, ImportTarget | Mismatch]:
        found: dict[str, ImportTarget | Mismatch] = {}
        for name, requests in imports.asked(self._store, names).items():
            digest = self._format.hash_of(name)
            fitting = [item for item in requests if digest is None or item.request_hash.startswith(digest)]
            found[name] = fitting[0] if len(fitting) == 1 else Mismatch.AMBIGUOUS if fitting else Mismatch.OTHER_BODY
        return found

    def _read_answer(
        self, line: Line, entry: Mapping[str, Any], request: ImportTarget | Mismatch
    ) -> StoredImport | None:
        """Return the answer of a line with its request. A line without one of them is counted; the result is None."""
        matched = isinstance(request, ImportTarget)
        batch = Batch("", request.endpoint, request.model) if isinstance(request, ImportTarget) else Batch("", "", "")
        result = self._format.read_line(batch, line.content, self._backend.price)
        failure = result.failure
        # an answer cannot be read without its endpoint, and then looks malformed
        if failure is not None and (matched or failure.error_class != "malformed"):
            self.result.failed[failure.error_class] += 1
            return None
        if (
            isinstance(request, ImportTarget)
            and request.body is not None
            and self._format.hash_of(custom_id_of(entry)) is None
        ):
            request = Mismatch.OTHER_INSTRUCTIONS if has_other_instructions(entry, request.body) else request
        if isinstance(request, Mismatch) or result.answer is None:
            mismatch = request if isinstance(request, Mismatch) else Mismatch.UNKNOWN_ID
            self.result.add_unmatched(mismatch, custom_id_of(entry))
            return None
        return StoredImport(
            request, self._limited(result.answer), answered_at(entry, self._now), custom_id_of(entry), result.request_id
        )

    # ---------------------------------------------------------------------------------------------- records of exports

    def _match_records(self, records: Sequence[Entry]) -> list[Match]:
        read = [(line, entry, read_record(entry, line.content)) for line, entry in records]
        hashes = {item.request_hash for *_, item in read if isinstance(item, Exported) and item.request_hash}
        wanted = self._find_requests(list(hashes))
        matches: list[Match] = []
        for line, entry, item in read:
            if isinstance(item, Failure):
                self.result.failed[item.error_class] += 1
            elif (found := wanted.get(item.request_hash or "")) is None:
                self.result.add_unmatched(Mismatch.EXPORTED, readable(entry["artist_id"]))
            else:
                matches.append(
                    (line, StoredImport(found, self._limited(item.answer), item.at or self._now, parsed=item.parsed))
                )
        return matches

    # --------------------------------------------------------------------------------------------------------- requests

    def _find_requests(self, hashes: Sequence[str]) -> dict[str, ImportTarget]:
        """Return the requests of these hashes that were sent before or that a target needs now."""
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

    def _save(self, items: Sequence[Match]) -> None:
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


def _custom_id(entry: Entry) -> str:
    return custom_id_of(entry[1])


def _mismatch(name: str, hashes: Mapping[str, str], artists: set[str]) -> Mismatch:
    return Mismatch.OTHER_HASH if name in hashes else Mismatch.ARTIST if name in artists else Mismatch.UNKNOWN_ID

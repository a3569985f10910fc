"""Reuse answers, batches and held-back requests where only the backend's serialization of the request has changed.

The serialization is not part of a recipe: a new version of a plugin, or another backend of the same dialect, must not
buy an answer again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bioforge.core.hashing import definition_hash
from bioforge.core.reasons import Decision, KnownRequest, KnownTarget, Reason, RequestState
from bioforge.planner.context import PlanContext
from bioforge.planner.decide import decide
from bioforge.planner.diff import column_changes, definition_changes, upstream_changes
from bioforge.planner.fallbacks import LookUp
from bioforge.planner.render import RenderedRequest
from bioforge.recipes.template import RecipeVariant, VariantKey
from bioforge.store import Store, planned, targets
from bioforge.store.planned import Origin
from bioforge.store.targets import Planned, PlannedArtist

_KEEPS_ANSWER = (None, *(reason for reason in Reason if reason.info.keeps_answer))


@dataclass(frozen=True, slots=True)
class PreviousBuild:
    """Last plans and builds of targets whose new request is unknown.

    `origins`: definition and row of the last plan, by artist id; `requests`: the state of the requests they were built
    from, by hash.
    """

    origins: Mapping[int, Origin]
    requests: Mapping[str, KnownRequest]


@dataclass(frozen=True, slots=True)
class ReplanCase:
    """A target whose new request is unknown. `upstream`: current upstream answers, as JSON."""

    variant: RecipeVariant
    artist: PlannedArtist
    rendered: RenderedRequest
    upstream: str | None
    target: KnownTarget
    previous: PreviousBuild

    @property
    def origin(self) -> Origin:
        return self.previous.origins[self.artist.id]

    def planned(self, decision: Decision) -> Planned:
        """Return the target planned with its new request."""
        request = self.rendered
        row_hash = self.artist.row_hash
        return Planned(self.artist.id, request.request_hash, row_hash, request.input_tokens, decision, self.upstream)


@dataclass(frozen=True, slots=True)
class BuildInputs:
    """Inputs that a target was planned or built from: definition id, row hash, and upstream answers as JSON."""

    definition: int | None
    row: str | None
    answers: str | None


class AnswerReuse:
    """Decide which targets keep their answer, batch or held-back request although their request hash changed."""

    def __init__(self, context: PlanContext, look_up: LookUp) -> None:
        self._context = context
        self._look_up = look_up
        self._diffs: dict[VariantKey, TargetDiff] = {}
        self.only_serialization: VariantKey | None = None
        """The variant that is being replanned only because its backend serializes requests differently."""
        self.reserialized: VariantKey | None = None
        """The variant that is being replanned, and whose backend serializes requests differently."""

    def describe_changes(
        self, variant: RecipeVariant, target: KnownTarget | None, artist: PlannedArtist, upstream: str | None
    ) -> str:
        """Return the changes since the last build, for the detail of `changed`."""
        described = self._diff(variant).describe(target, artist, upstream)
        return "backend" if self.only_serialization == variant.key and described in ("", "artists") else described

    def _diff(self, variant: RecipeVariant) -> TargetDiff:
        if variant.key not in self._diffs:
            self._diffs[variant.key] = TargetDiff(self._context.store, variant)
        return self._diffs[variant.key]

    def previous_build(
        self, variant: RecipeVariant, artists: Sequence[int], known: Mapping[int, KnownTarget]
    ) -> PreviousBuild:
        """Read the last build of these targets."""
        if not artists:
            return PreviousBuild({}, {})
        origins = planned.origins(self._context.store, *variant.key, artists)
        hashes = {origin.built_request for origin in origins.values()}
        hashes |= {known[artist].request_hash for artist in artists}
        return PreviousBuild(origins, self._look_up(variant, sorted(digest for digest in hashes if digest)))

    def reuse(self, case: ReplanCase, definition: int) -> Planned | None:
        """Return the target planned with its previous answer or request; None if a new request is needed.

        `definition` is the current one's id.
        """
        decision = self._reused_answer(case)
        if decision is not None:
            return case.planned(decision)
        rendered, target = case.rendered, case.target
        previous = target.request_hash
        known = case.previous.requests.get(previous or "")
        if known is None or previous is None or previous == rendered.request_hash:
            return None
        # a chain that a new definition has made longer continues
        longer = case.variant.has_retries and case.origin.definition != definition
        stays = known.state == RequestState.IN_BATCH or (
            target.reason != Reason.FORCED
            and (
                (known.held and not longer)
                or (known.state == RequestState.MAYBE_PAID and not self._context.resend_maybe_paid)
            )
        )
        if not stays or not self._same_request(case):
            return None
        decision = decide(previous, target, known, "")
        return replace(case.planned(decision), request_hash=previous, own_hash=rendered.request_hash)

    def keep_forced(self, case: ReplanCase) -> KnownTarget:
        """Return the target, still forced if only the serialization of its request changed."""
        if case.target.reason == Reason.FORCED and self._same_request(case):
            return replace(case.target, request_hash=case.rendered.request_hash)
        return case.target

    def _reused_answer(self, case: ReplanCase) -> Decision | None:
        target, digest, built_request = case.target, case.rendered.request_hash, case.origin.built_request
        if target.built_response is None or built_request is None:
            return None
        if target.accepted_hash == digest or target.forced(digest):
            return None
        if target.reason not in ((None,) if case.variant.for_all else _KEEPS_ANSWER):
            return None
        known = case.previous.requests.get(built_request)
        if known is None or known.state not in (RequestState.ANSWERED, RequestState.INVALID):
            return None
        if not self._same(case, BuildInputs(target.built_definition, target.built_row, target.built_upstream)):
            return None
        if known.state == RequestState.INVALID:  # the schema became stricter
            return Decision(Reason.INVALID, known.detail)
        return Decision(None, response=target.built_response)

    def _same_request(self, case: ReplanCase) -> bool:
        """Return True if the request is the one of the last plan, except for its serialization."""
        return self._same(case, BuildInputs(case.origin.definition, case.origin.row, case.target.upstream))

    def _same(self, case: ReplanCase, before: BuildInputs) -> bool:
        variant = case.variant
        if variant.upstream and self.reserialized != variant.key:
            return False  # the same upstream answers may render differently: a changed schema parses them differently
        if variant.for_all:  # the rows of all artists are not compared
            return self.only_serialization == variant.key and before.answers == case.upstream
        return self._diff(variant).unchanged(before, case.artist, case.upstream)


class TargetDiff:
    """Differences between a variant's current definition and rows and those that its targets were built from."""

    def __init__(self, store: Store, variant: RecipeVariant) -> None:
        self._store = store
        self._definition = variant.definition.as_dict()
        self._used = variant.used_columns
        self._for_all = variant.for_all
        self._described: dict[int, list[str]] = {}
        self._request_hash = _request_part_hash(self._definition)
        self._same_request: dict[int, bool] = {}

    def unchanged(self, before: BuildInputs, artist: PlannedArtist, upstream: str | None) -> bool:
        """Return True if these inputs give the current request. False if they are not known."""
        definition, row = before.definition, before.row
        if definition is None or row is None or before.answers != upstream:
            return False
        if definition not in self._same_request:
            stored = targets.definition(self._store, definition)
            self._same_request[definition] = _request_part_hash(stored) == self._request_hash
        return self._same_request[definition] and (row == artist.row_hash or self._columns(artist, row) == [])

    def _columns(self, artist: PlannedArtist, row: str) -> list[str] | None:
        """Return the used columns that differ from an older row; None if its content is not stored."""
        before = targets.old_columns(self._store, artist.id, row)
        if before is None:
            return None
        values = {
            "artist_name": artist.artist.artist_name,
            "artist_data": artist.artist.artist_data,
            **artist.artist.columns,
        }
        return [change.short() for change in column_changes(before, values, self._used)]

    def describe(self, target: KnownTarget | None, artist: PlannedArtist, upstream: str | None) -> str:
        """Return the differences since the last build, separated by commas; empty if the target never was built."""
        if target is None or target.built_response is None:
            return ""
        parts: list[str] = []
        definition, row = target.built_definition, target.built_row
        if definition is not None:
            if definition not in self._described:
                old = targets.definition(self._store, definition)
                self._described[definition] = [change.short() for change in definition_changes(old, self._definition)]
            parts += self._described[definition]
        if self._for_all:
            return ", ".join(parts) or "artists"
        if row is not None and row != artist.row_hash:
            parts += self._columns(artist, row) or []
        parts += [f"answer of {recipe}" for recipe in upstream_changes(target.built_upstream, upstream)]
        return ", ".join(parts)


def _request_part_hash(definition: Mapping[str, object]) -> str:
    """Return the hash of what decides over the first request: the definition without validation, repair and fallback."""
    return definition_hash(
        {part: value for part, value in definition.items() if part not in ("validation", "repair", "fallback")}
    )

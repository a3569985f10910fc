"""What has changed since a target was planned or built; and what is kept where that is nothing but the backend's way of
writing requests.

That way is no part of a recipe: a plugin's new version, or another backend of the same dialect, buys nothing again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bioforge.core.hashing import definition_hash
from bioforge.core.reasons import Decision, KnownRequest, KnownTarget, Reason, RequestState
from bioforge.planner.decide import decide
from bioforge.planner.diff import column_changes, definition_changes, upstream_changes
from bioforge.planner.fallbacks import Known
from bioforge.planner.render import RenderedRequest
from bioforge.recipes.template import RecipeVariant
from bioforge.store import Store, planned, targets
from bioforge.store.planned import Origin
from bioforge.store.targets import Planned, PlannedArtist

Pair = tuple[str, str]

_MAY_KEEP = (None, *(reason for reason in Reason if reason.info.keeps_answer))
"""What a target may be stale for and yet be served by the answer it has, once nothing but its backend has changed."""


@dataclass(frozen=True, slots=True)
class PreviousBuild:
    """Of targets that want requests nobody has heard of: what they were planned by and are built from, by artist; and
    what became of those requests."""

    origins: Mapping[int, Origin]
    requests: Mapping[str, KnownRequest]


@dataclass(frozen=True, slots=True)
class ReplanCase:
    """A target that wants a request nobody has heard of. `needs`: the answers of needed recipes, as they are now."""

    prompts: RecipeVariant
    item: PlannedArtist
    asked: RenderedRequest
    needs: str | None
    target: KnownTarget
    standing: PreviousBuild

    @property
    def origin(self) -> Origin:
        return self.standing.origins[self.item.id]

    @property
    def pair(self) -> Pair:
        return _pair(self.prompts)


@dataclass(frozen=True, slots=True)
class BuildInputs:
    """What a target was planned by or built from: a definition, a row, and the answers of needed recipes."""

    definition: int | None
    row: str | None
    answers: str | None


class AnswerReuse:
    """Keeps what was bought, what is under way, and what is not asked again, for targets of which the same is asked."""

    def __init__(self, store: Store, known: Known, *, resend_maybe_paid: bool) -> None:
        """`known` looks up requests, with their answers checked by the schema as it is now."""
        self._store = store
        self._known = known
        self._resend_maybe_paid = resend_maybe_paid
        self._changes: dict[Pair, TargetDiff] = {}
        self.only_form: Pair | None = None
        """The recipe that is being planned anew for nothing but the way its backend writes requests."""
        self.rewritten: Pair | None = None
        """The recipe that is being planned anew, and whose backend writes requests in another way than before."""

    def changes(self, prompts: RecipeVariant) -> TargetDiff:
        pair = _pair(prompts)
        if pair not in self._changes:
            self._changes[pair] = TargetDiff(self._store, prompts)
        return self._changes[pair]

    def named_changes(
        self, prompts: RecipeVariant, target: KnownTarget | None, item: PlannedArtist, needs: str | None
    ) -> str:
        """What a target is stale for, in a few words."""
        named = self.changes(prompts).since(target, item, needs)
        return "backend" if self.only_form == _pair(prompts) and named in ("", "artists") else named

    def standing(
        self, prompts: RecipeVariant, artists: Sequence[int], known: Mapping[int, KnownTarget]
    ) -> PreviousBuild:
        if not artists:
            return PreviousBuild({}, {})
        origins = planned.origins(self._store, *_pair(prompts), artists)
        hashes = {origin.built_request for origin in origins.values()} | {known[one].request_hash for one in artists}
        return PreviousBuild(origins, self._known(prompts, sorted(digest for digest in hashes if digest)))

    def kept(self, case: ReplanCase, definition: int) -> Planned | None:
        """How a target stands by the answer it has, by the batch it is in, or by what was paid for and is not asked
        again; None where another request than before is to be asked. `definition` is the one it is wanted by."""
        item, asked, target = case.item, case.asked, case.target
        decision = self._answered(case)
        if decision is not None:
            return Planned(item.id, asked.request_hash, item.row_hash, asked.input_tokens, decision, case.needs)
        before = target.request_hash
        known = case.standing.requests.get(before or "")
        if known is None or before is None or before == asked.request_hash:
            return None
        # a chain that is only now allowed to go on goes on
        longer = case.prompts.definition.follows_up and case.origin.definition != definition
        stays = known.state == RequestState.IN_BATCH or (
            target.reason != Reason.FORCED
            and (
                (known.state == RequestState.UNUSABLE and not longer)
                or (known.state == RequestState.MAYBE_PAID and not self._resend_maybe_paid)
            )
        )
        if not stays or not self._same_asked(case):
            return None
        decision = decide(before, target, known, "")
        return Planned(item.id, before, item.row_hash, asked.input_tokens, decision, case.needs, asked.request_hash)

    def still_forced(self, case: ReplanCase) -> KnownTarget:
        """The target, which somebody wants anew however that is written."""
        if case.target.reason == Reason.FORCED and self._same_asked(case):
            return replace(case.target, request_hash=case.asked.request_hash)
        return case.target

    def _answered(self, case: ReplanCase) -> Decision | None:
        target, digest, built_request = case.target, case.asked.request_hash, case.origin.built_request
        if target.built_response is None or built_request is None:
            return None
        if target.accepted_hash == digest or target.forced(digest):
            return None
        if target.reason not in ((None,) if case.prompts.definition.for_all else _MAY_KEEP):
            return None
        known = case.standing.requests.get(built_request)
        if known is None or known.state not in (RequestState.ANSWERED, RequestState.INVALID):
            return None
        if not self._same(case, BuildInputs(target.built_definition, target.built_row, target.built_upstream)):
            return None
        # a schema that has become stricter is heard
        return (
            Decision(Reason.INVALID, known.detail)
            if known.state == RequestState.INVALID
            else Decision(None, response=target.built_response)
        )

    def _same_asked(self, case: ReplanCase) -> bool:
        """Whether the same is asked as when the target was last planned."""
        return self._same(case, BuildInputs(case.origin.definition, case.origin.row, case.target.upstream))

    def _same(self, case: ReplanCase, before: BuildInputs) -> bool:
        definition = case.prompts.definition
        if definition.upstream and self.rewritten != case.pair:
            return False  # the same answers may mean something else by now: a schema makes other data of them
        if definition.for_all:  # the rows of all are compared nowhere
            return self.only_form == case.pair and before.answers == case.needs
        return self.changes(case.prompts).none_since(before, case.item, case.needs)


def _pair(prompts: RecipeVariant) -> Pair:
    return prompts.definition.recipe, prompts.definition.variant


class TargetDiff:
    """What differs between what a target was built from and what it is wanted from, in a few words."""

    def __init__(self, store: Store, prompts: RecipeVariant) -> None:
        self._store = store
        self._wanted = prompts.definition.as_dict()
        self._used = prompts.used_columns
        self._for_all = prompts.definition.for_all
        self._definitions: dict[int, list[str]] = {}
        self._asks = _asks(self._wanted)
        self._same: dict[int, bool] = {}

    def none_since(self, before: BuildInputs, item: PlannedArtist, needs: str | None) -> bool:
        """Whether the same is asked as by what was there before. False where that cannot be told."""
        definition, row = before.definition, before.row
        if definition is None or row is None or before.answers != needs:
            return False
        if definition not in self._same:
            self._same[definition] = _asks(targets.definition(self._store, definition)) == self._asks
        return self._same[definition] and (row == item.row_hash or self._columns(item, row) == [])

    def _columns(self, item: PlannedArtist, row: str) -> list[str] | None:
        """Which columns that count differ from a row as it was; None where nobody knows what it said."""
        before = targets.old_columns(self._store, item.id, row)
        if before is None:
            return None
        now = {
            "artist_name": item.artist.artist_name,
            "artist_data": item.artist.artist_data,
            **item.artist.columns,
        }
        return [change.short() for change in column_changes(before, now, self._used)]

    def since(self, target: KnownTarget | None, item: PlannedArtist, needs: str | None) -> str:
        if target is None or target.built_response is None:
            return ""
        parts: list[str] = []
        definition, row = target.built_definition, target.built_row
        if definition is not None:
            if definition not in self._definitions:
                old = targets.definition(self._store, definition)
                self._definitions[definition] = [change.short() for change in definition_changes(old, self._wanted)]
            parts += self._definitions[definition]
        if self._for_all:
            return ", ".join(parts) or "artists"
        if row is not None and row != item.row_hash:
            parts += self._columns(item, row) or []
        parts += [f"answer of {need}" for need in upstream_changes(target.built_upstream, needs)]
        return ", ".join(parts)


def _asks(definition: Mapping[str, object]) -> str:
    """A definition by what it asks first: without what comes after an answer."""
    return definition_hash(
        {part: value for part, value in definition.items() if part not in ("validation", "repair", "fallback")}
    )

"""Plan targets: decide for each one, page by page and in dependency order, whether it is fresh or stale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bioforge.core.events import Event, Failed, Unusable
from bioforge.core.progress import ProgressCallback, ProgressCounter, no_progress
from bioforge.core.reasons import Decision, KnownRequest, KnownTarget, Reason
from bioforge.planner.changes import AnswerReuse, ReplanCase
from bioforge.planner.context import PlanContext
from bioforge.planner.decide import blocked, decide
from bioforge.planner.fallbacks import AttemptStep, RetryChain
from bioforge.planner.render import (
    MissingUpstream,
    RenderedPage,
    RenderedRequest,
    Renderer,
    RenderOutcome,
    serialization_hash,
)
from bioforge.planner.request_states import PlanStats, RequestStates
from bioforge.recipes.template import OWN_NAMES, RecipeVariant, RenderError, VariantKey
from bioforge.recipes.tokens import counter_for
from bioforge.store import artists as artists_store
from bioforge.store import dependencies, queue, retries, statistics, targets, validations
from bioforge.store import planned as planned_store
from bioforge.store.queue import TargetState
from bioforge.store.retries import StoredRetry
from bioforge.store.targets import ALL_ARTISTS, Planned, PlannedArtist


@dataclass(slots=True)
class Consequences:
    """Effects of recorded answers on other targets.

    `ready`: targets that can be sent now. `released`: number of targets that no longer wait for an upstream recipe,
    including those that will not be sent. `followed`: hashes of failed requests that a repair or fallback replaces.
    `failed`: ids of targets that have no request left to send in this run.
    """

    ready: list[TargetState] = field(default_factory=list)
    released: int = 0
    followed: set[str] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)


class Planner:
    """Plan the targets of a project's recipes."""

    def __init__(self, context: PlanContext, progress: ProgressCallback = no_progress) -> None:
        self.stats = PlanStats()
        self._context = context
        self._store = context.store
        self._progress = ProgressCounter("planning", "targets", progress)
        self._states = RequestStates(context.store, self.stats)
        self._reuse = AnswerReuse(context, self._states.look_up)
        self._by_key = {variant.key: variant for variant in context.recipes}
        self._renderer = Renderer(context)
        self._chain = RetryChain(context, self._states.look_up)
        self._definitions: dict[VariantKey, int] = {}
        self._has_schemas = any(variant.schema is not None for variant in context.recipes)

    # ----------------------------------------------------------------------------------------------- the whole input

    def plan(self) -> None:
        """Bring every target up to date with the input, the definitions and its upstream answers.

        Raises `TemplateError`.
        """
        planned_store.mark_removed(self._store, list(self._by_key))
        self._watch_upstream()
        if self._context.shared_recipes:
            dependencies.ensure_all_artists_row(self._store)
        generation = self._store.fact("generation")
        try:
            for variant in self._context.recipes:
                self._plan_variant(variant, generation)
                self._replan_changed(variant, None)
                self._plan_failed(variant)
            if self._store.fact("unvalidated"):  # a run ended before it had validated what it stored
                self.plan_unchecked()
                with self._store.transaction() as connection:
                    validations.note_unvalidated(connection, False)
        finally:
            self._store.build_indexes()
        dependencies.forget_changes(self._store)

    def _watch_upstream(self) -> None:
        """Have the state record changes of upstream targets. Variants whose upstream was not watched are replanned."""
        needed = {key for variant in self._context.recipes for key in variant.upstream.items()}
        new = needed - dependencies.needed(self._store)
        for variant in self._context.recipes:
            if new.intersection(variant.upstream.items()):
                planned_store.invalidate_plan(self._store, *variant.key)
        dependencies.set_needed(self._store, needed)

    def _plan_variant(self, variant: RecipeVariant, generation: int) -> None:
        """Render what may have changed: every artist for a new definition, else only artists whose rows changed."""
        key = variant.key
        definition = self._definition(variant)
        planned = targets.planned_up_to(self._store, *key)
        serialization = serialization_hash(variant, self._context.backend)
        previous = planned_store.serialization_hash(self._store, *key)
        # a state without a stored serialization hash stays as it is: a difference shows when the request is sent
        reserialized = previous is not None and previous != serialization
        up_to_date = planned == (definition, generation)
        if up_to_date and not reserialized:
            if previous is None:
                planned_store.save_serialization_hash(self._store, *key, serialization)
            return
        self._reuse.only_serialization = key if up_to_date else None
        self._reuse.reserialized = key if reserialized else None
        variant.check_names(artists_store.columns(self._store))
        if reserialized and planned is not None and planned[0] == definition:
            planned_store.invalidate_plan(self._store, *key)
            planned = (definition, targets.NO_GENERATION)
        if planned is None or planned[0] != definition:
            # before the first target, so that targets of an interrupted plan are marked as removed too
            targets.set_planned(self._store, *key, definition, targets.NO_GENERATION)
            planned_store.mark_others_removed(self._store, *key, for_all=variant.for_all)
        since = planned[1] if planned is not None and planned[0] == definition else targets.NO_GENERATION
        if variant.for_all:
            since = targets.NO_GENERATION
            self._plan_page(variant, targets.artists_by_id(self._store, [ALL_ARTISTS]))
        else:
            self._plan_artists(variant, since)
        counting = counter_for(variant.model).counting.as_text()
        statistics.note_counting(self._store, *key, counting, whole=since == targets.NO_GENERATION)
        planned_store.save_serialization_hash(self._store, *key, serialization)
        targets.set_planned(self._store, *key, definition, generation)
        self._reuse.only_serialization = self._reuse.reserialized = None

    def _plan_artists(self, variant: RecipeVariant, since: int) -> None:
        # the validation of stored answers looks up their targets by that index, page after page
        if since == targets.NO_GENERATION and (not self._has_schemas or planned_store.nothing_sent(self._store)):
            planned_store.defer_index(self._store)
        used = variant.used_columns
        with_columns = used is None or not used.issubset(OWN_NAMES)
        for page in targets.artists(self._store, since, columns=with_columns):
            self._plan_page(variant, page)

    def plan_unchecked(self) -> None:
        """Validate answers that were stored without their schema (imports), and replan what that changes."""
        for variant in self._context.recipes:
            if variant.schema is not None:
                schema = variant.schema.validation_hash
                for artists in validations.artists_unchecked(self._store, *variant.key, schema):
                    self._replan(variant, artists, None)
        self.replan_dependents()

    def _plan_failed(self, variant: RecipeVariant) -> None:
        """Replan failed and skipped targets, because a new run sends failed requests again.

        A target about all artists waits during a run, and is skipped after it if an upstream target failed.
        """
        reasons = [Reason.SKIPPED] if variant.upstream else []
        if variant.upstream and variant.for_all:
            reasons.append(Reason.UPSTREAM)
        if variant.has_retries:
            reasons += [Reason.FAILED, Reason.MAYBE_PAID]
        for reason in reasons:
            for artists in targets.with_reason(self._store, *variant.key, reason):
                self._replan(variant, artists, None)

    def _replan_changed(self, variant: RecipeVariant, consequences: Consequences | None) -> None:
        """Replan the targets whose upstream targets changed."""
        if not variant.upstream:
            return
        for artists in dependencies.changed_artists(self._store, list(variant.upstream.items())):
            if variant.for_all:
                self._replan(variant, [ALL_ARTISTS], consequences)
                return
            if ALL_ARTISTS in artists:
                for page in targets.artists(self._store, -1):
                    self._replan(variant, [artist.id for artist in page], consequences)
                return
            self._replan(variant, artists, consequences)

    def replan(self, key: VariantKey, artists: Sequence[int]) -> None:
        """Render and plan these targets again."""
        if (variant := self._by_key.get(key)) is not None:
            self._replan(variant, artists, None)

    def replan_dependents(self, consequences: Consequences | None = None) -> None:
        """Replan, in dependency order, the targets whose upstream targets changed."""
        if not dependencies.any_change(self._store):
            return
        for variant in self._context.recipes:
            self._replan_changed(variant, consequences)
        dependencies.forget_changes(self._store)

    # ---------------------------------------------------------------------------------------------- during a run

    def apply(self, events: Sequence[Event]) -> Consequences:
        """Replan what recorded events affect: dependents, and failed targets that a repair or fallback can replace."""
        consequences = Consequences()
        failed = [
            event.attempt.request
            for event in events
            if isinstance(event, Unusable) or (isinstance(event, Failed) and event.final)
        ]
        # a target that fails as before has not changed, but its dependents must stop waiting for it
        dependencies.note_failures(self._store, [request.request_hash for request in failed])
        retried = [request.request_hash for request in failed if self._has_retries(request.recipe)]
        if retried:
            self._retry_failed(retried, consequences)
        self.replan_dependents(consequences)
        return consequences

    def _has_retries(self, recipe: str) -> bool:
        return any(variant.has_retries for variant in self._context.recipes if variant.recipe == recipe or not recipe)

    def _retry_failed(self, hashes: Sequence[str], consequences: Consequences) -> None:
        sharing = queue.shared_requests(self._store, hashes)
        artists: dict[VariantKey, list[int]] = {}
        for shared in sharing:
            artists.setdefault((shared.recipe, shared.variant), []).append(shared.artist)
        for key, ids in artists.items():
            variant = self._by_key.get(key)
            if variant is not None and variant.has_retries:
                self._replan(variant, ids, consequences)
        lost = {shared.request_hash for shared in sharing if shared.target in consequences.failed}
        consequences.followed = {shared.request_hash for shared in sharing} - lost

    def _replan(self, variant: RecipeVariant, artists: Sequence[int], consequences: Consequences | None) -> None:
        if consequences is None:
            self._plan_page(variant, targets.artists_by_id(self._store, artists))
            return
        run = self._context.run
        before = queue.target_states(self._store, *variant.key, artists, run)
        self._plan_page(variant, targets.artists_by_id(self._store, artists))
        for artist, state in queue.target_states(self._store, *variant.key, artists, run).items():
            waited = artist in before and before[artist].reason == Reason.UPSTREAM
            consequences.released += waited and state.reason != Reason.UPSTREAM
            if state.ready:
                consequences.ready.append(state)
            elif state.reason in (Reason.FAILED, Reason.MAYBE_PAID):
                consequences.failed.add(state.target)

    # ------------------------------------------------------------------------------------------------- page by page

    def _plan_page(self, variant: RecipeVariant, artists: Sequence[PlannedArtist]) -> None:
        if not artists:
            return
        page = self._renderer.page(variant, artists)
        hashes = [outcome.request_hash for outcome in page.outcomes if isinstance(outcome, RenderedRequest)]
        known = targets.known_targets(self._store, *variant.key, [artist.id for artist in artists])
        requests = self._states.look_up(variant, hashes)
        if not (known or requests or any(page.upstream)) and len(hashes) == len(artists):
            self._add_new(variant, artists, page)
        else:
            self._plan_known(variant, artists, page, known, requests)
        self.stats.planned += len(artists)
        self._progress.add(len(artists))

    def _add_new(self, variant: RecipeVariant, artists: Sequence[PlannedArtist], page: RenderedPage) -> None:
        rows = [
            (artist.id, outcome.request_hash, artist.row_hash, outcome.input_tokens)
            for artist, outcome in zip(artists, page.outcomes, strict=True)
            if isinstance(outcome, RenderedRequest)
        ]
        targets.add(self._store, *variant.key, self._definition(variant), rows)

    def _plan_known(
        self,
        variant: RecipeVariant,
        artists: Sequence[PlannedArtist],
        page: RenderedPage,
        known: Mapping[int, KnownTarget],
        requests: Mapping[str, KnownRequest],
    ) -> None:
        unknown = [
            artist.id
            for artist, outcome in zip(artists, page.outcomes, strict=True)
            if isinstance(outcome, RenderedRequest) and artist.id in known and outcome.request_hash not in requests
        ]
        previous = self._reuse.previous_build(variant, unknown, known)
        planned: list[Planned] = []
        stored: list[StoredRetry] = []
        for artist, outcome, upstream in zip(artists, page.outcomes, page.upstream, strict=True):
            target = known.get(artist.id)
            if target is not None and artist.id in previous.origins and isinstance(outcome, RenderedRequest):
                case = ReplanCase(variant, artist, outcome, upstream, target, previous)
                reused = self._reuse.reuse(case, self._definition(variant))
                if reused is not None:
                    self.stats.kept += reused.decision.reason is None and target.request_hash != outcome.request_hash
                    planned.append(reused)
                    continue
                target = self._reuse.keep_forced(case)
            decided = self._plan_target(variant, artist, outcome, upstream, target, requests, stored)
            fresh = decided.decision.reason is None
            self.stats.reused += fresh and (target is None or target.built_response != decided.decision.response)
            planned.append(decided)
        retries.save(self._store, stored)
        targets.save(self._store, *variant.key, self._definition(variant), planned)

    def _plan_target(
        self,
        variant: RecipeVariant,
        artist: PlannedArtist,
        outcome: RenderOutcome,
        upstream: str | None,
        target: KnownTarget | None,
        requests: Mapping[str, KnownRequest],
        stored: list[StoredRetry],
    ) -> Planned:
        if isinstance(outcome, RenderError):
            failed = Decision(Reason.FAILED, f"template: {outcome}")
            return Planned(artist.id, None, artist.row_hash, 0, failed, upstream)
        if isinstance(outcome, MissingUpstream):
            waiting = blocked(outcome.upstream, target)
            assert waiting is not None
            return Planned(artist.id, None, artist.row_hash, outcome.input_tokens, waiting, upstream)
        own = outcome.request_hash
        known = requests.get(own)
        final = target is not None and (target.forced(own) or target.accepted_hash == own)
        step = AttemptStep(outcome, known) if final else self._chain.next_step(variant, outcome, known)
        request = step.request
        changes = self._reuse.describe_changes(variant, target, artist, upstream)
        decision = decide(request.request_hash, target, step.known, changes)
        if step.kind and decision.reason in (Reason.NEW, Reason.CHANGED):
            decision = Decision(step.kind, step.after)
        if (retry := self._chain.stored_retry(outcome, step)) is not None:
            stored.append(retry)
        return Planned(artist.id, request.request_hash, artist.row_hash, request.input_tokens, decision, upstream, own)

    def _definition(self, variant: RecipeVariant) -> int:
        if variant.key not in self._definitions:
            as_dict = variant.definition.as_dict()
            self._definitions[variant.key] = targets.definition_id(self._store, *variant.key, as_dict)
        return self._definitions[variant.key]

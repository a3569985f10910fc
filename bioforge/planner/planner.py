"""Planning targets: what each one wants now, whether it has it, and if not, why; page by page, in dependency order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bioforge.core.events import Event, Failed, Unusable
from bioforge.core.interfaces import Backend
from bioforge.core.progress import ProgressCallback, ProgressCounter, no_progress
from bioforge.core.reasons import Decision, KnownRequest, KnownTarget, Reason
from bioforge.planner.changes import AnswerReuse, ReplanCase
from bioforge.planner.decide import blocked, decide
from bioforge.planner.fallbacks import AttemptStep, RetryChain
from bioforge.planner.render import MissingUpstream, Outcome, RenderedRequest, Renderer, serialization_hash
from bioforge.planner.request_states import PlanStats, RequestStates
from bioforge.recipes.template import OWN_NAMES, RecipeVariant, RenderError
from bioforge.recipes.tokens import counter_for
from bioforge.store import Store, dependencies, queue, retries, statistics, targets, validations
from bioforge.store import artists as artists_store
from bioforge.store import planned as planned_store
from bioforge.store.queue import TargetState
from bioforge.store.retries import StoredRetry
from bioforge.store.targets import EVERYBODY, Planned, PlannedArtist

Pair = tuple[str, str]


@dataclass(slots=True)
class Consequences:
    """What recorded answers brought about. `ready`: targets that can be asked for now; `released`: how many targets no
    longer wait for others, whatever came of them; `followed`: hashes of failed requests that something else is asked
    for in place of."""

    ready: list[TargetState] = field(default_factory=list)
    released: int = 0
    followed: set[str] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    """Targets for which nothing is left to ask in this run."""


class Planner:
    """Plans the targets of a project's recipes, given in dependency order. `run`: what has failed in this run is not
    asked again in it."""

    def __init__(
        self,
        store: Store,
        recipes: Sequence[RecipeVariant],
        backend: Backend,
        *,
        resend_maybe_paid: bool = True,
        run: int | None = None,
        tell: ProgressCallback = no_progress,
    ) -> None:
        self.counts = PlanStats()
        self._told = ProgressCounter("planning", "targets", tell)
        self._known = RequestStates(store, self.counts)
        self._store = store
        self._run = run
        self._backend = backend
        self._keeper = AnswerReuse(store, self._known.requests, resend_maybe_paid=resend_maybe_paid)
        self._recipes = recipes
        self._by_pair = {_pair(prompts): prompts for prompts in recipes}
        self._renderer = Renderer(store, recipes, backend, resend_maybe_paid=resend_maybe_paid, run=run)
        self._chains = RetryChain(store, backend, self._known.requests, resend_maybe_paid=resend_maybe_paid, run=run)
        self._definitions: dict[Pair, int] = {}
        self._for_all = {prompts.definition.recipe for prompts in recipes if prompts.definition.for_all}
        self._has_schemas = any(prompts.definition.schema is not None for prompts in recipes)

    # -------------------------------------------------------------------------------------------- as the input is now

    def plan(self) -> None:
        """Bring every target up to date with the input, the definitions and what it needs. Raises `TemplateError`."""
        planned_store.mark_removed(self._store, list(self._by_pair))
        self._note_needed()
        if self._for_all:
            dependencies.ensure_everybody(self._store)
        generation = self._store.fact("generation")
        try:
            for prompts in self._recipes:
                self._plan_recipe(prompts, generation)
                self._plan_after(prompts, None)
                self._plan_failed(prompts)
        finally:
            self._store.build_indexes()
        dependencies.forget_changes(self._store)

    def _note_needed(self) -> None:
        """Have changes noted of what others need. What happened to one of them before that nobody knows."""
        wanted = {pair for prompts in self._recipes for pair in _needs(prompts)}
        unnoted = wanted - dependencies.needed(self._store)
        for prompts in self._recipes:
            if unnoted.intersection(_needs(prompts)):
                planned_store.invalidate_plan(self._store, *_pair(prompts))
        dependencies.set_needed(self._store, wanted)

    def _plan_recipe(self, prompts: RecipeVariant, generation: int) -> None:
        """Render what may have changed: everything for a new definition, else only artists whose rows changed."""
        recipe, variant = _pair(prompts)
        definition = self._definition(prompts)
        planned = targets.planned_up_to(self._store, recipe, variant)
        written, before = (
            serialization_hash(prompts, self._backend),
            planned_store.serialization_hash(self._store, recipe, variant),
        )
        # a state in which nobody took a note is left as it is: what differs shows when it is sent
        otherwise = before is not None and before != written
        if planned == (definition, generation) and not otherwise:
            if before is None:
                planned_store.save_serialization_hash(self._store, recipe, variant, written)
            return
        self._keeper.only_form = (recipe, variant) if planned == (definition, generation) else None
        self._keeper.rewritten = (recipe, variant) if otherwise else None
        prompts.check_names(artists_store.columns(self._store))
        if otherwise and planned is not None and planned[0] == definition:
            planned_store.invalidate_plan(self._store, recipe, variant)
            planned = (definition, targets.NOTHING)
        if planned is None or planned[0] != definition:
            # said before there is any target: those of a plan that was broken off are retired like all others
            targets.set_planned(self._store, recipe, variant, definition, targets.NOTHING)
            planned_store.mark_others_removed(self._store, recipe, variant, for_all=prompts.definition.for_all)
        since = planned[1] if planned is not None and planned[0] == definition else targets.NOTHING
        if prompts.definition.for_all:
            since = targets.NOTHING
            self._plan_page(prompts, targets.numbered(self._store, [EVERYBODY]))
        else:
            # answers that are checked anew look for those who want them by that index, page after page
            if since == targets.NOTHING and (not self._has_schemas or planned_store.nothing_asked(self._store)):
                planned_store.defer_index(self._store)
            used = prompts.used_columns
            further = used is None or not used.issubset(OWN_NAMES)
            for page in targets.artists(self._store, since, columns=further):
                self._plan_page(prompts, page)
        how = counter_for(prompts.definition.model).counting.as_text()
        statistics.note_counting(self._store, recipe, variant, how, whole=since == targets.NOTHING)
        planned_store.save_serialization_hash(self._store, recipe, variant, written)
        targets.set_planned(self._store, recipe, variant, definition, generation)
        self._keeper.only_form = self._keeper.rewritten = None

    def plan_unchecked(self) -> None:
        """Check answers that came in without their schema, as from elsewhere, and plan what that changes."""
        for prompts in self._recipes:
            schema = prompts.definition.schema
            if schema is not None:
                for numbers in validations.artists_unchecked(self._store, *_pair(prompts), schema.validation_hash):
                    self._replan(prompts, numbers, None)
        self.replan_dependents()

    def _plan_failed(self, prompts: RecipeVariant) -> None:
        """A new run asks again for what has failed: what was skipped for it waits again, and chains begin anew.

        What is about all artists waits while a run goes on, and is skipped afterwards where any of them has failed.
        """
        reasons = [Reason.SKIPPED] if prompts.definition.upstream else []
        if prompts.definition.upstream and prompts.definition.for_all:
            reasons.append(Reason.UPSTREAM)
        if prompts.definition.follows_up:
            reasons += [Reason.FAILED, Reason.MAYBE_PAID]
        for reason in reasons:
            for numbers in targets.with_reason(self._store, *_pair(prompts), reason):
                self._replan(prompts, numbers, None)

    def _plan_after(self, prompts: RecipeVariant, consequences: Consequences | None) -> None:
        """Plan anew where a needed target has changed."""
        needs = _needs(prompts)
        if not needs:
            return
        for numbers in dependencies.changed_artists(self._store, needs):
            if prompts.definition.for_all:
                self._replan(prompts, [EVERYBODY], consequences)
                return
            if EVERYBODY in numbers:
                for page in targets.artists(self._store, -1):
                    self._replan(prompts, [item.id for item in page], consequences)
                return
            self._replan(prompts, numbers, consequences)

    def plan_again(self, recipe: str, variant: str, artists: Sequence[int]) -> None:
        """Plan these targets as they would be rendered now."""
        if (prompts := self._by_pair.get((recipe, variant))) is not None:
            self._replan(prompts, artists, None)

    def replan_dependents(self, consequences: Consequences | None = None) -> None:
        """Plan anew whatever needs a target that has changed, in dependency order."""
        if not dependencies.any_change(self._store):
            return
        for prompts in self._recipes:
            self._plan_after(prompts, consequences)
        dependencies.forget_changes(self._store)

    # ------------------------------------------------------------------------------------------ as answers come in

    def follow(self, events: Sequence[Event]) -> Consequences:
        """Plan what these events, which are recorded, bring about."""
        found = Consequences()
        failed = [
            event.attempt.request
            for event in events
            if isinstance(event, Unusable) or (isinstance(event, Failed) and event.final)
        ]
        # what fails as it did before has not changed, and is not waited for any more all the same
        dependencies.note_failures(self._store, [request.request_hash for request in failed])
        followed = [request.request_hash for request in failed if self._follows_up(request.recipe)]
        if followed:
            self._follow_failures(followed, found)
        self.replan_dependents(found)
        return found

    def _follows_up(self, recipe: str) -> bool:
        return any(
            prompts.definition.follows_up
            for (name, _), prompts in self._by_pair.items()
            if name == recipe or not recipe
        )

    def _follow_failures(self, hashes: Sequence[str], consequences: Consequences) -> None:
        sharing = queue.shared_requests(self._store, hashes)
        artists: dict[Pair, list[int]] = {}
        for shared in sharing:
            artists.setdefault((shared.recipe, shared.variant), []).append(shared.artist)
        for pair, numbers in artists.items():
            prompts = self._by_pair.get(pair)
            if prompts is not None and prompts.definition.follows_up:
                self._replan(prompts, numbers, consequences)
        lost = {shared.request_hash for shared in sharing if shared.target in consequences.failed}
        consequences.followed = {shared.request_hash for shared in sharing} - lost

    def _replan(self, prompts: RecipeVariant, artists: Sequence[int], consequences: Consequences | None) -> None:
        if consequences is None:
            self._plan_page(prompts, targets.numbered(self._store, artists))
            return
        before = queue.target_states(self._store, *_pair(prompts), artists, self._run)
        self._plan_page(prompts, targets.numbered(self._store, artists))
        for artist, now in queue.target_states(self._store, *_pair(prompts), artists, self._run).items():
            waited = artist in before and before[artist].reason == Reason.UPSTREAM
            consequences.released += waited and now.reason != Reason.UPSTREAM
            if now.ready:
                consequences.ready.append(now)
            elif now.reason in (Reason.FAILED, Reason.MAYBE_PAID):
                consequences.failed.add(now.target)

    # ------------------------------------------------------------------------------------------------- page by page

    def _plan_page(self, prompts: RecipeVariant, page: Sequence[PlannedArtist]) -> None:
        if not page:
            return
        recipe, variant = _pair(prompts)
        rendered = self._renderer.page(prompts, page)
        hashes = [outcome.request_hash for outcome in rendered.outcomes if isinstance(outcome, RenderedRequest)]
        known = targets.known_targets(self._store, recipe, variant, [item.id for item in page])
        requests = self._known.requests(prompts, hashes)
        if not (known or requests or any(rendered.upstream)) and len(hashes) == len(page):
            definition = self._definition(prompts)
            wanted = [
                (item.id, outcome.request_hash, item.row_hash, outcome.input_tokens)
                for item, outcome in zip(page, rendered.outcomes, strict=True)
                if isinstance(outcome, RenderedRequest)
            ]
            targets.add(self._store, recipe, variant, definition, wanted)
            self.counts.planned += len(page)
            self._told.add(len(page))
            return
        unheard = [
            item.id
            for item, outcome in zip(page, rendered.outcomes, strict=True)
            if isinstance(outcome, RenderedRequest) and item.id in known and outcome.request_hash not in requests
        ]
        standing = self._keeper.standing(prompts, unheard, known)
        decided: list[Planned] = []
        following: list[StoredRetry] = []
        for item, outcome, needs in zip(page, rendered.outcomes, rendered.upstream, strict=True):
            target = known.get(item.id)
            if target is not None and item.id in standing.origins and isinstance(outcome, RenderedRequest):
                case = ReplanCase(prompts, item, outcome, needs, target, standing)
                kept = self._keeper.kept(case, self._definition(prompts))
                if kept is not None:
                    self.counts.kept += kept.decision.reason is None and target.request_hash != outcome.request_hash
                    decided.append(kept)
                    continue
                target = self._keeper.still_forced(case)
            planned = self._decide(prompts, item, outcome, needs, target, requests, following)
            fresh = planned.decision.reason is None
            self.counts.reused += fresh and (target is None or target.built_response != planned.decision.response)
            decided.append(planned)
        retries.save(self._store, following)
        targets.save(self._store, recipe, variant, self._definition(prompts), decided)
        self.counts.planned += len(decided)
        self._told.add(len(decided))

    def _decide(
        self,
        prompts: RecipeVariant,
        item: PlannedArtist,
        outcome: Outcome,
        needs: str | None,
        target: KnownTarget | None,
        requests: dict[str, KnownRequest],
        following: list[StoredRetry],
    ) -> Planned:
        if isinstance(outcome, RenderError):
            return Planned(item.id, None, item.row_hash, 0, Decision(Reason.FAILED, f"template: {outcome}"), needs)
        if isinstance(outcome, MissingUpstream):
            decision = blocked(outcome.upstream, target)
            assert decision is not None
            return Planned(item.id, None, item.row_hash, outcome.input_tokens, decision, needs)
        known = requests.get(outcome.request_hash)
        forced = target is not None and target.forced(outcome.request_hash)
        accepted = target is not None and target.accepted_hash == outcome.request_hash
        link = AttemptStep(outcome, known) if forced or accepted else self._chains.link(prompts, outcome, known)
        changes = self._keeper.named_changes(prompts, target, item, needs)
        decision = decide(link.request.request_hash, target, link.known, changes)
        if link.kind and decision.reason in (Reason.NEW, Reason.CHANGED):
            decision = Decision(link.kind, link.after)
        if (follow_up := self._chains.remembered(prompts, outcome, link)) is not None:
            following.append(follow_up)
        asked = link.request
        statistics, own = asked.input_tokens, outcome.request_hash
        return Planned(item.id, asked.request_hash, item.row_hash, statistics, decision, needs, own)

    def _definition(self, prompts: RecipeVariant) -> int:
        pair = _pair(prompts)
        if pair not in self._definitions:
            wanted = prompts.definition.as_dict()
            self._definitions[pair] = targets.definition_id(self._store, *pair, wanted)
        return self._definitions[pair]


def _pair(prompts: RecipeVariant) -> Pair:
    return prompts.definition.recipe, prompts.definition.variant


def _needs(prompts: RecipeVariant) -> list[Pair]:
    return list(prompts.definition.upstream.items())

"""The request queue of a run: stale targets in order, after those that answers have just made ready."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from bioforge.core.errors import BioforgeError
from bioforge.core.events import Event, Started
from bioforge.core.hashing import canonical
from bioforge.core.interfaces import Backend
from bioforge.core.reasons import Reason
from bioforge.core.types import Request
from bioforge.planner.context import PlanContext
from bioforge.planner.estimate import Estimator, output_limit
from bioforge.planner.planner import Planner
from bioforge.planner.render import RenderedRequest, Renderer, RenderOutcome
from bioforge.recipes.template import RecipeVariant, RenderError
from bioforge.store import Selection, queue
from bioforge.store.queue import PendingRequest, RequestFilter, TargetState
from bioforge.store.targets import PlannedArtist

_CHUNK = 256
"""Ready targets that are looked up together."""

_AHEAD = 64
"""Requests that are rendered together, ahead of their use."""


class RequestQueue(Iterator[Request]):
    """Yields each distinct request once, rendered when it is pulled.

    A backend pulls again after the end, since answers may have made further targets ready. Those come first, so that one
    artist is finished before the next begins.
    """

    def __init__(
        self,
        context: PlanContext,
        estimator: Estimator,
        selection: Selection,
        which: RequestFilter = RequestFilter.STALE,
    ) -> None:
        """Requests are yielded once per run of the context; without a run, nothing becomes ready during the iteration."""
        self._context = context
        self._recipes = {variant.key: variant for variant in context.recipes}
        self._estimator = estimator
        self._selection = selection
        self._which = which
        self._renderer = Renderer(context)
        self._pages = self._pending(None)
        self._page: deque[PendingRequest] = deque()
        self._ahead: Iterator[tuple[PendingRequest, RenderOutcome | None]] = iter(())
        self._chunk: Iterator[tuple[PendingRequest, RenderOutcome | None]] = iter(())
        self._ready: deque[int] = deque()
        self.handed_out = 0
        """Number of requests yielded so far."""
        self._enqueued: set[str] = set()
        """Hashes of ready requests that were not yielded yet."""
        self._planned_again: set[int] = set()
        """Targets whose body differed from the plan, by id."""
        self._unrecorded: set[str] = set()
        """Hashes of yielded requests that are not in the state yet."""
        self._since: set[str] = set()
        """Hashes of requests yielded after the current page was read; the page is out of date for them."""

    @property
    def waiting(self) -> int:
        """Return the number of ready targets that were not pulled yet."""
        return len(self._ready)

    def enqueue(self, ready: Sequence[TargetState]) -> int:
        """Add targets that became ready. Return the number of distinct requests that this adds."""
        before = len(self._enqueued)
        self._ready.extend(state.target for state in ready)
        self._enqueued.update(
            state.request_hash
            for state in ready
            if state.request_hash is not None and state.request_hash not in self._unrecorded
        )
        return len(self._enqueued) - before

    def mark_recorded(self, events: Sequence[Event]) -> None:
        """Note that these events are in the state."""
        self._unrecorded.difference_update(
            event.attempt.request.request_hash for event in events if isinstance(event, Started)
        )

    def __next__(self) -> Request:
        while True:
            item, outcome = self._next()
            digest = item.request_hash
            self._enqueued.discard(digest)
            # another target with the same request may have been yielded since the page was read
            if digest in self._unrecorded or digest in self._since:
                continue
            request = self._request(item, outcome)
            if request is not None:
                self.handed_out += 1
                if self._context.run is not None:
                    self._unrecorded.add(digest)
                    self._since.add(digest)
                return request

    def _next(self) -> tuple[PendingRequest, RenderOutcome | None]:
        """Return the next pending request, ready targets first. Raise `StopIteration` after the last."""
        while True:
            if (found := next(self._chunk, None)) is not None:
                return found
            if not self._ready:
                break
            numbers = [self._ready.popleft() for _ in range(min(_CHUNK, len(self._ready)))]
            self._chunk = self._rendered([item for page in self._pending(numbers) for item in page])
        while (found := next(self._ahead, None)) is None:
            if not self._page:
                # a new page leaves out what the state already has as tried, but not what is yet to be recorded
                self._since = set(self._unrecorded)
                self._page.extend(next(self._pages))
            self._ahead = self._rendered(
                [self._page.popleft() for _ in range(min(_AHEAD, len(self._page)))], later=True
            )
        return found

    def _pending(self, among: Sequence[int] | None) -> Iterator[list[PendingRequest]]:
        return queue.pages(
            self._context.store,
            self._selection,
            self._which,
            resend_maybe_paid=self._context.resend_maybe_paid,
            among=among,
            untried_in=self._context.run,
        )

    def _rendered(
        self, items: Sequence[PendingRequest], *, later: bool = False
    ) -> Iterator[tuple[PendingRequest, RenderOutcome | None]]:
        """Render these requests together. With `later`, those that depend on answers are rendered when they are pulled."""
        outcomes: dict[int, RenderOutcome] = {}
        for pair in {(item.recipe, item.variant) for item in items}:
            variant = self._recipes[pair]
            if later and (variant.upstream or variant.for_all):
                continue
            same = [item for item in items if (item.recipe, item.variant) == pair and item.follow_up is None]
            page = self._renderer.page(variant, [PlannedArtist(item.number, "", item.artist) for item in same])
            outcomes |= {item.target: outcome for item, outcome in zip(same, page.outcomes, strict=True)}
        return iter([(item, outcomes.get(item.target)) for item in items])

    def _request(self, item: PendingRequest, outcome: RenderOutcome | None) -> Request | None:
        """Return the request, or None if it would differ from the plan now; its target is then replanned."""
        variant = self._recipes[item.recipe, item.variant]
        body = self._body(variant, item, outcome)
        if body is None:
            self._replan(variant, item)
            return None
        return Request(
            request_hash=item.request_hash,
            endpoint=variant.endpoint,
            model=(item.follow_up_model if item.follow_up is not None else variant.model) or "",
            body=body,
            artist_id=item.artist.artist_id,
            recipe=item.recipe,
            variant=item.variant,
            target=item.target,
            reason=item.reason or Reason.FORCED,
            input_tokens=item.input_tokens,
            output_tokens=self._estimator.output_tokens(item.recipe, item.variant),
            max_output_tokens=output_limit(variant.definition.parameters),
            attempts=item.attempts,
        )

    def _body(self, variant: RecipeVariant, item: PendingRequest, outcome: RenderOutcome | None) -> bytes | None:
        """Return the planned body, or None if it would differ now."""
        if item.follow_up is not None:
            return item.follow_up.encode("utf-8", "surrogatepass")
        if outcome is None:
            outcome = self._outcome(variant, item)
        return (
            outcome.body if isinstance(outcome, RenderedRequest) and outcome.request_hash == item.request_hash else None
        )

    def _outcome(self, variant: RecipeVariant, item: PendingRequest) -> RenderOutcome:
        return self._renderer.page(variant, [PlannedArtist(item.number, "", item.artist)]).outcomes[0]

    # --------------------------------------------------------------------------------- requests that differ from the plan

    def _replan(self, variant: RecipeVariant, item: PendingRequest) -> None:
        """Replan a target whose body differs from its plan.

        Either the backend serializes this request differently now, or an upstream answer changed and the target is replanned
        already. Raise `BioforgeError` for a body that differs each time: it cannot be planned.
        """
        known = next(self._pending([item.target]), None)
        if known is None or known[0].request_hash != item.request_hash:
            return
        first, second = self._outcome(variant, item), self._outcome(variant, item)
        if not isinstance(first, RenderedRequest) or not isinstance(second, RenderedRequest):
            if variant.upstream:
                return
            raise self._unstable(item, first if isinstance(first, RenderError) else second)
        if first.request_hash != second.request_hash or item.target in self._planned_again:
            raise self._unstable(item, second)
        planner = Planner(self._context)
        planner.replan(variant.key, [item.number])
        again = [item.target]
        for shared in queue.shared_requests(self._context.store, [item.request_hash]):
            planner.replan((shared.recipe, shared.variant), [shared.artist])
            again.append(shared.target)
        self._planned_again.update(again)
        self._ready.extendleft(reversed(again))

    def _unstable(self, item: PendingRequest, outcome: RenderOutcome) -> BioforgeError:
        who = f"artist {item.artist.artist_id}: recipe {item.recipe!r}"
        if isinstance(outcome, RenderedRequest) and (plugin := _plugin(self._context.backend)):
            bodies = {canonical(self._context.backend.body(outcome.rendered)) for _ in range(3)}
            if len(bodies) > 1 or item.target in self._planned_again:
                return BioforgeError(
                    f"{who}: {plugin} returns another body() each time for the same input",
                    "this is a fault of the plugin: a body must not contain a time or a random number; nothing was"
                    " sent for this artist",
                )
        return BioforgeError(
            f"{who} renders differently from what was planned",
            "a template must give the same text each time; nothing was sent for this artist",
        )


def _plugin(backend: Backend) -> str:
    """Name a backend's plugin and version; empty for a built-in one."""
    from importlib.metadata import entry_points

    module = type(backend).__module__.partition(".")[0]
    if module == "bioforge":
        return ""
    for entry in entry_points(group="bioforge"):
        if entry.module.partition(".")[0] == module and entry.dist is not None:
            return f"plugin {entry.dist.name!r} {entry.dist.version}"
    return f"backend {type(backend).__name__} of {type(backend).__module__}"

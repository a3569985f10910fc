"""The requests of a run: those of stale targets in order, and before them those that answers have just made ready."""

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
"""Targets that became ready, and are looked up together."""

_AHEAD = 64
"""Requests that are rendered together, before they are asked for."""


class RequestQueue(Iterator[Request]):
    """Each different request once, rendered as it is asked for.

    A backend asks again after the end: by then answers may have made further targets ready. Those come first, so that
    what was begun for an artist is finished before the next one is begun.
    """

    def __init__(
        self,
        context: PlanContext,
        estimator: Estimator,
        selection: Selection,
        which: RequestFilter = RequestFilter.STALE,
    ) -> None:
        """Requests of the context's run are sent once; without a run, nothing becomes ready during the iteration."""
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
        """Requests so far."""
        self._enqueued: set[str] = set()
        """Hashes of requests that are ready, and were not handed out yet."""
        self._planned_again: set[int] = set()
        """Targets whose requests were not written as planned."""
        self._unrecorded: set[str] = set()
        """Hashes of requests that were handed out, and stand nowhere in the state yet."""
        self._since: set[str] = set()
        """Hashes of requests that were handed out after the page was read: what it says of those is out of date."""

    @property
    def waiting(self) -> int:
        """Targets that became ready and were not asked for yet."""
        return len(self._ready)

    def enqueue(self, ready: Sequence[TargetState]) -> int:
        """Add targets that became ready. Return the number of distinct requests this adds."""
        before = len(self._enqueued)
        self._ready.extend(standing.target for standing in ready)
        self._enqueued.update(
            standing.request_hash
            for standing in ready
            if standing.request_hash is not None and standing.request_hash not in self._unrecorded
        )
        return len(self._enqueued) - before

    def recorded(self, events: Sequence[Event]) -> None:
        """Note that these events are in the state."""
        self._unrecorded.difference_update(
            event.attempt.request.request_hash for event in events if isinstance(event, Started)
        )

    def __next__(self) -> Request:
        while True:
            item, outcome = self._next()
            digest = item.request_hash
            self._enqueued.discard(digest)
            # what was read with others may have been asked meanwhile, for another target that wants the same
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
        """What has become ready comes first. Raises `StopIteration` after the last."""
        while True:
            if (found := next(self._chunk, None)) is not None:
                return found
            if not self._ready:
                break
            numbers = [self._ready.popleft() for _ in range(min(_CHUNK, len(self._ready)))]
            self._chunk = self._rendered([item for page in self._pending(numbers) for item in page])
        while (found := next(self._ahead, None)) is None:
            if not self._page:
                self._since.clear()  # a page is without what stands in the state as tried by then
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
        """With what they need looked up together; `later`: what depends on answers is rendered when it is asked for."""
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
        """None where it would be another one now: the target is planned anew then, and asked for by what that says."""
        variant = self._recipes[item.recipe, item.variant]
        body = self._body(variant, item, outcome)
        if body is None:
            self._plan_again(variant, item)
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
        """The body that was planned; None where it would be another one now."""
        if item.follow_up is not None:
            return item.follow_up.encode("utf-8", "surrogatepass")
        if outcome is None:
            outcome = self._outcome(variant, item)
        return (
            outcome.body if isinstance(outcome, RenderedRequest) and outcome.request_hash == item.request_hash else None
        )

    def _outcome(self, variant: RecipeVariant, item: PendingRequest) -> RenderOutcome:
        return self._renderer.page(variant, [PlannedArtist(item.number, "", item.artist)]).outcomes[0]

    # ----------------------------------------------------------------------------------- what is not as it was planned

    def _plan_again(self, variant: RecipeVariant, item: PendingRequest) -> None:
        """A backend writes this text otherwise than when it was planned, though it writes others alike; or what the
        target needs has changed since it was read, and it is planned anew already.

        Raises `BioforgeError` for what is another request each time: it cannot be planned.
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
                    f"{who}: {plugin} writes another request each time: body() gives another one for the same texts",
                    "this is a mistake of the plugin: no time and no random number may stand in a body; nothing was"
                    " sent for this artist",
                )
        return BioforgeError(
            f"{who} renders differently from what was planned",
            "a template must give the same text each time; nothing was sent for this artist",
        )


def _plugin(backend: Backend) -> str:
    """Who wrote a backend, in words; empty for what is built in."""
    from importlib.metadata import entry_points

    module = type(backend).__module__.partition(".")[0]
    if module == "bioforge":
        return ""
    for entry in entry_points(group="bioforge"):
        if entry.module.partition(".")[0] == module and entry.dist is not None:
            return f"plugin {entry.dist.name!r} {entry.dist.version}"
    return f"backend {type(backend).__name__} of {type(backend).__module__}"

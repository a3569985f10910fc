"""Act on answers: validate them, enqueue the targets that they make ready, and count failures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TypeGuard

from bioforge.core.events import Attempt, Event, Failed, Stopped, Succeeded, Unusable
from bioforge.core.interfaces import Stop
from bioforge.core.text import plural
from bioforge.engine.loop import FAILURES
from bioforge.engine.requests import RequestQueue
from bioforge.planner.planner import Planner
from bioforge.recipes.template import RecipeVariant
from bioforge.recipes.validate import checked, hold_back


class FollowUp:
    """Acts on the events of one run. After `max_failures` failed targets nothing more is sent."""

    def __init__(
        self,
        recipes: Sequence[RecipeVariant],
        planner: Planner,
        requests: RequestQueue,
        stop: Stop,
        max_failures: int | None = None,
        grown: Callable[[int], None] = lambda growth: None,
    ) -> None:
        """`grown` receives the number of requests that were added to the plan (negative: removed)."""
        definitions = [variant.definition for variant in recipes]
        self._schemas = {
            definition.key: definition.schema for definition in definitions if definition.schema is not None
        }
        self._goes_on = any(definition.upstream or definition.has_retries for definition in definitions)
        self._planner = planner
        self._requests = requests
        self._stop = stop
        self._most = None if max_failures is None else max(1, max_failures)
        self._failures = 0
        self._grown = grown
        self.stopped: Stopped | None = None

    def hold(self, events: Sequence[Event]) -> Sequence[Event]:
        """Return the events with the answers held back whose recipe has a schema; the same list without any."""
        return hold_back(events, self._has_schema) if self._schemas else events

    def _has_schema(self, event: Succeeded) -> bool:
        return _pair(event.attempt) in self._schemas

    def check(self, events: Sequence[Event]) -> Sequence[Event]:
        """Return the events with answers validated; one that does not fit its schema becomes `Unusable`."""
        return [self._checked(event) for event in events] if self._schemas else events

    def _checked(self, event: Event) -> Event:
        if not isinstance(event, Succeeded):
            return event
        schema = self._schemas.get(_pair(event.attempt))
        if schema is None:
            return event
        if self._stop.level > 1:  # the run is left now: the next plan validates the answer
            return hold_back([event], self._has_schema)[0]
        answer = checked(event.answer, schema)
        if answer.problem is None:
            return replace(event, answer=answer)
        return Unusable(event.attempt, answer, event.seconds, event.request_id)

    def apply(self, events: Sequence[Event]) -> Sequence[Event]:
        """Replan dependents of recorded events and enqueue what became ready.

        Failures that a repair or fallback replaces come back with `followed=True`.
        """
        self._requests.mark_recorded(events)
        ended = any(isinstance(event, Succeeded | Unusable | Failed) for event in events)
        if self._goes_on and ended and self._stop.level < 2:
            consequences = self._planner.apply(events)
            followed = consequences.followed
            growth = self._requests.enqueue(consequences.ready) - consequences.released - len(followed)
            if growth:
                self._grown(growth)
            if followed:
                events = [_followed(event, followed) for event in events]
        self._failures += sum(_is_failure(event) and not event.followed for event in events)
        self._stop_for_failures()
        return events

    def _stop_for_failures(self) -> None:
        if self._most is not None and self._failures >= self._most and self.stopped is None:
            self.stopped = Stopped(
                FAILURES,
                f"{plural(self._failures, 'target')} failed, the limit of --max-failures {self._most}",
                "`bioforge export --failed` lists them; raise --max-failures to continue. Open batches continue at the provider",
            )
            self._stop.raise_level(FAILURES)


def _is_failure(event: Event) -> TypeGuard[Unusable | Failed]:
    return isinstance(event, Unusable) or (isinstance(event, Failed) and event.final)


def _followed(event: Event, hashes: Collection[str]) -> Event:
    if _is_failure(event) and event.attempt.request.request_hash in hashes:
        return replace(event, followed=True)
    return event


def _pair(attempt: Attempt) -> tuple[str, str]:
    return attempt.request.recipe, attempt.request.variant

"""Combine batches and calls (flex or standard tier) in one run.

The purchase decision comes with the work (see `strategy.py`). Open batches of earlier runs are always collected. Requests
that one option leaves over go to the next; a request is never in two at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from bioforge.backends.batch.driver import BatchDriver
from bioforge.backends.strategy import BATCH, FLEX, STANDARD
from bioforge.core.events import Event, Failed, Notice, Stopped
from bioforge.core.interfaces import Work
from bioforge.core.types import Paid, Request

Calls = Callable[[Work], Iterator[Sequence[Event]]]
"""Executes work by single calls."""

FLEX_ATTEMPTS = 3
"""Attempts at the flex tier before a refusal for lack of capacity counts as final."""


class AutoDriver:
    """Executes one `Work` by the decided option, and what is left over by the next."""

    def __init__(self, work: Work, batches: BatchDriver, calls: Calls) -> None:
        self._work = work
        self._batches = batches
        self._calls = calls
        self._broke: Stopped | None = None
        """The stop for a used-up budget; open batches are still collected."""
        self._stopped = False
        self._left_over: set[str] = set()

    def run(self) -> Iterator[Sequence[Event]]:
        yield from self._run()
        if self._broke is not None and not self._stopped:
            yield [self._broke]
        elif not self._stopped:
            yield self._batches.left_waiting()

    def _run(self) -> Iterator[Sequence[Event]]:
        work, choice = self._work, self._work.choice
        way = choice.way if choice else STANDARD
        if way == BATCH:
            yield from self._watched(self._batches.run(wait=work.wait))
            if not self._stopped and self._batches.left_over:
                yield from self._rest((choice.then if choice else None) or STANDARD)
            return
        if self._batches.open:
            # collect what is ready before anything is sent; wait for the rest at the end
            yield from self._watched(self._batches.run(wait=False, fill=False))
            if self._stopped:
                return
            self._batches.hand_over()  # released requests are among those that are sent now
        yield from self._by_calls(work.requests, way)
        if self._left_over and not self._stopped and self._broke is None and choice and choice.then:
            yield from self._rest(choice.then)
        if not self._stopped and self._batches.awaited:
            yield from self._watched(self._batches.run(wait=work.wait, fill=False))
        given_back = self._batches.hand_over()
        if not self._stopped and (given_back or self._batches.left_over):
            yield from self._rest(STANDARD)

    def _rest(self, way: str) -> Iterator[Sequence[Event]]:
        """Send requests by calls that failed for a reason that another option does not have."""
        yield [Notice("auto", f"the remaining requests are sent by {way}")]
        wanted = self._left_over | self._batches.take_left_over()
        self._left_over = set()
        # beside batches, released requests wait for room in the next batch and are not sent at another price
        beside = self._work.choice is not None and self._work.choice.way == BATCH
        retries = (one for one in self._work.retries() if not beside or one.request_hash in wanted)
        yield from self._by_calls(retries, way)
        if way == FLEX and self._left_over and not self._stopped:
            yield from self._rest(STANDARD)

    def _by_calls(self, requests: Iterator[Request], way: str) -> Iterator[Sequence[Event]]:
        tier = FLEX if way == FLEX else None

        def bought(request: Request) -> Request:
            return replace(request, service_tier=tier)

        part = replace(
            self._work,
            # a map continues when its source does, also after it was exhausted
            requests=map(bought, requests),
            retry=replace(self._work.retry, max_attempts=min(FLEX_ATTEMPTS, self._work.retry.max_attempts))
            if tier
            else self._work.retry,
        )
        if self._work.control.budget.used_up:
            self._broke = Stopped("budget", "the budget is used up", "raise --max-cost and run again")
            return
        control = self._work.control
        batches = control.gauges.batches
        for events in self._calls(part):
            control.gauges = replace(control.gauges, batches=batches)
            broke = [event for event in events if isinstance(event, Stopped) and event.kind == "budget"]
            self._broke = broke[0] if broke else self._broke
            rest = [self._left(event) if tier else event for event in events if event not in broke]
            yield from self._watched(iter([rest]))

    def _left(self, event: Event) -> Event:
        """Return a refusal for lack of flex capacity as not final, if there is another option."""
        lacking = isinstance(event, Failed) and event.failure.error_class in ("overloaded", "rate_limit")
        if not (lacking and self._work.choice and self._work.choice.then) or not isinstance(event, Failed):
            return event
        if event.final and event.paid is Paid.NO:
            self._left_over.add(event.attempt.request.request_hash)
            return replace(event, final=False)
        return event

    def _watched(self, groups: Iterator[Sequence[Event]]) -> Iterator[Sequence[Event]]:
        """Note whether the way ended before its work was done."""
        for events in groups:
            self._stopped = self._stopped or any(isinstance(event, Stopped) for event in events)
            yield events

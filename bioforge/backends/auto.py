"""Buying in several ways within one run: batches, and calls at a cheaper tier or the standard one.

The way was chosen before (`choice.py`) and stands in the work. Open batches of earlier runs are collected whatever the
way; what one way leaves over is bought by the next, and nothing is ever in two ways at once: a request in a batch is not
among those that are handed out.
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
"""Executes work by calls that are answered at once."""

FLEX_ATTEMPTS = 3
"""Attempts at the cheaper tier before a refusal for lack of capacity is taken for an answer."""


class AutoDriver:
    """Executes one `Work` by the way it names, and what is left over by the way after that."""

    def __init__(self, work: Work, batches: BatchDriver, calls: Calls) -> None:
        self._work = work
        self._batches = batches
        self._calls = calls
        self._broke: Stopped | None = None
        """That the budget is used up; batches that are open are collected all the same."""
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
            # what is ready is kept before anything is sent; the rest is awaited at the end
            yield from self._watched(self._batches.run(wait=False, fill=False))
            if self._stopped:
                return
            self._batches.hand_over()  # what was given back is among those that are asked now
        yield from self._by_calls(work.requests, way)
        if self._left_over and not self._stopped and self._broke is None and choice and choice.then:
            yield from self._rest(choice.then)
        if not self._stopped and self._batches.awaited:
            yield from self._watched(self._batches.run(wait=work.wait, fill=False))
        given_back = self._batches.hand_over()
        if not self._stopped and (given_back or self._batches.left_over):
            yield from self._rest(STANDARD)

    def _rest(self, way: str) -> Iterator[Sequence[Event]]:
        """Requests that failed in a way that another one may mend, by calls."""
        yield [Notice("auto", f"what is left over is bought by {way}")]
        wanted = self._left_over | self._batches.take_left_over()
        self._left_over = set()
        # beside batches, what was given back waits for room in the next one, and is not bought at another price
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
            # a map goes on where its source does, after an end as well
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
        """A refusal of the cheaper tier for lack of capacity is not the last word where there is another way."""
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

"""The follow-up of a client's work: answers and failures complete the futures of calls, or are sent back for repair."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import replace

from bioforge.api.deduplicate import Deduplicator, Waiter
from bioforge.api.outcome import Received, failed, judge, repair_errors
from bioforge.api.request import RequestBuilder
from bioforge.api.types import Answer
from bioforge.core.errors import BioforgeError, ClosedError, HaltedError
from bioforge.core.events import Event, Failed, Notice, Stopped, Succeeded, Unusable
from bioforge.core.interfaces import Gauges
from bioforge.recipes.schema import Schema
from bioforge.recipes.validate import checked, hold_back

MakeError = Callable[[], BioforgeError]
"""Makes one error for each call: raising the same one in two threads would mix up their tracebacks."""

STOPPING = ("authentication", "permission", "quota")
"""Error classes of refusals that stop the client."""

log = logging.getLogger("bioforge.api")


class Completion:
    """Validates answers and completes the calls that wait for them.

    An `EventFollowUp` and a `GroupObserver` of `bioforge.engine.loop`.
    """

    stopped: Stopped | None = None

    def __init__(self, calls: Deduplicator, builder: RequestBuilder, enter: Callable[[Waiter], None]) -> None:
        """`enter` submits a call again, for its repair request."""
        self.refusal_status: int | None = None
        """HTTP status of the last refusal that stops the client."""
        self._calls = calls
        self._builder = builder
        self._enter = enter
        self._received: dict[str, Received] = {}

    def hold(self, events: Sequence[Event]) -> Sequence[Event]:
        """Return the events with the answers held back whose first call has a schema; the same list without any."""
        return hold_back(events, lambda event: self._schema(event) is not None)

    def check(self, events: Sequence[Event]) -> Sequence[Event]:
        """Return the events with each answer validated by the schema of the first call that waits for it."""
        return [self._check(event) if isinstance(event, Succeeded | Unusable) else event for event in events]

    def _check(self, event: Succeeded | Unusable) -> Event:
        attempt, answer = event.attempt, event.answer
        received = Received(answer, attempt.number, event.seconds, event.request_id)
        self._received[attempt.client_request_id] = received
        schema = self._schema(event)
        if schema is None or answer.problem is not None:
            return event
        answer = checked(answer, schema, received.validate(schema))
        kind = Succeeded if answer.problem is None else Unusable
        return kind(attempt, answer, event.seconds, event.request_id)

    def _schema(self, event: Succeeded | Unusable) -> Schema | None:
        first = self._calls.first_waiter(event.attempt.request.request_hash)
        return None if first is None else first.prepared.schema

    def apply(self, events: Sequence[Event]) -> Sequence[Event]:
        """Complete the calls that these events answer or end."""
        for event in events:
            match event:
                case Succeeded(attempt, answer) | Unusable(attempt, answer):
                    self._builder.learn(attempt.request.model, answer.usage)
                    waiters = self._calls.pop(attempt.request.request_hash)
                    self.deliver(waiters, self._received.pop(attempt.client_request_id))
                case Failed():
                    self._fail(event)
                case _:
                    pass
        return events

    def show(self, events: Sequence[Event], gauges: Gauges) -> None:
        """Log what the scheduler noticed."""
        for event in events:
            if isinstance(event, Notice):
                log.info("%s: %s", event.kind, event.message)

    def deliver(self, waiters: Iterable[Waiter], received: Received) -> None:
        """Give an answer to the calls that wait for it: the first has paid for it. Safe from any thread."""
        for waiter in waiters:
            if waiter.future.cancelled():
                continue
            waiter.cost = waiter.cost.with_answer(received)
            errors = repair_errors(waiter.prepared, received)
            if errors:
                try:
                    waiter.prepared = self._builder.repair(waiter.prepared, received.text, errors)
                    self._enter(waiter)
                except BioforgeError as error:
                    waiter.fail(error)
            else:
                result = judge(waiter.prepared, received, waiter.cost)
                if isinstance(result, Answer):
                    waiter.answer(result)
                else:
                    waiter.fail(result)
            received = replace(received, cached=True)

    def _fail(self, event: Failed) -> None:
        digest, number = event.attempt.request.request_hash, event.attempt.number
        if event.failure.error_class in STOPPING:
            self.refusal_status = event.failure.http_status
        if event.final:
            fail(self._calls.pop(digest), lambda: failed(event))
        else:
            self._calls.mark_for_retry(digest, number)


def fail(waiters: Iterable[Waiter], make: MakeError) -> None:
    """End these calls, each with a new error."""
    for waiter in waiters:
        waiter.fail(make())


def error_of(error: BaseException | None) -> MakeError:
    """Return the factory for the error of calls that are left when the worker ends. None: the client was closed."""
    match error:
        case None:
            return lambda: ClosedError("the client was closed before this was answered", error_class="interrupted")
        case BioforgeError():
            return lambda: copy(error)
        case _:
            log.error("the client's worker failed", exc_info=error)
            return lambda: HaltedError(
                f"the client's worker failed: {type(error).__name__}: {error}", error_class="internal"
            )

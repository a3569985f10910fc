"""One `backend.execute`: requests are handed out, what comes back is judged, recorded, and only then told."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bioforge.api.backend import ClientBackend
from bioforge.api.deduplicate import Deduplicator
from bioforge.api.notify import Notifier, fail, log
from bioforge.api.outcome import Received, Verdicts, as_recorded, failed
from bioforge.api.request import RequestBuilder
from bioforge.core.errors import PendingError, TransportError
from bioforge.core.events import Event, Failed, Notice, Stopped, Succeeded, Unusable
from bioforge.core.interfaces import Backend, Stop, Work
from bioforge.core.types import Paid, Request

if TYPE_CHECKING:
    from bioforge.api.state import State

STOPPING = ("authentication", "permission", "quota")
"""Error classes of the refusals that stop everything."""


class Meter:
    """What a client has spent, in US dollars, over all its sessions."""

    def __init__(self) -> None:
        self.spent = 0.0
        self._priced = 0

    def paid(self, cost_usd: float | None) -> None:
        if cost_usd is not None:
            self.spent += cost_usd
            self._priced += 1

    def maybe_paid(self) -> None:
        """It counts as much as an answer has cost so far."""
        self.spent += self.spent / self._priced if self._priced else 0.0


@dataclass(slots=True)
class Ending:
    """Why a backend stopped, None when it came to its end; and the refusal that stopped it, if it was one."""

    stopped: Stopped | None = None
    refused: Failed | None = None


class Session:
    """From the first request to whatever stops it. Lives on the engine's thread."""

    def __init__(
        self, desk: Deduplicator, backends: ClientBackend, asker: RequestBuilder, teller: Notifier, meter: Meter
    ) -> None:
        self._desk = desk
        self._backends = backends
        self._asker = asker
        self._teller = teller
        self._meter = meter

    def run(self, backend: Backend, stop: Stop, state: State | None) -> Ending:
        """Raises `StateError` when something could not be recorded; what was in flight then is left."""
        awaited = self._desk.batches()
        ending = self._execute(backend, self._work(stop, state, awaited), state)
        if state is not None:
            state.recover(ending.stopped)
        if ending.stopped is None:
            fail(self._desk.end(lambda flight: flight.sent), _forgotten)
            fail(self._desk.end(lambda flight: flight.batch in awaited), _elsewhere)
        return ending

    def _work(self, stop: Stop, state: State | None, awaited: Collection[str]) -> Work:
        setting, desk = self._backends.setting, self._desk
        handed_out = _HandedOut(desk)
        work = Work(
            requests=handed_out,
            limits=setting.limits(self._meter.spent),
            retry=setting.retry,
            stop=stop,
            retries=handed_out.again,
            project="library",
            more=lambda: desk.lively,
        )
        if state is None or not self._backends.batches:
            return work
        return self._backends.with_batches(work, state.store, awaited)

    def _execute(self, backend: Backend, work: Work, state: State | None) -> Ending:
        ending = Ending()
        with ExitStack() as stack:
            recorder = None
            if state is not None:
                setting = self._backends.setting
                recorder = state.recorder(setting.config.backend, setting.base_url)
                stack.callback(recorder.close)
            groups = backend.execute(work)
            # closed at once when recording fails: nothing more may be sent that could not be kept
            stack.callback(getattr(groups, "close", lambda: None))
            for group in groups:
                judged = [self._judged(event) for event in group]
                if recorder is not None and judged:
                    recorder.record([event for event, _ in judged], work.meanwhile)
                for event, verdicts in judged:
                    self._settle(event, verdicts)
                    if isinstance(event, Stopped):
                        ending.stopped = event
                    elif isinstance(event, Failed) and event.failure.error_class in STOPPING:
                        ending.refused = event
        return ending

    def _judged(self, event: Event) -> tuple[Event, Verdicts]:
        """The event as it is recorded: an answer with its data, or with what is wrong with it."""
        if not isinstance(event, Succeeded | Unusable):
            return event, _NO_TEXT
        verdicts = Verdicts(event.answer.text or "")
        first = self._desk.asked_by(event.attempt.request.request_hash)
        answer = as_recorded(event.answer, None if first is None else first.question.schema, verdicts)
        kind = Succeeded if answer.problem is None else Unusable
        return kind(event.attempt, answer, event.seconds, event.request_id), verdicts

    def _settle(self, event: Event, verdicts: Verdicts) -> None:
        match event:
            case Succeeded(attempt, answer, seconds, request_id) | Unusable(attempt, answer, seconds, request_id):
                self._meter.paid(answer.cost_usd)
                self._asker.learn(attempt.request.model, answer.usage)
                calls = self._desk.take(attempt.request.request_hash)
                self._teller.tell(calls, Received(answer, attempt.number, seconds, request_id), verdicts)
            case Failed(attempt=attempt):
                if event.paid is Paid.MAYBE:
                    self._meter.maybe_paid()
                if event.final:
                    fail(self._desk.take(attempt.request.request_hash), lambda: failed(event))
                else:
                    self._desk.give_back(attempt.request.request_hash, attempt.number)
            case Notice(kind, message):
                log.info("%s: %s", kind, message)
            case _:
                pass


_NO_TEXT = Verdicts("")


class _HandedOut(Iterator[Request]):
    """The requests of a session: none now may be some later. `again` gives those out once more that were given back."""

    def __init__(self, desk: Deduplicator, once_more: Sequence[Request] = ()) -> None:
        self._desk = desk
        self._once_more = list(reversed(once_more))

    def again(self) -> _HandedOut:
        return _HandedOut(self._desk, self._desk.again())

    def __next__(self) -> Request:
        if self._once_more:
            return self._once_more.pop()
        request = self._desk.next()
        if request is None:
            raise StopIteration
        return request


def _forgotten() -> TransportError:
    return TransportError("the backend ended without an outcome for this", maybe_paid=True, error_class="internal")


def _elsewhere() -> PendingError:
    return PendingError(
        "in an open batch that this client cannot collect", "`bioforge status` shows it", error_class="in_batch"
    )

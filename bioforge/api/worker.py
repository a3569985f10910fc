"""The thread behind a client: one backend, one scheduler and one budget for all calls, from whatever thread or loop.

    call ── joins a flight ──▶ [looked up in the state] ──▶ handed out to the backend, which asks for more while it works
    events of the backend ──▶ judged ──▶ recorded in the state ──▶ callers are told

The thread starts with the first call and ends when the client is closed. While it lives there are sessions, each of
which goes on until the client is closed or something stops it (budget, quota, key, outage). Then everybody who waits is
told, and a later call begins another session.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bioforge.api.backend import ClientBackend
from bioforge.api.deduplicate import Deduplicator, InFlight, Waiter, result_of
from bioforge.api.notify import MakeError, Notifier, error_of, fail
from bioforge.api.outcome import Received, Verdicts, halted, no_answer, too_dear
from bioforge.api.request import PreparedRequest, RequestBuilder
from bioforge.api.session import Meter, Session
from bioforge.api.types import Answer
from bioforge.core.errors import BioforgeError, CallFacts, ClosedError, ConfigError, PendingError, UsageError
from bioforge.core.events import Stopped
from bioforge.core.interfaces import Stop
from bioforge.core.reasons import MAYBE_PAID, STARTED
from bioforge.core.types import Failure, Paid, Request

if TYPE_CHECKING:
    from bioforge.api.state import CacheReader, State
    from bioforge.store.answers import CachedAnswer

_living: weakref.WeakSet[Engine] = weakref.WeakSet()
"""Engines that have had a thread: those that still have one are ended in order when the interpreter ends."""


class Engine:
    """Serves the calls of one client. Every method may be called from any thread."""

    def __init__(self, backends: ClientBackend, asker: RequestBuilder, state: Path | None) -> None:
        self.desk = Deduplicator()
        self._process = os.getpid()
        self._backends = backends
        self._asker = asker
        self._state = None if state is None else state.resolve()
        self._meter = Meter()
        self._teller = Notifier(asker, self._enter)
        self._session = Session(self.desk, backends, asker, self._teller, self._meter)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._over: Future[None] = Future()
        self._over.set_result(None)
        self._lookup: CacheReader | None = None
        self._stop = Stop()
        self._broke: MakeError | None = None
        """Makes the error of a budget that is used up, which it stays."""

    @property
    def running(self) -> bool:
        return self._thread is not None

    # ------------------------------------------------------------------------------------------- on callers' threads

    def submit(self, question: PreparedRequest) -> Future[Answer[Any]]:
        """Ends with an `Answer` or a `BioforgeError`. Cancelling it before it was sent takes it back. Raises
        `ClosedError`."""
        call = Waiter(question)
        self._enter(call)
        call.future.add_done_callback(self._given_up)
        return call.future

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """What is submitted within this is sent together."""
        with self.desk.collecting():
            yield
        self._stop.nudge()

    def close(self) -> None:
        """Nothing new is sent; what is in flight is awaited where somebody still waits for it or a state keeps it.
        An interrupt while waiting leaves at once, and is raised."""
        over = self.ask_to_close()
        if threading.current_thread() is self._thread:
            return
        try:
            result_of(over)
        except BaseException:
            self.leave()
            result_of(over)
            raise

    def ask_to_close(self) -> Future[None]:
        """Begin to close, without waiting. What is returned is done when there is nothing left of it."""
        if self._process != os.getpid():  # a fork has neither the thread nor anything to end
            return self._nothing_to_end()
        unsent = self.desk.close()
        with self._lock:
            if self._stop.level == 0:
                self._stop.raise_level()
            over = self._over
        self._leave_if_forsaken()
        fail(unsent, lambda: ClosedError("the client was closed before this was sent", error_class="interrupted"))
        return over

    def _nothing_to_end(self) -> Future[None]:
        over: Future[None] = Future()
        over.set_result(None)
        return over

    def leave(self) -> None:
        """End now: of what is in flight nobody will know whether it was paid for."""
        while self._stop.level < 2:
            self._stop.raise_level()

    def _leave_if_forsaken(self) -> None:
        """Answers that nobody would learn of and nothing keeps are not worth waiting for."""
        if self._state is None and not self.desk.open and self.desk.forsaken:
            self.leave()

    def _given_up(self, future: Future[Answer[Any]]) -> None:
        if future.cancelled():
            self._leave_if_forsaken()

    def _enter(self, call: Waiter) -> None:
        if self._process != os.getpid():
            raise ClosedError(
                "this client was opened before the process was forked, and its thread stayed behind",
                "open a client in this process",
                error_class="interrupted",
            )
        flight = self.desk.join(call)
        with self._lock:
            if self._thread is None and self.desk.open:
                self._start()
            lookup = self._lookup
        if flight is None:
            return
        if lookup is not None:
            lookup.put(flight)
        else:
            self._send(flight, flight.request)

    def _send(self, flight: InFlight, request: Request) -> None:
        if (refusal := self._unaffordable(request)) is not None:
            fail(self.desk.take(request.request_hash), refusal)
        elif self.desk.ready(flight, request):
            self._stop.nudge()

    def _unaffordable(self, request: Request) -> MakeError | None:
        """Why a request cannot be sent for want of money. One that is too dear alone does not end the others."""
        limit = self._backends.setting.config.limits.max_cost_usd
        if limit is None or self._broke is not None:
            return self._broke
        try:
            price = self._asker.price(request)
        except ConfigError as error:
            return error_of(error)
        if self._meter.spent + price <= limit:
            return None
        spent = self._meter.spent
        return lambda: too_dear(request, limit, spent, price)

    def _start(self) -> None:
        """With the lock held."""
        if self._state is not None:
            from bioforge.api.state import CacheReader

            self._lookup = CacheReader(
                self._state, self.desk, found=self._found, pending=self._pending, missing=self._missing
            )
        self._over = Future()
        self._thread = threading.Thread(target=self._run, name="bioforge-engine", daemon=True)
        _living.add(self)
        self._thread.start()

    # ------------------------------------------------------------------------------------------ on the lookup's thread

    def _found(self, flight: InFlight, known: CachedAnswer, arrival: Received) -> None:
        from bioforge.api.state import to_send

        answered = self.desk.split(flight, lambda call: call.question.again)
        if flight.calls:
            self._send(flight, to_send(flight.request, known, forced=True))
        self._teller.tell(answered, arrival, Verdicts(arrival.received.text or ""))

    def _missing(self, flight: InFlight, known: CachedAnswer | None) -> None:
        from bioforge.api.state import to_send

        unclear = known is not None and known.state in (MAYBE_PAID, STARTED)
        if known is not None and unclear and not self._backends.setting.config.retry.maybe_paid:
            failure = known.failure or Failure("interrupted", "nobody knows what became of it")
            facts = _facts(flight, known, failure.error_class)
            calls = self.desk.split(flight, lambda call: call.question.again)
            fail(calls, lambda: no_answer(failure, known.attempts, facts, Paid.MAYBE))
        if flight.calls:
            self._send(flight, to_send(flight.request, known))

    def _pending(self, flight: InFlight, known: CachedAnswer) -> None:
        if self._backends.batches:
            self.desk.park(flight, known.batch or "")
            return
        message = f"in batch {known.batch}, and its answer is still to come"
        hint = '`bioforge run`, or a client with backend="batch" and this state, collects it'
        facts = _facts(flight, known, "in_batch")
        fail(self.desk.take(flight.request.request_hash), lambda: PendingError(message, hint, **facts))

    # ------------------------------------------------------------------------------------------ on the engine's thread

    def _run(self) -> None:
        wrong: BaseException | None = None
        try:
            with ExitStack() as stack:
                state = self._open_state(stack)
                while self.desk.wait():
                    self._serve(stack, state)
        except BaseException as error:  # whoever waits is told, whatever it is
            wrong = error
        with self._lock:
            self._thread = self._lookup = None
            left, over = self.desk.end(), self._over
        fail(left, error_of(wrong))
        over.set_result(None)

    def _open_state(self, stack: ExitStack) -> State | None:
        if self._state is None or not self.desk.open:
            return None
        from bioforge.api.state import State

        for other in list(_living):
            if other is not self and other._state == self._state and not other.desk.open:
                other._over.result()  # it is closing, and lets go of the file in a moment
        config = self._backends.setting.config
        state = stack.enter_context(State.open(self._state, config.backend, config.limits.max_cost_usd))
        assert self._lookup is not None
        stack.enter_context(self._lookup)
        return state

    def _serve(self, stack: ExitStack, state: State | None) -> None:
        """A session, and telling everybody what stopped it."""
        with self._lock:
            if self._stop.level:
                return
            stop = self._stop = Stop()
        try:
            ending = self._session.run(self._backends.sending(stack), stop, state)
        except UsageError as error:
            fail(self.desk.end(), error_of(ConfigError(error.message, error.hint)))
        except BioforgeError as error:
            fail(self.desk.end(), error_of(error))
        else:
            if ending.stopped is not None:
                refused = None if ending.refused is None else ending.refused.failure.http_status
                self._halt(ending.stopped, refused)

    def _halt(self, stopped: Stopped, status_code: int | None = None) -> None:
        make = halted(stopped, status_code)
        if stopped.kind == "budget":
            self._broke = make
        fail(self.desk.end(), make)


def _facts(flight: InFlight, known: CachedAnswer, error_class: str) -> CallFacts:
    return CallFacts(error_class=error_class, request_hash=flight.request.request_hash, attempts=known.attempts)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_living.clear)


@atexit.register
def _end_all() -> None:
    """Clients that nobody closed: what a state keeps is awaited, as `close` does it."""
    for engine in list(_living):
        with suppress(KeyboardInterrupt):
            engine.close()

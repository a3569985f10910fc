"""The thread behind a client: one backend, one scheduler and one budget for all calls, from any thread or event loop.

    call ── joins a request ──▶ [looked up in the state] ──▶ enqueued ──▶ engine.loop pulls it, while more may follow
    engine.loop: events ──▶ Completion.check ──▶ recorded in the state ──▶ Completion.apply completes the calls

The thread starts with the first call and ends when the client is closed. It runs sessions: each is one pass of the loop,
until the client is closed, idle, or stopped (budget, quota, key, outage). What stops a session ends every call that waits;
a later call begins another session.
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
from bioforge.api.completion import Completion, MakeError, error_of, fail
from bioforge.api.deduplicate import Deduplicator, InFlight, Waiter, result_of
from bioforge.api.outcome import Received, halted, no_answer, over_budget
from bioforge.api.request import PreparedRequest, RequestBuilder
from bioforge.api.types import Answer
from bioforge.core.budget import Budget
from bioforge.core.errors import (
    BioforgeError,
    CallFacts,
    ClosedError,
    ConfigError,
    PendingError,
    TransportError,
    UsageError,
)
from bioforge.core.events import Stopped
from bioforge.core.interfaces import Stop
from bioforge.core.reasons import HELD_CLASSES, RequestState
from bioforge.core.types import Failure, Paid, Request
from bioforge.engine import loop

if TYPE_CHECKING:
    from bioforge.api.state import CacheReader, State
    from bioforge.store.answers import CachedAnswer

_workers: weakref.WeakSet[Worker] = weakref.WeakSet()
"""Workers that started a thread: those that are still running are closed when the interpreter exits."""

WITH_ANSWER = tuple(state for state in RequestState if state.info.answer)
"""Stored states of requests whose answer is used without sending them."""


class Worker:
    """Serves the calls of one client. Every method may be called from any thread."""

    def __init__(self, backends: ClientBackend, builder: RequestBuilder, state: Path | None) -> None:
        self.calls = Deduplicator()
        self._process = os.getpid()
        self._backends = backends
        self._builder = builder
        self._state = None if state is None else state.resolve()
        self._completion = Completion(self.calls, builder, self._enter)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ended: Future[None] = Future()
        self._ended.set_result(None)
        self._cache: CacheReader | None = None
        self._stop = Stop()
        self._budget = Budget(backends.setting.config.limits.max_cost_usd)
        """Of the client, over all its sessions."""
        self._out_of_budget: MakeError | None = None
        """Makes the error of every further call once the budget is used up."""

    @property
    def running(self) -> bool:
        return self._thread is not None

    # ------------------------------------------------------------------------------------------- on callers' threads

    def submit(self, prepared: PreparedRequest) -> Future[Answer[Any]]:
        """Return the future of a call: an `Answer` or a `BioforgeError`. Cancelling it takes back an unsent request.

        Raises `ClosedError`.
        """
        waiter = Waiter(prepared)
        self._enter(waiter)
        waiter.future.add_done_callback(self._on_done)
        return waiter.future

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Send everything that is submitted inside this context together."""
        with self.calls.hold():
            yield
        self._stop.nudge()

    def close(self) -> None:
        """Send nothing more; await what is in flight if a call waits for it or a state keeps it.

        Ctrl-C while waiting leaves at once, and is raised.
        """
        ended = self.begin_close()
        if threading.current_thread() is self._thread:
            return
        try:
            result_of(ended)
        except BaseException:
            self.leave()
            result_of(ended)
            raise

    def begin_close(self) -> Future[None]:
        """Begin to close without waiting. Return a future that is done when the thread has ended."""
        if self._process != os.getpid():  # the thread exists only in the parent process
            nothing: Future[None] = Future()
            nothing.set_result(None)
            return nothing
        unsent = self.calls.shut_down()
        with self._lock:
            if self._stop.level == 0:
                self._stop.raise_level()
            ended = self._ended
        self._leave_if_abandoned()
        fail(unsent, lambda: ClosedError("the client was closed before this was sent", error_class="interrupted"))
        return ended

    def leave(self) -> None:
        """End now. Requests in flight may have been charged."""
        while self._stop.level < 2:
            self._stop.raise_level()

    def _leave_if_abandoned(self) -> None:
        """Do not await answers that no call waits for and no state keeps."""
        if self._state is None and not self.calls.open and self.calls.abandoned:
            self.leave()

    def _on_done(self, future: Future[Answer[Any]]) -> None:
        if future.cancelled():
            self._leave_if_abandoned()

    def _enter(self, waiter: Waiter) -> None:
        if self._process != os.getpid():
            raise ClosedError(
                "this client was opened before the process was forked; its thread runs only in the parent",
                "open a client in this process",
                error_class="interrupted",
            )
        entry = self.calls.join(waiter)
        with self._lock:
            if self._thread is None and self.calls.open:
                self._start()
            cache = self._cache
        if entry is None:
            return
        if cache is not None:
            cache.put(entry)
        else:
            self._enqueue(entry, entry.request)

    def _enqueue(self, entry: InFlight, request: Request) -> None:
        if (refusal := self._refusal(request)) is not None:
            fail(self.calls.pop(request.request_hash), refusal)
        elif self.calls.enqueue(entry, request):
            self._stop.nudge()

    def _refusal(self, request: Request) -> MakeError | None:
        """Return the error of a request that exceeds the rest of the budget. Cheaper ones may still be sent."""
        limit = self._budget.limit
        if limit is None or self._out_of_budget is not None:
            return self._out_of_budget
        try:
            price = self._builder.price(request)
        except ConfigError as error:
            return error_of(error)
        spent = self._budget.spent
        return None if spent + price <= limit else lambda: over_budget(request, limit, spent, price)

    def _start(self) -> None:
        """Start the thread, with the lock held."""
        if self._state is not None:
            from bioforge.api.state import CacheReader

            self._cache = CacheReader(self._state, self.calls, self._route)
        self._ended = Future()
        self._thread = threading.Thread(target=self._run, name="bioforge-engine", daemon=True)
        _workers.add(self)
        self._thread.start()

    # ------------------------------------------------------------------------------------- on the cache reader's thread

    def _route(self, entry: InFlight, known: CachedAnswer | None) -> None:
        """Answer a request from the state, leave it to its open batch, or send it."""
        if known is not None and known.state == RequestState.IN_BATCH:
            self._wait_for_batch(entry, known)
        elif known is not None and known.answer is not None and known.state in WITH_ANSWER:
            received = Received(known.answer, known.number, known.seconds, known.request_id, cached=True)
            answered = self.calls.split(entry, lambda waiter: waiter.prepared.again)
            self._send(entry, known, forced=True)
            self._completion.deliver(answered, received)
        else:
            if known is not None:
                self._hold_back(entry, known)
            self._send(entry, known)

    def _send(self, entry: InFlight, known: CachedAnswer | None, *, forced: bool = False) -> None:
        from bioforge.api.state import to_send

        if entry.waiters:
            self._enqueue(entry, to_send(entry.request, known, forced=forced))

    def _hold_back(self, entry: InFlight, known: CachedAnswer) -> None:
        """Fail the calls of a request that was rejected for its text, or may have been charged and is not to be resent."""
        rejected = (
            known.state == RequestState.FAILED
            and known.failure is not None
            and known.failure.error_class in HELD_CLASSES
        )
        unclear = known.state in (RequestState.MAYBE_PAID, RequestState.STARTED)
        if not rejected and (not unclear or self._backends.setting.config.retry.maybe_paid):
            return
        failure = known.failure or Failure("interrupted", "the process ended while this was in flight")
        facts = _facts(entry, known, failure.error_class)
        waiters = self.calls.split(entry, lambda waiter: waiter.prepared.again)
        fail(waiters, lambda: no_answer(failure, known.attempts, facts, Paid.NO if rejected else Paid.MAYBE))

    def _wait_for_batch(self, entry: InFlight, known: CachedAnswer) -> None:
        if self._backends.batches:
            self.calls.await_batch(entry, known.batch or "")
            return
        message = f"in batch {known.batch}, which has no answer yet"
        hint = 'collect it with `bioforge run`, or with a Client that has Config(backend="batch") and this state'
        facts = _facts(entry, known, "in_batch")
        fail(self.calls.pop(entry.request.request_hash), lambda: PendingError(message, hint, **facts))

    # -------------------------------------------------------------------------------------------- on the worker's thread

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            with ExitStack() as stack:
                state = self._open_state(stack)
                while self.calls.wait_for_work():
                    self._serve(stack, state)
        except BaseException as error:  # every call must end, with any error
            failure = error
        with self._lock:
            self._thread = self._cache = None
            waiters, ended = self.calls.pop_all(), self._ended
        fail(waiters, error_of(failure))
        ended.set_result(None)

    def _open_state(self, stack: ExitStack) -> State | None:
        if self._state is None or not self.calls.open:
            return None
        from bioforge.api.state import State

        for other in list(_workers):
            if other is not self and other._state == self._state and not other.calls.open:
                other._ended.result()  # it is closing, and releases the file in a moment
        config = self._backends.setting.config
        state = stack.enter_context(State.open(self._state, config.backend, config.limits.max_cost_usd))
        assert self._cache is not None
        stack.enter_context(self._cache)
        return state

    def _serve(self, stack: ExitStack, state: State | None) -> None:
        """Run one session, and end the calls that it leaves."""
        with self._lock:
            if not self.calls.open:
                return
            stop = self._stop = Stop()
        awaited = self.calls.awaited_batches()
        try:
            stopped = self._execute(stack, state, stop, awaited)
        except UsageError as error:
            fail(self.calls.pop_all(), error_of(ConfigError(error.message, error.hint)))
        except BioforgeError as error:
            fail(self.calls.pop_all(), error_of(error))
        else:
            if stopped is not None:
                self._halt(stopped)
                return
            fail(self.calls.pop_all(lambda entry: entry.sent), _no_outcome)
            fail(self.calls.pop_all(lambda entry: entry.batch in awaited), _not_collectable)

    def _execute(self, stack: ExitStack, state: State | None, stop: Stop, awaited: set[str]) -> Stopped | None:
        """Run the loop. Raises `StateError` when something cannot be recorded: what was in flight is then lost."""
        backend = self._backends.connect(stack)
        self._budget.reserved = 0.0  # an earlier session may have left attempts in flight
        store = state.store if state else None
        work = self._backends.work(self.calls, stop, self._budget, store, awaited, self._builder.answered)
        recorder = loop.NullRecorder() if state is None else state.recorder(self._backends.setting.base_url)
        stopped = loop.build(backend, work, recorder, self._completion, self._completion)
        if state is not None:
            state.recover(stopped)
        return stopped

    def _halt(self, stopped: Stopped) -> None:
        make = halted(stopped, self._completion.refusal_status)
        if stopped.kind == "budget":
            self._out_of_budget = make
        fail(self.calls.pop_all(), make)


def _facts(entry: InFlight, known: CachedAnswer, error_class: str) -> CallFacts:
    return CallFacts(error_class=error_class, request_hash=entry.request.request_hash, attempts=known.attempts)


def _no_outcome() -> TransportError:
    return TransportError("the backend reported no outcome for this request", maybe_paid=True, error_class="internal")


def _not_collectable() -> PendingError:
    return PendingError(
        "in an open batch that this client cannot collect",
        "use the backend and base_url that sent it; `bioforge status` shows them",
        error_class="in_batch",
    )


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_workers.clear)


@atexit.register
def _close_all() -> None:
    """Close the clients that are still open: answers that a state keeps are awaited."""
    for worker in list(_workers):
        with suppress(KeyboardInterrupt):
            worker.close()

"""The calls of a client by the request they wait for: identical calls share one request.

Every method is safe from any thread, and only `wait_for_work` waits for more than the lock.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from bioforge.api.outcome import CostSoFar
from bioforge.api.request import PreparedRequest
from bioforge.api.types import Answer
from bioforge.core.errors import BioforgeError, ClosedError
from bioforge.core.types import Request

CLOSED = "the client is closed"

LINGER = 30.0
"""Seconds without a request after which a session ends and its connections are closed."""

HEARTBEAT = 1.0
"""Seconds between wake-ups of a waiting thread: Windows handles Ctrl-C only between two waits."""

Result = TypeVar("Result")


@dataclass(eq=False, slots=True)
class Waiter:
    """One call. A repair replaces `prepared`; the future stays."""

    prepared: PreparedRequest
    future: Future[Answer[Any]] = field(default_factory=Future)
    cost: CostSoFar = field(default_factory=CostSoFar)

    def answer(self, answer: Answer[Any]) -> None:
        with suppress(InvalidStateError):  # cancelled
            self.future.set_result(answer)

    def fail(self, error: BioforgeError) -> None:
        with suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass(eq=False, slots=True)
class InFlight:
    """A request and the calls that wait for it.

    `sent`: given to the backend, so it cannot be taken back; `retry`: failed, to be sent again; `batch`: key of the open
    batch of an earlier process that contains it.
    """

    request: Request
    waiters: list[Waiter]
    sent: bool = False
    retry: bool = False
    batch: str | None = None

    def drop_cancelled(self) -> None:
        self.waiters = [waiter for waiter in self.waiters if not waiter.future.cancelled()]


class Deduplicator(Iterator[Request]):
    """All requests of a client by hash. Iterating yields those that are ready; after the end more may follow."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Condition()
        self._requests: dict[str, InFlight] = {}
        self._ready: deque[InFlight] = deque()
        self._holds = 0
        self._idle = False
        self._closed = False
        self._last_busy = clock()

    @property
    def open(self) -> bool:
        return not self._closed

    @property
    def expects_more(self) -> bool:
        """Return whether further requests are likely soon."""
        return not self._closed and self._clock() - self._last_busy < LINGER

    @property
    def abandoned(self) -> bool:
        """Return whether requests were sent and every call that waited for them was cancelled."""
        with self._lock:
            sent = [entry for entry in self._requests.values() if entry.sent]
            return bool(sent) and all(waiter.future.cancelled() for entry in sent for waiter in entry.waiters)

    def join(self, waiter: Waiter) -> InFlight | None:
        """Add a call. Return its request if it is new, None if another call waits for it. Raises `ClosedError`."""
        request = waiter.prepared.request
        with self._lock:
            if self._closed:
                raise ClosedError(CLOSED, "open another one", error_class="interrupted")
            entry = self._requests.get(request.request_hash)
            if entry is not None:
                entry.waiters.append(waiter)
                return None
            entry = self._requests[request.request_hash] = InFlight(request, [waiter])
            return entry

    def enqueue(self, entry: InFlight, request: Request) -> bool:
        """Make a request ready to be sent. Return whether the iterator had ended, so that the backend must be woken."""
        with self._lock:
            if self._requests.get(request.request_hash) is not entry:
                return False
            entry.request = request
            self._ready.append(entry)
            idle, self._idle = self._idle, False
            self._lock.notify_all()
            return idle

    def await_batch(self, entry: InFlight, batch: str) -> None:
        """Let a request wait until the open batch of an earlier process is collected."""
        with self._lock:
            entry.batch = batch
            self._lock.notify_all()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Yield no requests inside this context, so that all of them are sent together."""
        with self._lock:
            self._holds += 1
        try:
            yield
        finally:
            with self._lock:
                self._holds -= 1
                self._lock.notify_all()

    def __next__(self) -> Request:
        """Return the next ready request. One whose calls were all cancelled is dropped."""
        with self._lock:
            while self._ready and not self._closed and not self._holds:
                entry = self._ready.popleft()
                if self._requests.get(entry.request.request_hash) is not entry:
                    continue
                entry.drop_cancelled()
                if entry.waiters:
                    entry.sent, entry.retry = True, False
                    self._last_busy = self._clock()
                    return entry.request
                self._remove(entry)
            self._idle = True
            raise StopIteration

    def mark_for_retry(self, request_hash: str, attempts: int) -> None:
        """Note that a request failed after `attempts` attempts and will be sent again."""
        with self._lock:
            if (entry := self._requests.get(request_hash)) is not None:
                entry.request = replace(entry.request, attempts=attempts)
                entry.retry = True

    def retries(self) -> Iterator[Request]:
        """Return the requests marked for retry, each once."""
        with self._lock:
            marked = [entry for entry in self._requests.values() if entry.retry]
            for entry in marked:
                entry.retry = False
            return iter([entry.request for entry in marked])

    def first_waiter(self, request_hash: str) -> Waiter | None:
        """Return the first call that waits for a request: its schema decides what is stored with the answer."""
        with self._lock:
            entry = self._requests.get(request_hash)
            return entry.waiters[0] if entry is not None and entry.waiters else None

    def pop(self, request_hash: str) -> list[Waiter]:
        """Remove a request. Return the calls that waited for it."""
        with self._lock:
            entry = self._requests.pop(request_hash, None)
            self._last_busy = self._clock()
            return [] if entry is None else entry.waiters

    def split(self, entry: InFlight, stay: Callable[[Waiter], bool]) -> list[Waiter]:
        """Remove the calls that do not stay, and return them. A request without calls is removed."""
        with self._lock:
            removed = [waiter for waiter in entry.waiters if not stay(waiter)]
            entry.waiters = [waiter for waiter in entry.waiters if stay(waiter)]
            if not entry.waiters:
                self._remove(entry)
            return removed

    def awaited_batches(self) -> set[str]:
        """Return the keys of batches of earlier processes that calls wait for."""
        with self._lock:
            return {entry.batch for entry in self._requests.values() if entry.batch is not None}

    def wait_for_work(self) -> bool:
        """Wait for a request to send or a batch to collect. Return False when the client is closed."""
        with self._lock:
            self._lock.wait_for(self._has_work)
            return not self._closed

    def _has_work(self) -> bool:
        if self._closed or self._holds:
            return self._closed
        return bool(self._ready) or any(entry.batch is not None for entry in self._requests.values())

    def pop_all(self, which: Callable[[InFlight], bool] = lambda entry: True) -> list[Waiter]:
        """Remove the requests that `which` selects. Return their calls."""
        with self._lock:
            removed = [entry for entry in self._requests.values() if which(entry)]
            for entry in removed:
                self._remove(entry)
            return [waiter for entry in removed for waiter in entry.waiters]

    def shut_down(self) -> list[Waiter]:
        """Refuse further calls. Return the calls of unsent requests; those that were sent may still be answered."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        return self.pop_all(lambda entry: not entry.sent)

    def _remove(self, entry: InFlight) -> None:
        if self._requests.get(entry.request.request_hash) is entry:
            del self._requests[entry.request.request_hash]


def result_of(future: Future[Result]) -> Result:
    """Return the result of a future, waiting so that Ctrl-C can interrupt on every platform."""
    while True:
        with suppress(TimeoutError):
            return future.result(None if future.done() else HEARTBEAT)

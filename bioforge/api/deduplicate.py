"""Who waits for what: calls by the request they ask for, from the moment they are made until they are answered.

Calls for the same request wait together: it is asked once. Every method is safe from any thread, and none of them waits
for anything but the lock, except `wait`.
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
"""Seconds without any request after which nothing is kept ready for further ones: connections are closed by then."""

HEARTBEAT = 1.0
"""Seconds after which a waiting thread looks around: waiting without end would keep Ctrl-C from being handled on
Windows."""

Result = TypeVar("Result")


@dataclass(eq=False, slots=True)
class Waiter:
    """One caller's wait. A repair changes the question, the future stays."""

    question: PreparedRequest
    future: Future[Answer[Any]] = field(default_factory=Future)
    paying: CostSoFar = field(default_factory=CostSoFar)

    def answer(self, answer: Answer[Any]) -> None:
        # whoever gave up waiting is told nothing
        with suppress(InvalidStateError):
            self.future.set_result(answer)

    def fail(self, error: BioforgeError) -> None:
        with suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass(eq=False, slots=True)
class InFlight:
    """A request and the calls that wait for it. `sent`: handed out to be sent, so that it cannot be taken back;
    `waiting`: sent without an answer, for another try; `batch`: the open batch of an earlier process that it is in."""

    request: Request
    calls: list[Waiter]
    sent: bool = False
    waiting: bool = False
    batch: str | None = None

    def drop_cancelled(self) -> None:
        self.calls = [call for call in self.calls if not call.future.cancelled()]


class Deduplicator:
    """All flights of a client, by request hash."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Condition()
        self._flights: dict[str, InFlight] = {}
        self._ready: deque[InFlight] = deque()
        self._collecting = 0
        self._idle = False
        self._closed = False
        self._last_busy = clock()

    @property
    def open(self) -> bool:
        return not self._closed

    @property
    def lively(self) -> bool:
        """Whether further requests are to be expected soon."""
        return not self._closed and self._clock() - self._last_busy < LINGER

    @property
    def forsaken(self) -> bool:
        """Whether requests are under way, and nobody waits for any of their answers any more."""
        with self._lock:
            sent = [flight for flight in self._flights.values() if flight.sent]
            return bool(sent) and all(call.future.cancelled() for flight in sent for call in flight.calls)

    def join(self, call: Waiter) -> InFlight | None:
        """The flight that this call has begun; None when there was one to wait with. Raises `ClosedError`."""
        request = call.question.request
        with self._lock:
            if self._closed:
                raise ClosedError(CLOSED, "open another one", error_class="interrupted")
            flight = self._flights.get(request.request_hash)
            if flight is not None:
                flight.calls.append(call)
                return None
            flight = self._flights[request.request_hash] = InFlight(request, [call])
            return flight

    def ready(self, flight: InFlight, request: Request) -> bool:
        """Hand a flight in to be sent. Returns whether somebody has to be told that there is something again."""
        with self._lock:
            if self._flights.get(request.request_hash) is not flight:
                return False
            flight.request = request
            self._ready.append(flight)
            idle, self._idle = self._idle, False
            self._lock.notify_all()
            return idle

    def park(self, flight: InFlight, batch: str) -> None:
        """The flight is in an open batch of an earlier process: it waits for that one to be collected."""
        with self._lock:
            flight.batch = batch
            self._lock.notify_all()

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Nothing is handed out while this lasts: what is handed in meanwhile goes together."""
        with self._lock:
            self._collecting += 1
        try:
            yield
        finally:
            with self._lock:
                self._collecting -= 1
                self._lock.notify_all()

    def next(self) -> Request | None:
        """The next request to send; None when there is none now. One that nobody waits for any more is left out."""
        with self._lock:
            while self._ready and not self._closed and not self._collecting:
                flight = self._ready.popleft()
                if self._flights.get(flight.request.request_hash) is not flight:
                    continue  # ended meanwhile
                flight.drop_cancelled()
                if flight.calls:
                    flight.sent, flight.waiting = True, False
                    self._last_busy = self._clock()
                    return flight.request
                self._forget(flight)
            self._idle = True
            return None

    def give_back(self, request_hash: str, attempts: int) -> None:
        """A request was not answered, and may be sent again, by whoever has it or with `again`. `attempts`: so many by
        now."""
        with self._lock:
            if (flight := self._flights.get(request_hash)) is not None:
                flight.request = replace(flight.request, attempts=attempts)
                flight.waiting = True

    def again(self) -> list[Request]:
        """The requests that were given back, which are handed out with this."""
        with self._lock:
            found = [flight for flight in self._flights.values() if flight.waiting]
            for flight in found:
                flight.waiting = False
            return [flight.request for flight in found]

    def asked_by(self, request_hash: str) -> Waiter | None:
        """The first call that waits for a request: its schema is the one an answer is recorded with."""
        with self._lock:
            flight = self._flights.get(request_hash)
            return flight.calls[0] if flight is not None and flight.calls else None

    def take(self, request_hash: str) -> list[Waiter]:
        """The calls that wait for a request, which is settled with this."""
        with self._lock:
            flight = self._flights.pop(request_hash, None)
            self._last_busy = self._clock()
            return [] if flight is None else flight.calls

    def split(self, flight: InFlight, stay: Callable[[Waiter], bool]) -> list[Waiter]:
        """The calls of a flight that do not stay. One without any left is settled."""
        with self._lock:
            going = [call for call in flight.calls if not stay(call)]
            flight.calls = [call for call in flight.calls if stay(call)]
            if not flight.calls:
                self._forget(flight)
            return going

    def batches(self) -> set[str]:
        """The batches of earlier processes that calls wait for."""
        with self._lock:
            return {flight.batch for flight in self._flights.values() if flight.batch is not None}

    def wait(self) -> bool:
        """Until there is something to do: True, or the desk is closed: False."""
        with self._lock:
            self._lock.wait_for(self._anything)
            return not self._closed

    def _anything(self) -> bool:
        if self._closed or self._collecting:
            return self._closed
        return bool(self._ready) or any(flight.batch is not None for flight in self._flights.values())

    def end(self, which: Callable[[InFlight], bool] = lambda flight: True) -> list[Waiter]:
        """The calls of these flights, which are settled with this."""
        with self._lock:
            ended = [flight for flight in self._flights.values() if which(flight)]
            for flight in ended:
                self._forget(flight)
            return [call for flight in ended for call in flight.calls]

    def close(self) -> list[Waiter]:
        """Nothing more comes in or goes out. Returns the calls of what was not sent; what was may still be answered."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        return self.end(lambda flight: not flight.sent)

    def _forget(self, flight: InFlight) -> None:
        if self._flights.get(flight.request.request_hash) is flight:
            del self._flights[flight.request.request_hash]


def result_of(future: Future[Result]) -> Result:
    """What a future comes to, waited for in a way that Ctrl-C can interrupt anywhere."""
    while True:
        with suppress(TimeoutError):
            return future.result(None if future.done() else HEARTBEAT)

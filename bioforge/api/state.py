"""A client's state: opened for its life, written by the engine's thread, read by another one.

Reading has a thread and a connection of its own: an answer that is there is not to wait for a provider that pauses.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

from bioforge.api.deduplicate import Deduplicator, InFlight
from bioforge.api.outcome import Received
from bioforge.core.errors import EXIT_OK, EXIT_STOPPED, BioforgeError, StateError
from bioforge.core.events import Stopped
from bioforge.core.reasons import (
    ANSWERED,
    FAILED,
    FORCED,
    FORGOTTEN,
    IN_BATCH,
    INTERRUPTED,
    INVALID,
    MAYBE_PAID,
    NEW,
    STARTED,
    UNUSABLE,
    WAITING,
)
from bioforge.core.types import Request
from bioforge.store import Selection, Store, runs
from bioforge.store.answers import CachedAnswer, cached
from bioforge.store.recorder import Recorder
from bioforge.store.recovery import recover

COMMAND = "library"
"""How a client's run is called, in `status` and where another process is refused."""

GROUP = 500
"""Requests that are looked up at once, at most."""

_REASONS = {
    FAILED: FAILED,
    MAYBE_PAID: MAYBE_PAID,
    STARTED: MAYBE_PAID,
    INTERRUPTED: INTERRUPTED,
    WAITING: INTERRUPTED,
    FORGOTTEN: FORGOTTEN,
}
"""Why a request is asked again, by what it has come to."""

WITH_ANSWER = (ANSWERED, UNUSABLE, INVALID)


class State:
    """The open file and the client's run in it. Belongs to the thread that opens it."""

    def __init__(self, store: Store, backend: str, max_cost_usd: float | None) -> None:
        self.store = store
        runs.close_dead(store)
        recover(store)
        self.run = runs.begin(store, COMMAND, backend, Selection(), max_cost_usd=max_cost_usd)
        self._stopped: Stopped | None = None
        self._sent = False

    @classmethod
    def open(cls, path: Path, backend: str, max_cost_usd: float | None) -> Self:
        """Raises `StateError`; what an earlier process left open is settled."""
        store = Store.open(path)
        try:
            return cls(store, backend, max_cost_usd)
        except BaseException:
            store.close()
            raise

    def recorder(self, backend: str, provider: str) -> Recorder:
        """Records the events of a session."""
        if not self._sent:
            runs.set_running(self.store, self.run)
            self._sent = True
        return Recorder(self.store, self.run, backend, provider)

    def recover(self, stopped: Stopped | None) -> None:
        """Say what is known of everything that was left open by a session."""
        self._stopped = stopped or self._stopped
        recover(self.store)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # where the state itself is the trouble, whoever opens it next settles this run
        try:
            with suppress(StateError):
                self._end(error)
        finally:
            self.store.close()

    def _end(self, error: BaseException | None) -> None:
        if not self._sent:
            runs.discard(self.store, self.run)
            return
        recover(self.store)
        if error is not None:
            runs.end(self.store, self.run, "stopped", EXIT_STOPPED, f"error: {error}")
        elif self._stopped is not None:
            runs.end(self.store, self.run, "stopped", EXIT_STOPPED, self._stopped.kind)
        else:
            runs.end(self.store, self.run, "finished", EXIT_OK)


class CacheReader:
    """Looks requests up before they are sent, many at once, in a thread of its own.

    `found` is told of a flight with an answer in the state, `pending` of one that is in an open batch, `missing` of one
    that is to be sent.
    """

    def __init__(
        self,
        path: Path,
        desk: Deduplicator,
        *,
        found: Callable[[InFlight, CachedAnswer, Received], None],
        pending: Callable[[InFlight, CachedAnswer], None],
        missing: Callable[[InFlight, CachedAnswer | None], None],
    ) -> None:
        self._path = path
        self._desk = desk
        self._found = found
        self._pending = pending
        self._missing = missing
        self._waiting: SimpleQueue[InFlight | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="bioforge-lookup", daemon=True)

    def put(self, flight: InFlight) -> None:
        """Safe from any thread, also before it was started."""
        self._waiting.put(flight)

    def __enter__(self) -> Self:
        """Begin; the file is there by now."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            with Store.read(self._path) as store:
                self._serve(store)
        except BioforgeError as error:
            self._refuse(error)

    def _serve(self, store: Store) -> None:
        ended = False
        while not ended:
            group = self._next_group()
            flights = [flight for flight in group if flight is not None]
            ended = len(flights) < len(group)
            try:
                known = cached(store, [flight.request.request_hash for flight in flights]) if flights else {}
            except BioforgeError as error:
                self._fail(flights, error)
                continue
            for flight in flights:
                self._decide(flight, known.get(flight.request.request_hash))

    def _refuse(self, error: BioforgeError) -> None:
        """Nothing can be read: whatever asks is told so."""
        while (flight := self._waiting.get()) is not None:
            self._fail([flight], error)

    def _fail(self, flights: list[InFlight], error: BioforgeError) -> None:
        for flight in flights:
            for call in self._desk.take(flight.request.request_hash):
                call.fail(copy(error))

    def _next_group(self) -> list[InFlight | None]:
        """What waits by now; None is the last."""
        group = [self._waiting.get()]
        with suppress(Empty):
            while len(group) < GROUP and group[-1] is not None:
                group.append(self._waiting.get_nowait())
        return group

    def _decide(self, flight: InFlight, known: CachedAnswer | None) -> None:
        if known is None:
            self._missing(flight, None)
        elif known.state == IN_BATCH:
            self._pending(flight, known)
        elif known.answer is not None and known.state in WITH_ANSWER:
            arrival = Received(known.answer, known.number, known.seconds, known.request_id, cached=True)
            self._found(flight, known, arrival)
        else:
            self._missing(flight, known)


def to_send(request: Request, known: CachedAnswer | None, *, forced: bool = False) -> Request:
    """The request with the reason why it is sent, and how often it was before."""
    if known is None:
        return request
    reason = FORCED if forced else _REASONS.get(known.state, NEW)
    return replace(request, reason=reason, attempts=known.attempts)

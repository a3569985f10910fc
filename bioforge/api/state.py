"""A client's state: the worker's thread writes it, another thread reads stored answers.

Reading has its own thread and connection, so that a stored answer does not wait for a paused provider.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

from bioforge.api.completion import error_of, fail
from bioforge.api.deduplicate import Deduplicator, InFlight
from bioforge.core.errors import EXIT_OK, EXIT_STOPPED, BioforgeError, StateError
from bioforge.core.events import Stopped
from bioforge.core.reasons import Reason, RequestState
from bioforge.core.types import Request
from bioforge.store import Selection, Store, runs
from bioforge.store.answers import CachedAnswer, cached
from bioforge.store.recorder import Recorder
from bioforge.store.recovery import recover

COMMAND = "library"
"""The command of a client's run, as `status` and refusals of other processes show it."""

GROUP = 500
"""Requests that are looked up together, at most."""


class State:
    """The open state file and the client's run in it, for the thread that opened it."""

    def __init__(self, store: Store, backend: str, max_cost_usd: float | None) -> None:
        self.store = store
        self._backend = backend
        self._stopped: Stopped | None = None
        self._sent = False
        runs.close_crashed(store)
        recover(store)
        self._run = runs.begin(store, COMMAND, backend, Selection(), max_cost_usd=max_cost_usd)

    @classmethod
    @contextmanager
    def open(cls, path: Path, backend: str, max_cost_usd: float | None) -> Iterator[Self]:
        """Open the file, begin a run and end both with the context. Raises `StateError`."""
        with Store.open(path) as store:
            state = cls(store, backend, max_cost_usd)
            error: BaseException | None = None
            try:
                yield state
            except BaseException as raised:
                error = raised
                raise
            finally:
                with suppress(StateError):  # an unwritable state is recovered by the next process that opens it
                    state._end(error)

    def recorder(self, provider: str) -> Recorder:
        """Return the recorder of one session."""
        if not self._sent:
            runs.set_running(self.store, self._run)
            self._sent = True
        return Recorder(self.store, self._run, self._backend, provider)

    def recover(self, stopped: Stopped | None) -> None:
        """Close the requests that a session left open."""
        self._stopped = stopped or self._stopped
        recover(self.store)

    def _end(self, error: BaseException | None) -> None:
        if not self._sent:
            runs.discard(self.store, self._run)
            return
        recover(self.store)
        if error is not None:
            runs.end(self.store, self._run, "stopped", EXIT_STOPPED, f"error: {error}")
        elif self._stopped is not None:
            runs.end(self.store, self._run, "stopped", EXIT_STOPPED, self._stopped.kind)
        else:
            runs.end(self.store, self._run, "finished", EXIT_OK)


class CacheReader:
    """Looks requests up before they are sent, many at once, in a separate thread."""

    def __init__(
        self, path: Path, calls: Deduplicator, decide: Callable[[InFlight, CachedAnswer | None], None]
    ) -> None:
        """`decide` gets each request with what the state knows about it, on this thread."""
        self._path = path
        self._calls = calls
        self._decide = decide
        self._waiting: SimpleQueue[InFlight | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="bioforge-lookup", daemon=True)

    def put(self, entry: InFlight) -> None:
        """Look a request up. Safe from any thread, also before the context is entered."""
        self._waiting.put(entry)

    def __enter__(self) -> Self:
        """Begin to read; the file must exist."""
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
        except BioforgeError as error:  # nothing can be read
            while (entry := self._waiting.get()) is not None:
                self._fail([entry], error)

    def _serve(self, store: Store) -> None:
        ended = False
        while not ended:
            group = self._next_group()
            entries = [entry for entry in group if entry is not None]
            ended = len(entries) < len(group)
            try:
                known = cached(store, [entry.request.request_hash for entry in entries]) if entries else {}
            except BioforgeError as error:
                self._fail(entries, error)
                continue
            for entry in entries:
                self._decide(entry, known.get(entry.request.request_hash))

    def _fail(self, entries: Sequence[InFlight], error: BioforgeError) -> None:
        for entry in entries:
            fail(self._calls.pop(entry.request.request_hash), error_of(error))

    def _next_group(self) -> list[InFlight | None]:
        """Wait for a request, and return all that are waiting; None is the last."""
        group = [self._waiting.get()]
        with suppress(Empty):
            while len(group) < GROUP and group[-1] is not None:
                group.append(self._waiting.get_nowait())
        return group


def to_send(request: Request, known: CachedAnswer | None, *, forced: bool = False) -> Request:
    """Return the request with its reason and the number of earlier attempts."""
    if known is None:
        return request
    return replace(request, reason=Reason.FORCED if forced else _reason(known), attempts=known.attempts)


def _reason(known: CachedAnswer) -> Reason:
    """Return the reason for resending a request that has no answer."""
    info = RequestState(known.state).info
    return info.reason if info.reason is not None and info.reason.info.sent and not info.answer else Reason.NEW

"""Pin the selection of a run and send its requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from bioforge.config.loader import ProjectConfig
from bioforge.core.errors import StateError, StoppedError, UsageError
from bioforge.core.events import Stopped
from bioforge.core.gc_tuning import relaxed_gc
from bioforge.core.interfaces import Backend, Work
from bioforge.core.reasons import Reason
from bioforge.core.types import Batch
from bioforge.engine import loop
from bioforge.engine.followup import FollowUp
from bioforge.engine.requests import RequestQueue
from bioforge.engine.types import Plan, RunObserver, RunOptions
from bioforge.planner import plan_file
from bioforge.store import Selection, Store, batches, runs, targets
from bioforge.store.recorder import Recorder

SMALLEST_BUDGET = 1e-9
"""US dollars: what is left when nothing is. Open batches are collected all the same; nothing more is sent."""

ROOM_PER_CALL = 64 << 10
LEAST_ROOM = 1 << 20
MOST_ROOM = 64 << 20
"""Bytes of the disk that are kept free for each call in flight, and at least, and at most."""


def pin_selection(store: Store, run: int, options: RunOptions, project: str) -> Selection:
    """The selection as it stays for this run and for resuming it.

    Reasons change while a run goes on, and a limit means "these, no others": both become a list of targets.
    """
    selection = options.selection
    if selection.reasons == (Reason.UPSTREAM,):
        raise UsageError(
            "--select reason:upstream: these wait for what they need", "select artists instead: --select ID"
        )
    if options.run is not None and selection.run is not None:
        runs.take_over_targets(store, options.run, run)
        selection = replace(selection, run=run)
    elif selection.plan is not None:
        runs.set_targets(store, run, plan_file.read(Path(selection.plan), store, project))
        selection = replace(selection, plan=None, run=run)
    if selection.reasons or selection.limit is not None:
        chosen = targets.listed(store, selection, stale=not options.always_make, sendable=selection.limit is not None)
        runs.set_targets(store, run, (target.id for target in islice(chosen, selection.limit)))
        selection = replace(selection, reasons=(), limit=None, run=run)
    if options.always_make:
        targets.force(store, run, selection)
    runs.update_selection(store, run, selection)
    return selection


@dataclass(frozen=True, slots=True)
class Sending:
    """One run at work; `backend` gives those that can be reached, by name."""

    store: Store
    run: int
    config: ProjectConfig
    backend: Callable[[str], Backend]
    observer: RunObserver
    follow_up: FollowUp

    def send(
        self, plan: Plan, work: Work, requests: RequestQueue, anything_to_send: Callable[[], object]
    ) -> Stopped | None:
        """Collect what earlier runs left open, and send `requests`, which are those of `work`. Says what stopped it.

        `anything_to_send` looks again: the batches of other backends may have given something back.
        """
        own = self.config.backend.name
        awaited = sum(batch.requests for batch in work.batches if batch.awaited)
        stopped = None
        runs.set_running(self.store, self.run)
        self.store.keep_room(min(max(LEAST_ROOM, ROOM_PER_CALL * self.config.backend.concurrency), MOST_ROOM))
        self.observer.start(plan.requests + awaited, own, lambda: work.control.gauges)
        try:
            for name, others in _of_others(plan.batches, own):
                # collected if they are ready, and not waited for: this run was told to use another backend
                part = replace(work, requests=iter(()), retries=lambda: iter(()), batches=others, choice=None)
                stopped = self._build(name, part)
            # what the batches of others gave back is asked now: the requests are read when they are pulled
            if plan.requests or work.batches or anything_to_send():
                stopped = self._build(own, work)
                # a backend that does not ask again for what its answers made ready is asked again itself
                while stopped is None and requests.waiting:
                    before = requests.handed_out
                    work = replace(work, batches=())
                    stopped = self._build(own, work)
                    if requests.handed_out == before:
                        break
        finally:
            self.observer.finish()
        return stopped

    def _build(self, name: str, work: Work) -> Stopped | None:
        provider = self.config.provider.base_url
        with relaxed_gc():
            recorder = Recorder(self.store, self.run, name, provider)
            return loop.build(self.backend(name), work, recorder, self.follow_up, self.observer)


def _of_others(found: Sequence[batches.Open], own: str) -> Iterator[tuple[str, list[Batch]]]:
    """Open batches that other backends prepared, by backend."""
    for name in sorted({item.backend for item in found} - {own}):
        yield name, [replace(item.batch, awaited=False) for item in found if item.backend == name]


@contextmanager
def no_usage_error_from_here() -> Iterator[None]:
    """Once something may have been sent, a state that fails stops the run; it no longer refuses it."""
    try:
        yield
    except StateError as error:
        raise StoppedError(
            f"stopped while answers were being kept: {error.message}",
            error.hint or "what was recorded is kept; `bioforge resume` goes on and says what is unclear",
        ) from error

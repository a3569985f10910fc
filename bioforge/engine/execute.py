"""Pin the selection of a run, and send its requests with one backend after another."""

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
"""US dollars of a budget that is used up: open batches are collected, and nothing more is sent."""

ROOM_PER_CALL = 64 << 10
LEAST_ROOM = 1 << 20
MOST_ROOM = 64 << 20
"""Bytes of disk space reserved for each call in flight, with a lower and an upper limit."""


def pin_selection(store: Store, run: int, options: RunOptions, project: str) -> Selection:
    """Return the selection in the form that stays valid during this run and when it is resumed.

    Reasons change during a run, and a limit means exactly these targets: both become a list of targets.
    """
    selection = options.selection
    if selection.reasons == (Reason.UPSTREAM,):
        raise UsageError(
            "--select reason:upstream: these targets wait for another recipe", "select artists instead: --select ID"
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
class Execution:
    """The sending part of one run. `make_backend` returns a backend by name, ready to send."""

    store: Store
    run: int
    config: ProjectConfig
    make_backend: Callable[[str], Backend]
    observer: RunObserver
    follow_up: FollowUp

    def execute(
        self, plan: Plan, work: Work, requests: RequestQueue, anything_to_send: Callable[[], object]
    ) -> Stopped | None:
        """Collect open batches of earlier runs and send the requests of `work`. Return why it stopped early, or None.

        `anything_to_send` counts again, since batches of other backends may have released requests.
        """
        own = self.config.backend.name
        awaited = sum(batch.requests for batch in work.batches if batch.awaited)
        stopped = None
        runs.set_running(self.store, self.run)
        self.store.reserve_space(min(max(LEAST_ROOM, ROOM_PER_CALL * self.config.backend.concurrency), MOST_ROOM))
        self.observer.start(plan.requests + awaited, own, lambda: work.control.gauges)
        try:
            for name, others in _of_others(plan.batches, own):
                # collected if they are ready, but not waited for, since this run uses another backend
                part = replace(work, requests=iter(()), retries=lambda: iter(()), batches=others, choice=None)
                stopped = self._build(name, part)
            # includes requests that other backends' batches released: the queue reads them when they are pulled
            if plan.requests or work.batches or anything_to_send():
                stopped = self._build(own, work)
                # run a backend again that does not pull the requests which its answers made ready
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
            return loop.build(self.make_backend(name), work, recorder, self.follow_up, self.observer)


def _of_others(found: Sequence[batches.Open], own: str) -> Iterator[tuple[str, list[Batch]]]:
    """Yield open batches of other backends, by backend."""
    for name in sorted({item.backend for item in found} - {own}):
        yield name, [replace(item.batch, awaited=False) for item in found if item.backend == name]


@contextmanager
def no_usage_error_from_here() -> Iterator[None]:
    """Turn a state error into a stop, once something may have been sent."""
    try:
        yield
    except StateError as error:
        raise StoppedError(
            f"stopped while answers were being stored: {error.message}",
            error.hint
            or "recorded answers are kept; `bioforge resume` continues and lists calls that may have been charged",
        ) from error

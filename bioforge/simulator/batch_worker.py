"""The worker that executes the steps of unfinished batches in turn."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from bioforge.simulator.batch_lifecycle import BatchContext, JobLifecycle
from bioforge.simulator.batch_state import JobState

PATIENCE = 0.05
"""Seconds of batch work before a request about batches is answered."""


@dataclass(slots=True)
class _Schedule:
    """A lifecycle and the time of its next step."""

    lifecycle: JobLifecycle
    steps: Iterator[float]
    moment: float = -math.inf


class BatchWorker:
    """Executes steps. A step is never interrupted, so each line is executed once."""

    def __init__(self, context: BatchContext) -> None:
        self._context = context
        self._schedules: dict[str, _Schedule] = {}
        self._woken = asyncio.Event()
        for batch in context.batches:
            if batch.over:
                # a crash may have prevented the cleanup
                context.folder.clear(batch.id)
            else:
                self.begin(JobLifecycle(batch, context))
            if batch.errors and "token_limit" in batch.faults:
                context.refused.add(batch.input_digest)

    def begin(self, lifecycle: JobLifecycle) -> None:
        self._schedules[lifecycle.batch.id] = _Schedule(lifecycle, lifecycle.steps())
        self._woken.set()

    def wake(self, batch: JobState) -> None:
        """Schedule a changed batch now."""
        if schedule := self._schedules.get(batch.id):
            schedule.moment = -math.inf
            self._woken.set()

    async def work(self) -> None:
        """Execute steps until cancelled."""
        while True:
            self._woken.clear()
            wait = self._step()
            if wait <= 0:
                await asyncio.sleep(0)
                continue
            try:
                await asyncio.wait_for(self._woken.wait(), None if wait == math.inf else wait)
            except TimeoutError:
                continue

    async def catch_up(self) -> None:
        """Execute due steps for at most `PATIENCE` seconds."""
        end = time.perf_counter() + PATIENCE
        while self._step() <= 0 and time.perf_counter() < end:
            await asyncio.sleep(0)

    def _step(self) -> float:
        """Execute one due step. Return the seconds until the next: 0 after a step, infinite without batches."""
        now = self._context.clock()
        schedules = self._schedules.values()
        unread = (schedule for schedule in schedules if schedule.lifecycle.batch.total is None)
        # inputs are read in the order of creation, as tokens are enqueued in this order
        schedule = min(unread, key=lambda schedule: schedule.lifecycle.batch.number, default=None)
        if schedule is None:
            schedule = next((schedule for schedule in schedules if schedule.moment <= now), None)
        if schedule is None:
            return min((schedule.moment for schedule in schedules), default=math.inf) - now
        batch = schedule.lifecycle.batch
        # move to the end of the queue
        del self._schedules[batch.id]
        self._context.pace.begin()
        try:
            schedule.moment = next(schedule.steps)
        except StopIteration:
            return 0.0
        except Exception as error:
            # with a full disk, the failure cannot be stored either
            with suppress(OSError):
                schedule.lifecycle.fail(error)
            return 0.0
        self._schedules[batch.id] = schedule
        return 0.0

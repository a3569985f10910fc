"""The worker: goes through the batches that are not over, a step of one after a step of another."""

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
"""Seconds that a request about batches works on them before it is answered."""


@dataclass(slots=True)
class _Schedule:
    """A life that is being lived, and the moment of its next step."""

    life: JobLifecycle
    steps: Iterator[float]
    moment: float = -math.inf


class Worker:
    """Steps are never interrupted: whoever steps, each line is executed once."""

    def __init__(self, context: BatchContext) -> None:
        self._context = context
        self._courses: dict[str, _Schedule] = {}
        self._woken = asyncio.Event()
        for batch in context.batches:
            if batch.over:
                # A crash may have come between the end of it and the clearing up.
                context.folder.clear(batch.id)
            else:
                self.begin(JobLifecycle(batch, context))
            if batch.errors and "token_limit" in batch.faults:
                context.refused.add(batch.input_digest)

    def begin(self, life: JobLifecycle) -> None:
        self._courses[life.batch.id] = _Schedule(life, life.steps())
        self._woken.set()

    def wake(self, batch: JobState) -> None:
        """Has a batch looked at now, as something about it has changed."""
        if course := self._courses.get(batch.id):
            course.moment = -math.inf
            self._woken.set()

    async def work(self) -> None:
        """Goes on until it is cancelled."""
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
        """Does what is due, as far as it can be done in a moment."""
        end = time.perf_counter() + PATIENCE
        while self._step() <= 0 and time.perf_counter() < end:
            await asyncio.sleep(0)

    def _step(self) -> float:
        """One step, if any is due. Seconds until the next one: 0 after a step, infinite where there is none."""
        now = self._context.clock()
        courses = self._courses.values()
        unread = (course for course in courses if course.life.batch.total is None)
        # Inputs are read in the order of creation: the first to come is the first to take its tokens.
        course = min(unread, key=lambda course: course.life.batch.number, default=None)
        if course is None:
            course = next((course for course in courses if course.moment <= now), None)
        if course is None:
            return min((course.moment for course in courses), default=math.inf) - now
        batch = course.life.batch
        # To the end of the queue.
        del self._courses[batch.id]
        self._context.pace.begin()
        try:
            course.moment = next(course.steps)
        except StopIteration:
            return 0.0
        except Exception as error:
            # With a full disk not even the failure can be written down.
            with suppress(OSError):
                course.life.fail(error)
            return 0.0
        self._courses[batch.id] = course
        return 0.0

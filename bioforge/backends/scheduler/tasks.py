"""Requests that are not in flight: retries by the time they are due, and one that could not be sent yet."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from bioforge.core.types import Request


@dataclass(slots=True)
class Task:
    """A request in progress: how often it was sent in this run, and how many of those attempts count."""

    request: Request
    tries: int = 0
    counted: int = 0
    unreadable: int = 0


class TaskQueue:
    """Due retries come first, then the held request, then new ones."""

    def __init__(self) -> None:
        self.retries: list[tuple[float, int, Task]] = []
        """A heap of (due, sequence, task)."""
        self.held: Task | None = None
        self.exhausted = False
        """True if the source had no more requests when it was last pulled."""
        self._sequence = 0

    @property
    def empty(self) -> bool:
        return self.exhausted and self.held is None and not self.retries

    def next(self, source: Iterator[Request], now: float, retries: bool) -> Task | None:
        """Return the next task, or None; without `retries`, only of a request that was not sent yet."""
        if retries and self.retries and self.retries[0][0] <= now:
            return heapq.heappop(self.retries)[2]
        task, self.held = self.held, None
        if task is None:
            # Pull again although the source was exhausted: an answer can make further requests ready.
            request = next(source, None)
            self.exhausted = request is None
            if request is not None:
                task = Task(request)
        return task

    def put_back(self, task: Task, now: float) -> None:
        """Keep a task that cannot be sent now."""
        if task.tries == 0 and self.held is None:
            self.held = task
        else:
            self.retry(task, now)

    def retry(self, task: Task, due: float) -> None:
        self._sequence += 1
        heapq.heappush(self.retries, (due, self._sequence, task))

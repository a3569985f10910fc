"""The loop that drives the scheduler: collect outcomes, decide, report, and only then send."""

from __future__ import annotations

import math
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from bioforge.backends.gil import short_switch_interval
from bioforge.core.events import Attempt, Event, Started, Stopped
from bioforge.core.interfaces import Outcome, Step, Work, run_inline
from bioforge.core.types import Request
from bioforge.core.usage import UsageLimits
from bioforge.plugins.validate import sanitize

if TYPE_CHECKING:
    from bioforge.backends.scheduler.scheduler import Scheduler

__all__ = ["Executor", "drive"]

Clock = Callable[[], float]
Finished = tuple[Attempt, Outcome]

HEARTBEAT = 1.0
"""Seconds after which the loop continues even if nothing happened: an endless wait would block Ctrl-C on Windows."""

LONGEST_LINGER = 0.005
"""Seconds that an answer waits for others to be stored with it."""


class Executor(ABC):
    """Sends attempts side by side. All methods but `put` and `wake` are called from one thread."""

    def __init__(self) -> None:
        self._finished: deque[Finished] = deque()
        self._wakeup: SimpleQueue[None] = SimpleQueue()
        self._wake_at: float = math.inf
        """Number of finished attempts at which the waiting thread is woken; reset before it is woken."""

    @abstractmethod
    def submit(self, attempts: Sequence[Attempt]) -> None:
        """Send these attempts; return at once."""

    @abstractmethod
    def close(self, abandon: bool) -> None:
        """Stop. With `abandon`, do not wait for attempts in flight; their outcomes are lost."""

    def put(self, attempt: Attempt, outcome: Outcome) -> None:
        """Report a finished attempt, from any thread. Invalid values of a sender are replaced."""
        self._finished.append((attempt, sanitize(outcome)))
        if len(self._finished) >= self._wake_at:
            self._wake_at = math.inf
            self.wake()

    def wake(self) -> None:
        """End the current `wait`, or the next one. Safe in a signal handler, also one that interrupts `wait`."""
        self._wakeup.put(None)

    def wait(self, timeout: float, enough: int = sys.maxsize, linger: float = 0.0) -> list[Finished]:
        """Return finished attempts, at most `enough`.

        Wait up to `timeout` seconds for the first, and then up to `linger` seconds for `enough` of them. The waiting thread is
        woken once for all: passing the interpreter for each costs more than storing it.
        """
        self._wait_for(1, timeout)
        if self._finished and linger > 0.0:
            self._wait_for(enough, linger)
        self._wake_at = math.inf
        return [self._finished.popleft() for _ in range(min(enough, len(self._finished)))]

    def backlog(self) -> int:
        """Return the number of answers that have arrived and are not collected yet, as far as known."""
        return len(self._finished)

    def commit(self, step: Step) -> None:
        """Run a step that the attempts in flight need not wait for; return when it is done."""
        step()

    def _wait_for(self, number: int, timeout: float) -> None:
        """Return when this many attempts have finished, after `wake`, or after the timeout."""
        if len(self._finished) >= number or timeout <= 0.0:
            return
        self._wake_at = number
        # an attempt that finished before the line above did not wake this thread
        if len(self._finished) < number:
            with suppress(Empty):
                self._wakeup.get(timeout=timeout)


def drive(
    work: Work, scheduler: Scheduler, executor: Executor, clock: Clock = time.monotonic, wall: Clock = time.time
) -> Iterator[Sequence[Event]]:
    """Execute `work` and yield groups of events. A group is durable before the attempts that it announces are sent.

    At stop level 1 nothing new is sent, and attempts in flight are waited for. At level 2, or when the consumer closes this
    generator, it returns at once and attempts in flight have no outcome. An exception of the request source is raised after
    the attempts in flight have ended.
    """
    source = _Source(work.requests)
    control = work.control
    stop = control.stop
    abandon = True
    stored = 0.0
    finished: list[Finished] = []
    limited = UsageLimits()

    def settle(attempt: Attempt, outcome: Outcome, now: float) -> list[Event]:
        answer = limited(outcome.answer, attempt.request)
        if answer is not outcome.answer:
            outcome = replace(outcome, answer=answer)
        return [*scheduler.settle(attempt, outcome, now), *limited.notices()]

    short_switch_interval.__enter__()
    try:
        stop.subscribe(executor.wake)
        control.commit, control.cancels_unsent = executor.commit, True
        while True:
            now = clock()
            events: list[Event] = []
            for attempt, outcome in finished:
                events += settle(attempt, outcome, now)
            if stop.level or source.error:
                scheduler.drain()
            if events:
                events += scheduler.keep_up(len(finished), executor.backlog())
            attempts = scheduler.take(source, now, wall())
            events += scheduler.announce(now)
            if events or attempts:
                control.gauges = scheduler.gauges(now)
                before = clock()
                yield [*events, *map(Started, attempts)]
                stored = clock() - before
            if attempts and stop.level:
                # announced, but the stop arrived while the announcement was stored
                yield scheduler.withdraw(attempts)
                attempts = []
            if stop.level > 1:
                # answers that have arrived were paid for: keep them even now
                if events := [e for one, end in executor.wait(0.0) for e in settle(one, end, clock())]:
                    yield events
                break
            if attempts:
                executor.submit(attempts)
            if scheduler.done() and (scheduler.stopped or stop.level or not control.more()):
                if not events:
                    break
                # the recorded events may have made further requests ready
                finished = []
                continue
            control.gauges = scheduler.gauges(now)
            timeout = scheduler.timeout(clock())
            most = HEARTBEAT if timeout is None else min(timeout, HEARTBEAT)
            # the recorded events may have made requests ready that the source did not have
            finished = executor.wait(
                0.0 if events and scheduler.exhausted else most,
                # storing many takes about as long as storing one, so wait that long for others, but not for all:
                # the rest arrives while these are stored
                enough=max(1, control.gauges.in_flight // 2),
                linger=0.0 if stop.level else min(stored, LONGEST_LINGER),
            )
        abandon = stop.level > 1
        executor.close(abandon)
        if source.error:
            raise source.error
        if scheduler.stopped:
            yield [scheduler.stopped]
        elif abandon or (stop.level and scheduler.unfinished):
            yield [_asked_to_stop(stop.reason, abandon)]
    finally:
        short_switch_interval.__exit__()
        control.commit, control.cancels_unsent = run_inline, False
        control.gauges = scheduler.gauges(clock())
        executor.close(abandon)


def _asked_to_stop(reason: str, abandoned: bool) -> Stopped:
    done = "calls in flight may have been charged" if abandoned else "calls in flight were kept"
    why = "the deadline has passed" if reason == "deadline" else "interrupted"
    return Stopped(reason, f"{why}: {done}", "`bioforge resume` goes on where this stopped")


class _Source:
    """An iterator of requests that ends at the first exception and keeps it, so that attempts in flight are not lost."""

    def __init__(self, requests: Iterator[Request]) -> None:
        self.error: Exception | None = None
        self._requests = requests

    def __iter__(self) -> _Source:
        return self

    def __next__(self) -> Request:
        try:
            return next(self._requests)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise StopIteration from error

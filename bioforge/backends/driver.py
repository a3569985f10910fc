"""The one loop that drives the scheduler: harvest, decide, report, and only then send."""

from __future__ import annotations

import math
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue

from bioforge.backends.gil import short_switch_interval
from bioforge.backends.scheduler.scheduler import Scheduler
from bioforge.core.events import Attempt, Event, Started, Stopped
from bioforge.core.interfaces import Outcome, Step, Work, run_inline
from bioforge.core.types import Request
from bioforge.plugins.validate import broken, sanitize

__all__ = ["Executor", "broken", "drive"]

Clock = Callable[[], float]
Finished = tuple[Attempt, Outcome]

HEARTBEAT = 1.0
"""Seconds after which the loop looks around even if nothing happened: waiting without end would keep Ctrl-C from
being handled on Windows."""

LONGEST_LINGER = 0.005
"""Seconds that an answer waits for others to be stored with."""


class Executor(ABC):
    """Where attempts are sent side by side. Everything but `put` and `wake` is called from one thread."""

    def __init__(self) -> None:
        self._finished: deque[Finished] = deque()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._ring_at: float = math.inf
        """How many must have ended for the waiting one to be woken. Whoever does that sets it back, before."""

    @abstractmethod
    def submit(self, attempts: Sequence[Attempt]) -> None:
        """Sends these attempts; returns at once."""

    @abstractmethod
    def close(self, abandon: bool) -> None:
        """Ends the lanes. `abandon`: without waiting for what is still in flight; its outcomes are lost."""

    def put(self, attempt: Attempt, outcome: Outcome) -> None:
        """Called when an attempt has ended, from any thread. What a sender must not give is never passed on."""
        self._finished.append((attempt, sanitize(outcome)))
        if len(self._finished) >= self._ring_at:
            self._ring_at = math.inf
            self.wake()

    def wake(self) -> None:
        """Ends a `wait`, or the next one. Safe in a signal handler, also when the handler interrupts `wait` itself."""
        self._bell.put(None)

    def wait(self, timeout: float, enough: int = sys.maxsize, linger: float = 0.0) -> list[Finished]:
        """What has ended by now, `enough` of it at most: waiting for the first at most `timeout` seconds, and then at
        most `linger` seconds until there are enough.

        The waiting thread is woken once for all of them: to hand the interpreter over for each costs more than to
        store it. While a group is being stored the lanes go on, so what piled up is the next group.
        """
        self._listen(1, timeout)
        if self._finished and linger > 0.0:
            self._listen(enough, linger)
        self._ring_at = math.inf
        return [self._finished.popleft() for _ in range(min(enough, len(self._finished)))]

    def commit(self, step: Step) -> None:
        """Run a step that the attempts in flight need not wait for; return when it is done."""
        step()

    def _listen(self, number: int, timeout: float) -> None:
        """Returns when so many have ended, when somebody wakes it, or after the timeout."""
        if len(self._finished) >= number or timeout <= 0.0:
            return
        self._ring_at = number
        # what ended before the line above wakes nobody
        if len(self._finished) < number:
            with suppress(Empty):
                self._bell.get(timeout=timeout)


def drive(
    work: Work, window: Scheduler, lanes: Executor, clock: Clock = time.monotonic, wall: Clock = time.time
) -> Iterator[Sequence[Event]]:
    """Executes `work`, yielding groups of events; a group is consumed before what it announces is sent.

    After the first rise of the stop level nothing new is sent and what is in flight is awaited; after the second,
    or when the consumer closes this generator, it returns at once and what is in flight stays without an outcome.
    An exception of the source of requests is raised when the attempts in flight have been settled.
    """
    source = _Source(work.requests)
    control = work.control
    stop = control.stop
    abandon = True
    stored = 0.0
    finished: list[Finished] = []
    short_switch_interval.__enter__()
    try:
        stop.subscribe(lanes.wake)
        control.commit, control.cancels_unsent = lanes.commit, True
        while True:
            now = clock()
            events: list[Event] = []
            for attempt, outcome in finished:
                events += window.settle(attempt, outcome, now)
            if stop.level or source.error:
                window.drain()
            attempts = window.take(source, now, wall())
            if events or attempts:
                control.gauges = window.gauges(now)
                before = clock()
                yield [*events, *map(Started, attempts)]
                stored = clock() - before
            if attempts and stop.level:
                # Announced, but the stop came while that was being stored.
                yield window.withdraw(attempts)
                attempts = []
            if stop.level > 1:
                # What has come back by now was paid for: it is kept even in a hurry.
                if events := [e for one, end in lanes.wait(0.0) for e in window.settle(one, end, clock())]:
                    yield events
                break
            if attempts:
                lanes.submit(attempts)
            if window.done() and (window.stopped or stop.level or not control.more()):
                if not events:
                    break
                # What was just recorded may have brought about further requests.
                finished = []
                continue
            control.gauges = window.gauges(now)
            timeout = window.timeout(clock())
            most = HEARTBEAT if timeout is None else min(timeout, HEARTBEAT)
            # What was just recorded may have brought about requests that the source did not have.
            finished = lanes.wait(
                0.0 if events and window.exhausted else most,
                # many are stored in about the time of one: as long as that takes, others are waited for
                # not for all: while these are stored, the others are on their way
                enough=max(1, control.gauges.in_flight // 2),
                linger=0.0 if stop.level else min(stored, LONGEST_LINGER),
            )
        abandon = stop.level > 1
        lanes.close(abandon)
        if source.error:
            raise source.error
        if window.stopped:
            yield [window.stopped]
        elif abandon or (stop.level and window.unfinished):
            yield [_asked_to_stop(stop.reason, abandon)]
    finally:
        short_switch_interval.__exit__()
        control.commit, control.cancels_unsent = run_inline, False
        control.gauges = window.gauges(clock())
        lanes.close(abandon)


def _asked_to_stop(reason: str, abandoned: bool) -> Stopped:
    done = "left at once; calls in flight may have been paid for" if abandoned else "calls in flight were kept"
    why = "the deadline has passed" if reason == "deadline" else "interrupted"
    return Stopped(reason, f"{why}: {done}", "`bioforge resume` goes on where this stopped")


class _Source:
    """Requests until their iterator ends or fails; the error is kept, so that what is in flight is not lost to it."""

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

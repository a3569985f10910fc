"""Call a batch service in a thread, so that Ctrl-C is handled, and repeat calls while that is safe."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import TypeVar

from bioforge.backends.batch.service import CallError
from bioforge.backends.scheduler import stops
from bioforge.backends.scheduler.backoff import Backoff
from bioforge.core.events import Event, Notice, Stopped
from bioforge.core.interfaces import RetryPolicy, Stop
from bioforge.core.text import duration
from bioforge.core.types import Paid

Result = TypeVar("Result")
Clock = Callable[[], float]
Groups = Generator[Sequence[Event], None, Result]
"""A generator that yields groups of events and returns a result."""

HEARTBEAT = 1.0
"""Seconds after which a wait looks at the wall clock, since the machine may have slept."""


REPEATED = 60.0
"""Seconds between notices about a call that keeps failing."""


class StopRequested(Exception):
    """A stop was requested; open batches stay as they are."""


class RunStopped(Exception):
    """Nothing more can be done in this run, for the reason it carries."""

    def __init__(self, stopped: Stopped) -> None:
        super().__init__(stopped.message)
        self.stopped = stopped


class Calls:
    """Makes one call at a time. Waits by the wall clock, which continues while the machine sleeps."""

    def __init__(self, stop: Stop, retry: RetryPolicy, random: Callable[[], float], wall: Clock) -> None:
        self._stop = stop
        self._retry = retry
        self._backoff = Backoff(retry, random)
        self._wall = wall
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="bioforge-batch")
        # safe in a signal handler, which may interrupt the very wait it wakes
        self._bell: SimpleQueue[None] = SimpleQueue()
        stop.subscribe(self._wake)

    def close(self) -> None:
        self._executor.shutdown(wait=self._stop.level < 2, cancel_futures=True)

    def once(self, call: Callable[[], Result]) -> Result:
        """Return the result of a call, or its `CallError`. Raises `StopRequested` only at stop level 2."""
        future = self._executor.submit(call)
        future.add_done_callback(lambda _: self._wake())
        while not future.done():
            if self._stop.level > 1:
                raise StopRequested
            self._ring(HEARTBEAT)
        return future.result()

    def patiently(self, call: Callable[[], Result], what: str) -> Groups[Result]:
        """Return the result of a call that may be repeated, through outages as long as they are allowed.

        Raises `CallError` where repeating does not help, `RunStopped` when the account or an outage ends the
        run.
        """
        tries, since = 0, self._wall()
        told = since
        while True:
            try:
                return self.once(call)
            except CallError as error:
                outcome = error.outcome
                if outcome.stops_run:
                    raise RunStopped(of_account(error)) from None
                if not outcome.retryable and outcome.paid is not Paid.MAYBE:
                    raise
                check_patience(error, self._retry, since, self._wall())
                tries += 1
                delay = self.delay(tries, outcome.retry_after)
                if tries == 1 or self._wall() - told > REPEATED:
                    told = self._wall()
                    pause = f" in {duration(delay)}" if delay >= stops.ANNOUNCED else ""
                    message = f"{what}: {error.failure.message}; trying again{pause}"
                    yield [Notice("batch", message, {"seconds": delay})]
                self.sleep(self._wall() + delay)

    def delay(self, tries: int, retry_after: float | None = None) -> float:
        """Return the seconds to wait after this many tries."""
        return self._backoff.delay(tries, retry_after)

    def sleep(self, until: float) -> None:
        """Wait for a moment (seconds since 1970). Raises `StopRequested` at a stop."""
        longest = until - self._wall()
        started = self._wall()
        while True:
            if self._stop.level:
                raise StopRequested
            now = self._wall()
            # a clock that was set back must not turn a minute into a day
            if now >= until or now < started - HEARTBEAT or longest <= 0:
                return
            self._ring(min(HEARTBEAT, until - now))

    def rest(self) -> None:
        """Wait for a nudge, or for a moment. Raises `StopRequested` at a stop."""
        if not self._stop.level:
            self._ring(HEARTBEAT)
        if self._stop.level:
            raise StopRequested

    def _wake(self) -> None:
        self._bell.put(None)

    def _ring(self, timeout: float) -> None:
        try:
            self._bell.get(timeout=timeout)
        except Empty:
            return


def check_patience(error: CallError, retry: RetryPolicy, since: float, now: float) -> None:
    """Raise `RunStopped` if a call has failed for too long, or is to wait for too long."""
    seconds = error.outcome.retry_after or 0.0
    if seconds > max(stops.ANNOUNCED, retry.outage_seconds):
        raise RunStopped(stops.for_long_wait(seconds, now + seconds)) from None
    if now - since > retry.outage_seconds:
        raise RunStopped(of_outage(error, retry)) from None


def of_account(error: CallError) -> Stopped:
    failure = error.failure
    return Stopped(
        "key" if failure.http_status in (401, 403) else "quota",
        failure.message,
        error.outcome.hint or "solve that with the provider, then `bioforge resume`; open batches continue there",
    )


def of_outage(error: CallError, retry: RetryPolicy) -> Stopped:
    return Stopped(
        "outage",
        f"the provider has been down for {retry.outage_seconds:.0f} s; last error: {error.failure.message}",
        "submitted batches continue at the provider; `bioforge resume` collects them when it answers again",
    )

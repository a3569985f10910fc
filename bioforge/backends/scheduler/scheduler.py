"""The scheduler: which attempts may be sent now, what a finished attempt leads to, and when to look again.

Sans I/O: requests come from an iterator, attempts go out as `Attempt` values, and their results come back as `Outcome`
values. `now` is seconds of a monotonic clock, `wall` seconds since 1970.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import NamedTuple

from bioforge.backends.scheduler import stops
from bioforge.backends.scheduler.backoff import LONG, Backoff
from bioforge.backends.scheduler.circuit_breaker import CircuitBreaker
from bioforge.backends.scheduler.concurrency import AdaptiveConcurrency, IntakeLimit
from bioforge.backends.scheduler.setup_check import UNREADABLE, UNREADABLE_TRIES, SetupCheck
from bioforge.backends.scheduler.tasks import Task, TaskQueue
from bioforge.backends.scheduler.token_bucket import RateLimiter, Snapshot
from bioforge.core.budget import Budget, Price, Reservation
from bioforge.core.events import Attempt, Event, Failed, Notice, Stopped, Succeeded, Unusable
from bioforge.core.interfaces import Gauges, Limits, Outcome, RetryPolicy
from bioforge.core.reasons import ROW_REFUSED
from bioforge.core.types import Failure, Paid, Request

UNCOUNTED = 5
"""Under overload an attempt does not count against its request, up to this many times the allowed attempts.

Otherwise a request that is too large for the account's limit would be sent without end.
"""

PROVIDER_DOWN = "provider down"


class _InFlight(NamedTuple):
    task: Task
    slot: int
    reservation: Reservation
    taken: Snapshot
    probe: bool


class Scheduler:
    """Decides what is sent and when, and judges what comes back."""

    def __init__(
        self,
        limits: Limits,
        retry: RetryPolicy,
        price: Price,
        now: float,
        random: Callable[[], float] | None = None,
        budget: Budget | None = None,
        proven: Callable[[Request], bool] = lambda _: True,
    ) -> None:
        """`proven` returns True for a request of a recipe that was answered before (see `SetupCheck`)."""
        random = random or Random().random
        self.stopped: Stopped | None = None
        self._retry = retry
        self._random = random
        self._backoff = Backoff(retry, random)
        self._concurrency = AdaptiveConcurrency(max(1, limits.concurrency))
        self._intake = IntakeLimit(max(1, limits.concurrency))
        self._setup = SetupCheck(proven)
        self._breaker = CircuitBreaker(retry, random)
        self._price = price
        self._budget = budget or Budget(limits.max_cost_usd)
        self._rate_limiter = RateLimiter(limits, now)
        self._free = list(range(max(1, limits.concurrency)))
        self._names = [f"W{slot + 1:02d}" for slot in self._free]
        self._flights: dict[str, _InFlight] = {}
        self._tasks = TaskQueue()
        self._draining = False
        self._dropped = False
        """True if a retry was given up because the run ends."""
        self._paused_until = now
        self._waiting = ""
        self._look_at: float | None = None
        self._announce_from = now
        """Time from which on the next wait is announced."""
        self._patience = max(stops.ANNOUNCED, retry.outage_seconds)

    # ------------------------------------------------------------------------------------------------------ admission

    def take(self, source: Iterator[Request], now: float, wall: float) -> list[Attempt]:
        """Return the attempts to start now: due retries, then new requests, pulled one by one while there is room."""
        attempts: list[Attempt] = []
        self._waiting, self._look_at, self._wall_offset = "", None, wall - now
        while not self._halted:
            if self._blocked_by(now) or (task := self._tasks.next(source, now, self._waiting != PROVIDER_DOWN)) is None:
                break
            if (seconds := self._setup.wait(task.request, now)) > 0.0:
                self._tasks.put_back(task, now)
                self._wait("the first answer", now + seconds)
                break
            tokens = _tokens(task.request)
            quote = self._budget.quote(task.request, self._price)
            if not self._budget.allows(quote):
                self._tasks.put_back(task, now)
                self._stop_for_budget(quote)
                break
            if (seconds := self._rate_limiter.wait(tokens, now)) > 0.0:
                self._tasks.put_back(task, now)
                self._wait("rate limit", now + seconds)
                if not self._flights and self._rate_limiter.provider_wait(tokens, now) > self._patience:
                    self.stopped = stops.for_long_wait(seconds, wall + seconds)
                break
            attempts.append(self._new_attempt(task, tokens, quote, now, wall))
        return attempts

    def timeout(self, now: float) -> float | None:
        """Return the seconds until `take` may return something without a finished attempt; None for never."""
        if self._halted:
            return None
        times = [] if self._look_at is None else [self._look_at]
        # With every slot taken, a due retry changes nothing.
        if self._tasks.retries and not self._waiting and len(self._flights) < self._limit:
            times.append(self._tasks.retries[0][0])
        return max(0.0, min(times) - now) if times else None

    def done(self) -> bool:
        """Return True if nothing is in flight and nothing more will be sent."""
        return not self._flights and (self._halted or self._tasks.empty)

    @property
    def exhausted(self) -> bool:
        """Return True if the source had no more requests when it was last pulled."""
        return self._tasks.exhausted

    @property
    def unfinished(self) -> bool:
        """Return True if work was left."""
        return not self._tasks.empty or self._dropped

    def drain(self) -> None:
        """Start no new attempts and no retries; wait for those in flight."""
        self._draining = True

    def gauges(self, now: float) -> Gauges:
        """Return the numbers for the progress display."""
        waiting = "" if self._halted else self._waiting
        if self._tasks.retries and not self._flights and not self._halted:
            waiting = waiting or "retry"
        return Gauges(len(self._flights), self._limit, len(self._tasks.retries), waiting)

    def announce(self, now: float) -> list[Event]:
        """Return a notice if nothing is in flight and nothing will be sent for a while; at most one a minute."""
        seconds = self.timeout(now)
        quiet = self._flights or now < self._announce_from or self._waiting == PROVIDER_DOWN
        if quiet or seconds is None or seconds < stops.ANNOUNCED:
            return []
        return [self._told(seconds, self._waiting or "the next retry", now)]

    def _told(self, seconds: float, reason: str, now: float) -> Notice:
        self._announce_from = now + seconds + 60.0
        return stops.pause(seconds, now + self._wall_offset + seconds, reason)

    def keep_up(self, recorded: int, backlog: int) -> list[Event]:
        """Adjust the number in flight to the answers that were recorded and those that wait to be; return a notice."""
        notice = self._intake.record(recorded, backlog, len(self._flights))
        return [notice] if notice else []

    @property
    def _limit(self) -> int:
        return min(self._concurrency.limit, self._intake.limit)

    @property
    def spent(self) -> float:
        """Return the US dollars spent, including attempts that may have been charged."""
        return self._budget.spent

    @property
    def reserved(self) -> float:
        """Return the US dollars reserved for attempts in flight; 0 without a budget."""
        return self._budget.reserved

    @property
    def _halted(self) -> bool:
        return self._draining or self.stopped is not None

    def _blocked_by(self, now: float) -> str | None:
        """Return why nothing may be sent, or None."""
        if len(self._flights) >= self._limit:
            return "slots"  # normal operation: nothing to show
        if now < self._paused_until:
            return self._wait("paused by the provider", self._paused_until)
        wait = self._breaker.wait(now)
        if wait is None or wait > 0.0:
            self._wait(PROVIDER_DOWN, None if wait is None else now + wait)
            # failures of one or two requests hold up only retries
            return None if self._breaker.suspicion else self._waiting
        return None

    def _wait(self, reason: str, until: float | None) -> str:
        self._waiting, self._look_at = reason, until
        return reason

    def _new_attempt(self, task: Task, tokens: float, quote: Reservation, now: float, wall: float) -> Attempt:
        task.tries += 1
        slot = heapq.heappop(self._free)
        number = task.request.attempts + task.tries
        unique = int(self._random() * 0x1_0000_0000)
        name = f"bioforge-{task.request.request_hash[-12:]}-{number}-{unique:08x}"
        while name in self._flights:
            name += "x"
        self._budget.reserve(quote)
        taken = self._rate_limiter.take(tokens, now)
        self._setup.record_sent(task.request, now)
        self._flights[name] = _InFlight(task, slot, quote, taken, self._breaker.record_sent())
        return Attempt(task.request, number, self._names[slot], name, wall)

    def _stop_for_budget(self, quote: Reservation) -> None:
        """Wait for attempts in flight to free money; stop the run if none are."""
        self._wait("budget", None)
        if self._flights:
            return
        for due, _, task in self._tasks.retries:
            if self._budget.allows(self._budget.quote(task.request, self._price)):
                self._wait("budget", due)
                return
        self.stopped = stops.for_budget(self._budget, quote)

    # ------------------------------------------------------------------------------------------------------- outcomes

    def settle(self, attempt: Attempt, outcome: Outcome, now: float) -> list[Event]:
        """Return the events of a finished attempt: its outcome and notices."""
        flight = self._flights.pop(attempt.client_request_id)
        heapq.heappush(self._free, flight.slot)
        self._setup.record_ended(attempt.request)
        if outcome.stops_run and self._setup.is_of_row(attempt.request, outcome.failure):
            assert outcome.failure is not None
            outcome = replace(outcome, stops_run=False, failure=replace(outcome.failure, error_class=ROW_REFUSED))
        mistake = self._setup.record(attempt.request, outcome)
        cost = outcome.answer.cost_usd if outcome.answer else None
        self._budget.settle(flight.reservation, cost, Paid.YES if outcome.answer else outcome.paid)
        if outcome.rate_limits:
            self._rate_limiter.feed(flight.taken, outcome.rate_limits, now)
        counted = self._counts(flight, outcome, now)
        notices = self._learn(flight, outcome, now)
        self.stopped = self.stopped or mistake
        event = self._judge(attempt, flight.task, outcome, counted)
        if isinstance(event, Failed) and event.retry_in is not None and not self._halted:
            self._tasks.retry(flight.task, now + event.retry_in)
        elif isinstance(event, Failed) and not event.final:
            self._dropped = True
        return [event, *notices]

    def withdraw(self, attempts: Sequence[Attempt]) -> list[Event]:
        """Return the events for announced attempts that are not sent because the run stops."""
        failure = Failure("interrupted", "stopped before it was sent")
        events: list[Event] = []
        for attempt in attempts:
            flight = self._flights.pop(attempt.client_request_id)
            heapq.heappush(self._free, flight.slot)
            self._budget.settle(flight.reservation, None, Paid.NO)
            self._setup.record_ended(attempt.request)
            self._dropped = True
            events.append(Failed(attempt, failure, Paid.NO, 0.0, final=False, counted=False))
        return events

    def _judge(self, attempt: Attempt, task: Task, outcome: Outcome, counted: bool) -> Event:
        seconds, request_id = outcome.seconds, outcome.request_id
        if outcome.answer is not None:
            kind = Succeeded if outcome.answer.problem is None else Unusable
            return kind(attempt, outcome.answer, seconds, request_id)
        failure = outcome.failure or Failure("internal", "the backend reported neither an answer nor a failure")
        task.counted += counted
        task.unreadable += failure.error_class == UNREADABLE
        final = not outcome.stops_run and (
            not outcome.retryable
            or (outcome.paid is Paid.MAYBE and not self._retry.maybe_paid)
            or task.unreadable >= UNREADABLE_TRIES
            or self._was_last(task, counted)
        )
        retry_in = None
        if not final and not outcome.stops_run and not self._halted:
            retry_in = self._backoff.delay(task.counted, outcome.retry_after)
        return Failed(
            attempt,
            failure,
            outcome.paid,
            seconds,
            final,
            counted=counted,
            retry_in=retry_in,
            request_id=request_id,
            body=outcome.body,
            retry_after=outcome.retry_after,
        )

    def _was_last(self, task: Task, counted: bool) -> bool:
        """Return True if a request has used up its attempts. Every attempt counts against a request's own limit."""
        own = task.request.max_attempts
        return task.tries >= own if own is not None else counted and self._backoff.exhausted(task.counted)

    def _counts(self, flight: _InFlight, outcome: Outcome, now: float) -> bool:
        """Return True if a failure uses up one of its request's attempts."""
        if outcome.answer is not None or not outcome.retryable:
            return not outcome.stops_run
        if outcome.stops_run or (outcome.retry_after or 0.0) > LONG:
            return False
        if outcome.outage and not self._breaker.counts(now):
            return False
        overloaded = outcome.overloaded and not outcome.outage and self._concurrency.overloaded
        return not overloaded or flight.task.tries > UNCOUNTED * self._retry.max_attempts

    def _learn(self, flight: _InFlight, outcome: Outcome, now: float) -> list[Notice]:
        """Update breaker and concurrency from an outcome; return notices."""
        notices: list[Notice | None] = []
        if outcome.outage:
            notices.append(self._breaker.record_failure(flight.task.request.request_hash, flight.probe, now))
            if self._breaker.exhausted(now):
                self.stopped = self.stopped or stops.for_outage(outcome, self._retry.outage_seconds)
        elif outcome.answer is not None or outcome.paid is Paid.NO:
            outage = not self._breaker.suspicion
            notices.append(self._breaker.record_success(flight.probe, now))
            if notices[0] is not None and outage:
                self._concurrency.restart()
        elif flight.probe:
            notices.append(self._breaker.reopen(now))
        if outcome.stops_run:
            self.stopped = self.stopped or stops.for_account(outcome)
        else:
            notices.append(self._concurrency.record_answer(outcome.overloaded, len(self._flights)))
            notices.append(self._pause(outcome, now))
        return [notice for notice in notices if notice is not None]

    def _pause(self, outcome: Outcome, now: float) -> Notice | None:
        """Pause all requests after a long Retry-After, or any under overload."""
        seconds = outcome.retry_after
        if seconds is None or not (seconds > LONG or (outcome.overloaded and self._concurrency.overloaded)):
            return None
        if seconds > self._patience:
            self.stopped = self.stopped or stops.for_long_wait(seconds, now + self._wall_offset + seconds)
            return None
        longer = now + seconds - max(self._paused_until, now)
        self._paused_until = max(self._paused_until, now + seconds)
        if longer < seconds / 2:
            # Other attempts in flight reported the same pause.
            return None
        self._concurrency.restart()
        return self._told(seconds, "the provider asked to wait", now)


def _tokens(request: Request) -> float:
    """Return the tokens a request counts for: its input, and the limit or the estimate of its output."""
    return float(request.input_tokens + (request.max_output_tokens or request.output_tokens))

"""The scheduler: what may be sent now, what a finished attempt means, and when to look again.

Sans I/O: requests come from an iterator, attempts go out as `Attempt` values, and how they ended comes back as
`Outcome` values; sending is somebody else's. `now` is seconds of any monotonic clock, `wall` of the calendar's.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from bioforge.backends.scheduler.backoff import LONG, Backoff
from bioforge.backends.scheduler.circuit_breaker import CircuitBreaker
from bioforge.backends.scheduler.concurrency import AdaptiveConcurrency
from bioforge.backends.scheduler.token_bucket import RateLimiter, Snapshot
from bioforge.core.budget import Budget, Price, Reservation
from bioforge.core.events import Attempt, Event, Failed, Notice, Stopped, Succeeded, Unusable
from bioforge.core.interfaces import Gauges, Limits, Outcome, RetryPolicy
from bioforge.core.types import Failure, Paid, Request

UNCOUNTED = 5
"""In a storm of 429s an attempt says nothing about its request and does not count; but after this many times the
allowed attempts it does, or a request that is too large for the account's limit would be sent for ever."""


@dataclass(slots=True)
class _Job:
    """A request on its way: how often it was sent in this run, and how many of those attempts count."""

    request: Request
    tries: int = 0
    counted: int = 0


class _Flight(NamedTuple):
    job: _Job
    slot: int
    held: Reservation
    mark: Snapshot
    probe: bool


class Scheduler:
    """Everything between a stream of requests and the wire that needs a decision."""

    def __init__(
        self,
        limits: Limits,
        retry: RetryPolicy,
        price: Price,
        now: float,
        random: Callable[[], float] | None = None,
        budget: Budget | None = None,
    ) -> None:
        random = random or Random().random
        self.stopped: Stopped | None = None
        self.exhausted = False
        """Whether the source had no more requests when it was last asked."""
        self._retry = retry
        self._random = random
        self._backoff = Backoff(retry, random)
        self._throttle = AdaptiveConcurrency(max(1, limits.concurrency))
        self._breaker = CircuitBreaker(retry, random)
        self._price = price
        self._budget = budget or Budget(limits.max_cost_usd)
        self._pace = RateLimiter(limits, now)
        self._free = list(range(max(1, limits.concurrency)))
        self._names = [f"W{slot + 1:02d}" for slot in self._free]
        self._flights: dict[str, _Flight] = {}
        self._retries: list[tuple[float, int, _Job]] = []
        self._held: _Job | None = None
        self._draining = False
        self._dropped = False
        """Whether something was to be tried again, and was not since everything came to its end."""
        self._paused_until = now
        self._sequence = 0
        self._waiting = ""
        self._look_at: float | None = None

    # ------------------------------------------------------------------------------------------------- what may go

    def take(self, source: Iterator[Request], now: float, wall: float) -> list[Attempt]:
        """The attempts to start now: retries that are due, then new requests, pulled one by one as there is room."""
        attempts: list[Attempt] = []
        self._waiting, self._look_at = "", None
        while not self._halted:
            if self._closed_for(now) or (job := self._next(source, now)) is None:
                break
            tokens = _tokens(job.request)
            quote = self._budget.quote(job.request, self._price)
            if not self._budget.allows(quote):
                self._put_back(job, now)
                self._out_of_money(quote)
                break
            if (seconds := self._pace.wait(tokens, now)) > 0.0:
                self._put_back(job, now)
                self._wait("rate limit", now + seconds)
                break
            attempts.append(self._new_attempt(job, tokens, quote, now, wall))
        return attempts

    def timeout(self, now: float) -> float | None:
        """Seconds until `take` may have something again without any attempt having finished; None for never."""
        if self._halted:
            return None
        times = [] if self._look_at is None else [self._look_at]
        # With every slot taken, a retry that falls due changes nothing.
        if self._retries and not self._waiting and len(self._flights) < self._throttle.limit:
            times.append(self._retries[0][0])
        return max(0.0, min(times) - now) if times else None

    def done(self) -> bool:
        """Whether nothing is in flight and nothing will be sent any more."""
        if self._flights:
            return False
        return self._halted or (self.exhausted and self._held is None and not self._retries)

    @property
    def unfinished(self) -> bool:
        """Whether there was work left when it was done."""
        return not self.exhausted or self._held is not None or bool(self._retries) or self._dropped

    def drain(self) -> None:
        """No new attempts and no retries; those in flight are awaited."""
        self._draining = True

    def gauges(self, now: float) -> Gauges:
        waiting = "" if self._halted else self._waiting
        if self._retries and not self._flights and not self._halted:
            waiting = waiting or "retry"
        return Gauges(len(self._flights), self._throttle.limit, len(self._retries), waiting)

    @property
    def spent(self) -> float:
        """US dollars, what may have been paid included."""
        return self._budget.spent

    @property
    def reserved(self) -> float:
        """US dollars kept back for the attempts in flight; only with a budget."""
        return self._budget.reserved

    @property
    def _halted(self) -> bool:
        return self._draining or self.stopped is not None

    def _closed_for(self, now: float) -> str | None:
        """Why nothing at all may be sent, or None."""
        if len(self._flights) >= self._throttle.limit:
            # No reason worth showing: this is a window at work.
            return "slots"
        if now < self._paused_until:
            return self._wait("paused by the provider", self._paused_until)
        wait = self._breaker.wait(now)
        if wait is None or wait > 0.0:
            return self._wait("provider down", None if wait is None else now + wait)
        return None

    def _wait(self, reason: str, until: float | None) -> str:
        self._waiting, self._look_at = reason, until
        return reason

    def _next(self, source: Iterator[Request], now: float) -> _Job | None:
        if self._retries and self._retries[0][0] <= now:
            return heapq.heappop(self._retries)[2]
        job, self._held = self._held, None
        if job is None:
            # Asked again although it had no more: an answer can bring about further requests.
            request = next(source, None)
            self.exhausted = request is None
            if request is not None:
                job = _Job(request)
        return job

    def _put_back(self, job: _Job, now: float) -> None:
        if job.tries == 0 and self._held is None:
            self._held = job
        else:
            self._queue(job, now)

    def _queue(self, job: _Job, due: float) -> None:
        self._sequence += 1
        heapq.heappush(self._retries, (due, self._sequence, job))

    def _new_attempt(self, job: _Job, tokens: float, quote: Reservation, now: float, wall: float) -> Attempt:
        job.tries += 1
        slot = heapq.heappop(self._free)
        number = job.request.attempts + job.tries
        unique = int(self._random() * 0x1_0000_0000)
        name = f"bioforge-{job.request.request_hash[-12:]}-{number}-{unique:08x}"
        while name in self._flights:
            name += "x"
        self._budget.reserve(quote)
        mark = self._pace.take(tokens, now)
        self._flights[name] = _Flight(job, slot, quote, mark, self._breaker.launched())
        return Attempt(job.request, number, self._names[slot], name, wall)

    def _out_of_money(self, quote: Reservation) -> None:
        """Waits for what is in flight to free some; where nothing can, the run is over."""
        self._wait("budget", None)
        if self._flights:
            return
        for due, _, job in self._retries:
            if self._budget.allows(self._budget.quote(job.request, self._price)):
                self._wait("budget", due)
                return
        budget = self._budget
        self.stopped = Stopped(
            "budget",
            f"the budget of {_usd(budget.limit)} is used up: {_usd(budget.spent)} spent, and the next request may "
            f"cost {_usd(quote.amount)}",
            "raise [limits] max_cost_usd or --max-cost and run again: it goes on where this run stopped",
        )

    # ------------------------------------------------------------------------------------ what a finished one means

    def settle(self, attempt: Attempt, outcome: Outcome, now: float) -> list[Event]:
        """What is to be recorded of an attempt that ended, and what else it brought about."""
        flight = self._flights.pop(attempt.client_request_id)
        heapq.heappush(self._free, flight.slot)
        cost = outcome.answer.cost_usd if outcome.answer else None
        self._budget.settle(flight.held, cost, Paid.YES if outcome.answer else outcome.paid)
        if outcome.rate_limits:
            self._pace.feed(flight.mark, outcome.rate_limits, now)
        counted = self._counts(flight, outcome, now)
        notices = self._learn(flight, outcome, now)
        event = self._judge(attempt, flight.job, outcome, counted)
        if isinstance(event, Failed) and event.retry_in is not None and not self._halted:
            self._queue(flight.job, now + event.retry_in)
        elif isinstance(event, Failed) and not event.final:
            self._dropped = True
        return [event, *notices]

    def withdraw(self, attempts: Sequence[Attempt]) -> list[Event]:
        """Takes back attempts that were announced and, since the run is being stopped, not sent."""
        failure = Failure("interrupted", "stopped before it was sent")
        events: list[Event] = []
        for attempt in attempts:
            flight = self._flights.pop(attempt.client_request_id)
            heapq.heappush(self._free, flight.slot)
            self._budget.settle(flight.held, None, Paid.NO)
            self._dropped = True
            events.append(Failed(attempt, failure, Paid.NO, 0.0, final=False, counted=False))
        return events

    def _judge(self, attempt: Attempt, job: _Job, outcome: Outcome, counted: bool) -> Event:
        seconds, request_id = outcome.seconds, outcome.request_id
        if outcome.answer is not None:
            kind = Succeeded if outcome.answer.problem is None else Unusable
            return kind(attempt, outcome.answer, seconds, request_id)
        failure = outcome.failure or Failure("internal", "the backend reported neither an answer nor a failure")
        job.counted += counted
        final = not outcome.stops_run and (
            not outcome.retryable
            or (outcome.paid is Paid.MAYBE and not self._retry.maybe_paid)
            or self._was_last(job, counted)
        )
        retry_in = None
        if not final and not outcome.stops_run and not self._halted:
            retry_in = self._backoff.delay(job.counted, outcome.retry_after)
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

    def _was_last(self, job: _Job, counted: bool) -> bool:
        """Whether a request has used up its attempts. A limit of its own is a promise: there every attempt counts."""
        own = job.request.max_attempts
        return job.tries >= own if own is not None else counted and self._backoff.exhausted(job.counted)

    def _counts(self, flight: _Flight, outcome: Outcome, now: float) -> bool:
        """Whether a failure uses up one of its request's attempts."""
        if outcome.answer is not None or not outcome.retryable:
            return not outcome.stops_run
        if outcome.stops_run or (outcome.retry_after or 0.0) > LONG:
            return False
        if outcome.outage and not self._breaker.counts(now):
            return False
        in_storm = outcome.overloaded and not outcome.outage and self._throttle.storm
        return not in_storm or flight.job.tries > UNCOUNTED * self._retry.max_attempts

    def _learn(self, flight: _Flight, outcome: Outcome, now: float) -> list[Notice]:
        """What an attempt says about the provider rather than about its request."""
        notices: list[Notice | None] = []
        if outcome.outage:
            notices.append(self._breaker.outage(flight.job.request.request_hash, flight.probe, now))
            if self._breaker.exhausted(now):
                self._stop_for_outage(outcome)
        elif outcome.answer is not None or outcome.paid is Paid.NO:
            notices.append(self._breaker.answered(flight.probe, now))
            if notices[0] is not None:
                self._throttle.restart()
        elif flight.probe:
            notices.append(self._breaker.unclear(now))
        if outcome.stops_run:
            self._stop_for_account(outcome)
        else:
            notices.append(self._throttle.answered(outcome.overloaded, len(self._flights)))
            notices.append(self._pause(outcome, now))
        return [notice for notice in notices if notice is not None]

    def _pause(self, outcome: Outcome, now: float) -> Notice | None:
        """A long Retry-After, or any in a storm, is meant for everybody."""
        seconds = outcome.retry_after
        if seconds is None or not (seconds > LONG or (outcome.overloaded and self._throttle.storm)):
            return None
        longer = now + seconds - max(self._paused_until, now)
        self._paused_until = max(self._paused_until, now + seconds)
        if longer < seconds / 2:
            # The others in flight were told the same.
            return None
        self._throttle.restart()
        return Notice("pause", f"the provider asks to wait: nothing is sent for {seconds:.1f} s", {"seconds": seconds})

    def _stop_for_outage(self, outcome: Outcome) -> None:
        last = outcome.failure.message if outcome.failure else "no answer"
        self.stopped = self.stopped or Stopped(
            "outage",
            f"nothing but outages for {self._retry.outage_seconds:.0f} s; the last: {last}",
            outcome.hint or "check the network and the provider's status page, then run again",
        )

    def _stop_for_account(self, outcome: Outcome) -> None:
        failure = outcome.failure
        key = failure is not None and failure.http_status in (401, 403)
        message = failure.message if failure else "the provider refuses all requests"
        self.stopped = self.stopped or Stopped("key" if key else "quota", message, outcome.hint)


def _tokens(request: Request) -> float:
    """Tokens a request is counted with: what goes in, and the most or the likely number that comes out."""
    return float(request.input_tokens + (request.max_output_tokens or request.output_tokens))


def _usd(amount: float | None) -> str:
    """Without rounding a small amount to nothing."""
    return f"${amount or 0.0:.4g}"

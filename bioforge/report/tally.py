"""Count the numbers of a run from its events, and write its summary. Pure: times are arguments."""

from __future__ import annotations

import shlex
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from bioforge.core.events import (
    Attempt,
    BatchChanged,
    BatchCollected,
    Event,
    Failed,
    Started,
    Stopped,
    Succeeded,
    Unusable,
)
from bioforge.core.reasons import RequestState
from bioforge.core.text import duration, money, plural, printable
from bioforge.core.types import Batch, Failure, Paid, Response
from bioforge.report.batch_tally import BatchTally

WINDOW = 30.0
"""Seconds over which the current rate is measured."""


@dataclass(slots=True)
class Tally:
    """The counts of one run. `total`: requests to send or to collect from awaited batches, None if unknown.

    `started` and every `now` are seconds of one monotonic clock. `failed` and `unusable` count final failures by
    error class. Attempts in batches count like all others, but not in the rate: thousands end at
    once when a batch is collected, maybe days after they were sent.
    """

    total: int | None = None
    started: float = 0.0
    sent: int = 0
    succeeded: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    unusable: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    """Requests sent again after a failure of this run."""
    replaced: int = 0
    """Failed requests that a repair or a fallback model replaced."""
    maybe_paid: int = 0
    paid_for_nothing: int = 0
    """Paid answers without a usable text."""
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    """Cost of the answers with a known price."""
    priced: int = 0
    unpriced: int = 0
    """Answers without a known price."""
    finished: int = 0
    """Attempts that ended, with any outcome."""
    calls: int = 0
    """Finished attempts that were single calls."""
    first_failed: str | None = None
    """The first artist with a final failure."""
    stopped: Stopped | None = None
    batches: BatchTally = field(default_factory=BatchTally)
    _calls_done: int = 0
    _awaiting_retry: Counter[str] = field(default_factory=Counter, repr=False)
    """Requests that failed and may be sent again, by hash."""
    _seconds: deque[tuple[int, int, int]] = field(default_factory=deque, repr=False)
    """Finished calls and requests by whole second, within the window."""

    @property
    def done(self) -> int:
        """Return the number of requests that will not be sent again in this run."""
        return self.succeeded + self.failures

    @property
    def failures(self) -> int:
        return self.failed.total() + self.unusable.total()

    @property
    def expected(self) -> int | None:
        """Return the number of requests at the end of the run: `total`, corrected by batches of earlier runs."""
        return None if self.total is None else max(self.done, self.total + self.batches.unplanned)

    @property
    def left(self) -> int | None:
        return None if (expected := self.expected) is None else max(self.batches.waiting, expected - self.done)

    def add(self, events: Iterable[Event], now: float, batches: Iterable[Batch] = ()) -> None:
        """Count a group of events. `batches` are the open ones in the gauges afterwards."""
        calls, done = self.calls, self._calls_done
        for event in events:
            match event:
                case Started(attempt):
                    self.sent += 1
                    if self._awaiting_retry:
                        self._note_retry(attempt.request.request_hash)
                    if attempt.batch is not None:
                        self.batches.start(attempt.batch)
                case Succeeded():
                    self._ended(event.attempt, True)
                    self.succeeded += 1
                    self._answer(event.answer)
                case Unusable():
                    self._ended(event.attempt, not event.followed)
                    self.paid_for_nothing += 1
                    self._answer(event.answer)
                    if event.followed:
                        self.replaced += 1
                    else:
                        self.unusable[error_class(event.answer.problem)] += 1
                        self.first_failed = self.first_failed or event.attempt.request.artist_id
                case Failed():
                    self._ended(event.attempt, event.final and not event.followed)
                    self._failure(event)
                case BatchChanged(batch):
                    self.batches.see((batch,))
                case BatchCollected():
                    self.batches.collect(event)
                case Stopped():
                    self.stopped = event
        self.batches.see(batches)
        if self.calls > calls:
            self._note(int(now), self.calls - calls, self._calls_done - done)

    def _ended(self, attempt: Attempt, done: bool) -> None:
        self.finished += 1
        if attempt.batch is None:
            self.calls += 1
            self._calls_done += done
        elif not self.batches.end(attempt.batch):
            self.sent += 1  # by an earlier run

    def _answer(self, answer: Response) -> None:
        if answer.usage is not None:
            self.input_tokens += answer.usage.input_tokens
            self.output_tokens += answer.usage.output_tokens
        if answer.cost_usd is None:
            self.unpriced += 1
        else:
            self.priced += 1
            self.cost_usd += answer.cost_usd

    def _failure(self, event: Failed) -> None:
        if event.paid is Paid.MAYBE:
            self.maybe_paid += 1
        elif event.paid is Paid.YES:
            self.paid_for_nothing += 1
            self.unpriced += 1
        if event.followed:
            self.replaced += 1
        elif event.final:
            self.failed[event.failure.error_class] += 1
            self.first_failed = self.first_failed or event.attempt.request.artist_id
        elif event.failure.error_class != RequestState.INTERRUPTED:  # the request was not sent
            self._awaiting_retry[event.attempt.request.request_hash] += 1

    def _note_retry(self, request_hash: str) -> None:
        if request_hash in self._awaiting_retry:
            self.retries += 1
            self._awaiting_retry[request_hash] -= 1
            if not self._awaiting_retry[request_hash]:
                del self._awaiting_retry[request_hash]

    def _note(self, second: int, finished: int, done: int) -> None:
        if self._seconds and self._seconds[-1][0] == second:
            _, before, done_before = self._seconds.pop()
            finished, done = finished + before, done + done_before
        self._seconds.append((second, finished, done))
        while self._seconds[0][0] <= second - WINDOW:
            self._seconds.popleft()

    def elapsed(self, now: float) -> float:
        return max(0.0, now - self.started)

    def calls_per_second(self, now: float) -> float:
        """Return finished single calls per second over the last 30 seconds."""
        return self._rate(now, 1)

    def seconds_left(self, now: float) -> float | None:
        """Estimate from the last 30 seconds, or the whole run if nothing was done lately.

        None while a batch is awaited.
        """
        left = self.left
        if left is None or self.batches.waiting:
            return None
        if left == 0:
            return 0.0
        rate = self._rate(now, 2) or (self._calls_done / self.elapsed(now) if self.elapsed(now) else 0.0)
        return left / rate if rate else None

    def _rate(self, now: float, column: int) -> float:
        count = sum(entry[column] for entry in self._seconds if entry[0] > now - WINDOW)
        span = min(WINDOW, self.elapsed(now))
        return count / span if span else 0.0

    def cost(self) -> str:
        """Return `$1.20`, `unknown price`, or both if some answers have no known price."""
        if not self.unpriced:
            return money(self.cost_usd)
        if not self.priced:
            return "unknown price"
        return f"{money(self.cost_usd)} and {plural(self.unpriced, 'answer')} of unknown price"

    def fields(self, now: float) -> dict[str, object]:
        """Return the numbers as log fields; seconds and US dollars."""
        left = self.seconds_left(now)
        fields: dict[str, object] = {
            "done": self.done,
            "total": self.expected,
            "succeeded": self.succeeded,
            "failed": self.failures,
            "sent": self.sent,
            "retries": self.retries,
            "maybe_paid": self.maybe_paid,
            "calls_per_second": round(self.calls_per_second(now), 1),
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost_usd": round(self.cost_usd, 6),
            "unknown_price": self.unpriced,
            "seconds": round(self.elapsed(now), 1),
            "seconds_left": None if left is None else round(left),
        }
        if self.batches:
            fields |= {
                "in_batches": self.batches.waiting,
                "batches_open": self.batches.open,
                "batches_collected": self.batches.collected,
                "missing": self.batches.missing,
            }
        return fields


@dataclass(frozen=True, slots=True)
class Closing:
    """Facts for the summary besides the tally.

    `fresh`: targets that were up to date; `cached`: targets that got a stored answer without a call; `saved_usd`:
    the price of the fresh and cached ones when they were bought, None if unknown.
    """

    fresh: int = 0
    cached: int = 0
    saved_usd: float | None = None
    simulated: bool = False


def summary(tally: Tally, closing: Closing, now: float) -> list[str]:
    """Return the lines of the summary: results, cost, and the next step."""
    seconds = tally.elapsed(now)
    of = "" if tally.expected is None else f" of {tally.expected:,}"
    rows = [("done", f"{tally.succeeded:,}{of} in {duration(seconds)}{_speed(tally, seconds)}")]
    if tally.failures:
        rows.append(
            (
                "failed",
                f"{tally.failures:,}: {by_class(tally.failed + tally.unusable)}",
            )
        )
    if left := _left(tally):
        rows.append(("left", left))
    if tally.batches:
        rows.append(("batches", str(tally.batches)))
    if tally.retries:
        rows.append(("retries", f"{tally.retries:,}"))
    if tally.replaced:
        answers = "failed answer was" if tally.replaced == 1 else "failed answers were"
        rows.append(("retried", f"{tally.replaced:,} {answers} repaired or sent to a fallback model"))
    if closing.fresh or closing.cached:
        cached = f", {closing.cached:,} answered from stored answers" if closing.cached else ""
        rows.append(("skipped", f"{closing.fresh:,} up to date{cached}"))
    if tally.input_tokens or tally.output_tokens:
        rows.append(("tokens", f"{tally.input_tokens:,} in, {tally.output_tokens:,} out"))
    rows.append(("cost", _cost(tally, closing)))
    if closing.saved_usd:
        kept = plural(closing.fresh + closing.cached, "answer")
        rows.append(("saved", f"about {money(closing.saved_usd)}: {kept} not bought again, at the average price"))
    if tally.paid_for_nothing:
        rows.append(
            (
                "unusable",
                f"{plural(tally.paid_for_nothing, 'answer')} paid for without a usable text; kept in the state",
            )
        )
    if tally.maybe_paid:
        rows.append(("maybe paid", f"{plural(tally.maybe_paid, 'call')} may have been charged (no answer arrived)"))
    if tally.stopped:
        rows.append(("waiting" if tally.stopped.kind == "waiting" else "stopped", tally.stopped.message))
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {text}" for name, text in rows] + [f"→ {hint}" for hint in _hints(tally)]


def _speed(tally: Tally, seconds: float) -> str:
    """Return the rate; nothing for batches, where most of the time was spent waiting."""
    if not tally.calls or tally.calls < tally.finished or seconds <= 0:
        return ""
    return f" ({tally.calls / seconds:,.1f} calls/s)"


def _left(tally: Tally) -> str:
    waiting = tally.batches.waiting
    rest = (tally.left or 0) - waiting
    shown = (
        f"{waiting:,} in open batches" if waiting else "",
        f"{rest:,} not sent or not finished" if rest > 0 else "",
    )
    return ", ".join(filter(None, shown))


def _cost(tally: Tally, closing: Closing) -> str:
    return f"{tally.cost()} (simulated: nothing was charged)" if closing.simulated else tally.cost()


def _hints(tally: Tally) -> list[str]:
    hints = []
    if tally.first_failed is not None:
        artist = shlex.quote(printable(tally.first_failed))
        # unusable answers are held back
        again = "; `bioforge run` sends failed requests again" if tally.failed else ""
        listed = "`bioforge export --failed` lists the failures, " if tally.failures > 1 else ""
        hints.append(f"{listed}`bioforge why {artist}` shows what went wrong{again}")
    if tally.maybe_paid:
        hints.append("`bioforge audit` counts the calls that may have been charged")
    if tally.stopped:
        hints.append(tally.stopped.hint or "`bioforge resume` continues this run")
    elif tally.left:
        hints.append("`bioforge resume` continues this run")
    return hints


def error_class(problem: Failure | None) -> str:
    return "unusable" if problem is None else problem.error_class


def by_class(counts: Counter[str], most: int = 6) -> str:
    """Return `21 truncated, 9 timeout`, the most frequent first."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count:,} {name}" for name, count in ranked[:most]]
    rest = sum(count for _, count in ranked[most:])
    return ", ".join([*shown, *([f"{rest:,} of other kinds"] if rest else [])])

"""The loop that drives the scheduler, with lanes on a fake clock: stopped, closed or deserted in any moment, nothing is
sent that was not durable before, and nothing that comes back is dropped."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from bioforge.backends.driver import Executor, Finished, drive
from bioforge.backends.scheduler.scheduler import Scheduler
from bioforge.core.events import Attempt, Event, Failed, Started, Stopped, Succeeded, Unusable
from bioforge.core.interfaces import Limits, Outcome, RetryPolicy, RunControl, Stop, Work
from bioforge.core.types import Failure, Paid, Request, Response

from .effort import examples

OUTCOMES = {
    "usable": Outcome(answer=Response(b"{}", "A life."), paid=Paid.YES),
    "unusable": Outcome(answer=Response(b"{}", problem=Failure("refusal", "no")), paid=Paid.YES),
    "busy": Outcome(failure=Failure("rate_limit", "slower"), retryable=True, overloaded=True, retry_after=2.0),
    "down": Outcome(failure=Failure("server_error", "down"), retryable=True, outage=True),
    "lost": Outcome(failure=Failure("timeout", "no answer"), paid=Paid.MAYBE, retryable=True),
    "refused": Outcome(failure=Failure("bad_request", "no")),
    "quota": Outcome(failure=Failure("quota", "no money", http_status=429), stops_run=True),
}


class SourceError(Exception):
    """The state cannot be read any more."""


@dataclass(frozen=True)
class Tale:
    """What happens to a run: `fates` by request and try; `stops` at these groups, `asleep` in these waits, `closed` after
    that group; `breaks`: the pull at which the source fails; `children`: how many requests an answer brings about;
    `slow`: seconds that recording a group takes."""

    requests: int
    children: int
    concurrency: int
    fates: dict[int, list[tuple[float, str]]]
    stops: tuple[int, ...]
    asleep: tuple[int, ...]
    reason: str
    closed: int | None
    breaks: int | None
    attempts: int
    slow: float = 0.0


tales = st.builds(
    Tale,
    requests=st.integers(0, 12),
    children=st.sampled_from([0, 0, 1, 2]),
    concurrency=st.integers(1, 5),
    fates=st.dictionaries(
        st.integers(0, 20),
        st.lists(st.tuples(st.sampled_from([0.0, 0.2, 1.0, 9.0]), st.sampled_from(sorted(OUTCOMES))), max_size=4),
        max_size=8,
    ),
    stops=st.lists(st.integers(0, 15), max_size=2).map(lambda found: tuple(sorted(found))),
    asleep=st.lists(st.integers(1, 30), max_size=2).map(tuple),
    reason=st.sampled_from(["interrupted", "deadline"]),
    closed=st.none() | st.integers(0, 15),
    breaks=st.none() | st.none() | st.integers(0, 12),
    attempts=st.sampled_from([1, 3]),
    slow=st.sampled_from([0.0, 0.3, 2.0]),
)


class FakeLanes(Executor):
    """Sends nowhere: what is submitted ends as it is told, when the clock says so. A wait passes at once."""

    def __init__(self, play: Play) -> None:
        super().__init__()
        self.play = play
        self.flying: list[tuple[float, int, Attempt]] = []
        self.closed: list[bool] = []
        self.tries: Counter[str] = Counter()

    def submit(self, attempts: Sequence[Attempt]) -> None:
        assert not self.closed, "sent after the end"
        assert not self.play.over, "sent after whoever listens went away"
        for attempt in attempts:
            assert attempt.client_request_id in self.play.durable, "sent before it was durable"
            self.play.sent.append(attempt.client_request_id)
            seconds, _ = self.fate(attempt, self.tries[attempt.request.artist_id])
            self.flying.append((self.play.now + seconds, len(self.play.sent), attempt))
        assert len(self.flying) <= self.play.tale.concurrency

    def fate(self, attempt: Attempt, number: int) -> tuple[float, str]:
        told = self.play.tale.fates.get(int(attempt.request.artist_id), [])
        return told[number] if number < len(told) else (1.0, "usable")

    def wait(self, timeout: float, enough: int = sys.maxsize, linger: float = 0.0) -> list[Finished]:
        self.play.waits += 1
        assert self.play.waits < 3000, "it never comes to an end"
        for _ in range(self.play.tale.asleep.count(self.play.waits)):
            self.play.stop.raise_level(self.play.tale.reason)
        self.flying.sort(key=lambda flight: flight[:2])
        arrives = self.flying[0][0] if self.flying else float("inf")
        self.play.now = max(self.play.now, min(self.play.now + timeout, arrives))
        landed = [flight for flight in self.flying if flight[0] <= self.play.now][:enough]
        self.flying = self.flying[len(landed) :]
        finished = []
        for _, _, attempt in landed:
            _, word = self.fate(attempt, self.tries[attempt.request.artist_id])
            self.tries[attempt.request.artist_id] += 1
            finished.append((attempt, OUTCOMES[word]))
            self.play.landed.append(attempt.client_request_id)
        return finished

    def close(self, abandon: bool) -> None:
        self.closed.append(abandon)


@dataclass
class Play:
    tale: Tale
    now: float = 100.0
    waits: int = 0
    over: bool = False
    durable: set[str] = field(default_factory=set)
    sent: list[str] = field(default_factory=list)
    landed: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    error: Exception | None = None

    def clock(self) -> float:
        return self.now

    def source(self) -> Iterator[Request]:
        return _Wanted(self)

    def play(self) -> Play:
        tale = self.tale
        self.stop = Stop()
        self.wanted = deque(range(tale.requests))
        self.asked = tale.requests
        self.pulls = 0
        self.lanes = FakeLanes(self)
        retry = RetryPolicy(max_attempts=tale.attempts, first_delay=0.1)
        self.window = Scheduler(Limits(tale.concurrency), retry, lambda request: 0.0, self.now, Random(1).random)
        work = Work(self.source(), Limits(tale.concurrency), retry, RunControl(self.stop))
        stops = list(tale.stops)
        try:
            with closing(drive(work, self.window, self.lanes, self.clock, self.clock)) as groups:
                for number, group in enumerate(groups):
                    self.record(group)
                    while stops and stops[0] <= number:
                        stops.pop(0)
                        self.stop.raise_level(tale.reason)
                    if number == tale.closed:
                        self.over = True
                        break
        except SourceError as error:
            self.error = error
        return self

    def record(self, group: Sequence[Event]) -> None:
        self.events += group
        self.now += self.tale.slow
        for event in group:
            if isinstance(event, Started):
                self.durable.add(event.attempt.client_request_id)
            elif isinstance(event, Succeeded) and int(event.attempt.request.artist_id) < self.tale.requests:
                for _ in range(self.tale.children):
                    self.wanted.append(self.asked)
                    self.asked += 1

    def of(self, *kinds: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kinds)]

    @property
    def ended(self) -> Counter[str]:
        return Counter(event.attempt.client_request_id for event in self.of(Succeeded, Unusable, Failed))  # type: ignore[union-attr]

    @property
    def settled(self) -> set[str]:
        """The artists whose requests came to an end for good."""
        return {
            event.attempt.request.artist_id  # type: ignore[union-attr]
            for event in self.of(Succeeded, Unusable, Failed)
            if not isinstance(event, Failed) or event.final
        }


class _Wanted(Iterator[Request]):
    """Asked again after it had no more, it may have some."""

    def __init__(self, play: Play) -> None:
        self.play = play

    def __next__(self) -> Request:
        self.play.pulls += 1
        if self.play.pulls - 1 == self.play.tale.breaks:
            raise SourceError
        if not self.play.wanted:
            raise StopIteration
        number = self.play.wanted.popleft()
        return Request(f"v1:{number:064x}", "/v1/responses", "m", b"{}", str(number), "bio")


@examples(80)
@given(tales)
def test_nothing_is_sent_unannounced_and_nothing_that_came_back_is_dropped(tale: Tale) -> None:
    play = Play(tale).play()
    announced = [event.attempt.client_request_id for event in play.of(Started)]  # type: ignore[union-attr]
    assert len(set(announced)) == len(announced)
    assert len(set(play.sent)) == len(play.sent)
    assert set(play.sent) <= set(announced)
    assert max(play.ended.values(), default=0) <= 1, "an attempt that ended twice"
    assert play.lanes.closed, "the lanes were left open"
    if play.over:
        return
    assert set(play.landed) <= set(play.ended), "what came back was not handed on"
    assert set(play.ended) <= set(announced)
    assert set(announced) - set(play.sent) <= set(play.ended), "announced, not sent, and nobody took it back"
    in_a_hurry = play.stop.level > 1
    assert in_a_hurry or set(announced) == set(play.ended), "left in flight although there was no hurry"
    stopped = play.of(Stopped)
    assert len(stopped) <= 1
    assert not stopped or play.events[-1] is stopped[0]
    everything = {str(number) for number in range(play.asked)}
    if not (stopped or play.error or play.stop.level):
        assert play.settled == everything, "it said that it was done"
    if play.error is None and play.window.stopped is not None:
        assert stopped == [play.window.stopped]


def test_a_stop_that_leaves_only_a_retry_undone_is_said_too() -> None:
    """The last request in flight fails in a way that is tried again, and the deadline has passed meanwhile."""
    tale = Tale(1, 0, 2, {0: [(9.0, "busy")]}, (), (1,), "deadline", closed=None, breaks=None, attempts=3)
    play = Play(tale).play()
    assert [event.kind for event in play.of(Stopped)] == ["deadline"]  # type: ignore[union-attr]

"""What people see of batches: their life in the log, the open ones below the bar, and progress while nothing arrives."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
import structlog
from rich.console import Console

from bioforge.core.events import (
    Attempt,
    BatchChanged,
    BatchCollected,
    LimitLearned,
    Started,
    Stopped,
    Succeeded,
    UnmatchedLine,
)
from bioforge.core.interfaces import Gauges
from bioforge.core.types import Batch, BatchProblem, BatchState, Request, Response, Usage
from bioforge.report.batches import format_state, megabytes, screen_lines
from bioforge.report.live_display import LiveReporter, status
from bioforge.report.logs import configure
from bioforge.report.reporter import PlainReporter
from bioforge.report.tally import Tally

NOW = 1_795_246_862.0
"""2026-11-21T07:41:02Z"""

BATCH = Batch(
    key="bf-1",
    endpoint="/v1/responses",
    model="gpt-6-luna",
    requests=50_000,
    bytes=12_345_678,
    input_tokens=1_250_000,
    estimated_usd=12.5,
    prepared_at=NOW - 8100,
)


@pytest.fixture(autouse=True)
def untouched():
    yield
    structlog.reset_defaults()


class Clock:
    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def submitted(number=1, **changes):
    created = replace(
        BATCH,
        key=f"bf-{number}",
        state=BatchState.SUBMITTED,
        batch_id=f"batch_{number}",
        submitted_at=NOW - 8000,
        expires_at=NOW + 78_400,
    )
    return replace(created, **changes)


def working(number=1, completed=31_180, failed=24, **changes):
    return submitted(number, **{"state": BatchState.IN_PROGRESS, "completed": completed, "failed": failed, **changes})


def attempt(artist="1", batch="bf-1"):
    return Attempt(Request(artist, "/v1/responses", "m", b"{}", artist, "bio"), 1, "", f"c{artist}", NOW, batch, 1)


def good(artist="1", batch="bf-1"):
    return Succeeded(attempt(artist, batch), Response(b"", "A life.", Usage(100, 20), cost_usd=0.01), 8000.0)


def told(capsys):
    """Lines of people's format, without the time."""
    return [line[9:] for line in capsys.readouterr().err.splitlines()]


class TestLife:
    """The log lines of one batch after the other."""

    def tell(self, capsys, *events, **options):
        reporter = PlainReporter(configure(**options), clock=Clock())
        reporter.start(None)
        capsys.readouterr()
        for event in events:
            reporter.show([event], Gauges())
        return told(capsys)

    def test_from_its_preparation_to_its_collection(self, capsys):
        done = working(state=BatchState.COMPLETED, completed=49_990, failed=10, ended_at=NOW)
        lives = [
            replace(BATCH, requests=0),
            replace(BATCH, state=BatchState.PREPARED),
            replace(BATCH, state=BatchState.UPLOADED),
            submitted(),
            working(completed=0, failed=0),
            working(),
            done,
        ]
        events = [*map(BatchChanged, lives), BatchCollected(done, {"failed": 10, "answered": 49_990}, Usage())]
        assert self.tell(capsys, *events, BatchChanged(replace(done, state=BatchState.COLLECTED))) == [
            "info    batch prepared  batch=bf-1 requests=50000 size='12.3 MB' tokens=1250000 estimated_cost=$12.50",
            "info    batch submitted  batch=batch_1 key=bf-1 requests=50000",
            "info    batch in progress  batch=batch_1 done=0/50000",
            "info    batch completed  batch=batch_1 done=50000/50000 failed=10 took='2 h 13 min'",
            "info    batch collected  batch=batch_1 answered=49990 failed=10",
        ]

    def test_a_state_is_told_once_however_often_it_is_looked_at(self, capsys):
        assert len(self.tell(capsys, *[BatchChanged(working(completed=count)) for count in range(100)])) == 1

    def test_what_happened_is_said_with_the_state_and_a_new_word_without_a_new_state(self, capsys):
        events = [
            BatchChanged(submitted(), "found again"),
            BatchChanged(submitted(), "found again"),
            BatchChanged(submitted()),
            BatchChanged(submitted(), "asked to cancel"),
        ]
        assert self.tell(capsys, *events) == [
            "info    batch submitted  batch=batch_1 key=bf-1 requests=50000 note='found again'",
            "info    batch submitted  batch=batch_1 key=bf-1 requests=50000 note='asked to cancel'",
        ]

    def test_a_refused_batch_says_why_three_times_at_most(self, capsys):
        problems = tuple(BatchProblem("invalid_json_line", "no JSON", line) for line in range(1, 500))
        first = BatchProblem("token_limit_exceeded", "too many tokens")
        refused = submitted(state=BatchState.FAILED, problems=(first, *problems))
        assert self.tell(capsys, BatchChanged(refused), BatchChanged(refused)) == [
            "info    batch failed  batch=batch_1 done=0/50000 problems=500",
            "warning batch refused  batch=batch_1 code=token_limit_exceeded message='too many tokens'",
            "warning batch refused  batch=batch_1 code=invalid_json_line line=1 message='no JSON'",
            "warning batch refused  batch=batch_1 code=invalid_json_line line=2 message='no JSON'",
        ]

    @pytest.mark.parametrize("state", [BatchState.EXPIRED, BatchState.CANCELLED])
    def test_one_that_ended_before_its_time(self, capsys, state):
        lines = self.tell(capsys, BatchChanged(working(state=state)))
        assert lines == [f"info    batch {state}  batch=batch_1 done=31204/50000 failed=24"]

    def test_one_that_never_came_to_be(self, capsys):
        lines = self.tell(
            capsys,
            BatchChanged(replace(BATCH, state=BatchState.PREPARED, estimated_usd=None, bytes=2100)),
            BatchChanged(replace(BATCH, state=BatchState.RELEASED), "the upload failed"),
        )
        assert lines == [
            "info    batch prepared  batch=bf-1 requests=50000 size='0.002 MB' tokens=1250000"
            " estimated_cost='unknown price'",
            "info    batch released  batch=bf-1 note='the upload failed'",
        ]

    def test_counts_come_in_one_order_and_further_ones_last(self, capsys):
        counts = {"unreadable": 1, "given back": 9, "missing": 2, "answered": 30_000, "expired": 0, "rejected": 7}
        lines = self.tell(capsys, BatchCollected(working(), counts, Usage()))
        assert lines == [
            "info    batch collected  batch=batch_1 answered=30000 rejected=7 missing=2 unreadable=1 given_back=9"
        ]

    def test_a_limit_is_said_and_stray_lines_only_to_who_wants_every_detail(self, capsys):
        events = [LimitLearned("gpt-6-luna", 2_000_000), UnmatchedLine("bf-1", "unknown", "r-9", b"{}")]
        limit = "info    the provider enqueues at most 2,000,000 tokens of gpt-6-luna"
        assert self.tell(capsys, *events) == [limit]
        assert self.tell(capsys, *events, verbose=True) == [
            f"{limit}  model=gpt-6-luna tokens=2000000",
            "debug   unmatched line  batch=bf-1 kind=unknown custom_id=r-9 bytes=2",
        ]

    def test_memory_holds_open_batches_only(self, capsys):
        reporter = PlainReporter(configure())
        reporter.start(None)
        for number in range(50):
            reporter.show([BatchChanged(working(number))], Gauges())
            reporter.show([BatchCollected(working(number), {}, Usage())], Gauges())
            reporter.show([BatchChanged(working(number, state=BatchState.COLLECTED))], Gauges())
        assert reporter._logged_batches == {}

    def test_json_has_everything(self, capsys):
        refused = submitted(state=BatchState.FAILED, status="failed", problems=(BatchProblem("x", "y", 3),))
        lines = [
            json.loads(line)
            for line in self._json(
                capsys,
                BatchChanged(replace(BATCH, state=BatchState.UPLOADED, file_id="file-1")),
                BatchChanged(working(status="finalizing"), "a note"),
                BatchCollected(working(), {"answered": 5, "failed": 2}, Usage(100, 20)),
                BatchChanged(refused),
                good(),
                Stopped("waiting", "2 batches are in progress", "run again"),
            )
        ]
        for line in lines:
            del line["timestamp"]
        job = {"batch": "bf-1", "endpoint": "/v1/responses", "model": "gpt-6-luna"}
        created = job | {"batch_id": "batch_1"}
        file = {"requests": 50_000, "bytes": 12_345_678, "input_tokens": 1_250_000, "estimated_usd": 12.5}
        times = {"submitted_at": "2026-11-21T05:27:42Z", "expires_at": "2026-11-22T05:27:42Z"}
        none_yet = {"completed": 0, "failed": 0}
        attempt = {"artist": "1", "recipe": "bio", "attempt": 1, "worker": "", "seconds": 8000, "outcome": "succeeded"}
        tokens = {"input_tokens": 100, "output_tokens": 20}
        assert [(line.pop("level"), line.pop("event"), line) for line in lines] == [
            ("debug", "batch uploaded", {"state": "uploaded", "file_id": "file-1", **job, **file, **none_yet}),
            (
                "info",
                "batch in progress",
                {"state": "in progress", "status": "finalizing", "note": "a note", **created, **file, **times}
                | {"completed": 31_180, "failed": 24},
            ),
            (
                "info",
                "batch collected",
                {"state": "collected", "requests": 50_000, "answered": 5, "failed": 2, **created, **tokens},
            ),
            (
                "info",
                "batch failed",
                {"state": "failed", "status": "failed", "problems": 1, **created, **file, **times, **none_yet},
            ),
            ("warning", "batch refused", {"state": "failed", "code": "x", "line": 3, "message": "y", **created}),
            ("debug", "attempt", {"batch": "bf-1", **attempt, **tokens}),
            ("info", "waiting: 2 batches are in progress", {"kind": "waiting", "hint": "run again"}),
        ]

    def _json(self, capsys, *events):
        reporter = PlainReporter(configure("json"), clock=Clock())
        reporter.start(None)
        capsys.readouterr()
        reporter.show(events, Gauges())
        return capsys.readouterr().err.splitlines()


class TestProgress:
    """Lines while batches are open and no event arrives."""

    GAUGES = Gauges(batches=(working(1), working(2, completed=0, failed=0)), look_at=NOW + 12)

    def test_each_look_may_show_that_it_goes_on(self, capsys):
        clock = Clock()
        reporter = PlainReporter(configure(), clock=clock)
        reporter.start(100_000)
        reporter.show([Started(attempt(str(n), f"bf-{n % 2 + 1}")) for n in range(100_000)], self.GAUGES)
        for _ in range(3):
            clock.now += 15
            reporter.show([], self.GAUGES)
        line = "info    progress  done=0/100000 batches='2 open 31,204/100,000' cost=$0.00"
        assert told(capsys)[1:] == [line] * 3

    def test_a_run_that_only_collects_what_an_earlier_one_sent(self, capsys):
        clock = Clock()
        reporter = PlainReporter(configure(), clock=clock)
        reporter.start(100_000)
        clock.now += 15
        reporter.show([], self.GAUGES)
        assert told(capsys)[1] == "info    progress  done=0/100000 batches='2 open 31,204/100,000' cost=$0.00"

    def test_one_that_nobody_waits_for_is_shown_as_well(self, capsys):
        clock = Clock()
        reporter = PlainReporter(configure(), clock=clock)
        reporter.start(0)
        clock.now += 15
        reporter.show([], Gauges(batches=(working(awaited=False),)))
        assert told(capsys)[1] == "info    progress  done=0/0 batches='1 open 31,204/50,000' cost=$0.00"

    def test_the_summary_follows_the_last_answer_and_no_progress(self, capsys):
        clock = Clock()
        reporter = PlainReporter(configure(), clock=clock)
        reporter.start(1)
        clock.now += 15
        reporter.show([good()], Gauges(batches=(working(requests=1, state=BatchState.COMPLETED),)))
        assert len(told(capsys)) == 1

    def test_json_lists_them(self, capsys):
        clock = Clock()
        reporter = PlainReporter(configure("json"), clock=clock)
        reporter.start(None)
        for gauges in (self.GAUGES, Gauges(batches=(BATCH, working(state=BatchState.RELEASED))), Gauges()):
            clock.now += 15
            reporter.show([], gauges)
        found = [json.loads(line) for line in capsys.readouterr().err.splitlines()][1:]
        known = {"state": "in progress", "requests": 50_000}
        assert found[0]["batches"] == [
            {"batch": "bf-1", "batch_id": "batch_1", "completed": 31_180, "failed": 24, **known},
            {"batch": "bf-2", "batch_id": "batch_2", "completed": 0, "failed": 0, **known},
        ]
        assert [(batch["batch_id"], batch["state"]) for batch in found[1]["batches"]] == [(None, "preparing")]
        assert "batches" not in found[2]


class TestScreen:
    """Lines below the bar."""

    def test_one_for_each_open_batch_and_when_they_are_looked_at(self):
        gauges = Gauges(
            batches=(
                working(1),
                submitted(2, status="validating", submitted_at=NOW - 42),
                working(3, completed=50_000, failed=0, status="finalizing", expires_at=NOW + 3900),
                replace(BATCH, key="bf-4", state=BatchState.UPLOADED),
                working(5, state=BatchState.COLLECTED),
            ),
            look_at=NOW + 11.2,
        )
        assert screen_lines(gauges, NOW) == [
            "batch_1  in progress  31,204/50,000  24 failed  submitted 2 h 13 min ago",
            "batch_2  validating        0/50,000  submitted 42 s ago",
            "batch_3  finalizing   50,000/50,000  submitted 2 h 13 min ago  expires in 1 h 5 min",
            "bf-4     uploaded          0/50,000",
            "next poll in 12 s",
        ]

    def test_many_are_counted(self):
        lines = screen_lines(Gauges(batches=tuple(working(number) for number in range(13))), NOW)
        assert len(lines) == 9
        assert lines[-1] == "… and 5 more"

    def test_none_need_no_room(self):
        assert screen_lines(Gauges(look_at=NOW), NOW) == []

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [(0, "polling now"), (-5, "polling now"), (0.3, "next poll in 1 s"), (300, "next poll in 5 min")],
    )
    def test_the_next_look(self, seconds, text):
        assert screen_lines(Gauges(batches=(working(),), look_at=NOW + seconds), NOW)[-1] == text

    @pytest.mark.parametrize(
        ("batch", "ending"),
        [
            (working(expires_at=NOW + 7201), "ago"),
            (working(expires_at=NOW + 7200), "ago  expires in 2 h"),
            (working(expires_at=NOW), "ago  past its expiry"),
            (working(expires_at=NOW, state=BatchState.EXPIRED), "ago"),
            (working(submitted_at=NOW + 5), "submitted 0 s ago"),
            (working(submitted_at=None, expires_at=None, failed=0, status=None), "31,180/50,000"),
        ],
    )
    def test_times_that_are_near_past_or_unknown(self, batch, ending):
        (line,) = screen_lines(Gauges(batches=(batch,)), NOW)
        assert line.endswith(ending)

    @pytest.mark.parametrize(
        ("batch", "words"),
        [
            (working(status="in_progress"), "in progress"),
            (working(status="cancelling"), "cancelling"),
            (working(status="FINAL\x1b[2J"), "final\\x1b[2j"),
            (working(status=""), "in progress"),
            (working(state=BatchState.EXPIRED, status="ended"), "expired"),
        ],
    )
    def test_the_provider_is_quoted_where_it_says_more(self, batch, words):
        assert format_state(batch) == words

    def test_sizes(self):
        assert [megabytes(size) for size in (0, 2100, 100_000, 199_999_999)] == [
            "0.000 MB",
            "0.002 MB",
            "0.1 MB",
            "200.0 MB",
        ]

    def test_no_rate_is_shown_where_nothing_is_called(self):
        tally = Tally(total=2)
        assert status(tally, Gauges(batches=(working(),)), 5.0) == ""
        tally.add([Started(attempt()), good()], 5.0)
        assert status(tally, Gauges(), 5.0) == "100 in 20 out  $0.010"
        tally.add([Started(attempt("2", None)), good("2", None)], 5.0)
        assert status(tally, Gauges(), 5.0) == "0.2/s  200 in 40 out  $0.020"


class TestLive:
    def live(self, screen, width=150, clock=None, wall=None):
        console = Console(file=screen, force_terminal=True, width=width, color_system=None)
        return LiveReporter(configure(), None, console, clock or Clock(), wall or Clock(NOW))

    def drawn(self, screen, reporter):
        screen.truncate(0)
        reporter._live.refresh()
        return screen.getvalue().replace("\r", "").split("\x1b[2K")[-1].splitlines()

    def test_batches_stand_below_the_numbers_and_the_wall_clock_goes_on(self):
        screen, wall = Terminal(), Clock(NOW)
        with self.live(screen, wall=wall) as reporter:
            reporter.start(None, backend="batch", provider="simulator")
            reporter.show([], Gauges(batches=(working(),), look_at=NOW + 12))
            first = self.drawn(screen, reporter)
            wall.now += 10
            second = self.drawn(screen, reporter)
        assert [line.rstrip() for line in first[-2:]] == [
            "batch_1  in progress  31,204/50,000  24 failed  submitted 2 h 13 min ago",
            "next poll in 12 s",
        ]
        assert second[-1].rstrip() == "next poll in 2 s"

    def test_a_narrow_terminal_cuts_and_never_wraps(self):
        screen = Terminal()
        with self.live(screen, width=40) as reporter:
            reporter.start(None)
            reporter.show([], Gauges(batches=(working(1), working(2)), look_at=NOW + 12))
            lines = self.drawn(screen, reporter)
        assert max(map(len, lines)) <= 40
        assert [line.rstrip() for line in lines[-3:]] == [
            "batch_1  in progress  31,204/50,000  24…",
            "batch_2  in progress  31,204/50,000  24…",
            "next poll in 12 s",
        ]

    def test_answers_that_nobody_waited_for_belong_to_the_whole(self):
        screen = Terminal()
        with self.live(screen) as reporter:
            reporter.start(10, backend="batch", provider="simulator")
            reporter.show([good()] * 15, Gauges(batches=(working(requests=90, awaited=False),)))
            assert "60% 15/25 in 0.0 s" in "".join(self.drawn(screen, reporter))

    def test_the_same_lines_as_in_a_file_stand_above_the_bar(self):
        screen = Terminal()
        with self.live(screen) as reporter:
            reporter.start(None)
            reporter.show([BatchChanged(submitted()), LimitLearned("m", 900)], Gauges(batches=(submitted(),)))
        assert "info    batch submitted  batch=batch_1 key=bf-1 requests=50000\n" in screen.getvalue()
        assert "info    the provider enqueues at most 900 tokens of m\n" in screen.getvalue()

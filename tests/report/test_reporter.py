"""What people see while a run goes on: on a terminal, in a file, and of the answers themselves."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time

import pytest
import structlog
from rich.console import Console

from bioforge.core.events import Attempt, Failed, Notice, Started, Stopped, Succeeded, Unusable
from bioforge.core.interfaces import Gauges
from bioforge.core.types import Failure, Paid, Request, Response, Usage
from bioforge.report.live_display import LiveReporter, headline, status
from bioforge.report.logs import configure
from bioforge.report.reporter import PlainReporter, Printer, make_reporter
from bioforge.report.tally import Tally

GAUGES = Gauges(in_flight=3, concurrency=4, retrying=1, waiting="rate limit, 12 s")


@pytest.fixture(autouse=True)
def untouched():
    yield
    structlog.reset_defaults()


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def attempt(artist="1", number=1):
    return Attempt(Request("hash", "/v1/responses", "m", b"{}", artist, "bio"), number, "W01", "c", 0.0)


def good(artist="1", text="A life."):
    return Succeeded(attempt(artist), Response(b"", text, Usage(100, 20), cost_usd=0.01), 1.2345)


def bad(artist="1", *, final=True, message="no answer within 600 s"):
    failure = Failure("timeout", message, code="x", http_status=504)
    return Failed(attempt(artist, 2), failure, Paid.MAYBE, 600.0, final, retry_in=None if final else 0.5)


def events_of(text):
    """Log lines of people's format, without the time."""
    return [line[9:] for line in text.splitlines()]


class TestPlain:
    @pytest.fixture
    def clock(self):
        return Clock()

    def reporter(self, clock, **options):
        return PlainReporter(configure(**options), clock=clock)

    def test_a_line_at_the_start_and_then_each_tenth(self, clock, capsys):
        reporter = self.reporter(clock)
        reporter.start(100, backend="async", provider="simulator", concurrency=4)
        for number in range(100):
            clock.now += 1
            reporter.show([Started(attempt()), good(str(number))], Gauges())
        reporter.finish()
        lines = events_of(capsys.readouterr().err)
        assert lines[0] == "info    run  requests=100 backend=async provider=simulator concurrency=4"
        assert lines[1] == "info    progress  done=10/100 rate=1.0/s cost=$0.10 left='1 min 30 s'"
        assert len(lines) == 10

    def test_a_fast_run_is_not_chatty(self, clock, capsys):
        reporter = self.reporter(clock)
        reporter.start(1000)
        for number in range(1000):
            clock.now += 0.002
            reporter.show([good(str(number))], Gauges())
        assert len(events_of(capsys.readouterr().err)) == 2

    def test_a_slow_run_is_not_silent(self, clock, capsys):
        reporter = self.reporter(clock)
        reporter.start(1000)
        for _ in range(5):
            clock.now += 10
            reporter.show([], GAUGES)
        lines = events_of(capsys.readouterr().err)
        assert len(lines) == 6
        assert lines[5] == "info    progress  done=0/1000 retrying=1 rate=0.0/s cost=$0.00 waiting='rate limit, 12 s'"

    def test_a_total_that_is_not_known(self, clock, capsys):
        reporter = self.reporter(clock)
        reporter.start(None)
        clock.now += 10
        reporter.show([good()], Gauges())
        assert "done=1 rate" in capsys.readouterr().err

    def test_only_what_matters_is_told(self, clock, capsys):
        reporter = self.reporter(clock)
        reporter.start(9)
        reporter.show(
            [
                Started(attempt()),
                good(),
                bad(final=False),
                Notice("breaker", "too many errors: pausing", {"seconds": 30, "event": "x"}),
                bad("7"),
                Unusable(attempt("8"), Response(b"", problem=Failure("truncated", "cut at 400 tokens")), 2.0),
                Stopped("quota", "the quota is used up", "top up"),
            ],
            Gauges(),
        )
        assert events_of(capsys.readouterr().err)[1:] == [
            "info    too many errors: pausing  kind=breaker seconds=30 event_=x",
            "warning failed  artist=7 recipe=bio error=timeout message='no answer within 600 s' code=x status=504",
            "warning failed  artist=8 recipe=bio error=truncated message='cut at 400 tokens'",
        ]

    def test_many_failures_are_counted_not_listed(self, clock, capsys):
        reporter = self.reporter(clock)
        reporter.start(None)
        reporter.show([bad(str(number)) for number in range(500)], Gauges())
        lines = events_of(capsys.readouterr().err)
        assert len(lines) == 1 + 1
        reporter.finish()
        assert events_of(capsys.readouterr().err) == [
            "warning 500 failed: timeout (no answer within 600 s); bioforge export --failed"
        ]
        assert reporter.tally.failures == 500

    def test_different_failures_are_listed_up_to_twenty(self, clock, capsys):
        reporter = self.reporter(clock)
        reporter.start(None)
        reporter.show([bad(str(number), message=f"problem {number}") for number in range(500)], Gauges())
        lines = events_of(capsys.readouterr().err)
        assert len(lines) == 1 + 20 + 1
        assert lines[-1] == "warning further failures are only counted  shown=20"

    def test_verbose_has_a_line_for_each_attempt(self, clock, capsys):
        reporter = self.reporter(clock, verbose=True)
        reporter.start(None)
        reporter.show([Started(attempt()), good("3"), bad("4", final=False)], Gauges())
        assert events_of(capsys.readouterr().err)[1:] == [
            "debug   attempt  worker=W01 artist=3 recipe=bio attempt=1 seconds=1.234 outcome=succeeded"
            " input_tokens=100 output_tokens=20",
            "debug   attempt  worker=W01 artist=4 recipe=bio attempt=2 seconds=600 outcome=failed error=timeout"
            " message='no answer within 600 s' code=x status=504 retry_in=0.5",
        ]

    def test_json_is_json_throughout(self, clock, capsys):
        with self.reporter(clock, format="json") as reporter:
            reporter.start(40)
            clock.now += 10
            reporter.show([good(), *(bad(str(number)) for number in range(30))], GAUGES)
        reporter.finish()
        found = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        names = [line["event"] for line in found]
        assert [names[0], names[1], names[-2], names[-1]] == ["run", "attempt", "progress", "finished"]
        assert names.count("failed") == 30
        assert found[-2]["in_flight"] == 3
        assert found[-1]["done"] == 31
        assert names.count("finished") == 1

    def test_a_log_file_has_every_attempt_while_stderr_stays_short(self, clock, capsys, tmp_path):
        reporter = self.reporter(clock, log_file=tmp_path / "run.log")
        reporter.start(None)
        reporter.show([good(), *(bad(str(number)) for number in range(30))], Gauges())
        reporter.logs.close()
        assert len(capsys.readouterr().err.splitlines()) == 22
        written = [json.loads(line)["event"] for line in (tmp_path / "run.log").read_text().splitlines()]
        assert (written.count("attempt"), written.count("failed")) == (1, 30)


class TestLive:
    @pytest.fixture
    def screen(self):
        return Terminal()

    def reporter(self, screen, printer=None, clock=time.monotonic, **options):
        console = Console(file=screen, force_terminal=True, width=150, color_system=None)
        return LiveReporter(configure(**options), printer, console, clock)

    def test_numbers_appear_and_the_display_goes_away(self, screen):
        with self.reporter(screen) as reporter:
            reporter.start(10, backend="async", provider="simulator")
            reporter.show([Started(attempt()), good(), bad("2")], GAUGES)
            reporter._live.refresh()
            shown = screen.getvalue()
        assert "async · simulator" in shown
        assert "20% 2/10" in shown
        assert "1 failed  1 retrying" in shown
        assert "100 in 20 out  $0.01" in shown
        assert "3/4 in flight  waiting: rate limit, 12 s" in shown
        assert screen.getvalue().endswith("\x1b[2K")

    def test_the_provider_is_its_host(self, screen):
        with self.reporter(screen) as reporter:
            reporter.start(1, backend="threads", provider="https://api.openai.com/v1")
        assert "threads · api.openai.com " in screen.getvalue()

    def test_a_narrow_terminal_shows_all_numbers(self, screen):
        clock = Clock()
        console = Console(file=screen, force_terminal=True, width=80, color_system=None)
        with LiveReporter(configure(), None, console, clock) as reporter:
            reporter.start(10_000, backend="async", provider="simulator")
            clock.now += 100
            reporter.show([good()] * 1000, GAUGES)
            reporter._live.refresh()
        assert "10% 1,000/10,000 in 1 min 40 s, 4 min 30 s left" in screen.getvalue()

    def test_log_lines_stand_above_whole(self, screen):
        with self.reporter(screen) as reporter:
            reporter.start(10)
            reporter.show([bad("a" * 300), bad("b", message="another problem")], GAUGES)
            reporter.logs.logger.info("from elsewhere")
        lines = [line for line in screen.getvalue().splitlines() if "artist=" in line or "elsewhere" in line]
        assert len(lines) == 3
        assert "a" * 300 in lines[0]
        assert screen.getvalue().count("status=504") == 2, "what does not fit goes on in the next line"

    def test_a_group_is_one_print(self, screen):
        reporter = self.reporter(screen, verbose=True)
        reporter.start(None)
        prints = []
        reporter._print = prints.append
        reporter.show([good(str(number)) for number in range(100)], GAUGES)
        reporter.finish()
        assert [text.count("artist=") for text in prints] == [100]

    def test_logs_are_on_stderr_again_when_it_is_over(self, screen, capsys):
        with self.reporter(screen) as reporter:
            reporter.start(1)
        reporter.logs.logger.info("after")
        assert "after" in capsys.readouterr().err
        assert "after" not in screen.getvalue()

    def test_it_is_restored_when_the_run_breaks(self, screen):
        def broken():
            with self.reporter(screen) as reporter:
                reporter.start(1)
                raise RuntimeError("broken")

        with pytest.raises(RuntimeError, match="broken"):
            broken()
        assert screen.getvalue().count("\x1b[?25h") == 1

    def test_gauges_are_live_between_two_groups(self, screen):
        with self.reporter(screen) as reporter:
            reporter.start(1, watch=lambda: Gauges(waiting="quota"))
            reporter._live.refresh()
        assert "waiting: quota" in screen.getvalue()

    def test_a_signal_handler_may_print_while_events_are_counted(self, screen):
        with self.reporter(screen) as reporter:
            reporter.start(1)
            done = threading.Event()

            class Interrupted(list):
                def __iter__(self):
                    reporter._live.refresh()
                    done.set()
                    return iter(())

            thread = threading.Thread(target=lambda: reporter._count(Interrupted(), GAUGES, 0.0), daemon=True)
            thread.start()
            assert done.wait(5)
            thread.join()

    def test_nothing_and_unknown_totals_can_be_shown(self, screen):
        for total in (0, None):
            with self.reporter(screen) as reporter:
                reporter.start(total)
                reporter._live.refresh()

    def test_many_events_cost_little(self, screen):
        """Drawing is by time: five thousand groups draw no more often than the clock allows."""
        with self.reporter(screen) as reporter:
            reporter.start(5000)
            began = time.monotonic()
            for _ in range(5000):
                reporter.show([Started(attempt()), good()], GAUGES)
            seconds = time.monotonic() - began
        assert screen.getvalue().count("in flight") <= 3 + 10 * seconds

    def test_the_two_lines(self):
        tally = Tally(total=200)
        tally.add([good()] * 50, 10.0)
        assert headline(tally, 10.0) == "25% 50/200 in 10 s, 30 s left"
        assert headline(Tally(), 3.0) == "0 in 3.0 s"
        assert status(tally, Gauges(), 10.0) == "5.0/s  5.0k in 1.0k out  $0.50"


class TestChoice:
    @pytest.mark.parametrize(
        ("stdout", "stderr", "options", "kind"),
        [
            (Terminal, Terminal, {}, LiveReporter),
            (io.StringIO, Terminal, {"print_text": True}, LiveReporter),
            (Terminal, Terminal, {"print_text": True}, PlainReporter),
            (Terminal, io.StringIO, {}, PlainReporter),
            (Terminal, Terminal, {"environ": {"TERM": "dumb"}}, PlainReporter),
        ],
    )
    def test_by_what_stderr_is(self, stdout, stderr, options, kind):
        options = {"environ": {}, **options}
        assert type(make_reporter(configure(), stdout=stdout(), stderr=stderr(), **options)) is kind

    def test_json_needs_no_terminal(self):
        reporter = make_reporter(configure("json"), stderr=Terminal(), environ={})
        assert type(reporter) is PlainReporter


class TestPrinting:
    def request(self, artist="1"):
        return attempt(artist).request

    def test_only_texts_for_a_pipe(self):
        stream = io.StringIO()
        reporter = PlainReporter(configure(), Printer(stream))
        reporter.start(None)
        reporter.show([good("1", "One."), good("2", "Two.\n"), good("3", None), bad("4")], Gauges())
        assert stream.getvalue() == "One.\nTwo.\n"

    def test_whose_it_is_on_a_terminal(self):
        stream = Terminal()
        printer = Printer(stream)
        printer.print(self.request("1"), "One.\x1b]0;title\x07\tx")
        printer.print(self.request("2\x1b"), "Two.")
        assert stream.getvalue() == "── 1 · bio\nOne.\\x1b]0;title\\x07\tx\n\n── 2\\x1b · bio\nTwo.\n"

    def test_utf8_whatever_the_locale(self):
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding="ascii")
        Printer(stream).print(self.request(), "Café \ud800")
        assert raw.getvalue() == "Café ?\n".encode()

    def test_a_closed_pipe_stops_the_printing_and_nothing_else(self):
        code = """
import sys, time
from bioforge.report.reporter import Printer
from bioforge.core.types import Request
printer = Printer(sys.stdout)
for number in range(3000):
    printer.print(Request("h", "e", "m", b"", str(number), "bio"), "text " * 20)
print("went on to the end", printer.problem() or "without a word", file=sys.stderr)
"""
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout.readline().startswith("text")
        process.stdout.close()
        with process.stderr as stderr:
            said = stderr.read()
        assert (process.wait(), said) == (0, "went on to the end without a word\n")

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is always full")
    def test_a_full_disk_is_said_once(self, capsys):
        with open("/dev/full", "w") as stream:
            reporter = PlainReporter(configure(), Printer(stream))
            reporter.start(None)
            reporter.show([good("1"), good("2")], Gauges())
            reporter.finish()
            reporter.finish()
        assert capsys.readouterr().err.count("reason='No space left on device'") == 1

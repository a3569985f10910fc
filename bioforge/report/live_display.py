"""The live display on a terminal: a bar with numbers and open batches below it, and log lines above it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from threading import RLock
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bioforge.core.events import Event
from bioforge.core.interfaces import Gauges
from bioforge.core.text import compact, duration, printable
from bioforge.report.batches import screen_lines
from bioforge.report.console import wrap
from bioforge.report.logs import Logs
from bioforge.report.reporter import Clock, Printer, Reporter
from bioforge.report.tally import Tally

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

REFRESHES_PER_SECOND = 5


class LiveReporter(Reporter):
    """Redraws from its own thread, so that groups of events are only counted, and the clock runs without events."""

    def __init__(
        self,
        logs: Logs,
        printer: Printer | None = None,
        console: Console | None = None,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
    ) -> None:
        super().__init__(logs, printer, clock)
        self._wall = wall
        self._console = console
        self._live: Live | None = None
        # reentrant: a signal handler that prints while events are counted draws the display in the same thread
        self._lock = RLock()
        self._gauges = Gauges()
        self._watch: Callable[[], Gauges] = lambda: self._gauges
        self._title = ""
        self._lines: list[str] | None = None

    def _begin(self, fields: Mapping[str, object], watch: Callable[[], Gauges] | None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._watch = watch or (lambda: self._gauges)
        provider = str(fields["provider"])
        self._title = printable(
            " · ".join(filter(None, (str(fields["backend"]), urlsplit(provider).hostname or provider)))
        )
        console = self._console = self._console or Console(stderr=True)
        # stdout is not redirected: with --print it has the answers
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=console.file is sys.stderr,
        )
        self.logs.redirect(self._above)
        self._live.start()

    def _count(self, events: Sequence[Event], gauges: Gauges, now: float) -> None:
        self._lines = []
        with self._lock:
            super()._count(events, gauges, now)

    def _advance(self, gauges: Gauges, now: float) -> None:
        self._gauges = gauges
        lines, self._lines = self._lines, None
        if lines:
            self._above("\n".join(lines))

    def _end(self) -> None:
        live, self._live = self._live, None
        if live is None:
            return
        self.logs.redirect(None)
        for line in self._lines or ():
            self._print(line)
        self._lines = None
        try:
            live.stop()
        except OSError:
            return  # the terminal is gone

    def _above(self, text: str) -> None:
        """Print all lines of a group at once, since each print redraws the bar."""
        if self._lines is not None:
            self._lines.append(text)
        else:
            self._print(text)

    def _print(self, text: str) -> None:
        from rich.text import Text

        if self._console is not None:
            try:
                lines = (piece for line in text.splitlines() for piece in wrap(line, self._console.width))
                self._console.print(Text.from_ansi("\n".join(lines)), soft_wrap=True)
            except OSError:
                return  # the terminal is gone; the run continues

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        gauges = self._watch()
        with self._lock:
            now = self._clock()
            head, numbers = headline(self.tally, now), status(self.tally, gauges, now)
            total, done = self.tally.expected, self.tally.done
        below = "\n".join(printable(line) for line in (numbers, *screen_lines(gauges, self._wall())) if line)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            Text(self._title, style="bold", no_wrap=True),
            ProgressBar(
                total=total,
                completed=done,
                width=self._bar_width(),
                pulse=total is None,
                complete_style="green",
                finished_style="green",
                pulse_style="cyan",
            ),
            Text(head, no_wrap=True),
        )
        return Group(bar, Text(below, style="dim", no_wrap=True, overflow="ellipsis"))

    def _bar_width(self) -> int:
        """Return the width of the bar; a narrow terminal keeps its space for the numbers."""
        return 30 if self._console is None or self._console.width >= 100 else 10


def headline(tally: Tally, now: float) -> str:
    """Return `62% 6,204/10,000 in 2 min 3 s, 1 min 20 s left`."""
    past = duration(tally.elapsed(now))
    total = tally.expected
    if total is None:
        return f"{tally.done:,} in {past}"
    percent = 100 * tally.done // total if total else 100
    left = tally.seconds_left(now)
    ahead = f", {duration(left)} left" if left else ""
    return f"{percent}% {tally.done:,}/{total:,} in {past}{ahead}"


def status(tally: Tally, gauges: Gauges, now: float) -> str:
    """Return `24 failed  3 retrying  82.1/s  1.2M in 402.1k out  $12.30  48/64 in flight  waiting: …`, without zeros."""
    parts = [
        f"{tally.failures:,} failed" if tally.failures else "",
        f"{gauges.retrying:,} retrying" if gauges.retrying else "",
        f"{tally.calls_per_second(now):.1f}/s" if tally.calls or not (tally.batches or gauges.batches) else "",
        f"{compact(tally.input_tokens)} in {compact(tally.output_tokens)} out" if tally.input_tokens else "",
        tally.cost() if tally.priced or tally.unpriced else "",
        f"{gauges.in_flight}/{gauges.concurrency} in flight" if gauges.concurrency else "",
        f"waiting: {gauges.waiting}" if gauges.waiting else "",
    ]
    return "  ".join(part for part in parts if part)

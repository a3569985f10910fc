"""Long operations report their progress; short ones report nothing."""

from __future__ import annotations

from bioforge.core.progress import EVERY, ProgressCounter


def test_a_line_every_few_seconds_after_the_first() -> None:
    lines: list[str] = []
    now = 0.0
    counter = ProgressCounter("reading the input", "rows", lines.append, clock=lambda: now)
    counter.add(1000)
    now = EVERY - 0.1
    counter.add(1000)
    assert lines == []
    now = EVERY
    counter.add(500)
    now = EVERY + 1
    counter.add(500)
    assert lines == ["reading the input: 2,500 rows so far"]
    now = 2 * EVERY
    counter.add(1)
    assert lines[1:] == ["reading the input: 3,001 rows so far"]


def test_items_are_yielded_and_the_clock_is_checked_once_per_chunk() -> None:
    lines: list[str] = []
    ticks = iter(range(0, 1000, 10))
    counter = ProgressCounter("planning", "targets", lines.append, clock=lambda: float(next(ticks)))
    assert list(counter.over(range(25), chunk=10)) == list(range(25))
    assert lines == ["planning: 10 targets so far", "planning: 20 targets so far"]

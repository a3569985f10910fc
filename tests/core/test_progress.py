"""What takes long says how far it is; what does not says nothing."""

from __future__ import annotations

from bioforge.core.progress import EVERY, ProgressCounter


def test_nothing_in_the_first_seconds_and_then_a_line_now_and_then() -> None:
    said: list[str] = []
    now = 0.0
    counter = ProgressCounter("reading the input", "rows", said.append, clock=lambda: now)
    counter.add(1000)
    now = EVERY - 0.1
    counter.add(1000)
    assert said == []
    now = EVERY
    counter.add(500)
    now = EVERY + 1
    counter.add(500)
    assert said == ["reading the input: 2,500 rows so far"]
    now = 2 * EVERY
    counter.add(1)
    assert said[1:] == ["reading the input: 3,001 rows so far"]


def test_things_pass_through_and_time_is_looked_at_now_and_then() -> None:
    said: list[str] = []
    ticks = iter(range(0, 1000, 10))
    counter = ProgressCounter("planning", "targets", said.append, clock=lambda: float(next(ticks)))
    assert list(counter.over(range(25), at_a_time=10)) == list(range(25))
    assert said == ["planning: 10 targets so far", "planning: 20 targets so far"]

"""The time limit of a validation: a pattern or a model's own code must not hold up a run without end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from time import monotonic
from types import FrameType
from typing import TypeVar

Argument = TypeVar("Argument")
Result = TypeVar("Result")

SECONDS = 10.0

_AGAIN = 0.1
"""Seconds until code that caught `TimedOut` is interrupted again."""

_interrupts: list[BaseException] = []
"""Interrupts of the validation that the main thread is at; other threads have none."""


class TimedOut(BaseException):
    """A validation takes too long. No `Exception`, because a model's code may catch those."""


def limited(function: Callable[[Argument], Result], argument: Argument) -> Result:
    """Return `function(argument)`. Raises `TimedOut` after `SECONDS`, but only in the main thread."""
    if current_thread() is not main_thread():
        return function(argument)
    _interrupts.clear()
    with _timer():
        result = function(argument)
    if _interrupts:
        raise _interrupts[0]
    return result


def interruptible(function: Callable[[Argument], Result]) -> Callable[[Argument], Result]:
    """Return the function for a caller that takes every exception for a verdict: `limited` raises its interrupts."""

    def call(argument: Argument) -> Result:
        if _interrupts and current_thread() is main_thread():
            raise _interrupts[0]
        try:
            return function(argument)
        except BaseException as error:
            _interrupts.append(error)
            raise

    return call


@contextmanager
def _timer() -> Iterator[None]:
    """Raise `TimedOut` after `SECONDS`. Nothing is limited where the timer is used already, or does not exist (Windows)."""
    previous = signal.getsignal(signal.SIGALRM) if hasattr(signal, "setitimer") else None
    if previous is None or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return
    running, end = True, monotonic() + SECONDS

    def expire(number: int, frame: FrameType | None) -> None:
        if monotonic() < end:  # an alarm from elsewhere
            if callable(previous):
                previous(number, frame)
            elif previous is signal.SIG_DFL:
                signal.signal(number, previous)
                signal.raise_signal(number)
        elif running:
            _interrupts.append(TimedOut())
            raise _interrupts[-1]

    signal.signal(signal.SIGALRM, expire)
    try:
        signal.setitimer(signal.ITIMER_REAL, SECONDS, _AGAIN)
        yield
    finally:
        running = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)

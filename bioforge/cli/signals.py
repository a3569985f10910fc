"""Signals and the deadline of a run: stop sending, wait for the requests in flight, and leave."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from bioforge.core.errors import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from bioforge.cli.run_console import ConsoleObserver
    from bioforge.core.interfaces import Stop

_ALWAYS = ("SIGINT", "SIGTERM")
_UNLESS_IGNORED = ("SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGXCPU")
"""Signals that would end the process at once: a closed terminal, Ctrl-\\, a scheduler before its time limit, `timeout`."""


@contextmanager
def handling(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle every signal by which people and schedulers end a command.

    Signals that are ignored (`nohup`) or have a handler already are left alone, except for Ctrl-C and SIGTERM.
    """
    previous = {}
    for name in (*_ALWAYS, *_UNLESS_IGNORED):
        number = getattr(signal, name, None)  # Windows has few of them
        if number is not None and (name in _ALWAYS or signal.getsignal(number) in (signal.SIG_DFL, interrupt)):
            previous[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal like Ctrl-C."""
    raise KeyboardInterrupt


@contextmanager
def drain_on_signals(stop: Stop, observer: ConsoleObserver) -> Iterator[None]:
    """Let a signal drain the run first, and a second one leave. Without requests in flight it ends the command."""
    from bioforge.cli.errors import echo

    def handle(number: int, frame: FrameType | None) -> None:
        if not observer.in_flight:
            raise KeyboardInterrupt
        level = stop.raise_level()
        if level == 1:
            echo(observer.stopping())
        elif level == 2:
            echo("leaving now: requests in flight may have been charged and are recorded as maybe paid")
        else:
            os._exit(EXIT_INTERRUPTED)

    with handling(handle):
        yield


@contextmanager
def drain_at(stop: Stop, seconds: float | None) -> Iterator[None]:
    """Drain the run at the deadline: send nothing new, wait for requests in flight. Time asleep counts too."""
    if seconds is None:
        yield
        return
    import time
    from threading import Event, Thread

    end, done = time.time() + seconds, Event()

    def watch() -> None:
        while (left := end - time.time()) > 0:
            if done.wait(min(left, 1.0)):
                return
        stop.raise_level("deadline")

    Thread(target=watch, name="bioforge-deadline", daemon=True).start()
    try:
        yield
    finally:
        done.set()

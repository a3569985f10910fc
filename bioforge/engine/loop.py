"""The loop: a backend turns requests into events, and each group is recorded before the backend goes on.

A run feeds it with stale targets (`bioforge.engine.execute`), the library with calls (`bioforge.api.worker`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Protocol

from bioforge.core.errors import NoSpaceError, StateMovedError
from bioforge.core.events import Event, Started, Stopped
from bioforge.core.interfaces import Backend, Gauges, Step, Work, run_inline

FAILURES = "failures"
"""Stop reason: the run reached its limit of failed targets."""

FULL = "full"
"""Stop reason: the state cannot grow any more."""

MOVED = "moved"
"""Stop reason: the state was moved, deleted or replaced."""


class EventRecorder(Protocol):
    """Keeps events: `bioforge.store.recorder.Recorder`, or `NullRecorder`."""

    def record(self, events: Sequence[Event], commit: Callable[[Step], None]) -> None:
        """Make a group durable; `commit` runs the step that writes. Raises `NoSpaceError` when the disk is full."""

    def record_validated(self, events: Sequence[Event], commit: Callable[[Step], None]) -> None:
        """Record the validation of answers that were held back."""

    def free_space(self) -> bool:
        """Free the disk space that was reserved for answers. Return False if there was none."""

    def check_place(self) -> None:
        """Raise `StateMovedError`, once, if the state was moved, deleted or replaced."""

    def secure(self) -> str:
        """Save what a moved, deleted or replaced state holds, and return a sentence that names the file."""

    def close(self) -> None: ...


class EventFollowUp(Protocol):
    """Decides what events lead to. `stopped` says why it ended the work, or None."""

    stopped: Stopped | None

    def hold(self, events: Sequence[Event]) -> Sequence[Event]:
        """Return the events to record before `check`: answers to validate are held back. The same list without any."""

    def check(self, events: Sequence[Event]) -> Sequence[Event]:
        """Return the events, recorded as received, with their answers validated."""

    def apply(self, events: Sequence[Event]) -> Sequence[Event]:
        """Act on recorded events. Return them with `followed` set where a retry replaces the failure."""


class GroupObserver(Protocol):
    """Sees each group after it is durable."""

    def show(self, events: Sequence[Event], gauges: Gauges) -> None: ...


class NullRecorder:
    """Keeps nothing: for work without a state."""

    def record(self, events: Sequence[Event], commit: Callable[[Step], None] = run_inline) -> None:
        pass

    record_validated = record

    def free_space(self) -> bool:
        return False

    def check_place(self) -> None:
        pass

    def secure(self) -> str:
        return ""

    def close(self) -> None:
        pass


def build(
    backend: Backend, work: Work, recorder: EventRecorder, follow_up: EventFollowUp, observer: GroupObserver
) -> Stopped | None:
    """Execute the work and record everything that comes back. Return why it stopped early, or None."""
    stopped: Stopped | None = None
    full: NoSpaceError | None = None
    moved: StateMovedError | None = None

    def check_place() -> None:
        nonlocal moved
        try:
            recorder.check_place()
        except StateMovedError as error:  # the open file still takes what is in flight
            moved = error
            work.control.stop.raise_level(MOVED)

    # closed at once when recording fails: nothing more may be sent that could not be kept
    with closing(recorder), closing(_Groups(backend.execute(work))) as groups:
        for received in groups:
            events: Sequence[Event] = [event for event in received if not _repeats_our_stop(event)]
            held = follow_up.hold(events)
            check_place()
            try:
                if events:
                    recorder.record(held, work.control.commit)
            except NoSpaceError as error:
                outcomes: list[Event] = [event for event in held if not isinstance(event, Started)]
                if len(outcomes) < len(events) and not work.control.cancels_unsent:
                    raise
                full = _stop_full(recorder, work, error)
                recorder.record(events := outcomes, work.control.commit)
            if full is None:
                try:
                    unvalidated = held is not events
                    events = follow_up.check(events)
                    if unvalidated:
                        recorder.record_validated(events, work.control.commit)
                    events = follow_up.apply(events)
                except NoSpaceError as error:  # the next plan finds what these events lead to
                    full = _stop_full(recorder, work, error)
            observer.show(events, work.control.gauges)
            stopped = next((event for event in events if isinstance(event, Stopped)), stopped)
        check_place()
    if moved is not None:
        raise StateMovedError(f"{moved.message}; nothing more was sent", recorder.secure())
    if full is not None:
        raise NoSpaceError(f"{full.message}; calls in flight were awaited and kept", full.hint)
    if stopped is None and follow_up.stopped is not None:
        stopped = follow_up.stopped
        observer.show([stopped], work.control.gauges)
    return stopped


def _stop_full(recorder: EventRecorder, work: Work, error: NoSpaceError) -> NoSpaceError:
    """Stop sending on a full disk and free the reserved space for answers in flight. Raise if none was reserved."""
    if not recorder.free_space():
        raise error
    work.control.stop.raise_level(FULL)
    return error


def _repeats_our_stop(event: Event) -> bool:
    """Return whether a backend only reports a stop that the loop or its follow-up asked for."""
    return isinstance(event, Stopped) and event.kind in (FAILURES, FULL, MOVED)


class _Groups(Iterator[Sequence[Event]]):
    """An iterator of groups with a `close`, so that plain iterators of plugins work too."""

    def __init__(self, groups: Iterator[Sequence[Event]]) -> None:
        self._groups = groups

    def __next__(self) -> Sequence[Event]:
        return next(self._groups)

    def close(self) -> None:
        close = getattr(self._groups, "close", None)
        if close is not None:
            close()

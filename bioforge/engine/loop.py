"""The loop: a backend turns requests into events, and each group is durable before the next step is taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Protocol

from bioforge.core.errors import NoSpaceError
from bioforge.core.events import Event, Started, Stopped
from bioforge.core.interfaces import Backend, Gauges, Work
from bioforge.engine.followup import FAILURES, FollowUp
from bioforge.store import Store
from bioforge.store.recorder import Recorder

FULL = "full"
"""Why a run is stopped whose state cannot grow any more."""


class GroupObserver(Protocol):
    """Sees each group after it is durable."""

    def show(self, events: Sequence[Event], gauges: Gauges) -> None: ...


def build(
    store: Store,
    run: int,
    backend: Backend,
    name: str,
    provider: str,
    work: Work,
    watcher: GroupObserver,
    aftermath: FollowUp,
) -> Stopped | None:
    """Execute the work and keep everything that comes back. Returns why it stopped early, or None."""
    recorder = Recorder(store, run, name, provider)
    stopped: Stopped | None = None
    full: NoSpaceError | None = None
    # closed at once when recording fails: nothing more may be sent that could not be kept
    with closing(recorder), closing(_Groups(backend.execute(work))) as groups:
        for received in groups:
            events: Sequence[Event] = [event for event in aftermath.check(received) if not _says_what_is_known(event)]
            try:
                if events:
                    recorder.record(events, work.meanwhile)
            except NoSpaceError as error:
                outcomes: list[Event] = [event for event in events if not isinstance(event, Started)]
                if len(outcomes) < len(events) and not work.withdraws:
                    raise
                full = _made_room(store, work, error)
                recorder.record(events := outcomes, work.meanwhile)
            if full is None:
                try:
                    events = aftermath.follow(events)
                except NoSpaceError as error:  # what they lead to is found by the next plan
                    full = _made_room(store, work, error)
            watcher.show(events, work.gauges)
            stopped = next((event for event in events if isinstance(event, Stopped)), stopped)
    if full is not None:
        raise NoSpaceError(f"{full.message}; what was in flight was awaited and kept", full.hint)
    if stopped is None and aftermath.stopped is not None:
        stopped = aftermath.stopped
        watcher.show([stopped], work.gauges)
    return stopped


def _made_room(store: Store, work: Work, error: NoSpaceError) -> NoSpaceError:
    """The disk is full: nothing more is sent, and what is in flight is awaited, since there is room for that now."""
    if not store.free_room():
        raise error
    work.stop.raise_level(FULL)
    return error


def _says_what_is_known(event: Event) -> bool:
    """Whether a backend only reports that it was stopped as it was told to."""
    return isinstance(event, Stopped) and event.kind in (FAILURES, FULL)


class _Groups(Iterator[Sequence[Event]]):
    """Any iterator of groups with a `close`, so that plain iterators of plugins work too."""

    def __init__(self, groups: Iterator[Sequence[Event]]) -> None:
        self._groups = groups

    def __next__(self) -> Sequence[Event]:
        return next(self._groups)

    def close(self) -> None:
        close = getattr(self._groups, "close", None)
        if close is not None:
            close()

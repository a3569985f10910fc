"""The loop: stale targets become requests, a backend turns them into events, and each group is durable before the
next step is taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Protocol

from bioforge.errors import BioforgeError
from bioforge.estimate import Estimator, output_limit
from bioforge.events import Event, Stopped
from bioforge.interfaces import Backend, Gauges, Work
from bioforge.model import Request
from bioforge.plan import FORCED
from bioforge.prompts import Prompts, RenderError
from bioforge.refresh import render
from bioforge.store import Selection, Store, targets
from bioforge.store.record import Recorder


class Watcher(Protocol):
    """Sees each group after it is durable."""

    def show(self, events: Sequence[Event], gauges: Gauges) -> None: ...


def requests(
    store: Store,
    recipes: Mapping[tuple[str, str], Prompts],
    backend: Backend,
    estimator: Estimator,
    selection: Selection,
    *,
    ask_again_maybe_paid: bool,
    fresh_too: bool = False,
    waiting_only: bool = False,
) -> Iterator[Request]:
    """The requests of the selected stale targets, each different one once, rendered as they are asked for."""
    for item in targets.pending(
        store,
        selection,
        ask_again_maybe_paid=ask_again_maybe_paid,
        fresh_too=fresh_too,
        waiting_only=waiting_only,
    ):
        prompts = recipes[item.recipe, item.variant]
        try:
            digest, body, _ = render(prompts, backend, item.artist)
        except RenderError:
            digest, body = "", b""
        if digest != item.request_hash:
            raise BioforgeError(
                f"artist {item.artist.artist_id}: recipe {item.recipe!r} renders differently from what was planned",
                "a template must give the same text each time; nothing was sent for this artist",
            )
        definition = prompts.definition
        yield Request(
            request_hash=digest,
            endpoint=definition.endpoint,
            model=definition.model or "",
            body=body,
            artist_id=item.artist.artist_id,
            recipe=item.recipe,
            variant=item.variant,
            target=item.target,
            reason=item.reason or FORCED,
            input_tokens=item.input_tokens,
            output_tokens=estimator.output_tokens(item.recipe),
            max_output_tokens=output_limit(definition.parameters),
            attempts=item.attempts,
        )


def build(
    store: Store, run: int, backend: Backend, name: str, provider: str, work: Work, watcher: Watcher
) -> Stopped | None:
    """Execute the work and keep everything that comes back. Returns why it stopped early, or None."""
    recorder = Recorder(store, run, name, provider)
    stopped: Stopped | None = None
    # closed at once when recording fails: nothing more may be sent that could not be kept
    with closing(recorder), closing(_Groups(backend.execute(work))) as groups:
        for events in groups:
            if events:
                recorder.record(events)
            watcher.show(events, work.gauges)
            stopped = next((event for event in events if isinstance(event, Stopped)), stopped)
    return stopped


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

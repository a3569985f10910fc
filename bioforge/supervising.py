"""Backends of plugins at work: what they report is checked before it is kept, so that a slip of theirs loses no answer.

An answer that comes without having been announced was paid for all the same: it is kept, and then the run stops.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import get_args

from bioforge.errors import BioforgeError, StoppedError
from bioforge.events import Event, Failed, Launch, Started, Succeeded, Unusable
from bioforge.model import Answer, Failure

_KINDS = get_args(Event)
_HINT = "what was recorded is kept, and `bioforge resume` goes on; BIOFORGE_DEBUG=1 shows where the plugin went wrong"


def supervised(groups: Iterator[Sequence[Event]], backend: str, plugin: str) -> Iterator[Sequence[Event]]:
    """The groups of a plugin's backend. Raises `StoppedError` that names it for whatever it does wrong, after what it had
    reported by then."""
    who = f"backend {backend!r} of plugin {plugin!r}"
    check = _Check()
    try:
        for group in groups:
            events, wrong = check(group)
            yield from _in_order(events)
            if wrong:
                raise StoppedError(f"{who} {wrong}", _HINT)
    except (BioforgeError, GeneratorExit):
        raise
    except Exception as error:
        raise StoppedError(f"{who} failed: {type(error).__name__}: {error}", _HINT) from error
    finally:
        close = getattr(groups, "close", None)
        if close is not None:
            close()


def _in_order(events: Sequence[Event]) -> Iterator[list[Event]]:
    """In groups in which no attempt both begins and ends: what begins has to be recorded before it can end."""
    group: list[Event] = []
    begun: set[str] = set()
    for event in events:
        match event:
            case Started(launch):
                begun.add(launch.client_request_id)
            case Succeeded(launch) | Unusable(launch) | Failed(launch) if launch.client_request_id in begun:
                yield group
                group, begun = [], set()
        group.append(event)
    if group:
        yield group


class _Check:
    """What has been announced and has not ended, over all groups."""

    def __init__(self) -> None:
        self._open: set[str] = set()

    def __call__(self, group: Sequence[Event]) -> tuple[list[Event], str]:
        """The events that can be kept, and the first thing that is wrong."""
        events: list[Event] = []
        wrong = ""
        if not isinstance(group, list | tuple):
            return [], f"yielded {type(group).__name__}, expected a list of events"
        for event in group:
            kept, flaw = self._event(event)
            events += kept
            wrong = wrong or flaw
        return events, wrong

    def _event(self, event: Event) -> tuple[list[Event], str]:
        match event:
            case Started(launch):
                if launch.client_request_id in self._open:
                    return [], f"announced attempt {launch.client_request_id!r} twice"
                if launch.batch is None:
                    self._open.add(launch.client_request_id)
                return [event], ""
            case Succeeded(launch, answer) | Unusable(launch, answer):
                if not isinstance(answer, Answer) or not isinstance(answer.body, bytes):
                    return [], f"gave an answer that is none: {type(answer).__name__}"
                if isinstance(event, Succeeded) and answer.problem is not None:
                    return self._ended(launch, Unusable(launch, answer, event.seconds, event.request_id))
                if isinstance(event, Unusable) and answer.problem is None:
                    problem = Failure("unusable", "the backend did not say why")
                    event = replace(event, answer=replace(answer, problem=problem))
                return self._ended(launch, event)
            case Failed(launch):
                return self._ended(launch, event)
        return (
            ([event], "") if isinstance(event, _KINDS) else ([], f"yielded {type(event).__name__}, which is no event")
        )

    def _ended(self, launch: Launch, event: Event) -> tuple[list[Event], str]:
        name = launch.client_request_id
        if launch.batch is not None or launch.attempt:
            return [event], ""
        if name in self._open:
            self._open.discard(name)
            return [event], ""
        if isinstance(event, Failed):
            return [], f"ended attempt {name!r}, which is not under way"
        # paid for: kept, whatever else is wrong with it
        return [Started(launch), event], f"answered attempt {name!r}, which it had not announced"

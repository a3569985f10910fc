"""Validate answers against the schema of their recipe. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from bioforge.core.events import Event, Succeeded, Unusable
from bioforge.core.reasons import SCHEMA
from bioforge.core.types import NOT_VALIDATED, Failure, Response
from bioforge.recipes.schema import Invalid, Schema, Valid


def checked(answer: Response, schema: Schema, verdict: Valid | Invalid | None = None) -> Response:
    """Return the answer with its parsed data, or with its schema error; an unusable answer is returned unchanged.

    `verdict`: the result of an earlier validation of its text.
    """
    if answer.problem is not None:
        return answer
    if verdict is None:
        verdict = schema.validate(answer.text or "")
    if isinstance(verdict, Valid):
        return replace(answer, parsed=as_text(verdict), validation=schema.validation_hash)
    return replace(answer, problem=Failure(SCHEMA, complaint(verdict, schema)), validation=schema.validation_hash)


def hold_back(events: Sequence[Event], which: Callable[[Succeeded], bool]) -> Sequence[Event]:
    """Return the events with these answers paid, kept and not usable until they are validated; the same list without any."""
    held: list[Event] = [
        Unusable(event.attempt, replace(event.answer, problem=NOT_VALIDATED), event.seconds, event.request_id)
        if isinstance(event, Succeeded) and which(event)
        else event
        for event in events
    ]
    return held if any(one is not other for one, other in zip(held, events, strict=True)) else events


def as_text(verdict: Valid) -> str:
    """Return the parsed answer as readable JSON, as stored and exported."""
    return json.dumps(verdict.parsed, ensure_ascii=False)


def complaint(verdict: Invalid, schema: Schema) -> str:
    """Return schema, path and error in one line, and the number of further errors."""
    return f"{schema.source}: {verdict.summary()}"

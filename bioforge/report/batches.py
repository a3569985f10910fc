"""Format batches: log lines of their progress, and lines below the bar for open ones. Pure: times are arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from bioforge.core.events import BatchCollected
from bioforge.core.interfaces import Gauges
from bioforge.core.text import duration, money, printable
from bioforge.core.types import CLOSED, ENDED, Batch, BatchProblem, BatchState

SHOWN_BATCHES = 8
"""Open batches with their own line below the bar; the rest are counted."""

SHOWN_PROBLEMS = 3
"""Problems shown of a refused batch: often every line has the same one."""

SOON = 7200.0
"""Seconds before its expiry at which a batch line shows it."""

CLASSES = (
    "answered",
    "unusable",
    "failed",
    "rejected",
    "expired",
    "cancelled",
    "missing",
    "duplicated",
    "unknown",
    "unreadable",
)
"""Outcomes of a batch member, in display order."""

Fields = dict[str, object]


# ------------------------------------------------------------------------------------------------------ log lines


def title(batch: Batch) -> str:
    """Return `batch in progress`; empty for states that are not logged here."""
    return "" if batch.state in (BatchState.PREPARING, BatchState.COLLECTED) else f"batch {batch.state}"


def changed_fields(batch: Batch, note: str) -> Fields:
    """Return the console fields of a batch in its new state."""
    fields: Fields = {"batch": batch.name}
    match batch.state:
        case BatchState.PREPARED:
            fields |= {
                "requests": batch.requests,
                "size": megabytes(batch.bytes),
                "tokens": batch.input_tokens,
                "estimated_cost": money(batch.estimated_usd),
            }
        case BatchState.SUBMITTED:
            fields |= {"key": batch.key, "requests": batch.requests}
        case BatchState.IN_PROGRESS:
            fields["done"] = progress(batch, "")
        case _ if batch.state in ENDED:
            fields["done"] = progress(batch, "")
            if batch.failed:
                fields["failed"] = batch.failed
            if batch.submitted_at is not None and batch.ended_at is not None:
                fields["took"] = _seconds(batch.ended_at - batch.submitted_at)
            if batch.problems:
                fields["problems"] = len(batch.problems)
    return fields | ({"note": note} if note else {})


def changed_json_fields(batch: Batch, note: str) -> Fields:
    """Return all fields of a batch for JSON logs; times in ISO 8601."""
    fields: Fields = {
        **_identity(batch),
        "status": batch.status,
        "requests": batch.requests,
        "completed": batch.completed,
        "failed": batch.failed,
        "bytes": batch.bytes,
        "input_tokens": batch.input_tokens,
        "estimated_usd": batch.estimated_usd,
        "file_id": batch.file_id,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "submitted_at": _iso(batch.submitted_at),
        "expires_at": _iso(batch.expires_at),
        "ended_at": _iso(batch.ended_at),
        "problems": len(batch.problems) or None,
        "note": note or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def refused_fields(batch: Batch, problem: BatchProblem) -> Fields:
    return {"batch": batch.name, **_problem(problem)}


def refused_json_fields(batch: Batch, problem: BatchProblem) -> Fields:
    return {**_identity(batch), **_problem(problem)}


def _problem(problem: BatchProblem) -> Fields:
    line: Fields = {} if problem.line is None else {"line": problem.line}
    return {"code": problem.code, **line, "message": problem.message}


def collected_fields(event: BatchCollected) -> Fields:
    return {"batch": event.batch.name, **counts(event)}


def collected_json_fields(event: BatchCollected) -> Fields:
    return {
        **_identity(event.batch),
        "state": str(BatchState.COLLECTED),
        "requests": event.batch.requests,
        **counts(event),
        "input_tokens": event.usage.input_tokens,
        "output_tokens": event.usage.output_tokens,
    }


def counts(event: BatchCollected) -> dict[str, int]:
    """Return counts by class in a fixed order, without zeros."""
    known = {name: event.counts.get(name, 0) for name in CLASSES}
    return {name.replace(" ", "_"): count for name, count in {**known, **event.counts}.items() if count}


def _identity(batch: Batch) -> Fields:
    identity: Fields = {"batch": batch.key}
    if batch.batch_id is not None:
        identity["batch_id"] = batch.batch_id
    return identity | {"state": str(batch.state), "endpoint": batch.endpoint, "model": batch.model}


# -------------------------------------------------------------------------------------------- while batches are open


def open_batches(gauges: Gauges) -> list[Batch]:
    return [batch for batch in gauges.batches if batch.state not in CLOSED]


def sums(batches: Sequence[Batch]) -> str:
    """Return `2 open 31,204/100,000`, as the provider counts; empty if none is open."""
    if not batches:
        return ""
    done = sum(batch.completed + batch.failed for batch in batches)
    return f"{len(batches):,} open {done:,}/{sum(batch.requests for batch in batches):,}"


def progress_fields(batches: Sequence[Batch]) -> list[Fields]:
    return [
        {
            "batch": batch.key,
            "batch_id": batch.batch_id,
            "state": str(batch.state),
            "requests": batch.requests,
            "completed": batch.completed,
            "failed": batch.failed,
        }
        for batch in batches
    ]


def screen_lines(gauges: Gauges, wall: float) -> list[str]:
    """Return a line for each open batch, and the time of the next poll. `wall` in seconds since 1970."""
    batches = open_batches(gauges)
    if not batches:
        return []
    rows = [_columns(batch, wall) for batch in batches[:SHOWN_BATCHES]]
    widths = [max(map(len, column)) for column in zip(*(row[:3] for row in rows), strict=True)]
    lines = []
    for name, state, done, rest in rows:
        line = f"{name:<{widths[0]}}  {state:<{widths[1]}}  {done:>{widths[2]}}  {rest}"
        lines.append(line.rstrip())
    if len(batches) > SHOWN_BATCHES:
        lines.append(f"… and {len(batches) - SHOWN_BATCHES:,} more")
    if gauges.look_at is not None:
        seconds = gauges.look_at - wall
        lines.append(f"next poll in {_seconds(math.ceil(seconds))}" if seconds > 0 else "polling now")
    return lines


def format_state(batch: Batch) -> str:
    """Return its state, or the provider's status if that is more precise: validating, finalizing, cancelling."""
    if batch.status and batch.state in (BatchState.SUBMITTED, BatchState.IN_PROGRESS):
        return printable(batch.status).replace("_", " ").lower()
    return str(batch.state)


def progress(batch: Batch, separator: str = ",") -> str:
    """Return `31,204/50,000`: finished requests, as the provider counts."""
    return f"{batch.completed + batch.failed:{separator}}/{batch.requests:{separator}}"


def megabytes(size: int) -> str:
    """Return `12.3 MB`, `0.002 MB`."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e6:.3f} MB"


def _columns(batch: Batch, wall: float) -> tuple[str, str, str, str]:
    parts = [f"{batch.failed:,} failed" if batch.failed else ""]
    if batch.submitted_at is not None:
        parts.append(f"submitted {_seconds(wall - batch.submitted_at)} ago")
    if batch.expires_at is not None and not batch.ended and batch.expires_at - wall <= SOON:
        ahead = batch.expires_at - wall
        parts.append(f"expires in {_seconds(ahead)}" if ahead > 0 else "past its expiry")
    return printable(batch.name), format_state(batch), progress(batch), "  ".join(filter(None, parts))


def _seconds(seconds: float) -> str:
    """Format like `duration`, in whole seconds, so that a redrawn line does not flicker."""
    whole = max(0, math.floor(seconds))
    return f"{whole} s" if whole < 60 else duration(whole)


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):  # out of the calendar's range
        return str(seconds)

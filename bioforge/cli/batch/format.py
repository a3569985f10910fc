"""Batches as lines, as a table, and as JSON records with the keys of the API."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bioforge.backends.batch import service
from bioforge.cli.format import format_age, format_time, shorten
from bioforge.core.text import money, plural, printable
from bioforge.core.types import Batch, BatchState
from bioforge.report.console import PLAIN, Screen, table

LONGEST = 32
"""Characters to show of a metadata value, which may be a digest."""


def record(job: Mapping[str, Any], batch: Batch, cost_usd: float | None) -> dict[str, object]:
    """Return the record for `--format json`. Times are seconds since 1970; `state` is one of five words of all providers."""
    metadata = job.get("metadata")
    return {
        "id": batch.batch_id,
        "status": batch.status,
        "state": service.status(batch),
        "endpoint": batch.endpoint or None,
        "model": batch.model or None,
        "created_at": _whole(batch.submitted_at),
        "in_progress_at": job.get("in_progress_at"),
        "ended_at": _whole(batch.ended_at),
        "expires_at": _whole(batch.expires_at),
        "request_counts": {"total": batch.requests, "completed": batch.completed, "failed": batch.failed},
        "usage": None if batch.usage is None else asdict(batch.usage),
        "cost_usd": cost_usd,
        "input_file_id": batch.file_id,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "errors": [asdict(problem) for problem in batch.problems],
        "metadata": metadata if isinstance(metadata, dict) else {},
    }


def lines(
    job: Mapping[str, Any], batch: Batch, cost_usd: float | None, simulated: bool, screen: Screen = PLAIN
) -> Iterator[str]:
    """Yield the details of one batch."""
    yield f"{printable(batch.name)}: {printable(batch.status or 'unknown')}"
    usage = batch.usage
    tokens = "-"
    if usage is not None and (usage.input_tokens or usage.output_tokens):
        cached = f" ({usage.cached_tokens:,} cached)" if usage.cached_tokens else ""
        price = "" if cost_usd is None else f", {money(cost_usd)}{' (simulated: nothing was charged)' * simulated}"
        tokens = f"{usage.input_tokens:,} input{cached} + {usage.output_tokens:,} output tokens{price}"
    began = job.get("in_progress_at")
    rows = [
        ["model", batch.model or "-"],
        ["endpoint", batch.endpoint or "-"],
        ["created", _format_moment(batch.submitted_at)],
        ["in progress", _format_moment(began if isinstance(began, int | float) else None)],
        ["ended" if batch.ended else "expires", _format_moment(batch.ended_at if batch.ended else batch.expires_at)],
        ["requests", f"{batch.requests:,}: {batch.completed:,} answered, {batch.failed:,} failed"],
        ["usage", tokens],
        ["input file", batch.file_id or "-"],
        ["output file", batch.output_file_id or "-"],
        ["error file", batch.error_file_id or "-"],
    ]
    metadata = job.get("metadata")
    if isinstance(metadata, dict) and metadata:
        rows.append(
            ["metadata", ", ".join(f"{name}={shorten(str(value), LONGEST)}" for name, value in metadata.items())]
        )
    yield from table([[name, printable(value)] for name, value in rows], indent="  ", screen=screen)
    if batch.problems:
        yield f"  {plural(len(batch.problems), 'error')}:"
        for problem in batch.problems:
            place = "" if problem.line is None else f"line {problem.line}: "
            yield f"    {place}{printable(problem.code)}: {printable(problem.message)}"


def _whole(seconds: float | None) -> float | None:
    """Return whole seconds as int, like the API."""
    return int(seconds) if seconds is not None and seconds.is_integer() else seconds


def table_lines(batches: Sequence[Batch], screen: Screen = PLAIN) -> Iterator[str]:
    """Yield a table of batches with the provider's counts."""
    rows = [
        [
            printable(batch.name),
            printable(batch.status or "-"),
            format_age(batch.submitted_at),
            printable(batch.model or "-"),
            f"{batch.requests:,}",
            f"{batch.completed:,}",
            f"{batch.failed:,}",
            "yes" if batch.output_file_id or batch.error_file_id else "-",
        ]
        for batch in batches
    ]
    heads = ["batch", "status", "created", "model", "requests", "answered", "failed", "results"]
    yield from table([heads, *rows], right=(4, 5, 6), screen=screen, drop=(7, 3, 2))


def _format_moment(seconds: float | None) -> str:
    """Return local time, and its distance from now."""
    if seconds is None:
        return "-"
    left = seconds - time.time()
    if left < 0:
        return f"{format_time(seconds)} ({format_age(seconds)})"
    # rounded to the unit that `format_age` uses for as much time
    return f"{format_time(seconds)} (in {format_age(time.time() - left).removesuffix(' ago')})"


def is_over(batch: Batch) -> str:
    """Return the state of an ended batch as a clause."""
    return {
        BatchState.COMPLETED: "it is completed",
        BatchState.FAILED: "it failed",
        BatchState.EXPIRED: "it has expired",
        BatchState.CANCELLED: "it is cancelled",
    }[batch.state]

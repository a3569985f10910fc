"""Result files of a batch: saved side by side, and counted by outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bioforge.backends.batch.service import CallError
from bioforge.cli.batch.provider import Jobs
from bioforge.core.text import money, plural
from bioforge.core.types import Batch


@dataclass(slots=True)
class Saved:
    """A result file on disk. `fetched` is False if it existed already."""

    path: Path
    fetched: bool
    lines: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    cost_usd: float = 0.0
    priced: int = 0
    unpriced: int = 0


def default_path(batch: Batch) -> Path:
    return Path(f"results_{batch.batch_id}.jsonl")


def errors_path(path: Path) -> Path:
    """Return `results_1.errors.jsonl` for `results_1.jsonl`."""
    return path.with_name(f"{path.stem}.errors{path.suffix or '.jsonl'}")


def save(jobs: Jobs, batch: Batch, path: Path) -> list[Saved]:
    """Save the files of an ended batch, each atomically."""
    wanted = [(batch.output_file_id, path), (batch.error_file_id, errors_path(path))]
    saved = [_saved(jobs, file_id, place) for file_id, place in wanted if file_id is not None]
    names: set[str] = set()
    for one in saved:
        _count(jobs, batch, one, names)
    return saved


def _saved(jobs: Jobs, file_id: str, path: Path) -> Saved:
    if path.is_file() and path.stat().st_size == _size(jobs, file_id):
        return Saved(path, fetched=False)
    jobs.download(file_id, path)
    return Saved(path, fetched=True)


def _size(jobs: Jobs, file_id: str) -> int | None:
    try:
        return jobs.file_bytes(file_id)
    except CallError as error:
        if error.failure.http_status != 404:
            raise
        return None


def _count(jobs: Jobs, batch: Batch, saved: Saved, names: set[str]) -> None:
    with saved.path.open("rb") as stream:
        for line in stream:
            if not line.strip():
                continue
            saved.lines += 1
            row = jobs.read(batch, line)
            if row.custom_id in names:
                saved.outcomes["duplicated"] += 1
                continue
            names.update(() if row.custom_id is None else (row.custom_id,))
            saved.outcomes["answered" if row.error is None else row.error.error_class] += 1
            if row.answer is not None:
                saved.cost_usd += row.answer.cost_usd or 0.0
                saved.priced += row.answer.cost_usd is not None
                saved.unpriced += row.answer.cost_usd is None


def lines(saved: list[Saved], batch: Batch, simulated: bool) -> Iterator[str]:
    """Yield what was saved, what is missing, and the cost."""
    for one in saved:
        outcomes = ", ".join(f"{number:,} {outcome}" for outcome, number in one.outcomes.most_common())
        there = "saved" if one.fetched else "exists already"
        yield f"{one.path}: {there}, {plural(one.lines, 'line')}{outcomes and f' ({outcomes})'}"
    if not saved:
        return
    found = sum(one.lines - one.outcomes["duplicated"] for one in saved)
    if found < batch.requests:
        yield f"warning: the batch counts {plural(batch.requests, 'request')}, and {plural(found, 'line')} came back"
    unpriced, priced = sum(one.unpriced for one in saved), sum(one.priced for one in saved)
    if unpriced or priced:
        more = f", {plural(unpriced, 'answer')} of unknown price" if unpriced else ""
        note = " (simulated: nothing was charged)" if simulated else ""
        yield f"cost: {money(sum(one.cost_usd for one in saved))}{more}{note}"

"""Plan files: `plan --out` writes one, `run --plan` sends exactly its requests or refuses.

JSON lines: a header `{"bioforge_plan": 1, "project": …, "targets": N, …}`, then one line for each target with
`artist_id, recipe, variant, request_hash, reason`; the hash is null if the target waits for an upstream recipe.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from bioforge import __version__
from bioforge.core.errors import InputError, PlanMismatch
from bioforge.core.files import atomic_write
from bioforge.store import Selection, Store, stale_counts, targets

FORMAT = 1
_CHUNK = 1_000


def write(path: Path, store: Store, project: str, selection: Selection, cost_usd: float | None) -> int:
    """Write the selected stale targets that a run would send; return their number."""
    number = stale_counts.sendable_targets(store, selection)
    header = {
        "bioforge_plan": FORMAT,
        "project": project,
        "targets": number,
        "cost_usd": cost_usd,
        "created": time.time(),
        "version": __version__,
    }
    with atomic_write(path) as stream:
        stream.write(json.dumps(header).encode() + b"\n")
        for target in targets.listed(store, selection, sendable=True):
            row = (target.artist_id, target.recipe, target.variant, target.request_hash, target.reason)
            stream.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    return number


def read(path: Path, store: Store, project: str) -> Iterator[int]:
    """Yield the ids of the plan's targets. Raises `PlanMismatch` if any of them differs from the plan."""
    try:
        with path.open("rb") as stream:
            header = _line(path, 1, stream.readline())
            if not isinstance(header, dict) or header.get("bioforge_plan") != FORMAT:
                raise PlanMismatch(f"{path}: not a bioforge plan", "`bioforge plan --out FILE` writes one")
            if header.get("project") != project:
                raise PlanMismatch(
                    f"{path}: planned for project {header.get('project')!r}, this is {project!r}",
                    "choose its project with -f",
                )
            seen = 0
            numbered = enumerate(stream, start=2)
            while lines := list(islice(numbered, _CHUNK)):
                rows = [_row(path, number, line) for number, line in lines]
                now = targets.by_names(store, [(row[0], row[1], row[2]) for row in rows])
                for row in rows:
                    yield _matching_id(path, row, now.get((row[0], row[1], row[2])))
                seen += len(rows)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}", "`bioforge plan --out FILE` writes a plan"
        ) from None
    if header.get("targets") != seen:
        raise PlanMismatch(f"{path}: truncated: {seen} of {header.get('targets')} targets", "write the plan again")


def _row(path: Path, number: int, line: bytes) -> list[Any]:
    row = _line(path, number, line)
    if isinstance(row, list) and len(row) == 5:
        # without a hash: it waits for an upstream recipe
        *words, digest, reason = row
        if all(isinstance(word, str) for word in (*words, digest or "", reason)):
            return row
    raise PlanMismatch(f"{path}, line {number}: not a line of a plan", "`bioforge plan --out FILE` writes one")


def _matching_id(path: Path, row: list[Any], target: tuple[int, str | None, str | None] | None) -> int:
    artist_id, recipe, _, digest, reason = row
    if target is None:
        change = "is no longer in the input"
    elif target[1] != digest:
        change = "has another request now"
    elif target[2] is None:
        change = "has an answer now"
    elif target[2] != reason:
        change = f"was {reason} when it was planned and is now {target[2]}"
    else:
        return target[0]
    raise PlanMismatch(
        f"{path}: the plan is out of date: artist {artist_id} ({recipe}) {change}",
        "nothing was sent; write a new plan with `bioforge plan --out`",
    )


def _line(path: Path, number: int, line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        raise PlanMismatch(
            f"{path}, line {number}: not a line of a plan", "`bioforge plan --out FILE` writes one"
        ) from None

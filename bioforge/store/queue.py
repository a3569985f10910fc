"""Read stale targets in order, and their state during a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from bioforge.core.reasons import Reason, RequestState
from bioforge.core.types import Artist
from bioforge.store.database import Store
from bioforge.store.selection import Selection
from bioforge.store.targets import STALE, artist_of

_WORK_PAGE = 512


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A stale target with what is needed to render it again. `number` is the artist's id in the state.

    `follow_up` is the body of a repair or fallback request, for `follow_up_model`.
    """

    target: int
    number: int
    recipe: str
    variant: str
    request_hash: str
    reason: str | None
    detail: str | None
    input_tokens: int
    attempts: int
    artist: Artist
    follow_up: str | None = None
    follow_up_model: str | None = None


class RequestFilter(Enum):
    """Which of the selected targets are read."""

    STALE = "stale"
    EVERYTHING = "everything"
    """All of them, as if forced."""
    WAITING = "waiting"
    """Only those whose request failed in this run and waits for a retry."""


def pages(
    store: Store,
    selection: Selection,
    which: RequestFilter = RequestFilter.STALE,
    *,
    resend_maybe_paid: bool,
    among: Sequence[int] | None = None,
    untried_in: int | None = None,
) -> Iterator[list[PendingRequest]]:
    """Yield pages of stale targets in order, each distinct request once.

    Each page is read when it is needed, without what was answered since. `among`: only these targets.
    `untried_in`: without requests that this run has sent.
    """
    where, values = selection.where()
    other, other_values = selection.where("o", "b")
    wanted = (
        f"{{0}}.request_hash IS NOT NULL AND {{0}}.reason IS NOT '{Reason.IN_BATCH}'"
        f" AND {{0}}.reason IS NOT '{Reason.REMOVED}'"
    )
    if which is not RequestFilter.EVERYTHING:
        wanted += " AND {0}.reason IS NOT NULL AND {0}.held = 0"
        if not resend_maybe_paid:
            wanted += f" AND {{0}}.reason <> '{Reason.MAYBE_PAID}'"
    # whatever its targets are stale for, what is in a batch is under way
    state = (
        f"q.state = '{RequestState.WAITING}'"
        if which is RequestFilter.WAITING
        else f"q.state IS NOT '{RequestState.IN_BATCH}'"
    )
    chosen: list[object] = []
    if among is not None:
        wanted += " AND {0}.id IN (SELECT value FROM json_each(?))"
        chosen = [json.dumps(among)]
    if untried_in is not None:
        state += f" AND NOT {tried_condition('t')}"
    index = (
        "NOT INDEXED" if among is not None else "" if which is RequestFilter.EVERYTHING else "INDEXED BY targets_open"
    )
    sql = f"""
        SELECT t.id, t.artist, t.recipe, t.variant, t.request_hash, t.reason, t.detail, t.input_tokens,
               coalesce(q.attempts, 0), f.body, f.model, a.artist_id, a.artist_name, a.artist_data, a.columns
        FROM targets t {index} JOIN artists a ON a.id = t.artist
        LEFT JOIN requests q ON q.request_hash = t.request_hash
        LEFT JOIN follow_ups f ON f.request_hash = t.request_hash
        WHERE t.id > ? AND a.removed_at IS NULL AND {wanted.format("t")} AND {where} AND {state}
          AND NOT EXISTS (
            SELECT 1 FROM targets o JOIN artists b ON b.id = o.artist
            WHERE o.request_hash = t.request_hash AND o.id < t.id AND b.removed_at IS NULL
              AND {wanted.format("o")} AND {other})
        ORDER BY t.id LIMIT {_WORK_PAGE}
    """
    run = [] if untried_in is None else [untried_in]
    after = 0
    while True:
        rows = store.rows(sql, (after, *chosen, *values, *run, *chosen, *other_values))
        if not rows:
            return
        yield [_pending(*row) for row in rows]
        after = rows[-1][0]


def _pending(
    target: int,
    number: int,
    recipe: str,
    variant: str,
    digest: str,
    reason: str | None,
    detail: str | None,
    tokens: int,
    attempts: int,
    body: str | None,
    model: str | None,
    *artist: Any,
) -> PendingRequest:
    return PendingRequest(
        target, number, recipe, variant, digest, reason, detail, tokens, attempts, artist_of(artist), body, model
    )


def tried_condition(target: str) -> str:
    """Return the SQL condition that a run (a parameter) has sent a target's request."""
    # by its request: a run may have a million attempts
    return (
        "EXISTS (SELECT 1 FROM attempts x INDEXED BY attempts_by_request"
        f" WHERE x.request_hash = {target}.request_hash AND x.run IS ?)"
    )


def was_tried(store: Store, run: int | None, request_hash: str) -> bool:
    """Return True if a run has sent this request."""
    found = store.value(
        "SELECT 1 FROM attempts INDEXED BY attempts_by_request WHERE request_hash = ? AND run IS ? LIMIT 1",
        (request_hash, run),
    )
    return found is not None


@dataclass(frozen=True, slots=True)
class SharedRequest:
    """A stale target that wants a request, perhaps with others. `artist` is the artist's id in the state."""

    request_hash: str
    target: int
    recipe: str
    variant: str
    artist: int


def shared_requests(store: Store, hashes: Sequence[str]) -> list[SharedRequest]:
    """Return the stale targets that want one of these requests."""
    rows = store.rows(
        "SELECT t.request_hash, t.id, t.recipe, t.variant, t.artist FROM targets t"
        f" WHERE t.request_hash IN (SELECT value FROM json_each(?)) AND {STALE} ORDER BY t.id",
        (json.dumps(hashes),),
    )
    return [SharedRequest(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class TargetState:
    """State of a target during a run. `ready`: it can be sent, and the run has not sent it."""

    target: int
    reason: str | None
    request_hash: str | None
    ready: bool


def target_states(
    store: Store, recipe: str, variant: str, artists: Sequence[int], run: int | None
) -> dict[int, TargetState]:
    """Return the states of these artists' targets, by artist."""
    rows = store.rows(
        "SELECT t.artist, t.id, t.reason, t.request_hash, t.request_hash IS NOT NULL AND t.held = 0 AND t.reason IS NOT NULL"
        f" AND t.reason NOT IN ('{Reason.REMOVED}', '{Reason.IN_BATCH}') AND NOT {tried_condition('t')}"
        " FROM json_each(?) j CROSS JOIN targets t"
        " ON t.artist = j.value AND t.recipe = ? AND t.variant = ?",
        (run, json.dumps(artists), recipe, variant),
    )
    return {row[0]: TargetState(row[1], row[2], row[3], bool(row[4])) for row in rows}

"""Read the history of an artist for `why`: its targets, what changed, and every attempt."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from bioforge.store.database import Store
from bioforge.store.targets import definition, old_columns


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """An attempt for display. `started_at` in seconds since 1970; `paid` is yes, no or maybe."""

    id: int
    number: int
    run: int
    reason: str | None
    started_at: float
    seconds: float | None
    outcome: str
    paid: str
    worker: str | None
    backend: str | None
    error_class: str | None
    error_message: str | None
    request_id: str | None
    cost_usd: float | None
    input_tokens: int | None
    output_tokens: int | None


@dataclass(frozen=True, slots=True)
class TargetHistory:
    """A target with the definitions and rows of its last build and its plan; None where it was never built."""

    recipe: str
    variant: str
    reason: str | None
    detail: str | None
    held: bool
    request_hash: str | None
    wanted_definition: dict[str, Any]
    wanted_row: dict[str, object]
    built_definition: dict[str, Any] | None
    built_row: dict[str, object] | None
    built_at: float | None
    accepted: bool
    attempts: list[AttemptRecord]
    wanted_upstream: dict[str, str | None] | None = None
    built_upstream: dict[str, str | None] | None = None
    """Texts of the upstream answers, by recipe."""
    answered_by: str | None = None


def history(store: Store, artist_id: str) -> tuple[str, str, int | None, float | None, list[TargetHistory]] | None:
    """Return (artist name, source, line, removed at, targets), or None for an unknown artist."""
    found = store.row(
        "SELECT id, artist_name, source, line, removed_at, row_hash FROM artists WHERE artist_id = ?", (artist_id,)
    )
    if found is None:
        return None
    artist, name, source, line, removed, row_hash = found
    wanted_row = old_columns(store, artist, row_hash) or {}
    targets = [
        TargetHistory(
            recipe=recipe,
            variant=variant,
            reason=reason,
            detail=detail,
            held=bool(held),
            request_hash=digest,
            wanted_definition=definition(store, wanted),
            wanted_row=wanted_row,
            built_definition=None if built is None else definition(store, built),
            built_row=None if built_row is None else old_columns(store, artist, built_row),
            built_at=built_at,
            accepted=accepted is not None and accepted == digest,
            attempts=_attempts(store, identity, digest, answered),
            wanted_upstream=_texts(store, upstream),
            built_upstream=_texts(store, built_upstream),
            answered_by=kind,
        )
        for identity, recipe, variant, reason, detail, held, digest, wanted, built, built_row, built_at, accepted,
            answered, upstream, built_upstream, kind in store.rows(
            "SELECT t.id, t.recipe, t.variant, t.reason, t.detail, t.held, t.request_hash, t.definition,"
            " t.built_definition, t.built_row, r.created_at, t.accepted_hash, r.request_hash, t.upstream,"
            " t.built_upstream, f.kind FROM targets t"
            " LEFT JOIN responses r ON r.id = t.built_response LEFT JOIN follow_ups f ON f.request_hash = r.request_hash"
            " WHERE t.artist = ? ORDER BY t.id",
            (artist,),
        )
    ]  # fmt: skip
    return name, source, line, removed, targets


def _texts(store: Store, upstream: str | None) -> dict[str, str | None] | None:
    """Return the texts of upstream answers, or None if there are none."""
    if upstream is None:
        return None
    return {
        need: None if response is None else store.value("SELECT text FROM responses WHERE id = ?", (response,))
        for need, response in json.loads(upstream).items()
    }


def _attempts(store: Store, target: int, *hashes: str | None) -> list[AttemptRecord]:
    rows = store.rows(
        "SELECT x.id, x.number, x.run, x.reason, x.started_at, x.seconds,"
        " CASE WHEN x.outcome = 'started' AND x.batch IS NOT NULL THEN 'in batch' ELSE x.outcome END,"
        " CASE WHEN x.outcome = 'started' AND x.batch IS NOT NULL THEN '-' ELSE x.paid END, x.worker, x.backend,"
        " x.error_class, x.error_message, x.request_id, r.cost_usd, r.input_tokens, r.output_tokens"
        " FROM attempts x LEFT JOIN responses r ON r.attempt = x.id"
        " WHERE x.id IN (SELECT id FROM attempts WHERE request_hash IN (?, ?) OR request_hash IN"
        " (SELECT root FROM follow_ups WHERE request_hash IN (?, ?))) OR x.target = ? ORDER BY x.id",
        (*hashes, *hashes, target),
    )
    return [AttemptRecord(*row) for row in rows]


def ids_like(store: Store, text: str, limit: int = 5) -> list[tuple[str, str]]:
    """Return (artist_id, artist_name) of artists whose name contains a text."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return store.rows(
        "SELECT artist_id, artist_name FROM artists WHERE artist_name LIKE ? ESCAPE '\\' ORDER BY id LIMIT ?",
        (f"%{escaped}%", limit),
    )

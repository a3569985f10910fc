"""Batches in the state, from before they are created until every member has its outcome."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from bioforge.core.events import Attempt
from bioforge.core.interfaces import Member
from bioforge.core.reasons import Reason, RequestState
from bioforge.core.types import Batch, BatchProblem, BatchState, Failure, Request, Usage
from bioforge.core.usage import limit_in
from bioforge.store.compression import Decompressor
from bioforge.store.database import Store, bump_results
from bioforge.store.selection import Selection

_PAGE = 1_000

_NAMES = tuple(field.name for field in fields(Batch) if field.name != "awaited")
_OPEN = f"state NOT IN ('{BatchState.COLLECTED}', '{BatchState.RELEASED}')"


# ------------------------------------------------------------------------------------------------------- recording


def save(connection: sqlite3.Connection, batch: Batch, run: int, backend: str, provider: str) -> None:
    """Write a batch; the run, backend and provider that prepared it stay as first written."""
    values = [_stored(getattr(batch, name)) for name in _NAMES]
    updates = ", ".join(f"{name} = excluded.{name}" for name in _NAMES if name != "key")
    connection.execute(
        f"INSERT INTO batches ({', '.join(_NAMES)}, run, backend, provider)"
        f" VALUES ({', '.join('?' * (len(_NAMES) + 3))}) ON CONFLICT (key) DO UPDATE SET {updates}",
        (*values, run, backend, provider),
    )


def save_collected(connection: sqlite3.Connection, key: str, counts: Mapping[str, int], usage: Usage) -> None:
    connection.execute(
        "UPDATE batches SET collected_at = ?, counts = ?, collected_usage = ? WHERE key = ?",
        (time.time(), json.dumps(dict(counts)), _stored(usage), key),
    )


def save_limit(connection: sqlite3.Connection, provider: str, model: str, tokens: int) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO enqueued_tokens VALUES (?, ?, ?, ?)", (provider, model, tokens, time.time())
    )


def save_unmatched_line(
    connection: sqlite3.Connection, batch: str, kind: str, custom_id: str | None, line: bytes
) -> None:
    """Store an unmatched line once: an interrupted collection reads the same lines again."""
    connection.execute(
        "INSERT OR IGNORE INTO stray_lines (batch, kind, custom_id, line, seen_at, digest) VALUES (?, ?, ?, ?, ?, ?)",
        (batch, kind, custom_id, line, time.time(), hashlib.sha256(line).hexdigest()),
    )


def _stored(value: object) -> object:
    if isinstance(value, Usage):
        return json.dumps(asdict(value))
    if isinstance(value, tuple):
        return json.dumps([asdict(problem) for problem in value], ensure_ascii=False) if value else None
    return str(value) if isinstance(value, BatchState) else value


# --------------------------------------------------------------------------------------------------------- reading


def _batch(row: Sequence[Any], *, awaited: bool = True) -> Batch:
    values = dict(zip(_NAMES, row, strict=True))
    values["state"] = BatchState(values["state"])
    values["usage"] = Usage(**json.loads(values["usage"])) if values["usage"] else None
    values["problems"] = tuple(BatchProblem(**problem) for problem in json.loads(values["problems"] or "[]"))
    return Batch(**values, awaited=awaited)


@dataclass(frozen=True, slots=True)
class Open:
    """An open batch with the run that prepared it and the backend that can continue it."""

    batch: Batch
    run: int
    backend: str
    provider: str


def open_batches(store: Store, selection: Selection | None = None) -> list[Open]:
    """Return every open batch, oldest first. Those with a selected member are awaited."""
    wanted: set[str] | None = None
    if selection is not None and store.value(f"SELECT 1 FROM batches WHERE {_OPEN} LIMIT 1"):
        where, values = selection.where()
        wanted = {
            row[0]
            for row in store.rows(
                "SELECT DISTINCT q.batch FROM targets t JOIN artists a ON a.id = t.artist"
                f" JOIN requests q ON q.request_hash = t.request_hash WHERE t.reason = '{Reason.IN_BATCH}' AND {where}",
                values,
            )
        }
    return [
        Open(_batch(row[3:], awaited=wanted is None or row[3] in wanted), *row[:3])
        for row in store.rows(
            f"SELECT run, backend, provider, {', '.join(_NAMES)} FROM batches WHERE {_OPEN} ORDER BY prepared_at, key"
        )
    ]


@dataclass(frozen=True, slots=True)
class Shown:
    """A batch for `status` and `audit`; `counts` by class, once it is collected."""

    batch: Batch
    run: int
    backend: str
    provider: str
    collected_at: float | None
    counts: Mapping[str, int]
    collected_usage: Usage | None


def newest(store: Store, limit: int | None = None, *, open_only: bool = False) -> Iterator[Shown]:
    """Return batches, the newest first."""
    for row in store.rows(
        f"SELECT run, backend, provider, collected_at, counts, collected_usage, {', '.join(_NAMES)} FROM batches"
        f" {f'WHERE {_OPEN}' if open_only else ''} ORDER BY prepared_at DESC, key DESC LIMIT ?",
        (-1 if limit is None else limit,),
    ):
        run, backend, provider, collected, counts, usage = row[:6]
        yield Shown(
            _batch(row[6:]),
            run,
            backend,
            provider,
            collected,
            json.loads(counts or "{}"),
            Usage(**json.loads(usage)) if usage else None,
        )


def give_up(store: Store, batch: Batch) -> int:
    """Stop waiting for a batch; its open requests may have been charged. Return their number."""
    with store.transaction() as connection:
        number = _mark_maybe_paid(
            connection, batch.key, Failure("abandoned", f"given up: {Reason.IN_BATCH} {batch.name}")
        )
        connection.execute("UPDATE batches SET state = ? WHERE key = ?", (str(BatchState.COLLECTED), batch.key))
        bump_results(connection)
    return number


def free_orphans(store: Store) -> int:
    """Close open members of batches that are not in the state, since nothing could collect them.

    They may have been charged.

    Return their number.
    """
    keys = store.rows(
        "WITH RECURSIVE named (key) AS ("
        " SELECT min(batch) FROM attempts WHERE batch IS NOT NULL UNION ALL"
        " SELECT (SELECT min(batch) FROM attempts WHERE batch > named.key) FROM named WHERE named.key IS NOT NULL)"
        " SELECT key FROM named WHERE key NOT IN (SELECT key FROM batches)"
        " AND EXISTS (SELECT 1 FROM attempts WHERE batch = named.key AND outcome = 'started')"
    )
    number = 0
    for (key,) in keys:
        with store.transaction() as connection:
            number += _mark_maybe_paid(connection, key, Failure("interrupted", f"nothing is known of batch {key}"))
            bump_results(connection)
    return number


def _mark_maybe_paid(connection: sqlite3.Connection, key: str, why: Failure) -> int:
    """Mark open members of a batch as maybe paid. Return their number."""
    digests = connection.execute(
        "SELECT request_hash FROM attempts WHERE batch = ? AND outcome = 'started'", (key,)
    ).fetchall()
    connection.execute(
        f"UPDATE attempts SET outcome = '{RequestState.MAYBE_PAID}', paid = 'maybe', error_class = ?, error_message = ?"
        " WHERE batch = ? AND outcome = 'started'",
        (why.error_class, why.message, key),
    )
    connection.executemany(
        f"UPDATE requests SET state = '{RequestState.MAYBE_PAID}', error_class = ?, error_message = ?, batch = NULL"
        " WHERE request_hash = ? AND batch = ?",
        ((why.error_class, why.message, digest, key) for (digest,) in digests),
    )
    connection.executemany(
        f"UPDATE targets SET reason = '{Reason.MAYBE_PAID}', detail = ?, reason_before = NULL, detail_before = NULL"
        f" WHERE request_hash = ? AND reason = '{Reason.IN_BATCH}'",
        ((f"{why.error_class}: {why.message}", digest) for (digest,) in digests),
    )
    return len(digests)


def release_elsewhere(store: Store, provider: str) -> int:
    """Release batches that were prepared for another provider and never submitted. Return their number.

    No job can exist for them, since a creation is recorded before it is sent. `recover` releases their members.
    """
    if not store.value("SELECT 1 FROM batches WHERE state = 'prepared' AND provider <> ? LIMIT 1", (provider,)):
        return 0
    with store.transaction() as connection:
        return connection.execute(
            "UPDATE batches SET state = ? WHERE state = ? AND provider <> ?",
            (str(BatchState.RELEASING), str(BatchState.PREPARED), provider),
        ).rowcount


def by_key(store: Store, name: str) -> Batch | None:
    """Return the batch with this key or this provider's id."""
    row = store.row(f"SELECT {', '.join(_NAMES)} FROM batches WHERE key = ? OR batch_id = ?", (name, name))
    return None if row is None else _batch(row)


def enqueued_tokens(store: Store, provider: str) -> dict[str, int]:
    """Return the known limits of enqueued tokens, by model."""
    return dict(store.rows("SELECT model, tokens FROM enqueued_tokens WHERE provider = ?", (provider,)))


def average_seconds(store: Store) -> float | None:
    """Return the average seconds of the newest batches from creation to end; None before the first."""
    return store.limited_average(
        f"SELECT ended_at - submitted_at FROM batches WHERE state = '{BatchState.COLLECTED}'"
        " AND ended_at IS NOT NULL AND submitted_at IS NOT NULL ORDER BY prepared_at DESC LIMIT 20"
    )


# --------------------------------------------------------------------------------------------------------- members


class StoredMembers:
    """The members of batches, read from their attempts."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._unpacker = Decompressor(store)

    def attempts_of(self, batch: str, *, open_only: bool = False) -> Iterator[Attempt]:
        after = 0
        while True:
            rows = self._store.rows(
                f"SELECT {_MEMBER}, q.body FROM {_FROM} WHERE x.batch = ? AND x.id > ?"
                f" {_IS_OPEN if open_only else ''} ORDER BY x.id LIMIT {_PAGE}",
                (batch, after),
            )
            if not rows:
                return
            for row in rows:
                yield _new_attempt(row, self._unpacker.raw(row[-1], f"requests, {row[9]}"))
            after = rows[-1][0]

    def find(self, batch: str, custom_ids: Sequence[str]) -> Mapping[str, Member]:
        rows = self._store.rows(
            f"SELECT {_MEMBER}, q.body FROM {_FROM}"
            " WHERE x.client_request_id IN (SELECT value FROM json_each(?)) AND x.batch = ?",
            (json.dumps(custom_ids), batch),
        )
        return {row[1]: Member(self._without_body(row), row[3] == "started") for row in rows}

    def _without_body(self, row: Sequence[Any]) -> Attempt:
        attempt = _new_attempt(row, b"")
        limit = limit_in(self._unpacker.raw(row[-1], f"requests, {row[9]}"))
        return replace(attempt, request=replace(attempt.request, max_output_tokens=limit))


_MEMBER = """x.id, x.client_request_id, x.batch, x.outcome, x.number, x.worker, x.started_at, x.reason, x.target,
    q.request_hash, q.endpoint, q.model, q.attempts, coalesce(a.artist_id, ''), coalesce(t.recipe, ''),
    coalesce(t.variant, ''), coalesce(t.input_tokens, 0)"""
_FROM = """attempts x JOIN requests q ON q.request_hash = x.request_hash
    LEFT JOIN targets t ON t.id = x.target LEFT JOIN artists a ON a.id = t.artist"""
_IS_OPEN = "AND x.outcome = 'started'"


def _new_attempt(row: Sequence[Any], body: bytes) -> Attempt:
    (
        attempt, custom_id, batch, _, number, worker, at, reason, target,
        digest, endpoint, model, attempts, artist_id, recipe, variant, tokens, *_,
    ) = row  # fmt: skip
    request = Request(
        digest, endpoint, model or "", body, artist_id, recipe, variant, target or 0, reason or "", tokens,
        attempts=attempts,
    )  # fmt: skip
    return Attempt(request, number, worker or "", custom_id, at, batch, attempt)

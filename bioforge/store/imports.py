"""Import answers that were paid for elsewhere: find their requests, and store them."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bioforge.core.reasons import Reason, RequestState
from bioforge.core.types import Artist, Response
from bioforge.store.compression import Compressor
from bioforge.store.database import Store, bump_results
from bioforge.store.statements import BUILD_TARGETS, END_REQUESTS, FAIL_TARGETS
from bioforge.store.targets import failure_text

IMPORTED = "imported"
"""Outcome and reason of the attempts for imported answers, which this state did not pay for."""

BACKEND = "import"


# --------------------------------------------------------------------------------------------------------- rehearsal


class _DryRun(Store):
    """A store inside a transaction of its caller."""

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        yield self.connection


@contextmanager
def import_dry_run(store: Store) -> Iterator[Store]:
    """Yield a store whose changes are all rolled back at the end."""
    with store.transaction() as connection:
        connection.execute("SAVEPOINT rehearsal")
        try:
            yield _DryRun(store.path, connection, None)
        finally:
            connection.execute("ROLLBACK TO rehearsal")


# ------------------------------------------------------------------------------------------- lines of the input files


@dataclass(frozen=True, slots=True)
class ImportTarget:
    """A request that an answer belongs to. `body` is None if the state has it."""

    request_hash: str
    endpoint: str
    model: str
    body: str | None = None


def prepare(store: Store) -> None:
    """Create temporary tables for lines of input files, which may exceed memory."""
    with store.transaction() as connection:
        connection.execute("DROP TABLE IF EXISTS temp.asked")
        connection.execute(
            "CREATE TEMP TABLE asked (custom_id TEXT NOT NULL, request_hash TEXT NOT NULL, endpoint TEXT, model TEXT, body TEXT)"
        )
        connection.execute("CREATE UNIQUE INDEX temp.asked_once ON asked (custom_id, request_hash)")


def add_asked(store: Store, lines: Sequence[tuple[str, str, str, str, str]]) -> None:
    """Add (custom_id, request hash, endpoint, model, body) of each line; duplicates count once."""
    with store.transaction() as connection:
        connection.executemany("INSERT OR IGNORE INTO temp.asked VALUES (?, ?, ?, ?, ?)", lines)


def asked(store: Store, custom_ids: Sequence[str]) -> dict[str, list[ImportTarget]]:
    """Return the requests of input files by custom_id; several where files use one name for different requests."""
    found: dict[str, list[ImportTarget]] = {}
    for custom_id, *wanted in store.rows(
        "SELECT custom_id, request_hash, endpoint, model, body FROM temp.asked"
        " WHERE custom_id IN (SELECT value FROM json_each(?))",
        (json.dumps(custom_ids),),
    ):
        found.setdefault(custom_id, []).append(ImportTarget(*wanted))
    return found


# ------------------------------------------------------------------------------------------------- what the state knows


@dataclass(frozen=True, slots=True)
class KnownImport:
    """A request in the state. `usable`: whether its answer is usable; None without an answer.

    `run` and `custom_id` are of the attempt that brought the answer.
    """

    state: str
    endpoint: str
    model: str
    usable: bool | None = None
    run: int | None = None
    custom_id: str | None = None

    @property
    def in_batch(self) -> bool:
        return self.state == RequestState.IN_BATCH


def known(store: Store, hashes: Sequence[str]) -> dict[str, KnownImport]:
    rows = store.rows(
        # beside max(), SQLite takes the other columns from the row that has it
        "SELECT q.request_hash, q.state, q.endpoint, coalesce(q.model, ''), max(r.usable), x.run, x.client_request_id"
        " FROM requests q LEFT JOIN responses r ON r.request_hash = q.request_hash LEFT JOIN attempts x ON x.id = r.attempt"
        " WHERE q.request_hash IN (SELECT value FROM json_each(?)) GROUP BY q.request_hash",
        (json.dumps(hashes),),
    )
    return {
        digest: KnownImport(state, endpoint, model, None if usable is None else bool(usable), run, custom_id)
        for digest, state, endpoint, model, usable, run, custom_id in rows
    }


def complete_hashes(store: Store, beginnings: Sequence[str]) -> dict[str, str]:
    """Return full hashes of requests and targets by their prefixes."""
    found: dict[str, str] = {}
    for table in ("targets", "requests"):
        # CROSS JOIN: each beginning is looked up in the index; hexadecimal digits all come before 'g'
        rows = store.rows(
            f"SELECT j.value, q.request_hash FROM json_each(?) j CROSS JOIN {table} q"
            " WHERE q.request_hash >= j.value AND q.request_hash < j.value || 'g'",
            (json.dumps(beginnings),),
        )
        found.update(rows)
    return found


def batches_of(store: Store, custom_ids: Sequence[str]) -> dict[str, str]:
    """Return the batch of the newest attempt with each custom_id."""
    return dict(
        store.rows(
            "SELECT client_request_id, batch FROM attempts WHERE client_request_id IN (SELECT value FROM json_each(?))"
            " AND batch IS NOT NULL ORDER BY id",
            (json.dumps(custom_ids),),
        )
    )


@dataclass(frozen=True, slots=True)
class WantingTarget:
    """A target that wants a request, with what is needed to render it. `number` is the artist's id in the state."""

    recipe: str
    variant: str
    artist: Artist
    number: int


def targets_wanting(store: Store, hashes: Sequence[str], recipes: Sequence[str]) -> dict[str, WantingTarget]:
    """Return for each hash one target of these recipes that wants it, preferably of an artist in the input."""
    rows = store.rows(
        # as above: max() chooses the row
        "SELECT t.request_hash, t.recipe, t.variant, a.artist_id, a.artist_name, a.artist_data, a.columns,"
        " a.id, max(a.removed_at IS NULL) FROM targets t JOIN artists a ON a.id = t.artist"
        " WHERE t.request_hash IN (SELECT value FROM json_each(?)) AND t.recipe IN (SELECT value FROM json_each(?))"
        " GROUP BY t.request_hash",
        (json.dumps(hashes), json.dumps(recipes)),
    )
    return {
        digest: WantingTarget(
            recipe, variant, Artist(artist_id, name, data, json.loads(columns) if columns else {}), number
        )
        for digest, recipe, variant, artist_id, name, data, columns, number, _ in rows
    }


def targets_of(store: Store, hashes: Sequence[str]) -> dict[str, int]:
    """Return the first target that wants each request; unwanted requests are absent."""
    return dict(
        store.rows(
            "SELECT request_hash, min(id) FROM targets WHERE request_hash IN (SELECT value FROM json_each(?))"
            " GROUP BY request_hash",
            (json.dumps(hashes),),
        )
    )


def stale_targets(store: Store, hashes: Sequence[str]) -> int:
    """Return how many targets an answer to each of these requests makes fresh."""
    return int(
        store.value(
            "SELECT count(*) FROM targets WHERE request_hash IN (SELECT value FROM json_each(?))"
            f" AND reason IS NOT NULL AND reason <> '{Reason.REMOVED}'",
            (json.dumps(hashes),),
        )
    )


def artists_named(store: Store, names: Sequence[str]) -> set[str]:
    """Return those names that are ids of artists."""
    rows = store.rows(
        "SELECT artist_id FROM artists WHERE artist_id IN (SELECT value FROM json_each(?))", (json.dumps(names),)
    )
    return {row[0] for row in rows}


# ----------------------------------------------------------------------------------------------------------- adopting


@dataclass(frozen=True, slots=True)
class StoredImport:
    """An answer with its request. `at`: its time in seconds since 1970; `parsed` is JSON."""

    wanted: ImportTarget
    answer: Response
    at: float
    custom_id: str | None = None
    request_id: str | None = None
    parsed: str | None = None


def adopt(store: Store, run: int, adoptions: Sequence[StoredImport], targets: Mapping[str, int]) -> None:
    """Store answers as if they had been sent, but not paid; all of them, or none."""
    attempt, response = store.next_id("attempts"), store.next_id("responses")
    asked: list[tuple[object, ...]] = []
    asked_again: list[tuple[object, ...]] = []
    ended: list[tuple[object, ...]] = []
    attempts: list[tuple[object, ...]] = []
    responses: list[tuple[object, ...]] = []
    built: list[tuple[object, ...]] = []
    failed: list[tuple[object, ...]] = []
    now, packer = time.time(), Compressor(store)
    for number, item in enumerate(adoptions):
        digest, problem = item.wanted.request_hash, item.answer.problem
        why = (None, None, None) if problem is None else (problem.error_class, problem.code, problem.message)
        if item.wanted.body is None:
            asked_again.append((digest,))
        else:
            body = packer.pack_request(item.wanted.body.encode("utf-8", "surrogatepass"), item.wanted.model)
            asked.append((digest, item.wanted.endpoint, item.wanted.model, body, now))
        ended.append((RequestState.UNUSABLE if problem else RequestState.ANSWERED, response + number, *why, digest))
        attempts.append(
            (attempt + number, digest, targets.get(digest), run, digest, now, *why, item.request_id, item.custom_id)
        )
        kept = packer.pack_answer(item.answer.body, item.wanted.model)
        responses.append(
            (response + number, digest, attempt + number, item.at, *_columns(item.answer), kept, item.parsed)
        )
        if problem is None:
            built.append((response + number, digest))
        else:
            failed.append((Reason.FAILED, failure_text(why[0], why[2]), 1, digest))
    with store.transaction() as connection:
        connection.executemany(_ASK, asked)
        connection.executemany(_ASK_AGAIN, asked_again)
        connection.executemany(_INSERT_ATTEMPT, attempts)
        connection.executemany(_INSERT_RESPONSE, responses)
        END_REQUESTS.run(connection, ended)
        BUILD_TARGETS.run(connection, built)
        FAIL_TARGETS.run(connection, failed)
        bump_results(connection)


def _columns(answer: Response) -> tuple[Any, ...]:
    usage, problem = answer.usage, answer.problem
    return (
        problem is None,
        answer.response_id,
        answer.model,
        answer.service_tier,
        answer.text,
        *((None,) * 3 if problem is None else (problem.error_class, problem.code, problem.message)),
        *((None,) * 4 if usage is None else (
            usage.input_tokens, usage.cached_tokens, usage.output_tokens, usage.reasoning_tokens
        )),
        answer.cost_usd,
    )  # fmt: skip


def end_run(store: Store, run: int) -> None:
    """Close an importing run with the number of answers and without cost."""
    with store.transaction() as connection:
        connection.execute(
            "UPDATE runs SET cost_usd = NULL, succeeded = (SELECT count(*) FROM attempts x JOIN responses r"
            " ON r.attempt = x.id WHERE x.run = runs.id AND r.usable = 1) WHERE id = ?",
            (run,),
        )


_ASK = """
    INSERT INTO requests (request_hash, endpoint, model, body, state, attempts, created_at)
    VALUES (?, ?, ?, ?, 'started', 1, ?) ON CONFLICT (request_hash) DO UPDATE SET attempts = attempts + 1
"""
_ASK_AGAIN = "UPDATE requests SET attempts = attempts + 1 WHERE request_hash = ?"
_INSERT_ATTEMPT = f"""
    INSERT INTO attempts (id, request_hash, target, run, number, started_at, error_class, error_code, error_message,
                          request_id, client_request_id, reason, backend, outcome, paid)
    VALUES (?, ?, ?, ?, (SELECT coalesce(max(number), 0) + 1 FROM attempts WHERE request_hash = ?), ?, ?, ?, ?, ?, ?,
            '{IMPORTED}', '{BACKEND}', '{IMPORTED}', 'no')
"""
_INSERT_RESPONSE = """
    INSERT INTO responses (id, request_hash, attempt, created_at, usable, response_id, model, service_tier, text,
                           error_class, error_code, error_message, input_tokens, cached_tokens, output_tokens,
                           reasoning_tokens, cost_usd, body, parsed, imported)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)
"""

"""Recording what a backend reports: one transaction a group, in sets of statements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bioforge.events import (
    BatchChanged,
    BatchCollected,
    Event,
    Failed,
    Launch,
    LimitLearned,
    Started,
    StrayLine,
    Succeeded,
    Unusable,
)
from bioforge.model import Answer, BatchState, Paid
from bioforge.plan import ANSWERED, FAILED, IN_BATCH, INTERRUPTED, MAYBE_PAID, NEW, REMOVED, STARTED, UNUSABLE, WAITING
from bioforge.store import batches, runs
from bioforge.store.database import Store, bump_results
from bioforge.store.targets import failure_text


class Recorder:
    """Writes the events of one run. Knows the attempts in flight, so that their end finds their row."""

    def __init__(self, store: Store, run: int, backend: str, provider: str = "") -> None:
        self._store = store
        self._run = run
        self._backend = backend
        self._provider = provider
        self._next_attempt = store.next_id("attempts")
        self._next_response = store.next_id("responses")
        self._open: dict[str, int] = {}
        self._collected: set[str] = set()

    def close(self) -> None:
        """The runs that paid for batches show what those came to, even if this one collected them."""
        if self._collected:
            with self._store.transaction() as connection:
                runs.sum_up(connection, self._collected)

    def record(self, events: Sequence[Event]) -> None:
        """Durable when this returns. Events without a request need no record."""
        with self._store.transaction() as connection:
            started, ended, changed = _Started(), _Ended(), False
            collected: list[BatchCollected] = []
            for event in events:
                match event:
                    case Started(launch):
                        self._started(started, launch)
                    case Succeeded(launch, answer, seconds, request_id) | Unusable(launch, answer, seconds, request_id):
                        self._answered(ended, launch, answer, seconds, request_id)
                        changed = True
                    case Failed():
                        self._failed(ended, event)
                        changed = changed or event.final
                    case BatchChanged(batch):
                        batches.save(connection, batch, self._run, self._backend, self._provider)
                    case BatchCollected():
                        collected.append(event)
                    case StrayLine(batch, kind, custom_id, line):
                        batches.save_stray(connection, batch, kind, custom_id, line)
                    case LimitLearned(model, tokens):
                        batches.save_limit(connection, self._provider, model, tokens)
                    case _:
                        pass
            # outcomes first: a group may hold the end of one attempt and the start of the next of the same request
            connection.executemany(_INSERT_RESPONSE, ended.responses)
            connection.executemany(_END_ATTEMPT, ended.attempts)
            connection.executemany(END_REQUEST, ended.requests)
            connection.executemany(BUILD_TARGETS, ended.built)
            connection.executemany(FAIL_TARGETS, ended.failed)
            connection.executemany(_GIVE_BACK_TARGETS, ended.given_back)
            connection.executemany(_START_REQUEST, started.requests)
            connection.executemany(_START_ATTEMPT, started.attempts)
            connection.executemany(_BATCH_TARGETS, started.batched)
            for event in collected:
                batches.save_collected(connection, event.batch.key, event.counts, event.usage)
                self._collected.add(event.batch.key)
            # which failures are shown depends on what is in a batch
            if changed or started.batched or ended.given_back:
                bump_results(connection)

    def _started(self, started: _Started, launch: Launch) -> None:
        request = launch.request
        if launch.batch is None:  # the members of a batch are looked up when their results come, perhaps in days
            self._open[launch.client_request_id] = self._next_attempt
        else:
            started.batched.append((launch.batch, request.request_hash))
        started.requests.append(
            (
                request.request_hash,
                request.endpoint,
                request.model,
                request.body.decode("utf-8", "surrogatepass"),
                STARTED if launch.batch is None else IN_BATCH,
                launch.at,
                launch.batch,
            )
        )
        started.attempts.append(
            (
                self._next_attempt,
                request.request_hash,
                request.target,
                self._run,
                launch.number,
                request.reason,
                self._backend if request.service_tier is None else f"{self._backend} ({request.service_tier})",
                launch.worker,
                launch.at,
                launch.client_request_id,
                launch.batch,
            )
        )
        self._next_attempt += 1

    def _answered(self, ended: _Ended, launch: Launch, answer: Answer, seconds: float, request_id: str | None) -> None:
        attempt = launch.attempt or self._open.pop(launch.client_request_id)
        response, self._next_response = self._next_response, self._next_response + 1
        digest, usage, problem = launch.request.request_hash, answer.usage, answer.problem
        why = (None, None, None) if problem is None else (problem.error_class, problem.code, problem.message)
        tokens = (None,) * 4 if usage is None else (
            usage.input_tokens, usage.cached_tokens, usage.output_tokens, usage.reasoning_tokens
        )  # fmt: skip
        ended.responses.append(
            (
                response,
                digest,
                attempt,
                launch.at + seconds,
                problem is None,
                answer.response_id,
                answer.model,
                answer.service_tier,
                answer.text,
                answer.parsed,
                answer.validation,
                *why,
                *tokens,
                answer.cost_usd,
                text_or_bytes(answer.body),
            )
        )
        outcome = "succeeded" if problem is None else "unusable"
        ended.attempts.append((seconds, outcome, "yes", *why, 200, request_id, None, attempt))
        ended.requests.append((ANSWERED if problem is None else UNUSABLE, response, *why, digest))
        if problem is None:
            ended.built.append((response, digest))
        else:
            ended.failed.append((FAILED, failure_text(why[0], why[2]), 1, digest))

    def _failed(self, ended: _Ended, event: Failed) -> None:
        attempt = event.launch.attempt or self._open.pop(event.launch.client_request_id)
        failure, digest = event.failure, event.launch.request.request_hash
        why = (failure.error_class, failure.code, failure.message)
        unclear = event.paid is Paid.MAYBE
        ended.attempts.append(
            (
                event.seconds,
                MAYBE_PAID if unclear else "failed",
                str(event.paid),
                *why,
                failure.http_status,
                event.request_id,
                None if event.body is None else text_or_bytes(event.body),
                attempt,
            )
        )
        if event.final:
            reason = MAYBE_PAID if unclear else FAILED
            ended.failed.append((reason, failure_text(why[0], why[2]), 0, digest))
            ended.requests.append((reason, None, *why, digest))
        else:
            ended.requests.append((WAITING, None, *why, digest))
            if event.launch.batch is not None:
                ended.given_back.append((digest,))


class _Started:
    """Rows for intents: requests before attempts."""

    def __init__(self) -> None:
        self.requests: list[tuple[object, ...]] = []
        self.attempts: list[tuple[object, ...]] = []
        self.batched: list[tuple[object, ...]] = []


class _Ended:
    """Rows for outcomes, a list for each statement."""

    def __init__(self) -> None:
        self.responses: list[tuple[object, ...]] = []
        self.attempts: list[tuple[object, ...]] = []
        self.requests: list[tuple[object, ...]] = []
        self.built: list[tuple[object, ...]] = []
        self.failed: list[tuple[object, ...]] = []
        self.given_back: list[tuple[object, ...]] = []


def text_or_bytes(body: bytes) -> str | bytes:
    """Text where it is text, so that people can use SQLite's JSON functions on it; else the bytes as they came."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body


_START_REQUEST = """
    INSERT INTO requests (request_hash, endpoint, model, body, state, attempts, created_at, batch)
    VALUES (?, ?, ?, ?, ?, 1, ?, ?)
    ON CONFLICT (request_hash) DO UPDATE SET state = excluded.state, attempts = attempts + 1, batch = excluded.batch
"""
_START_ATTEMPT = """
    INSERT INTO attempts (id, request_hash, target, run, number, reason, backend, worker, started_at, client_request_id,
                          batch)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_END_ATTEMPT = """
    UPDATE attempts SET seconds = ?, outcome = ?, paid = ?, error_class = ?, error_code = ?, error_message = ?,
                        http_status = ?, request_id = ?, body = ? WHERE id = ?
"""
END_REQUEST = """
    UPDATE requests SET state = ?, response = coalesce(?, response), error_class = ?, error_code = ?,
                        error_message = ?, batch = NULL WHERE request_hash = ?
"""
_INSERT_RESPONSE = """
    INSERT INTO responses (id, request_hash, attempt, created_at, usable, response_id, model, service_tier, text,
                           parsed, validation, error_class, error_code, error_message, input_tokens, cached_tokens,
                           output_tokens, reasoning_tokens, cost_usd, body)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
BUILD_TARGETS = f"""
    UPDATE targets SET built_response = ?, built_definition = definition, built_row = row_hash, held = 0, detail = NULL,
                       built_upstream = upstream,
                       reason_before = NULL, detail_before = NULL,
                       reason = CASE WHEN reason = '{REMOVED}' THEN reason END
    WHERE request_hash = ?
"""
FAIL_TARGETS = f"""
    UPDATE targets SET reason = ?, detail = ?, held = ?, reason_before = NULL, detail_before = NULL
    WHERE request_hash = ? AND reason IS NOT NULL AND reason <> '{REMOVED}'
"""
_BATCH_TARGETS = f"""
    UPDATE targets SET reason_before = reason, detail_before = detail, reason = '{IN_BATCH}', detail = ?
    WHERE request_hash = ? AND reason IS NOT NULL AND reason NOT IN ('{REMOVED}', '{IN_BATCH}')
"""
_GIVE_BACK_TARGETS = f"""
    UPDATE targets SET reason = coalesce(reason_before, '{NEW}'), detail = detail_before, reason_before = NULL,
                       detail_before = NULL
    WHERE request_hash = ? AND reason = '{IN_BATCH}'
"""

IN_FLIGHT = "bioforge ended while this request was in flight"
UNSENT = "bioforge ended before this request was sent"


@dataclass(frozen=True, slots=True)
class Settled:
    """`maybe_paid`: attempts nobody can know the fate of; `interrupted`: requests that waited for another try."""

    maybe_paid: int = 0
    interrupted: int = 0


def settle(store: Store) -> Settled:
    """Say what is known of requests that were left open, once nobody can be working on them any more.

    Those in batches go on without anybody, except where nothing of a batch was sent yet, or nothing is known of it.
    """
    _release_unsent(store)
    freed = batches.free_orphans(store)
    if not store.value("SELECT 1 FROM requests WHERE state IN ('started', 'waiting') LIMIT 1"):
        return Settled(freed)
    unclear = (
        "EXISTS (SELECT 1 FROM attempts x WHERE x.request_hash = requests.request_hash AND x.paid = 'maybe'"
        " AND x.id > coalesce((SELECT max(y.id) FROM attempts y WHERE y.request_hash = requests.request_hash"
        " AND y.paid = 'yes'), 0))"
    )
    with store.transaction() as connection:
        attempts = connection.execute(
            f"UPDATE attempts SET outcome = '{MAYBE_PAID}', error_class = 'interrupted', error_message = ?"
            " WHERE outcome = 'started' AND batch IS NULL",
            (IN_FLIGHT,),
        ).rowcount
        rows = connection.execute(
            "SELECT request_hash,"
            f" CASE WHEN state = 'started' OR {unclear} THEN '{MAYBE_PAID}' ELSE '{INTERRUPTED}' END,"
            " CASE WHEN state = 'started' THEN 'interrupted' ELSE error_class END,"
            " CASE WHEN state = 'started' THEN ? ELSE error_message END"
            " FROM requests WHERE state IN ('started', 'waiting')",
            (IN_FLIGHT,),
        ).fetchall()
        settled = [(state, error_class, message, digest) for digest, state, error_class, message in rows]
        connection.executemany(
            "UPDATE requests SET state = ?, error_class = ?, error_message = ? WHERE request_hash = ?", settled
        )
        connection.executemany(
            FAIL_TARGETS,
            [(state, failure_text(error_class, message), 0, digest) for state, error_class, message, digest in settled],
        )
        bump_results(connection)
    return Settled(attempts + freed, sum(1 for _, state, _, _ in rows if state == INTERRUPTED))


def _release_unsent(store: Store) -> None:
    """Give back the members of batches that were still being prepared, or were refused: nothing can come of them."""
    states = (str(BatchState.PREPARING), str(BatchState.RELEASING))
    unsent = [row[0] for row in store.rows("SELECT key FROM batches WHERE state IN (?, ?)", states)]
    for key in unsent:
        with store.transaction() as connection:
            digests = connection.execute(
                "SELECT request_hash FROM attempts WHERE batch = ? AND outcome = 'started'", (key,)
            ).fetchall()
            connection.execute(
                "UPDATE attempts SET outcome = 'failed', paid = 'no', error_class = 'interrupted', error_message = ?"
                " WHERE batch = ? AND outcome = 'started'",
                (UNSENT, key),
            )
            connection.executemany(_GIVE_BACK_TARGETS, digests)
            connection.executemany(
                END_REQUEST, ((WAITING, None, "interrupted", None, UNSENT, digest) for (digest,) in digests)
            )
            connection.execute("UPDATE batches SET state = ? WHERE key = ?", (str(BatchState.RELEASED), key))

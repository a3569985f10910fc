"""Recover the requests that a crashed or killed process left open."""

from __future__ import annotations

from dataclasses import dataclass

from bioforge.core.reasons import RequestState
from bioforge.core.types import BatchState
from bioforge.store import batches
from bioforge.store.database import Store, bump_results
from bioforge.store.reason_sql import OPEN_STATES
from bioforge.store.statements import END_REQUESTS, FAIL_TARGETS, GIVE_BACK_TARGETS
from bioforge.store.targets import failure_text

IN_FLIGHT = "bioforge ended while this request was in flight"
UNSENT = "bioforge ended before this request was sent"


@dataclass(frozen=True, slots=True)
class Recovery:
    """`maybe_paid`: attempts that may have been charged; `interrupted`: requests that waited for a retry."""

    maybe_paid: int = 0
    interrupted: int = 0


def recover(store: Store) -> Recovery:
    """Close requests left open by a dead process: in flight → maybe paid; awaiting retry → interrupted.

    Members of submitted batches stay open, unless nothing of the batch was sent or nothing is known of it.
    """
    _release_unsent(store)
    freed = batches.free_orphans(store)
    if not store.value(f"SELECT 1 FROM requests WHERE state IN {OPEN_STATES} LIMIT 1"):
        return Recovery(freed)
    unclear = (
        "EXISTS (SELECT 1 FROM attempts x WHERE x.request_hash = requests.request_hash AND x.paid = 'maybe'"
        " AND x.id > coalesce((SELECT max(y.id) FROM attempts y WHERE y.request_hash = requests.request_hash"
        " AND y.paid = 'yes'), 0))"
    )
    with store.transaction() as connection:
        attempts = connection.execute(
            f"UPDATE attempts SET outcome = '{RequestState.MAYBE_PAID}', error_class = 'interrupted', error_message = ?"
            " WHERE outcome = 'started' AND batch IS NULL",
            (IN_FLIGHT,),
        ).rowcount
        rows = connection.execute(
            "SELECT request_hash,"
            f" CASE WHEN state = 'started' OR {unclear} THEN '{RequestState.MAYBE_PAID}' ELSE '{RequestState.INTERRUPTED}' END,"
            " CASE WHEN state = 'started' THEN 'interrupted' ELSE error_class END,"
            " CASE WHEN state = 'started' THEN ? ELSE error_message END"
            f" FROM requests WHERE state IN {OPEN_STATES}",
            (IN_FLIGHT,),
        ).fetchall()
        settled = [(state, error_class, message, digest) for digest, state, error_class, message in rows]
        connection.executemany(
            "UPDATE requests SET state = ?, error_class = ?, error_message = ? WHERE request_hash = ?", settled
        )
        FAIL_TARGETS.run(
            connection,
            [(state, failure_text(error_class, message), 0, digest) for state, error_class, message, digest in settled],
        )
        bump_results(connection)
    return Recovery(attempts + freed, sum(1 for _, state, _, _ in rows if state == RequestState.INTERRUPTED))


def _release_unsent(store: Store) -> None:
    """Release members of batches that were still being prepared, or were refused."""
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
            GIVE_BACK_TARGETS.run(connection, digests)
            END_REQUESTS.run(
                connection, [(RequestState.WAITING, None, "interrupted", None, UNSENT, digest) for (digest,) in digests]
            )
            connection.execute("UPDATE batches SET state = ? WHERE key = ?", (str(BatchState.RELEASED), key))

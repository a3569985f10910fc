"""Accept, forget and collect garbage on request, and remember written outputs."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bioforge.core.reasons import Reason, RequestState
from bioforge.store.database import Store, bump_results
from bioforge.store.selection import Selection
from bioforge.store.targets import PRESENT, STALE


def acceptable(store: Store, selection: Selection) -> int:
    """Return how many stale targets have an older answer that could be accepted."""
    where, values = selection.where()
    return int(
        store.value(
            "SELECT count(*) FROM targets t JOIN artists a ON a.id = t.artist"
            f" WHERE {STALE} AND t.built_response IS NOT NULL AND t.request_hash IS NOT NULL AND {where}",
            values,
        )
    )


def accept(store: Store, selection: Selection, run: int) -> int:
    """Accept the existing answers of stale targets for the current definition. Return their number."""
    where, values = selection.where()
    chosen = (
        "SELECT t.id FROM targets t JOIN artists a ON a.id = t.artist"
        f" WHERE {STALE} AND t.built_response IS NOT NULL AND t.request_hash IS NOT NULL AND {where}"
    )
    with store.transaction() as connection:
        connection.execute(
            "INSERT INTO accepted SELECT id, request_hash, built_response, reason, detail, ?, ? FROM targets"
            f" WHERE id IN ({chosen})",
            (time.time(), run, *values),
        )
        count = connection.execute(
            "UPDATE targets SET reason = NULL, detail = NULL, held = 0, accepted_hash = coalesce(own_hash, request_hash),"
            " accepted_response = built_response,"
            " built_definition = definition, built_row = row_hash, built_upstream = upstream"
            f" WHERE id IN ({chosen})",
            values,
        ).rowcount
        bump_results(connection)
    return count


@dataclass(frozen=True, slots=True)
class Dropped:
    """Deleted answers; `cost_usd` is their known cost."""

    answers: int
    cost_usd: float


def _answers_of(selection: Selection) -> tuple[str, list[object]]:
    where, values = selection.where()
    sql = (
        "SELECT r.id FROM responses r WHERE r.request_hash IN (SELECT t.request_hash FROM targets t"
        f" JOIN artists a ON a.id = t.artist WHERE {where})"
        f" OR r.request_hash IN (SELECT t.own_hash FROM targets t JOIN artists a ON a.id = t.artist WHERE {where})"
        " OR r.request_hash IN (SELECT f.request_hash FROM follow_ups f JOIN targets t ON t.own_hash = f.root"
        f" JOIN artists a ON a.id = t.artist WHERE {where})"
        f" OR r.id IN (SELECT t.built_response FROM targets t JOIN artists a ON a.id = t.artist WHERE {where})"
    )
    return sql, [*values, *values, *values, *values]


_UNREACHED = f"""
    WITH live AS (SELECT t.request_hash, t.own_hash, t.built_response, t.accepted_response FROM targets t
                  JOIN artists a ON a.id = t.artist
                  WHERE a.removed_at IS NULL AND {PRESENT}
                  AND t.recipe IN (SELECT value FROM json_each(?)))
    SELECT r.id FROM responses r
    WHERE r.id NOT IN (SELECT built_response FROM live WHERE built_response IS NOT NULL)
      AND r.id NOT IN (SELECT accepted_response FROM live WHERE accepted_response IS NOT NULL)
      AND r.request_hash NOT IN (SELECT request_hash FROM live WHERE request_hash IS NOT NULL)
      AND r.request_hash NOT IN (SELECT own_hash FROM live WHERE own_hash IS NOT NULL)
      AND r.request_hash NOT IN (SELECT request_hash FROM follow_ups WHERE root IN (SELECT own_hash FROM live))
"""


def would_forget(store: Store, selection: Selection) -> Dropped:
    return _weigh(store, *_answers_of(selection))


def forget(store: Store, selection: Selection, run: int) -> Dropped:
    """Delete the selected targets' answers; a record of their cost stays."""
    return _drop(store, *_answers_of(selection), run)


def would_collect(store: Store, recipes: str) -> Dropped:
    """Return what `gc` would delete; `recipes` is a JSON list of the recipes in the project file."""
    return _weigh(store, _UNREACHED, [recipes])


def collect(store: Store, recipes: str, run: int) -> Dropped:
    """Delete answers that no target uses or wants, then return the space to the disk."""
    dropped = _drop(store, _UNREACHED, [recipes], run)
    with store.transaction() as connection:
        connection.execute(
            f"DELETE FROM targets WHERE reason IS '{Reason.REMOVED}' OR recipe NOT IN (SELECT value FROM json_each(?))"
            " OR artist IN (SELECT id FROM artists WHERE removed_at IS NOT NULL)",
            (recipes,),
        )
        connection.execute("DELETE FROM planned WHERE recipe NOT IN (SELECT value FROM json_each(?))", (recipes,))
        connection.execute(
            "DELETE FROM artists WHERE removed_at IS NOT NULL AND id NOT IN (SELECT artist FROM targets)"
        )
        connection.execute(
            "DELETE FROM follow_ups WHERE request_hash NOT IN (SELECT request_hash FROM requests) AND request_hash NOT IN"
            " (SELECT request_hash FROM targets WHERE request_hash IS NOT NULL)"
        )
        connection.execute("DELETE FROM artist_history WHERE artist NOT IN (SELECT id FROM artists)")
    store.vacuum()
    return dropped


def _weigh(store: Store, chosen: str, values: list[object]) -> Dropped:
    row = store.row(f"SELECT count(*), coalesce(sum(cost_usd), 0) FROM responses WHERE id IN ({chosen})", values)
    return Dropped(*row)


def _drop(store: Store, chosen: str, values: list[object], run: int) -> Dropped:
    dropped = _weigh(store, chosen, values)
    with store.transaction() as connection:
        connection.execute("CREATE TEMP TABLE doomed (id INTEGER PRIMARY KEY)")
        connection.execute(f"INSERT INTO doomed {chosen}", values)
        connection.execute(
            "CREATE TEMP TABLE doomed_requests AS SELECT request_hash FROM requests"
            " WHERE response IN (SELECT id FROM doomed)"
        )
        connection.execute(
            "INSERT INTO forgotten SELECT id, request_hash, attempt, cost_usd, ?, ? FROM responses"
            " WHERE id IN (SELECT id FROM doomed)",
            (time.time(), run),
        )
        connection.execute(
            f"UPDATE requests SET state = CASE WHEN state = '{RequestState.IN_BATCH}' THEN state"
            f" ELSE '{RequestState.FORGOTTEN}' END, response = NULL"
            " WHERE response IN (SELECT id FROM doomed)"
        )
        connection.execute(
            f"UPDATE targets SET reason = CASE WHEN reason IN ('{Reason.REMOVED}', '{Reason.IN_BATCH}') THEN reason"
            f" ELSE '{Reason.FORGOTTEN}' END, detail = CASE WHEN reason = '{Reason.IN_BATCH}' THEN detail END, held = 0"
            " WHERE built_response IN (SELECT id FROM doomed)"
            " OR (request_hash IN (SELECT request_hash FROM doomed_requests)"
            "     AND coalesce(accepted_hash, '') <> request_hash)"
        )
        connection.execute(
            "UPDATE targets SET built_response = NULL, built_definition = NULL, built_row = NULL"
            " WHERE built_response IN (SELECT id FROM doomed)"
        )
        connection.execute(
            "UPDATE targets SET accepted_hash = NULL, accepted_response = NULL"
            " WHERE accepted_response IN (SELECT id FROM doomed)"
        )
        connection.execute("DELETE FROM responses WHERE id IN (SELECT id FROM doomed)")
        connection.execute("DROP TABLE doomed")
        connection.execute("DROP TABLE doomed_requests")
        bump_results(connection)
    return dropped


# ---------------------------------------------------------------------------------------------------------- outputs


def output_written(store: Store, path: str) -> tuple[str, int, str, str | None] | None:
    """Return (options, results version, signature, files) of an output's last writing."""
    row = store.row("SELECT options, results_version, signature, files FROM outputs WHERE path = ?", (path,))
    return None if row is None else (row[0], row[1], row[2], row[3])


def remember_output(store: Store, path: str, options: str, version: int, signature: str, files: str | None) -> None:
    with store.transaction() as connection:
        connection.execute(
            "INSERT OR REPLACE INTO outputs VALUES (?, ?, ?, ?, ?)", (path, options, version, signature, files)
        )

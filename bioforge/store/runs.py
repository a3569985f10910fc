"""Runs: beginning and ending one, and finding the one that `resume` continues."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bioforge import __version__
from bioforge.store.database import Store, identity
from bioforge.store.selection import Selection


@dataclass(frozen=True, slots=True)
class Run:
    """`state`: planning, running, finished, stopped, interrupted or crashed. Times in seconds since 1970."""

    id: int
    command: str
    state: str
    started_at: float
    ended_at: float | None
    exit_code: int | None
    stopped_by: str | None
    backend: str | None
    selection: str | None
    succeeded: int | None
    failed: int | None
    cost_usd: float | None


_COLUMNS = (
    "id, command, state, started_at, ended_at, exit_code, stopped_by, backend, selection, succeeded, failed, cost_usd"
)


def begin(store: Store, command: str, backend: str | None, selection: Selection) -> int:
    """A run from its first moment, so that a second process can be told who is at work."""
    pid, host = identity()
    with store.transaction() as connection:
        cursor = connection.execute(
            "INSERT INTO runs (command, state, started_at, backend, selection, pid, host, version)"
            " VALUES (?, 'planning', ?, ?, ?, ?, ?, ?)",
            (command, time.time(), backend, selection.as_json(), pid, host, __version__),
        )
        return int(cursor.lastrowid or 0)


def set_running(store: Store, run: int) -> None:
    with store.transaction() as connection:
        connection.execute("UPDATE runs SET state = 'running' WHERE id = ?", (run,))


def end(
    store: Store,
    run: int,
    state: str,
    exit_code: int,
    *,
    stopped_by: str | None = None,
    succeeded: int = 0,
    failed: int = 0,
) -> None:
    with store.transaction() as connection:
        connection.execute(
            "UPDATE runs SET state = ?, exit_code = ?, stopped_by = ?, ended_at = ?, succeeded = ?, failed = ?,"
            " cost_usd = (SELECT sum(r.cost_usd) FROM attempts x JOIN responses r ON r.attempt = x.id"
            "             WHERE x.run = runs.id)"
            " WHERE id = ?",
            (state, exit_code, stopped_by, time.time(), succeeded, failed, run),
        )


def discard(store: Store, run: int) -> None:
    """A run that found nothing to do leaves no row: a run is an invocation that did work."""
    with store.transaction() as connection:
        connection.execute("DELETE FROM runs WHERE id = ?", (run,))


def newest(store: Store, limit: int = 5) -> list[Run]:
    return [Run(*row) for row in store.rows(f"SELECT {_COLUMNS} FROM runs ORDER BY id DESC LIMIT ?", (limit,))]


def unfinished(store: Store) -> Run | None:
    """The newest run that built targets, when it did not come to its end."""
    row = store.row(
        f"SELECT {_COLUMNS} FROM runs WHERE state IN ('planning', 'running', 'finished', 'stopped', 'interrupted',"
        " 'crashed') AND (command LIKE 'run%' OR command LIKE 'resume%') ORDER BY id DESC LIMIT 1"
    )
    if row is None:
        return None
    run = Run(*row)
    return None if run.state == "finished" else run


def set_targets(store: Store, run: int, targets: list[int]) -> None:
    """Bind a run to exactly these targets."""
    with store.transaction() as connection:
        connection.executemany("INSERT OR IGNORE INTO run_targets VALUES (?, ?)", [(run, target) for target in targets])


def update_selection(store: Store, run: int, selection: Selection) -> None:
    with store.transaction() as connection:
        connection.execute("UPDATE runs SET selection = ? WHERE id = ?", (selection.as_json(), run))

"""Begin and end runs, and find the one that `resume` continues."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass

from bioforge import __version__
from bioforge.store.database import Store, identity
from bioforge.store.reason_sql import FAILED_STATES
from bioforge.store.selection import Selection


@dataclass(frozen=True, slots=True)
class Run:
    """`state`: planning, running, finished, stopped, interrupted or crashed. Times in seconds since 1970.

    `always_make`: the run crashed before it had marked the fresh targets that it should resend.
    """

    id: int
    command: str
    state: str
    started_at: float
    ended_at: float | None
    exit_code: int | None
    stopped_by: str | None
    backend: str | None
    selection: str | None
    always_make: int
    max_cost_usd: float | None
    succeeded: int | None
    failed: int | None
    cost_usd: float | None
    pid: int | None = None
    host: str | None = None

    @property
    def alive(self) -> bool:
        """Return True if its process may still run; a process on another host cannot be checked."""
        if self.ended_at is not None or self.pid is None:
            return False
        pid, host = identity()
        if self.host != host or self.pid == pid:
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            return True
        return True


_COLUMNS = (
    "id, command, state, started_at, ended_at, exit_code, stopped_by, backend, selection,"
    " always_make, max_cost_usd, succeeded, failed, cost_usd, pid, host"
)

_SUMS = f"""
    succeeded = (SELECT count(*) FROM attempts WHERE run = runs.id AND outcome = 'succeeded'),
    failed = (SELECT count(DISTINCT x.request_hash) FROM attempts x JOIN requests q
              ON q.request_hash = x.request_hash WHERE x.run = runs.id AND q.state IN {FAILED_STATES}),
    cost_usd = (SELECT sum(r.cost_usd) FROM attempts x JOIN responses r ON r.attempt = x.id WHERE x.run = runs.id)
"""
"""Sums of a run: answers, requests without one, and money."""


def begin(
    store: Store,
    command: str,
    backend: str | None,
    selection: Selection,
    *,
    always_make: bool = False,
    max_cost_usd: float | None = None,
) -> int:
    """Record a run at its start, so that a second process can name it."""
    pid, host = identity()
    with store.transaction() as connection:
        cursor = connection.execute(
            "INSERT INTO runs (command, state, started_at, backend, selection, always_make, max_cost_usd, pid,"
            " host, version) VALUES (?, 'planning', ?, ?, ?, ?, ?, ?, ?, ?)",
            (command, time.time(), backend, selection.as_json(), always_make, max_cost_usd, pid, host, __version__),
        )
        return int(cursor.lastrowid or 0)


def close_crashed(store: Store) -> list[Run]:
    """Mark runs as crashed that were never closed: the caller holds the lock, so none of them is alive."""
    dead = [Run(*row) for row in store.rows(f"SELECT {_COLUMNS} FROM runs WHERE ended_at IS NULL ORDER BY id")]
    if dead:
        with store.transaction() as connection:
            connection.execute(
                "UPDATE runs SET state = 'crashed', ended_at = (SELECT coalesce(max(started_at), runs.started_at) FROM"
                f" attempts WHERE run = runs.id), {_SUMS} WHERE ended_at IS NULL"
            )
    return dead


def set_running(store: Store, run: int) -> None:
    with store.transaction() as connection:
        connection.execute("UPDATE runs SET state = 'running' WHERE id = ?", (run,))


def update_sums(connection: sqlite3.Connection, batches: Iterable[str]) -> None:
    """Update the sums of the runs that prepared these batches."""
    connection.execute(
        f"UPDATE runs SET {_SUMS} WHERE id IN (SELECT run FROM batches WHERE key IN (SELECT value FROM json_each(?)))",
        (json.dumps(sorted(batches)),),
    )


def end(
    store: Store,
    run: int,
    state: str,
    exit_code: int,
    stopped_by: str | None = None,
) -> None:
    """Close a run with its sums: answers, requests without one, and money."""
    with store.transaction() as connection:
        connection.execute(
            f"UPDATE runs SET state = ?, exit_code = ?, stopped_by = ?, ended_at = ?, {_SUMS} WHERE id = ?",
            (state, exit_code, stopped_by, time.time(), run),
        )


def spent_usd(store: Store, run: int) -> float:
    """Return the US dollars that a run has spent or may have spent.

    Calls that may have been charged count as an average answer, open batches as estimated. Works for crashed runs
    too.
    """
    cost, unclear = store.row(
        "SELECT coalesce(sum(r.cost_usd), 0),"
        " coalesce(sum(x.paid = 'maybe' AND (x.batch IS NULL OR x.outcome <> 'started')), 0) FROM attempts x"
        " LEFT JOIN responses r ON r.attempt = x.id WHERE x.run = ?",
        (run,),
    )
    average = store.limited_average("SELECT cost_usd FROM responses ORDER BY id DESC LIMIT 1000")
    open_batches = store.value(
        "SELECT coalesce(sum(estimated_usd), 0) FROM batches WHERE run = ? AND state NOT IN ('collected', 'released')",
        (run,),
    )
    return float(cost + unclear * (average or 0.0) + open_batches)


def is_planning(store: Store, run: int) -> bool:
    return bool(store.value("SELECT state = 'planning' FROM runs WHERE id = ?", (run,)))


def may_have_paid(store: Store, run: int) -> bool:
    """Return True if any attempt of a run was answered or may have been charged."""
    unsent = "SELECT key FROM batches WHERE run = ? AND state = 'prepared'"
    found = store.value(
        f"SELECT 1 FROM attempts WHERE run = ? AND paid <> 'no' AND (batch IS NULL OR batch NOT IN ({unsent})) LIMIT 1",
        (run, run),
    )
    return found is not None


def discard(store: Store, run: int) -> None:
    """Delete a run that did no work."""
    with store.transaction() as connection:
        connection.execute("DELETE FROM runs WHERE id = ?", (run,))
        connection.execute("DELETE FROM run_targets WHERE run = ?", (run,))


def newest(store: Store, limit: int = 5) -> list[Run]:
    return [Run(*row) for row in store.rows(f"SELECT {_COLUMNS} FROM runs ORDER BY id DESC LIMIT ?", (limit,))]


def unfinished(store: Store) -> Run | None:
    """Return the newest run that built targets, if it did not finish."""
    row = store.row(
        f"SELECT {_COLUMNS} FROM runs WHERE state IN ('planning', 'running', 'finished', 'stopped', 'interrupted',"
        " 'crashed') AND (command LIKE 'run%' OR command LIKE 'resume%') ORDER BY id DESC LIMIT 1"
    )
    if row is None:
        return None
    run = Run(*row)
    return None if run.state == "finished" else run


def set_targets(store: Store, run: int, targets: Iterable[int]) -> None:
    """Bind a run to exactly these targets; none, if the iterable raises."""
    with store.transaction() as connection:
        connection.execute("DELETE FROM run_targets WHERE run = ?", (run,))
        connection.executemany("INSERT OR IGNORE INTO run_targets VALUES (?, ?)", ((run, target) for target in targets))


def take_over_targets(store: Store, earlier: int, run: int) -> None:
    """Bind a run to the targets of an earlier one."""
    with store.transaction() as connection:
        connection.execute(
            "INSERT OR IGNORE INTO run_targets SELECT ?, target FROM run_targets WHERE run = ?", (run, earlier)
        )


def update_selection(store: Store, run: int, selection: Selection) -> None:
    with store.transaction() as connection:
        connection.execute("UPDATE runs SET selection = ? WHERE id = ?", (selection.as_json(), run))

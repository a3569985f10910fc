"""What targets depend on: the answers of upstream recipes, and which of them have changed."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bioforge.core.reasons import Reason, Upstream
from bioforge.store.database import Store
from bioforge.store.queue import tried_condition
from bioforge.store.reason_sql import SENT_AND_FAILED
from bioforge.store.targets import ALL_ARTISTS, ALL_ARTISTS_ID

_PAGE = 2_000

Pair = tuple[str, str]
"""A recipe and one of its variants."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An upstream target with the answer it was built from."""

    state: Upstream
    text: str | None
    parsed: str | None


def needed(store: Store) -> set[Pair]:
    """Return the recipe variants whose changes are noted."""
    return set(store.rows("SELECT recipe, variant FROM needed"))


def set_needed(store: Store, pairs: Collection[Pair]) -> None:
    """Set the recipe variants whose changes are noted; forget changes of others."""
    if needed(store) == set(pairs):
        return
    with store.transaction() as connection:
        connection.execute("DELETE FROM needed")
        connection.executemany("INSERT INTO needed VALUES (?, ?)", sorted(set(pairs)))
        connection.execute(
            "DELETE FROM upstream_changes WHERE (recipe, variant) NOT IN (SELECT recipe, variant FROM needed)"
        )


def changed_artists(store: Store, needs: Iterable[Pair]) -> Iterator[list[int]]:
    """Yield pages of artists for which any of these recipe variants has changed."""
    for pair in needs:
        after = -1
        while True:
            rows = store.rows(
                "SELECT artist FROM upstream_changes WHERE recipe = ? AND variant = ? AND artist > ?"
                f" ORDER BY artist LIMIT {_PAGE}",
                (*pair, after),
            )
            if not rows:
                break
            yield [row[0] for row in rows]
            after = rows[-1][0]


def note_failures(store: Store, hashes: Sequence[str]) -> None:
    """Note that these requests failed, so that dependents are replanned."""
    if not hashes or store.value("SELECT 1 FROM needed LIMIT 1") is None:
        return
    with store.transaction() as connection:
        connection.execute(
            "INSERT OR IGNORE INTO upstream_changes SELECT t.recipe, t.variant, t.artist FROM targets t"
            " JOIN needed n ON n.recipe = t.recipe AND n.variant = t.variant"
            " WHERE t.request_hash IN (SELECT value FROM json_each(?))",
            (json.dumps(hashes),),
        )


def any_change(store: Store) -> bool:
    return store.value("SELECT 1 FROM upstream_changes LIMIT 1") is not None


def forget_changes(store: Store) -> None:
    """Delete the noted changes, after all dependents were replanned."""
    with store.transaction() as connection:
        connection.execute("DELETE FROM upstream_changes")


def answers(
    store: Store, needs: Mapping[str, str], artists: Sequence[int], *, run: int | None, resend_maybe_paid: bool
) -> dict[int, dict[str, Answered]]:
    """Return upstream targets by artist and recipe. One that failed in `run` is stuck."""
    rows = store.rows(
        "SELECT t.artist, t.recipe, t.reason, t.detail, t.held, t.request_hash, t.built_response, r.text, r.parsed,"
        f" t.reason IN {SENT_AND_FAILED} AND {tried_condition('t')}"
        " FROM json_each(?) n CROSS JOIN json_each(?) j CROSS JOIN targets t"
        " ON t.artist = j.value AND t.recipe = json_extract(n.value, '$[0]') AND t.variant = json_extract(n.value, '$[1]')"
        " LEFT JOIN responses r ON r.id = t.built_response",
        (run, json.dumps([list(pair) for pair in needs.items()]), json.dumps(artists)),
    )
    found: dict[int, dict[str, Answered]] = {}
    for artist, recipe, reason, detail, held, digest, response, text, parsed, failed_here in rows:
        stuck = reason is not None and (
            bool(held)
            or bool(failed_here)
            or reason in (Reason.SKIPPED, Reason.REMOVED)
            or (digest is None and reason != Reason.UPSTREAM)
            or (reason == Reason.MAYBE_PAID and not resend_maybe_paid)
        )
        state = Upstream(recipe, reason, detail, response, stuck and reason != Reason.IN_BATCH)
        found.setdefault(artist, {})[recipe] = Answered(state, text, parsed)
    return found


def combined(store: Store, recipe: str, variant: str, run: int | None, resend_maybe_paid: bool) -> Upstream:
    """Return the targets of an upstream recipe over all artists as one: fresh if all are, stuck if all stale ones are."""
    stuck = (
        f"(t.held = 1 OR t.reason = '{Reason.SKIPPED}' OR (t.request_hash IS NULL AND t.reason <> '{Reason.UPSTREAM}')"
        f" OR (t.reason IN {SENT_AND_FAILED} AND {tried_condition('t')})"
        f" OR (NOT {int(resend_maybe_paid)} AND t.reason = '{Reason.MAYBE_PAID}'))"
    )
    stale = (
        "SELECT t.reason, t.detail FROM targets t INDEXED BY targets_stale"
        f" WHERE t.recipe = ? AND t.reason IS NOT NULL AND t.reason <> '{Reason.REMOVED}' AND t.variant = ?"
    )
    # a plan says what a failure that nobody asks about again keeps from being asked at all
    if run is None and (row := store.row(f"{stale} AND {stuck} LIMIT 1", (recipe, variant, run))) is not None:
        return Upstream(recipe, row[0], row[1], None, stuck=True)
    # asked for after each group of answers: as long as anything is to come, the first row found ends the search
    if (row := store.row(f"{stale} AND NOT {stuck} LIMIT 1", (recipe, variant, run))) is not None:
        return Upstream(recipe, row[0], row[1], None)
    if (row := store.row(f"{stale} LIMIT 1", (recipe, variant))) is not None:
        return Upstream(recipe, row[0], row[1], None, stuck=True)
    return Upstream(recipe, None, None, 0)  # answers there are many, and none that could be named


def ensure_all_artists_row(store: Store) -> None:
    """Create the row that stands for all artists."""
    if store.value("SELECT 1 FROM artists WHERE id = ?", (ALL_ARTISTS,)) is None:
        with store.transaction() as connection:
            connection.execute(
                "INSERT INTO artists (id, artist_id, artist_name, row_hash, generation) VALUES (?, ?, ?, '', 0)",
                (ALL_ARTISTS, ALL_ARTISTS_ID, "all artists"),
            )

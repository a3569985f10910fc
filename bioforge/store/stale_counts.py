"""Count stale targets for plans, status and prices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bioforge.core.reasons import Reason
from bioforge.store import artists
from bioforge.store.database import Store
from bioforge.store.reason_sql import WAITING_FOR_UPSTREAM, WITH_ERROR_CLASS, not_sent
from bioforge.store.selection import Selection
from bioforge.store.targets import PRESENT, SENDABLE, STALE


@dataclass(frozen=True, slots=True)
class StaleGroup:
    """Stale targets of one recipe with the same reason. `requests` counts distinct requests.

    `held` ones are held back, unless forced or allowed by `maybe_paid`; `unrenderable` ones cannot be sent.
    `detail` is the change, the error class, the batch, or the upstream recipe; while upstream answers are
    missing, `requests` is an upper limit.
    """

    recipe: str
    reason: str
    detail: str | None
    targets: int
    requests: int
    input_tokens: int
    held: int
    unrenderable: int
    example: str
    variant: str = ""
    model: str | None = None
    """The model of a repair or fallback request."""


def _not_sent(resend_maybe_paid: bool) -> str:
    """Return the condition under which a run does not send a stale target."""
    return f"(t.held = 1 OR t.reason IN {not_sent(resend_maybe_paid)})"


_FEW = 20_000
"""Number of stale targets up to which distinct requests are counted by a sort."""


def _distinct(store: Store, condition: str) -> tuple[str, str]:
    """Return the start of a query over targets `t`.

    And the expression in it that counts distinct requests under a condition.

    A sort of a million hashes is slow, so many of them are counted along the index that has them in order.
    """
    asked = f"CASE WHEN {condition} THEN t.request_hash END"
    stale = "SELECT 1 FROM targets t INDEXED BY targets_open WHERE t.reason IS NOT NULL"
    if store.value(f"{stale} LIMIT 1 OFFSET {_FEW}") is None:
        return "", f"count(DISTINCT {asked})"
    wanted_twice = (
        "SELECT request_hash FROM targets WHERE request_hash IS NOT NULL GROUP BY request_hash HAVING count(*) > 1"
    )
    if store.value(f"{wanted_twice} LIMIT 1") is None:
        return "", f"count({asked})"
    shared = f"CASE WHEN {condition} AND t.request_hash IN shared THEN t.request_hash END"
    alone = f"CASE WHEN {condition} AND t.request_hash NOT IN shared THEN 1 END"
    return f"WITH shared AS MATERIALIZED ({wanted_twice}) ", f"(count(DISTINCT {shared}) + count({alone}))"


def stale_groups(store: Store, selection: Selection, *, resend_maybe_paid: bool = True) -> list[StaleGroup]:
    """Return the selected stale targets by recipe, reason and detail, largest first within a recipe."""
    where, values = selection.where()
    held = _not_sent(resend_maybe_paid)
    before, different = _distinct(store, f"NOT {held}")
    # an artist is looked up for each target only where the selection asks something of it: the join is left out then
    sql = (
        f"{before}SELECT t.recipe, t.reason,"
        f" CASE WHEN t.reason IN {WITH_ERROR_CLASS}"
        " THEN substr(t.detail, 1, instr(t.detail || ': ', ': ') - 1) ELSE t.detail END AS detail,"
        f" count(*), {different} + sum(t.reason = '{Reason.UPSTREAM}'),"
        f" sum(CASE WHEN {held} THEN 0 ELSE t.input_tokens END), sum({held}),"
        f" sum(t.request_hash IS NULL AND t.reason NOT IN {WAITING_FOR_UPSTREAM}),"
        " min(t.artist), t.variant, f.model"
        " FROM targets t LEFT JOIN artists a ON a.id = t.artist"
        " LEFT JOIN follow_ups f ON f.request_hash = t.request_hash"
        f" WHERE {STALE} AND {where} GROUP BY t.recipe, t.variant, t.reason, 3, f.model"
        " ORDER BY t.recipe, t.variant, count(*) DESC, t.reason, 3"
    )
    with store.limited_sort():
        rows = store.rows(sql, values)
    first = "SELECT artist_id FROM artists WHERE id = ?"
    return [StaleGroup(*(*row[:8], store.value(first, (row[8],)), *row[9:])) for row in rows]


def requests_to_send(store: Store, selection: Selection, *, resend_maybe_paid: bool) -> int:
    """Return the number of distinct requests that a run would send.

    For targets that wait for upstream answers, at most.
    """
    where, values = selection.where()
    before, different = _distinct(store, "1")
    return int(
        store.value(
            f"{before}SELECT {different} + coalesce(sum(t.reason = '{Reason.UPSTREAM}'), 0)"
            " FROM targets t LEFT JOIN artists a ON a.id = t.artist"
            f" WHERE {STALE} AND NOT {_not_sent(resend_maybe_paid)} AND {where}",
            values,
        )
    )


def sendable_targets(store: Store, selection: Selection) -> int:
    """Return the number of stale targets that are rendered and not held back."""
    where, values = selection.where()
    return int(
        store.value(
            "SELECT count(*) FROM targets t JOIN artists a ON a.id = t.artist"
            f" WHERE {STALE} AND t.held = 0 AND {SENDABLE}"
            f" AND a.removed_at IS NULL AND {where}",
            values,
        )
    )


def as_if_changed(store: Store, selection: Selection, recipe: str, variant: str, column: str) -> StaleGroup:
    """Return the group that a change of one column would make stale, for every selected artist."""
    where, values = selection.without_reasons().where()
    row = store.row(
        "SELECT count(*), coalesce(sum(t.input_tokens), 0), coalesce(min(a.artist_id), '')"
        f" FROM targets t JOIN artists a ON a.id = t.artist WHERE a.removed_at IS NULL AND {PRESENT}"
        f" AND t.recipe = ? AND t.variant = ? AND {where}",
        (recipe, variant, *values),
    )
    return StaleGroup(recipe, Reason.CHANGED, f"column {column}", row[0], row[0], row[1], 0, 0, row[2], variant)


def counts(store: Store, recipes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return for each recipe its `total` and the number of targets per reason. Cheap when nothing is stale."""
    found: dict[str, dict[str, int]] = {}
    for recipe in recipes:
        stale = store.rows(
            f"SELECT t.reason, count(*) FROM targets t WHERE {STALE} AND t.recipe = ? GROUP BY t.reason", (recipe,)
        )
        found[recipe] = dict(stale)
    return found


def recipes(store: Store) -> list[str]:
    """Return every recipe that has targets, also those the project no longer has."""
    return [row[0] for row in store.rows("SELECT DISTINCT recipe FROM planned ORDER BY recipe")]


@dataclass(frozen=True, slots=True)
class VariantCounts:
    """Targets of one variant: all, stale by reason, and held back."""

    variant: str
    planned: int
    stale: dict[str, int]
    held: int


def variant_counts(store: Store, recipe: str) -> list[VariantCounts]:
    """Return the counts of each planned variant, in the order of the file."""
    # counted by indexes alone: all of them, without those that are there no more
    with store.limited_sort():
        planned = store.rows(
            "SELECT variant, count(*) FROM targets WHERE recipe = ? GROUP BY variant ORDER BY min(id)", (recipe,)
        )
    gone = dict(
        store.rows(
            f"SELECT variant, count(*) FROM targets WHERE recipe = ? AND reason = '{Reason.REMOVED}' GROUP BY variant",
            (recipe,),
        )
    )
    found = {
        variant: VariantCounts(variant, number - gone.get(variant, 0), {}, 0)
        for variant, number in planned
        if number > gone.get(variant, 0)
    }
    for variant, reason, number, held in store.rows(
        f"SELECT t.variant, t.reason, count(*), sum(t.held) FROM targets t WHERE {STALE} AND t.recipe = ?"
        " GROUP BY t.variant, t.reason ORDER BY t.reason",
        (recipe,),
    ):
        before = found[variant]
        found[variant] = replace(before, stale={**before.stale, reason: number}, held=before.held + held)
    return list(found.values()) or [VariantCounts("", 0, {}, 0)]


def removed_artists(store: Store) -> int:
    everybody = int(store.value("SELECT count(*) FROM artists WHERE id <= 0"))
    return int(store.value("SELECT count(*) FROM artists")) - everybody - total_artists(store)


def row_lengths(store: Store) -> tuple[int, int]:
    """Return the number of artists and the characters of all their names and data."""
    row = store.row(
        "SELECT count(*), coalesce(sum(length(artist_name) + length(artist_data)), 0) FROM artists"
        " WHERE removed_at IS NULL AND id > 0"
    )
    return int(row[0]), int(row[1])


def total_artists(store: Store) -> int:
    return artists.total(store)

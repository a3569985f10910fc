"""What is stale and how much of it: counts and groups for plans, status and prices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bioforge.plan import CHANGED, REMOVED
from bioforge.store.database import Store
from bioforge.store.selection import Selection
from bioforge.store.targets import STALE


@dataclass(frozen=True, slots=True)
class StaleGroup:
    """Stale targets of one recipe with the same reason. `requests` counts different requests, sent once each;
    `held` ones are not asked again unless forced; `unrenderable` ones cannot be sent."""

    recipe: str
    reason: str
    detail: str | None
    targets: int
    requests: int
    input_tokens: int
    held: int
    unrenderable: int
    example: str


def stale_groups(store: Store, selection: Selection) -> list[StaleGroup]:
    where, values = selection.where()
    rows = store.rows(
        "SELECT t.recipe, t.reason, t.detail, count(*), count(DISTINCT CASE WHEN t.held = 0 THEN t.request_hash END),"
        " sum(CASE WHEN t.held = 0 THEN t.input_tokens ELSE 0 END), sum(t.held), sum(t.request_hash IS NULL),"
        " min(a.artist_id)"
        f" FROM targets t JOIN artists a ON a.id = t.artist WHERE {STALE} AND {where}"
        " GROUP BY t.recipe, t.reason, t.detail ORDER BY t.recipe, count(*) DESC, t.reason, t.detail",
        values,
    )
    return [StaleGroup(*row) for row in rows]


def as_if_changed(store: Store, selection: Selection, recipe: str, column: str) -> StaleGroup:
    """The group that a change of one column would make stale, for every selected artist."""
    where, values = selection.without_reasons().where()
    row = store.row(
        "SELECT count(*), coalesce(sum(t.input_tokens), 0), coalesce(min(a.artist_id), '')"
        f" FROM targets t JOIN artists a ON a.id = t.artist WHERE a.removed_at IS NULL AND t.recipe = ? AND {where}",
        (recipe, *values),
    )
    return StaleGroup(recipe, CHANGED, f"column {column}", row[0], row[0], row[1], 0, 0, row[2])


def counts(store: Store, recipes: Sequence[str]) -> dict[str, dict[str, int]]:
    """For each recipe: `total`, and how many targets per reason. Cheap when nothing is stale."""
    found: dict[str, dict[str, int]] = {}
    for recipe in recipes:
        stale = store.rows(
            f"SELECT t.reason, count(*) FROM targets t WHERE {STALE} AND t.recipe = ? GROUP BY t.reason", (recipe,)
        )
        found[recipe] = dict(stale)
    return found


def recipes(store: Store) -> list[str]:
    """Every recipe that has targets, also those the project no longer has."""
    return [row[0] for row in store.rows("SELECT DISTINCT recipe FROM planned ORDER BY recipe")]


def planned_targets(store: Store, recipe: str) -> int:
    """How many artists of the input a recipe has targets for."""
    return int(
        store.value(
            f"SELECT count(*) FROM targets WHERE recipe = ? AND (reason IS NULL OR reason <> '{REMOVED}')", (recipe,)
        )
    )


def held(store: Store, recipe: str) -> int:
    return int(store.value(f"SELECT coalesce(sum(t.held), 0) FROM targets t WHERE {STALE} AND t.recipe = ?", (recipe,)))


def removed_artists(store: Store) -> int:
    return int(store.value("SELECT count(*) FROM artists WHERE removed_at IS NOT NULL"))


def total_artists(store: Store) -> int:
    return int(store.value("SELECT count(*) FROM artists WHERE removed_at IS NULL"))

"""How a backend writes requests: what each recipe's targets were planned with, and what they are built from.

A backend's own way of writing a body is no part of a recipe. Where only that has changed, what was bought stays what it
is; for that it is told here which definition and row a target was planned by, and which request its answer belongs to.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from bioforge.core.reasons import Reason
from bioforge.store.database import Store, bump_results
from bioforge.store.targets import EVERYBODY, NOTHING


@dataclass(frozen=True, slots=True)
class Origin:
    """The definition and the hash of the row that a target was last planned by; the request whose answer it is built
    from, None where it has none."""

    definition: int
    row: str
    built_request: str | None


def serialization_hash(store: Store, recipe: str, variant: str) -> str | None:
    """How the backend wrote bodies when the recipe's targets were planned; None where nobody took a note."""
    found = store.value("SELECT value FROM facts WHERE name = ?", (_name(recipe, variant),))
    return None if found is None else str(found)


def save_serialization_hash(store: Store, recipe: str, variant: str, serialization_hash: str) -> None:
    with store.transaction() as connection:
        connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (_name(recipe, variant), serialization_hash))


def _name(recipe: str, variant: str) -> str:
    return f"body:{recipe}:{variant}" if variant else f"body:{recipe}"


def origins(store: Store, recipe: str, variant: str, artists: Sequence[int]) -> dict[int, Origin]:
    """By the numbers of the artists."""
    rows = store.rows(
        "SELECT t.artist, t.definition, t.row_hash, r.request_hash FROM targets t"
        " LEFT JOIN responses r ON r.id = t.built_response"
        " WHERE t.artist IN (SELECT value FROM json_each(?)) AND t.recipe = ? AND t.variant = ?",
        (json.dumps(artists), recipe, variant),
    )
    return {row[0]: Origin(*row[1:]) for row in rows}


_MANY = 10_000


def invalidate_plan(store: Store, recipe: str, variant: str) -> None:
    """Have all targets of a recipe planned anew."""
    with store.transaction() as connection:
        connection.execute(
            "UPDATE planned SET generation = ? WHERE recipe = ? AND variant = ?", (NOTHING, recipe, variant)
        )


def nothing_asked(store: Store) -> bool:
    """Whether no request was ever sent."""
    return store.value("SELECT 1 FROM requests LIMIT 1") is None


def defer_index(store: Store) -> None:
    """Where most targets are about to be written, the index by their requests is built afterwards: `Store.build_indexes`."""
    artists = store.next_id("artists")
    if artists > _MANY and 2 * artists > store.next_id("targets"):
        store.put_off("targets_by_request")


def mark_others_removed(store: Store, recipe: str, variant: str, *, for_all: bool) -> None:
    """Take out of account the targets that a recipe has no more: of single artists, where it is for all now; of all
    together, where it is for single ones."""
    others = f"artist <> {EVERYBODY}" if for_all else f"artist = {EVERYBODY}"
    with store.transaction() as connection:
        changed = connection.execute(
            f"UPDATE targets SET reason = '{Reason.REMOVED}', detail = NULL WHERE recipe = ? AND variant = ? AND {others}"
            f" AND reason IS NOT '{Reason.REMOVED}'",
            (recipe, variant),
        ).rowcount
        if changed:
            bump_results(connection)


def mark_removed(store: Store, kept: Sequence[tuple[str, str]]) -> int:
    """Take out of account the targets of variants that recipes of the project no longer have. Returns how many."""
    gone = [
        row
        for row in store.rows("SELECT recipe, variant FROM planned")
        if row not in set(kept) and row[0] in {recipe for recipe, _ in kept}
    ]
    if not gone:
        return 0
    with store.transaction() as connection:
        count = 0
        for recipe, variant in gone:
            count += connection.execute(
                f"UPDATE targets SET reason = '{Reason.REMOVED}', detail = NULL WHERE recipe = ? AND variant = ?",
                (recipe, variant),
            ).rowcount
            connection.execute("DELETE FROM planned WHERE recipe = ? AND variant = ?", (recipe, variant))
        bump_results(connection)
    return count

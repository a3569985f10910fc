"""How a backend serialized requests: what targets were planned with, and what they are built from.

Serialization is not part of a recipe. If only it has changed, answers stay valid; this module provides the definition
and row a target was planned with, and the request of its answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from bioforge.core.reasons import Reason
from bioforge.store.database import Store, bump_results
from bioforge.store.targets import ALL_ARTISTS, NO_GENERATION


@dataclass(frozen=True, slots=True)
class Origin:
    """Definition and row hash of a target's last plan, and the request of its answer (None: no answer)."""

    definition: int
    row: str
    built_request: str | None


def serialization_hash(store: Store, recipe: str, variant: str) -> str | None:
    """Return the hash of the backend's serialization at the last plan of a recipe; None if it was not noted."""
    found = store.value("SELECT value FROM facts WHERE name = ?", (_name(recipe, variant),))
    return None if found is None else str(found)


def save_serialization_hash(store: Store, recipe: str, variant: str, serialization_hash: str) -> None:
    with store.transaction() as connection:
        connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (_name(recipe, variant), serialization_hash))


def _name(recipe: str, variant: str) -> str:
    return f"body:{recipe}:{variant}" if variant else f"body:{recipe}"


def origins(store: Store, recipe: str, variant: str, artists: Sequence[int]) -> dict[int, Origin]:
    """Return origins by artist id."""
    rows = store.rows(
        "SELECT t.artist, t.definition, t.row_hash, r.request_hash FROM targets t"
        " LEFT JOIN responses r ON r.id = t.built_response"
        " WHERE t.artist IN (SELECT value FROM json_each(?)) AND t.recipe = ? AND t.variant = ?",
        (json.dumps(artists), recipe, variant),
    )
    return {row[0]: Origin(*row[1:]) for row in rows}


_MANY = 10_000


def invalidate_plan(store: Store, recipe: str, variant: str) -> None:
    """Mark all targets of a recipe for replanning."""
    with store.transaction() as connection:
        connection.execute(
            "UPDATE planned SET generation = ? WHERE recipe = ? AND variant = ?", (NO_GENERATION, recipe, variant)
        )


def nothing_sent(store: Store) -> bool:
    """Return True if no request was ever sent."""
    return store.value("SELECT 1 FROM requests LIMIT 1") is None


def defer_index(store: Store) -> None:
    """Defer the index by request hash before most targets are written: `Store.build_indexes`."""
    artists = store.next_id("artists")
    if artists > _MANY and 2 * artists > store.next_id("targets"):
        store.defer_index("targets_by_request")


def mark_others_removed(store: Store, recipe: str, variant: str, *, for_all: bool) -> None:
    """Mark targets as removed that a recipe no longer has: single ones if it is for all artists now, and vice versa."""
    others = f"artist <> {ALL_ARTISTS}" if for_all else f"artist = {ALL_ARTISTS}"
    with store.transaction() as connection:
        changed = connection.execute(
            f"UPDATE targets SET reason = '{Reason.REMOVED}', detail = NULL WHERE recipe = ? AND variant = ? AND {others}"
            f" AND reason IS NOT '{Reason.REMOVED}'",
            (recipe, variant),
        ).rowcount
        if changed:
            bump_results(connection)


def mark_removed(store: Store, kept: Sequence[tuple[str, str]]) -> int:
    """Mark targets of variants as removed that the project no longer has. Return their number."""
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

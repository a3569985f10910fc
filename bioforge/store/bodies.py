"""How a backend writes requests: what each recipe's targets were planned with, and what they are built from.

A backend's own way of writing a body is no part of a recipe. Where only that has changed, what was bought stays what it
is; for that it is told here which definition and row a target was planned by, and which request its answer belongs to.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from bioforge.store.database import Store


@dataclass(frozen=True, slots=True)
class Origin:
    """The definition and the hash of the row that a target was last planned by; the request whose answer it is built
    from, None where it has none."""

    definition: int
    row: str
    built_request: str | None


def form(store: Store, recipe: str, variant: str) -> str | None:
    """How the backend wrote bodies when the recipe's targets were planned; None where nobody took a note."""
    found = store.value("SELECT value FROM facts WHERE name = ?", (_name(recipe, variant),))
    return None if found is None else str(found)


def note_form(store: Store, recipe: str, variant: str, form: str) -> None:
    with store.transaction() as connection:
        connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (_name(recipe, variant), form))


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

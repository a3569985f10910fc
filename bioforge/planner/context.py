"""Everything that planning, rendering and queueing have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bioforge.core.interfaces import Backend
from bioforge.recipes.template import RecipeVariant
from bioforge.store import Store


@dataclass(frozen=True, slots=True)
class PlanContext:
    """State, recipes and backend of a plan.

    `recipes` are in dependency order. `run`: a request that failed in this run is not resent in it; None outside a run.
    """

    store: Store
    recipes: Sequence[RecipeVariant]
    backend: Backend
    resend_maybe_paid: bool = True
    run: int | None = None

    @property
    def shared_recipes(self) -> frozenset[str]:
        """Recipes that send one request about all artists."""
        return frozenset(variant.recipe for variant in self.recipes if variant.for_all)

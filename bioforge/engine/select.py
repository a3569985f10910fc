"""Recipes and variants by name, and the selection that a command's arguments describe."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from bioforge.config.loader import ProjectConfig
from bioforge.core.errors import UsageError, nearest
from bioforge.recipes.definition import closure, expanded
from bioforge.recipes.variants import Variant, matches
from bioforge.store import Selection

VARIANT = "variant:"


class RecipeNames:
    """A project's recipes and variants by name: enough to read answers, without loading plugins."""

    def __init__(self, config: ProjectConfig) -> None:
        """Raise `ConfigError` for a recipe without variants."""
        self.config = config
        self._expanded = expanded(config)
        self.recipes = list(self._expanded)
        """Names in dependency order."""
        self.variants = {recipe: [variant.name for variant in found] for recipe, found in self._expanded.items()}
        """Variant names of each recipe in the order of the file; the first is its default."""

    def selection(self, recipes: Sequence[str], words: Sequence[str], limit: int | None = None) -> Selection:
        """Return the selection of these recipes (none: all) and `--select` values. Raise `UsageError` for unknown names."""
        known = self.recipes
        for name in recipes:
            if name not in known:
                hint = nearest(name, known) or f"recipes are: {', '.join(known)}"
                raise UsageError(f"no recipe {name!r} in {self.config.path.name}", hint)
        chosen = recipes or known
        given = [word.removeprefix(VARIANT) for word in words if word.startswith(VARIANT)]
        others = tuple(word for word in words if not word.startswith(VARIANT))
        pairs = _variants(self._expanded, given, chosen) if given else ()
        return Selection.parse(tuple(name for name in known if name in chosen), others, limit, pairs)

    def with_needs(self, selection: Selection) -> Selection:
        """Return the selection with the recipes that its recipes need, in dependency order."""
        recipes = self.config.recipes
        chosen = closure(selection.recipes, {name: recipe.needs for name, recipe in recipes.items()})
        return replace(selection, recipes=tuple(name for name in self.recipes if name in chosen))


def _variants(
    expanded: Mapping[str, Sequence[Variant]], given: Sequence[str], recipes: Collection[str]
) -> tuple[tuple[str, str], ...]:
    """Return (recipe, variant) of the variants that match, and of those they depend on."""
    upstream = {
        (recipe, variant.name): tuple(variant.upstream.items())
        for recipe, variants in expanded.items()
        for variant in variants
    }
    known = [name for recipe, name in upstream if recipe in recipes and name]
    for text in given:
        if not any(matches(name, text) for name in known):
            raise UsageError(f"--select {VARIANT}{text}: no such variant", _nearest_variant(text, known))
    found: dict[tuple[str, str], None] = {}
    waiting = [pair for pair in upstream if pair[0] in recipes and any(matches(pair[1], text) for text in given)]
    while waiting:
        pair = waiting.pop()
        found[pair] = None
        waiting += upstream[pair]
    return tuple(sorted(found))


def _nearest_variant(text: str, known: Sequence[str]) -> str:
    if not known:
        return "no recipe has a matrix or samples"
    return nearest(text, known) or f"variants are: {', '.join(known[:6])}{' …' if len(known) > 6 else ''}"

"""From the words of a command to a selection: recipes with what they need, artists, reasons, variants."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from bioforge.config import ProjectConfig
from bioforge.config.relations import in_order
from bioforge.errors import UsageError, nearest
from bioforge.prompts import Prompts
from bioforge.recipes import closure
from bioforge.store import Selection
from bioforge.variants import matches

VARIANT = "variant:"


def select(
    config: ProjectConfig,
    prompts: Sequence[Prompts],
    recipes: Sequence[str],
    words: Sequence[str],
    limit: int | None = None,
) -> Selection:
    """`words` are the values of `--select`. Raises `UsageError` for what the project does not have."""
    known = in_order(config.recipes)
    for name in recipes:
        if name not in config.recipes:
            hint = nearest(name, known) or f"recipes are: {', '.join(known)}"
            raise UsageError(f"no recipe {name!r} in {config.path.name}", hint)
    chosen = recipes or known
    given = [word.removeprefix(VARIANT) for word in words if word.startswith(VARIANT)]
    others = tuple(word for word in words if not word.startswith(VARIANT))
    pairs = _variants(prompts, given, chosen) if given else ()
    return Selection.parse(tuple(name for name in known if name in chosen), others, limit, pairs)


def with_needs(config: ProjectConfig, recipes: Sequence[str]) -> tuple[str, ...]:
    """These recipes and what they need, in dependency order."""
    chosen = closure(recipes, {name: recipe.needs for name, recipe in config.recipes.items()})
    return tuple(name for name in in_order(config.recipes) if name in chosen)


def variants_of(prompts: Sequence[Prompts]) -> dict[str, list[str]]:
    """The variants of each recipe, in the order of the file."""
    found: dict[str, list[str]] = {}
    for one in prompts:
        found.setdefault(one.definition.recipe, []).append(one.definition.variant)
    return found


def _variants(
    prompts: Sequence[Prompts], given: Sequence[str], recipes: Collection[str]
) -> tuple[tuple[str, str], ...]:
    """(recipe, variant) of those that any of these words means, and of those they build on."""
    upstream = {
        (one.definition.recipe, one.definition.variant): tuple(one.definition.upstream.items()) for one in prompts
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

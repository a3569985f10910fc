"""Validate relations between recipes and their variants: `needs`, `for`, `matrix`, `schema`, `repair`, `fallback`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from math import prod
from pathlib import Path
from typing import Any

from bioforge.config.tables import RecipeTable
from bioforge.config.templates import TemplateText, resolve
from bioforge.config.validation import ConfigIssue, not_json, short, unknown

TEMPLATES = ("instructions", "input")
VARIED = ("model", *TEMPLATES)
"""Keys of a recipe that a matrix may vary, besides request parameters."""

MOST_VARIANTS = 1_000


def mistakes(recipes: Mapping[str, RecipeTable], names: Iterable[str]) -> Iterator[ConfigIssue]:
    """Return the issues of recipes that are valid one by one. `names` are all recipes of the file, also invalid ones."""
    names = list(names)
    right = True
    for name, recipe in recipes.items():
        for number, need in enumerate(recipe.needs):
            place = f"recipe.{name}.needs[{number}]"
            if need == name:
                yield ConfigIssue(place, "a recipe cannot need itself")
                right = False
            elif need not in names:
                yield ConfigIssue(place, f"{short(need)} is an {unknown(need, names, 'recipe')}")
                right = False
        yield from _single(f"recipe.{name}", recipe)
        if recipe.score is not None and ":" not in recipe.score:
            yield from _judge(name, recipe.score, recipes, names)
    if right and (cycle := find_cycle({name: recipe.needs for name, recipe in recipes.items()})):
        yield ConfigIssue(f"recipe.{cycle[0]}.needs", f"recipes that need each other: {' → '.join(cycle)}")


def find_cycle(needs: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the recipes of a cycle, the first one again at the end; empty if there is none."""
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle[::-1]
    return []


def in_order(recipes: Mapping[str, RecipeTable]) -> list[str]:
    """Return the names with each recipe after those it needs, else in the order of the file."""
    found: dict[str, None] = {}

    def add(name: str) -> None:
        for need in recipes[name].needs:
            if need not in found:
                add(need)
        found[name] = None

    for name in recipes:
        add(name)
    return list(found)


def _single(key: str, recipe: RecipeTable) -> Iterator[ConfigIssue]:
    if recipe.repair and recipe.schema_ is None:
        yield ConfigIssue(f"{key}.repair", "there is nothing to repair without a schema")
    if recipe.fallback and recipe.prompt is not None and recipe.model is None:
        yield ConfigIssue(f"{key}.fallback", "needs a model of the recipe's own to fall back from")
    if recipe.schema_ is not None:
        yield from _format_twice(key, recipe)
    if recipe.scope == "all" and recipe.prompt is not None and recipe.prompt.variables is None:
        yield ConfigIssue(f"{key}.prompt.variables", 'missing: with for = "all" there is no artist to take them from')
    count = prod(len(values) for values in recipe.matrix.values()) * recipe.samples
    if count > MOST_VARIANTS:
        yield ConfigIssue(
            f"{key}.matrix", f"makes {count:,} variants of each artist, expected at most {MOST_VARIANTS:,} with samples"
        )
    for name, values in recipe.matrix.items():
        place = f"{key}.matrix.{name}"
        if not values:
            yield ConfigIssue(place, "the list is empty, expected values to vary")
        elif any(value in values[:number] for number, value in enumerate(values)):
            yield ConfigIssue(place, "the same value twice; for several answers to one request use samples")
        if name in RecipeTable.own_keys() and name not in VARIED:
            yield ConfigIssue(place, f"cannot vary; what can: {', '.join(VARIED)} and request parameters")
        elif name == "model" and not all(isinstance(value, str) and value for value in values):
            yield ConfigIssue(place, "expected a list of model names")
        elif name not in TEMPLATES:
            yield from not_json(values, place)


def _format_twice(key: str, recipe: RecipeTable) -> Iterator[ConfigIssue]:
    text = recipe.parameters.get("text")
    if isinstance(text, Mapping) and "format" in text:
        yield ConfigIssue(
            f"{key}.text.format", "given beside schema, which is sent in its place; leave one of them out"
        )
    if "response_format" in recipe.parameters:
        yield ConfigIssue(
            f"{key}.response_format", "given beside schema, which is sent in its place; leave one of them out"
        )


def _judge(name: str, judge: str, recipes: Mapping[str, RecipeTable], names: Iterable[str]) -> Iterator[ConfigIssue]:
    key = f"recipe.{name}.score"
    if judge not in names:
        near = unknown(judge, list(names), "recipe")
        yield ConfigIssue(key, f"{short(judge)} is an {near}; a function is written module:function")
    elif judge in recipes and name not in recipes[judge].needs:
        yield ConfigIssue(key, f'recipe {judge!r} does not judge this one: it needs needs = ["{name}"]')


def varied_template(value: object, root: Path, place: str) -> TemplateText | ConfigIssue:
    """Read a template of a matrix: a file or inline text."""
    if not isinstance(value, str):
        return ConfigIssue(place, f"expected a template file or text, found {short(value)}")
    try:
        return resolve(value, root)
    except ValueError as problem:
        return ConfigIssue(place, str(problem))


def varied_templates(raw: Mapping[str, Any], root: Path, key: str) -> Iterator[ConfigIssue]:
    """Return the issues of the templates in a recipe's matrix."""
    for name in TEMPLATES:
        values = raw.get(name)
        for number, value in enumerate(values if isinstance(values, list) else []):
            found = varied_template(value, root, f"{key}.matrix.{name}[{number}]")
            if isinstance(found, ConfigIssue):
                yield found

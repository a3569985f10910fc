"""Read the recipes of a project file into definitions, and warn about risky ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from bioforge.config.loader import ProjectConfig, RecipeTable, TemplateText
from bioforge.config.relations import TEMPLATES, in_order
from bioforge.config.templates import resolve
from bioforge.config.validation import short
from bioforge.core.errors import ConfigError, nearest
from bioforge.core.hashing import definition_hash
from bioforge.recipes.schema import Schema, load_schema
from bioforge.recipes.template import Definition, RecipeVariant
from bioforge.recipes.variants import Variant, expand

PROMPT_OBJECTS_END = "2026-11-30"
"""The day on which OpenAI ends the prompts API and requests with a prompt id."""


def definitions(config: ProjectConfig, dialect: str, endpoints: Sequence[str]) -> Iterator[Definition]:
    """Yield every variant of every recipe, upstream recipes first.

    `dialect` names the backend's format: answers are shared within a dialect. `endpoints` are those the backend
    supports; the first is the default. Raises `ConfigError` for a schema or an endpoint that cannot be used.
    """
    requests: dict[str, tuple[str, str | None]] = {}
    with_schema = frozenset(name for name, recipe in config.recipes.items() if recipe.schema_ is not None)
    for name, variants in expanded(config).items():
        recipe = config.recipes[name]
        schema = _schema(config, name, recipe)
        endpoint = _endpoint(config, name, recipe, endpoints)
        for variant in variants:
            definition = _definition(config, name, recipe, endpoint, variant, schema, dialect, with_schema)
            _check_validation(config, definition, requests)
            yield definition


def expanded(config: ProjectConfig) -> dict[str, list[Variant]]:
    """Return the variants of each recipe, upstream recipes first. Raises `ConfigError` for a recipe without variants."""
    variants: dict[str, list[Variant]] = {}
    for name in in_order(config.recipes):
        recipe = config.recipes[name]
        variants[name] = expand(recipe.matrix, recipe.samples, {need: variants[need] for need in recipe.needs})
        if not variants[name]:  # their shared settings never agree
            raise ConfigError(f"{config.path.name}: recipe.{name}.needs: these recipes have no variant in common")
    return variants


def _check_validation(
    config: ProjectConfig, definition: Definition, requests: dict[str, tuple[str, str | None]]
) -> None:
    """Raise `ConfigError` if two recipes send the same request but validate its answer differently."""
    parts = definition.as_dict()
    validation = parts.pop("validation", None)
    for part in ("repair", "fallback"):
        parts.pop(part, None)
    key = definition_hash(parts)
    other, before = requests.setdefault(key, (definition.recipe, str(validation) if validation else None))
    if other != definition.recipe and before != (str(validation) if validation else None):
        raise ConfigError(
            f"{config.path.name}: recipe.{definition.recipe}: sends the same request as recipe.{other}, but"
            " validates the answer differently",
            "both share one answer: use one schema, or change one of the requests",
        )


def _definition(
    config: ProjectConfig,
    name: str,
    recipe: RecipeTable,
    endpoint: str,
    variant: Variant,
    schema: Schema | None,
    dialect: str,
    with_schema: frozenset[str],
) -> Definition:
    templates = {"instructions": recipe.instructions, "input": recipe.input}
    parameters = recipe.parameters
    model = recipe.model
    for key, value in variant.values.items():
        if key == "model":
            model = str(value)
        elif key in TEMPLATES:
            templates[key] = resolve(str(value), config.root)
        else:
            parameters[key] = value
    return Definition(
        recipe=name,
        variant=variant.name,
        endpoint=endpoint,
        model=model,
        instructions=_text(templates["instructions"]),
        input=_text(templates["input"]),
        prompt=None if recipe.prompt is None else recipe.prompt.model_dump(exclude_none=True),
        parameters=parameters,
        dialect=dialect,
        sources=_sources(templates, config.root),
        sample=variant.sample,
        for_all=recipe.scope == "all",
        upstream=variant.upstream,
        needs_parsed=with_schema & frozenset(recipe.needs),
        schema=schema,
        repair=recipe.repair,
        fallback=tuple(other for other in recipe.fallback if other != model),
    )


def _endpoint(config: ProjectConfig, name: str, recipe: RecipeTable, endpoints: Sequence[str]) -> str:
    endpoint = recipe.endpoint
    if endpoint is not None and endpoint not in endpoints:
        near = nearest(endpoint, endpoints)
        raise ConfigError(
            f"{config.path.name}: recipe.{name}.endpoint: expected {' or '.join(map(repr, endpoints))} for backend"
            f" {config.backend.name!r}, found {short(endpoint)}{near and '; ' + near}"
        )
    return endpoint or endpoints[0]


def _schema(config: ProjectConfig, name: str, recipe: RecipeTable) -> Schema | None:
    if recipe.schema_ is None:
        return None
    try:
        return load_schema(recipe.schema_, config.root)
    except ConfigError as error:
        raise ConfigError(f"{config.path.name}: recipe.{name}.schema: {error.message}", error.hint) from None


def _text(template: TemplateText | None) -> str | None:
    return None if template is None else template.text


def _sources(templates: Mapping[str, TemplateText | None], root: Path) -> dict[str, str]:
    """Return the files of the texts, relative to the project folder."""
    return {
        part: _relative(template.path, root)
        for part, template in templates.items()
        if template is not None and template.path is not None
    }


def closure(names: Sequence[str], needs: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return these recipes and all their upstream recipes."""
    found: dict[str, None] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop(0)
        if name not in found:
            found[name] = None
            waiting += needs[name]
    return tuple(found)


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def prompt_notes(variants: Sequence[RecipeVariant]) -> list[str]:
    """Return a warning if recipes use reusable prompts."""
    names = _names(variant for variant in variants if variant.prompt is not None)
    if not names:
        return []
    return [
        f"recipe {', '.join(names)}: reusable prompts (`prompt = {{ id = … }}`) end at OpenAI on {PROMPT_OBJECTS_END};"
        " write the text into `instructions` and `input` before then"
    ]


def no_data_notes(variants: Sequence[RecipeVariant]) -> list[str]:
    """Return a warning for recipes that read `artist_data` if no artist has any; usually a column is not mapped."""
    names = _names(
        variant
        for variant in variants
        if variant.used_columns is not None and "artist_data" in variant.used_columns and variant.prompt is None
    )
    if not names:
        return []
    return [
        f"recipe {', '.join(names)} reads artist_data, but no artist has any; map a column:"
        ' columns = { artist_data = "…" } under [input]'
    ]


def _names(variants: Iterable[RecipeVariant]) -> list[str]:
    """Return each recipe once."""
    return list(dict.fromkeys(variant.recipe for variant in variants))

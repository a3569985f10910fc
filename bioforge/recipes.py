"""The recipes of a project file as definitions, and what is worth saying about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bioforge.config import ProjectConfig
from bioforge.prompts import Definition, Prompts

PROMPT_OBJECTS_END = "2026-11-30"
"""The day on which OpenAI ends the prompts API and requests that name a prompt by its id."""


def definitions(config: ProjectConfig, dialect: str) -> Iterator[Definition]:
    """In the order of the file; `dialect` names whose answers may be shared."""
    for name, recipe in config.recipes.items():
        texts: dict[str, str] = {}
        for part, template in (("instructions", recipe.instructions), ("input", recipe.input)):
            if template is not None and template.path is not None:
                texts[part] = _shown(template.path, config.root)
        yield Definition(
            recipe=name,
            endpoint=recipe.endpoint,
            model=recipe.model,
            instructions=None if recipe.instructions is None else recipe.instructions.text,
            input=None if recipe.input is None else recipe.input.text,
            prompt=None if recipe.prompt is None else recipe.prompt.model_dump(exclude_none=True),
            parameters=recipe.parameters,
            dialect=dialect,
            sources=texts,
        )


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def prompt_notes(recipes: Sequence[Prompts]) -> list[str]:
    """A warning while recipes use reusable prompts."""
    names = [prompts.definition.recipe for prompts in recipes if prompts.definition.prompt is not None]
    if not names:
        return []
    return [
        f"recipe {', '.join(names)}: reusable prompts (`prompt = {{ id = … }}`) end at OpenAI on {PROMPT_OBJECTS_END};"
        " write the text into `instructions` and `input` before then"
    ]


def no_data_notes(recipes: Sequence[Prompts]) -> list[str]:
    """A warning for recipes that read `artist_data` when no artist has any: most likely a column is not mapped."""
    names = [
        prompts.definition.recipe
        for prompts in recipes
        if prompts.used_columns is not None
        and "artist_data" in prompts.used_columns
        and prompts.definition.prompt is None
    ]
    if not names:
        return []
    return [
        f"recipe {', '.join(names)} reads artist_data, and no artist has any; is a column to be mapped?"
        ' columns = { artist_data = "…" } under [input]'
    ]

"""The environment of a project: variables, `.env`, and the settings they override."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bioforge.config.templates import decode
from bioforge.core.errors import ConfigError

PROMPT_IDS = ("OPENAI_PROMPT_ID", "PROMPT_ID")


class Environment:
    """Variables by name. Those of the process win over `.env`; an empty one counts as not set.

    Neither shows its values in its repr, since one of them is the key.
    """

    def __init__(self, variables: Mapping[str, str], dotenv: Mapping[str, str] | None = None) -> None:
        self._variables = dict(variables)
        self._dotenv = dict(dotenv or {})

    @classmethod
    def read(cls, folder: Path, variables: Mapping[str, str]) -> Environment:
        """Return `variables` with the `.env` of `folder`, if there is one; `os.environ` stays unchanged."""
        path = folder / ".env"
        if not path.is_file():
            return cls(variables)
        from io import StringIO

        from dotenv import dotenv_values

        try:
            text = decode(path.read_bytes())
        except OSError as problem:
            raise ConfigError(f"{path}: cannot be read: {problem.strerror}") from None
        except ValueError as problem:
            raise ConfigError(f"{path}: {problem}") from None
        # Without interpolation: a key may contain a dollar sign.
        values = dotenv_values(stream=StringIO(text), interpolate=False)
        return cls(variables, {name: value for name, value in values.items() if value is not None})

    def get(self, name: str) -> str | None:
        return (self._variables.get(name, "").strip() or self._dotenv.get(name, "").strip()) or None

    def origin(self, name: str) -> str:
        """Return the name for messages, with `in .env` for a variable from that file."""
        return name if self._variables.get(name, "").strip() else f"{name} in .env"

    def first(self, *names: str) -> tuple[str, str] | None:
        """Return value and origin of the first of `names` that is set."""
        for name in names:
            if value := self.get(name):
                return value, self.origin(name)
        return None

    def __repr__(self) -> str:
        return f"<Environment of {len(self._variables)} variables, {len(self._dotenv)} in .env>"


@dataclass(slots=True)
class Applied:
    """Changes made by the environment.

    `overrides` has a line for each changed setting, `notes` one for each variable without effect, `sources` the
    origin of each setting by dotted key.
    """

    overrides: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)


def apply(tables: dict[str, Any], environment: Environment) -> Applied:
    """Put the environment's settings into the parsed project file (changed in place), before it is validated.

    Tables of the wrong type are left to the validation.
    """
    applied = Applied()
    if given := environment.first("OPENAI_BASE_URL"):
        _set(tables.setdefault("provider", {}), "provider", "base_url", given, applied)
    recipes = list(_recipes(tables))
    if given := environment.first("OPENAI_MODEL"):
        for name, recipe in recipes:
            _set(recipe, f"recipe.{name}", "model", given, applied)
    _apply_prompt(recipes, environment, applied)
    return applied


def _apply_prompt(recipes: list[tuple[str, dict[str, Any]]], environment: Environment, applied: Applied) -> None:
    prompt_id, version = environment.first(*PROMPT_IDS), environment.first("PROMPT_VERSION")
    if not (prompt_id or version):
        return
    names = " with ".join(given[1] for given in (prompt_id, version) if given)
    for name, recipe in recipes:
        prompt = recipe.get("prompt")
        if not isinstance(prompt, dict):
            applied.notes.append(f"recipe.{name} uses no prompt: {names} has no effect on it")
            continue
        place, before = f"recipe.{name}.prompt", prompt.get("id")
        if prompt_id:
            _set(prompt, place, "id", prompt_id, applied)
        if version:
            _set(prompt, place, "version", version, applied)
        elif prompt.get("id") != before and "version" in prompt:
            # A version belongs to its prompt: version 3 of another prompt is another text.
            old = prompt.pop("version")
            applied.overrides.append(f"{place}.version is not set: {old!r} belongs to the prompt {before!r}")


def _recipes(tables: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    recipes = tables.get("recipe")
    if isinstance(recipes, dict):
        yield from ((name, recipe) for name, recipe in recipes.items() if isinstance(recipe, dict))


def _set(table: Any, place: str, key: str, given: tuple[str, str], applied: Applied) -> None:
    value, origin = given
    if not isinstance(table, dict):
        return
    before = table.get(key)
    table[key] = value
    applied.sources[f"{place}.{key}"] = origin
    if value != before:
        instead = "" if before is None else f" (the project file says {before!r})"
        applied.overrides.append(f"{place}.{key} from {origin}: {value!r}{instead}")

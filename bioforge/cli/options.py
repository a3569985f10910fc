"""Options that several commands share, and the project that they name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioforge.cli.errors import echo

if TYPE_CHECKING:
    from bioforge.config.environment import Environment
    from bioforge.config.loader import ProjectConfig
    from bioforge.engine.project import OpenProject
    from bioforge.engine.select import RecipeNames
    from bioforge.plugins.manager import Plugins

FileOption = Annotated[
    Path | None,
    typer.Option("-f", "--file", help="The project file.", show_default="bioforge.toml", metavar="PATH"),
]
SelectOption = Annotated[
    list[str] | None,
    typer.Option(
        "--select",
        metavar="ID|GLOB|reason:WORD|variant:TEXT",
        help="Only these artists, targets with this reason, or variants. May be repeated.",
    ),
]


def complete_recipes(incomplete: str) -> list[str]:
    """Return the recipe names that complete a word; none without a project."""
    try:
        return [name for name in load(None).recipes if name.startswith(incomplete)]
    except Exception:  # completion must never disturb the shell
        return []


RecipeOption = Annotated[
    list[str] | None,
    typer.Option("--recipe", metavar="NAME", help="Only this recipe.", autocompletion=complete_recipes),
]
RecipesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="RECIPE", help="Recipes to build.", show_default="all", autocompletion=complete_recipes),
]


safe_mode = ContextVar("safe_mode", default=False)
"""True with `--safe`, before the command or, for some, after it."""


def _be_safe(given: bool) -> bool:
    if given:
        safe_mode.set(True)
    return given


SafeOption = Annotated[
    bool,
    typer.Option(
        "--safe",
        help="Run no code of the project, use no file outside its folder, read no .env.",
        callback=_be_safe,
    ),
]


def load(file: Path | None) -> ProjectConfig:
    from bioforge.config import loader

    config = loader.load(file, os.environ, dotenv=not safe_mode.get())
    if safe_mode.get():
        from bioforge.config.taken import check_safe

        check_safe(config)
    return config


def folder_environment() -> Environment:
    """Return the environment for a command without a project: with the `.env` of the working folder, unless `--safe`."""
    from bioforge.config.environment import Environment

    return Environment(os.environ) if safe_mode.get() else Environment.read(Path.cwd(), os.environ)


def recipe_order(config: ProjectConfig) -> list[str]:
    """Return the recipes in dependency order: each after those it needs."""
    from bioforge.config.relations import in_order

    return list(in_order(config.recipes))


def open_names(file: Path | None) -> RecipeNames:
    """Return the recipes of the project file without loading plugins, schemas or templates: enough for stored answers.

    Prints what the environment overrides.
    """
    from bioforge.engine.select import RecipeNames

    config = load(file)
    _echo_notes((*config.overrides, *config.notes))
    return RecipeNames(config)


def open_project(
    file: Path | None,
    *,
    backend: str | None = None,
    concurrency: int | None = None,
    max_cost: float | None = None,
    strict: bool | None = None,
) -> OpenProject:
    """Return the project with flags in place of the file's values. Prints what the environment overrides."""
    from bioforge.config.loader import with_overrides
    from bioforge.config.taken import TakenFiles

    config = with_overrides(
        load(file), backend=backend, concurrency=concurrency, max_cost=max_cost, strict=strict or None
    )
    _echo_notes((*config.overrides, *config.notes))
    if outside := TakenFiles(config).outside():
        more = f" and {len(outside) - 3} more" if len(outside) > 3 else ""
        _echo_notes([f"outside the project: {', '.join(outside[:3])}{more}"])
    return connect(config)


def connect(config: ProjectConfig) -> OpenProject:
    """Return the project with its backend. Raises `PluginError` if a plugin is missing or broken."""
    from bioforge.engine.project import OpenProject

    project = OpenProject(config, load_plugins())
    project.tell = echo
    _echo_notes(project.notes)
    return project


def _echo_notes(notes: Iterable[str]) -> None:
    for line in notes:
        echo(f"note: {line}")


def load_plugins() -> Plugins:
    """Return the plugins that the environment allows. A faulty one is left out with a warning."""
    from bioforge.plugins.manager import build_manager

    return build_manager(os.environ.get("BIOFORGE_LOAD_PLUGINS"), warn=lambda problem: echo(f"warning: {problem}"))


def check_destination(config: ProjectConfig, path: Path, flag: str) -> None:
    """Raise `UsageError` if a flag would overwrite a file of the project."""
    from bioforge.config.taken import TakenFiles
    from bioforge.core.errors import UsageError

    if use := TakenFiles(config).use(path):
        raise UsageError(f"{flag} {path}: this is {use}", "name another file; nothing was written")


def check_format(value: str, known: tuple[str, ...], flag: str = "--format") -> str:
    from bioforge.core.errors import UsageError, nearest

    if value not in known:
        raise UsageError(f"{flag} {value}: no such format", nearest(value, known) or f"formats are: {', '.join(known)}")
    return value


def parse_seconds(text: str | None) -> float | None:
    """Return `90`, `90s`, `30m`, `2h` or `1d` in seconds. Raises `UsageError`."""
    if text is None:
        return None
    from bioforge.core.errors import UsageError

    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    number, unit = (text[:-1], text[-1:]) if text[-1:] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"--deadline {text}: expected a time above 0", "like 90s, 30m, 2h or 1d")
    return seconds

"""Load a project file: validated as a whole, with the environment applied, as frozen values."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from bioforge.config.environment import Applied, Environment, apply
from bioforge.config.find import FILE, find, parse
from bioforge.config.relations import mistakes as relation_mistakes
from bioforge.config.relations import varied_templates
from bioforge.config.tables import (
    ARTIST_FIELDS,
    SIMULATOR,
    BackendTable,
    InputTable,
    LimitsTable,
    OutputTable,
    ProjectTable,
    PromptTable,
    ProviderTable,
    RecipeTable,
    RetryTable,
    SimulatorTable,
    Table,
)
from bioforge.config.templates import TemplateText
from bioforge.config.validation import ConfigIssue, error, from_pydantic, missing, not_json, short, unknown
from bioforge.core.errors import UsageError, nearest
from bioforge.core.interfaces import Limits, RetryPolicy

__all__ = [
    "FILE",
    "BackendTable",
    "InputTable",
    "OutputTable",
    "ProjectConfig",
    "RecipeTable",
    "TemplateText",
    "load",
    "with_overrides",
]

PARAMETERS = (
    "frequency_penalty", "logit_bias", "logprobs", "max_completion_tokens", "max_output_tokens", "max_tokens",
    "max_tool_calls", "metadata", "modalities", "parallel_tool_calls", "presence_penalty", "prompt_cache_key",
    "reasoning", "reasoning_effort", "response_format", "safety_identifier", "seed", "service_tier", "stop", "store",
    "temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p", "truncation", "user", "verbosity",
)  # fmt: skip
"""Known request parameters. Others pass through too; a near miss of one of these gets a note."""

IMPOSSIBLE = {
    "stream": "answers are kept whole, never streamed; leave it out",
    "background": "every answer is awaited and kept; leave it out",
    "api_key": "a key does not belong in this file; put it into the environment or .env",
    "messages": "write 'instructions' and 'input'; messages are built from them",
}
"""Request parameters that cannot work here, with the remedy."""

MISTYPED = ("endpoint", "fallback", "instructions", "matrix", "needs", "prompt", "repair", "samples", "schema", "score")
"""Keys of a recipe for which an almost equal name is taken as a typing error, not as a request parameter."""

_TABLES = ("project", "provider", "input", "recipe", "backend", "limits", "retry", "output", "simulator")
_Model = TypeVar("_Model", bound=Table)


@dataclass(frozen=True, slots=True)
class ProjectConfig:
    """A project file with the environment applied.

    `path` is the file, absolute; paths in it start from its folder, `root`. `recipes` are in the file's order.
    `overrides` has a line for each setting taken from the environment instead, `notes` further lines worth showing.
    """

    path: Path
    project: ProjectTable
    provider: ProviderTable
    input: InputTable
    recipes: Mapping[str, RecipeTable]
    backend: BackendTable
    limit: LimitsTable
    retry: RetryPolicy
    outputs: tuple[OutputTable, ...] = ()
    simulator: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    environment: Environment = field(default_factory=lambda: Environment({}), repr=False)

    @property
    def root(self) -> Path:
        return self.path.parent

    @property
    def state_path(self) -> Path:
        return self.root / self.project.state

    @property
    def simulated(self) -> bool:
        """Return True if answers come from the simulator: no key, no cost."""
        return self.provider.base_url == SIMULATOR

    @property
    def limits(self) -> Limits:
        """Return `[limits]` with the concurrency of `[backend]`."""
        return Limits(
            concurrency=self.backend.concurrency,
            requests_per_minute=self.limit.requests_per_minute,
            tokens_per_minute=self.limit.tokens_per_minute,
            max_cost_usd=self.limit.max_cost_usd,
        )

    @property
    def simulator_options(self) -> dict[str, Any]:
        """Return the simulator's options, with a folder beside the state in which its files and batches outlive it."""
        return {"data": str(self.state_path.with_name(self.state_path.name + ".simulator")), **self.simulator}

    def api_key(self) -> str | None:
        """Return the key, looked up by its name each time and stored nowhere else; None if it is not set."""
        return self.environment.get(self.provider.api_key_env)


def load(path: Path | None, environ: Mapping[str, str], *, dotenv: bool = True) -> ProjectConfig:
    """Load `path`, or `bioforge.toml` of the working folder. Raises `ConfigError` with every mistake in the file.

    `dotenv`: read the `.env` beside it.
    """
    name, path = find(path)
    tables = parse(name, path)
    environment = Environment.read(path.parent, environ) if dotenv else Environment(environ)
    applied = apply(tables, environment)
    return _Check(path, tables).config(name, environment, applied)


def with_overrides(
    config: ProjectConfig,
    *,
    backend: str | None = None,
    concurrency: int | None = None,
    max_cost: float | None = None,
    strict: bool | None = None,
) -> ProjectConfig:
    """Return the configuration with the values of flags; None keeps the setting.

    Raises `UsageError` that names the flag.
    """
    return replace(
        config,
        backend=_changed(
            config.backend, {"name": ("--backend", backend), "concurrency": ("--concurrency", concurrency)}
        ),
        limit=_changed(config.limit, {"max_cost_usd": ("--max-cost", None if max_cost is None else float(max_cost))}),
        input=_changed(config.input, {"strict": ("--strict", strict)}),
    )


def _changed(table: _Model, flags: Mapping[str, tuple[str, object]]) -> _Model:
    given = {name: value for name, (_, value) in flags.items() if value is not None}
    if not given:
        return table
    try:
        return type(table).model_validate({**table.model_dump(exclude_unset=True), **given})
    except ValidationError as problem:
        found = [next(from_pydantic(problem, type(table), ""))]
        flag = flags[found[0].key.lstrip(".")][0]
        raise UsageError(f"{flag}: {found[0].message}") from None


class _Check:
    """Collects the mistakes of a parsed file in one pass."""

    def __init__(self, path: Path, tables: dict[str, Any]) -> None:
        self.path = path
        self.root = path.parent
        self.tables = tables
        self.mistakes: list[ConfigIssue] = []
        self.notes: list[str] = []

    def config(self, name: str, environment: Environment, applied: Applied) -> ProjectConfig:
        for key in self.tables:
            if key not in _TABLES:
                self.add(key, unknown(key, _TABLES, "table" if isinstance(self.tables[key], (dict, list)) else "key"))
        project = self.table(ProjectTable, {"name": self.root.name or "project", **self.raw("project")}, "project")
        provider = self.table(ProviderTable, self.raw("provider"), "provider")
        source = self.input()
        recipes = dict(self.recipes())
        if isinstance(found := self.tables.get("recipe"), dict):
            self.mistakes.extend(relation_mistakes(recipes, found))
        backend = self.backend()
        limit = self.table(LimitsTable, self.raw("limits"), "limits")
        retry = self.retry()
        outputs = tuple(self.outputs(project, source))
        simulator = self.simulator()
        if self.mistakes or not (project and provider and source and backend and limit and retry):
            raise error(name, self.mistakes, applied.sources)
        return ProjectConfig(
            path=self.path,
            project=project,
            provider=provider,
            input=source,
            recipes=recipes,
            backend=backend,
            limit=limit,
            retry=retry,
            outputs=outputs,
            simulator=simulator,
            overrides=tuple(applied.overrides),
            notes=(*applied.notes, *self.notes),
            environment=environment,
        )

    def add(self, key: str, message: str) -> None:
        self.mistakes.append(ConfigIssue(key, message))

    def raw(self, key: str) -> dict[str, Any]:
        """Return the table `key`, empty if it is missing or (a mistake) not a table."""
        found = self.tables.get(key, {})
        if isinstance(found, dict):
            return found
        self.add(key, f"expected a table [{key}], found {short(found)}")
        return {}

    def table(self, model: type[_Model], raw: Mapping[str, Any], key: str) -> _Model | None:
        try:
            return model.model_validate(raw, context={"root": self.root})
        except ValidationError as problem:
            self.mistakes.extend(from_pydantic(problem, model, key))
            return None

    def input(self) -> InputTable | None:
        if "input" not in self.tables:
            self.add("input", "missing, expected a table [input] with the path of the artists")
            return None
        raw = self.raw("input")
        columns = raw.get("columns")
        for name in columns if isinstance(columns, dict) else ():
            # Any column may be renamed, but one that is almost an artist's field is a slip.
            if name not in ARTIST_FIELDS and name.startswith("artist") and (near := nearest(name, ARTIST_FIELDS)):
                self.add(f"input.columns.{name}", f"unknown name; {near}")
        if not isinstance(self.tables["input"], dict):
            return None
        return self.table(InputTable, raw, "input")

    def recipes(self) -> Iterator[tuple[str, RecipeTable]]:
        found = self.raw("recipe")
        if not found and isinstance(self.tables.get("recipe", {}), dict):
            self.add("recipe", "missing, expected a table like [recipe.bio] that says how to ask")
        for name, raw in found.items():
            key = f"recipe.{name}"
            if not isinstance(raw, dict):
                self.add(key, f"expected a table [recipe.NAME], found {short(raw)}")
            elif not re.fullmatch("[A-Za-z0-9_-]+", name):
                self.add(f"recipe.{name!r}", "a recipe's name has only letters, digits, '_' and '-'")
            elif recipe := self.recipe(key, dict(raw)):
                yield name, recipe

    def recipe(self, key: str, raw: dict[str, Any]) -> RecipeTable | None:
        before = len(self.mistakes)
        self.parameters(key, raw)
        varied: dict[str, Any] = raw["matrix"] if isinstance(raw.get("matrix"), dict) else {}
        self.mistakes.extend(varied_templates(varied, self.root, key))
        if isinstance(raw.get("prompt"), dict):
            raw["prompt"] = self.table(PromptTable, raw["prompt"], f"{key}.prompt")
            if raw["prompt"] is not None:
                self.mistakes.extend(not_json(raw["prompt"].variables, f"{key}.prompt.variables"))
            if raw.get("endpoint") == "/v1/chat/completions":
                self.add(f"{key}.prompt", "prompts work only with the endpoint '/v1/responses'")
        if "prompt" not in raw:
            if "model" not in {*raw, *varied}:
                expected = "the name of a model, here or as OPENAI_MODEL in the environment"
                self.add(f"{key}.model", missing("model", raw, RecipeTable.own_keys(), expected))
            if "input" not in {*raw, *varied}:
                expected = 'a template, like "{{ artist_name }}", or a prompt'
                self.add(f"{key}.input", missing("input", raw, RecipeTable.own_keys(), expected))
        recipe = self.table(RecipeTable, {name: value for name, value in raw.items() if value is not None}, key)
        return recipe if len(self.mistakes) == before else None

    def parameters(self, key: str, raw: dict[str, Any]) -> None:
        """Remove from `raw` what must not reach the provider, each with an issue."""
        own = RecipeTable.own_keys()
        for name in [name for name in raw if name not in own]:
            if name in IMPOSSIBLE:
                self.add(f"{key}.{name}", f"cannot work: {IMPOSSIBLE[name]}")
            elif near := get_close_matches(name, MISTYPED, n=1, cutoff=0.85):
                self.add(f"{key}.{name}", f"unknown key; did you mean {near[0]!r}?")
            else:
                if name not in PARAMETERS and (near := get_close_matches(name, PARAMETERS, n=1, cutoff=0.85)):
                    self.notes.append(f"{key}.{name} is sent as it is; did you mean {near[0]!r}?")
                self.mistakes.extend(not_json(raw[name], f"{key}.{name}"))
                continue
            del raw[name]

    def backend(self) -> BackendTable | None:
        raw = self.raw("backend")
        own = ("name", "concurrency")
        options = {name: value for name, value in raw.items() if isinstance(value, dict) and name not in own}
        values = {name: value for name, value in raw.items() if name not in options}
        for name in [name for name in values if name not in own]:
            self.add(f"backend.{name}", unknown(name, own))
            del values[name]
        return self.table(BackendTable, {**values, "options": options}, "backend")

    def retry(self) -> RetryPolicy | None:
        found = self.table(RetryTable, self.raw("retry"), "retry")
        if found is None:
            return None
        if found.max_delay < found.first_delay:
            self.add(
                "retry.max_delay", f"expected at least first_delay ({found.first_delay:g}), found {found.max_delay:g}"
            )
        return RetryPolicy(**found.model_dump())

    def outputs(self, project: ProjectTable | None, source: InputTable | None) -> Iterator[OutputTable]:
        found = self.tables.get("output", [])
        if not isinstance(found, list):
            self.add("output", f"expected [[output]] with two brackets, found {short(found)}")
            return
        recipes = self.tables.get("recipe")
        taken = {self.place(FILE): "the project file"}
        if project:
            taken[self.place(project.state)] = "the state file"
        if source:
            taken[self.place(source.path)] = "the input"
        for number, raw in enumerate(found, start=1):
            key = "output" if len(found) == 1 else f"output {number}"
            if not isinstance(raw, dict):
                self.add(key, f"expected a table [[output]], found {short(raw)}")
                continue
            output = self.table(OutputTable, raw, key)
            if output is None:
                continue
            if output.recipe is not None and isinstance(recipes, dict) and output.recipe not in recipes:
                self.add(
                    f"{key}.recipe", f"{short(output.recipe)} is an {unknown(output.recipe, list(recipes), 'recipe')}"
                )
            place = self.place(output.path)
            if place in taken:
                self.add(f"{key}.path", f"{short(output.path)} is also {taken[place]}")
            taken[place] = f"the path of {key}"
            yield output

    def place(self, path: str) -> str:
        return os.path.normcase(os.path.normpath(self.root / path))

    def simulator(self) -> Mapping[str, Any]:
        raw = self.raw("simulator")
        table = self.table(SimulatorTable, raw, "simulator")
        if table is None or not raw:
            return {}
        from bioforge.simulator.options import SimulatorOptions

        given = table.given(self.root)
        for name, value in given.items():
            try:
                SimulatorOptions(**{name: value})
            except ValueError as problem:
                self.add(f"simulator.{name}", str(problem).removeprefix(f"{name} "))
        return given

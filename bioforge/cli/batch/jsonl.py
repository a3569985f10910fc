"""`batch jsonl`: write rows as a file for the Batch API. Needs no state and sends nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioforge.cli.errors import command, echo, stdout_bytes
from bioforge.cli.options import FileOption, complete_recipes, folder_environment, load_plugins
from bioforge.core.errors import EXIT_OK, UsageError, nearest

if TYPE_CHECKING:
    from bioforge.cli.batch.rows import RequestTemplate, RowSource
    from bioforge.config.environment import Environment
    from bioforge.config.loader import ProjectConfig
    from bioforge.plugins.manager import Plugins
    from bioforge.recipes.template import Definition


@dataclass(frozen=True, slots=True)
class Flags:
    """Options that describe the requests without a recipe."""

    prompt_id: str | None
    prompt_version: str | None
    model: str | None
    template: str | None
    instructions: str | None
    endpoint: str | None
    max_output_tokens: int | None

    @property
    def describe_request(self) -> bool:
        """True if they replace a recipe."""
        return any(value is not None for value in (self.prompt_id, self.model, self.template))

    def by_name(self) -> dict[str, object]:
        return {f"--{field.name.replace('_', '-')}": getattr(self, field.name) for field in fields(self)}


@command
def jsonl(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="The recipe, if the project has several.",
            autocompletion=complete_recipes,
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--in", metavar="CSV", help="The rows: a CSV or JSONL file.", show_default="the project's input"),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--columns", metavar="NAME=COLUMN", help="Like artist_id=id. May be repeated."),
    ] = None,
    prompt_id: Annotated[
        str | None, typer.Option("--prompt-id", metavar="ID", help="Use a reusable prompt (OPENAI_PROMPT_ID).")
    ] = None,
    prompt_version: Annotated[
        str | None, typer.Option("--prompt-version", metavar="V", help="The prompt's version (PROMPT_VERSION).")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="The model (OPENAI_MODEL).")] = None,
    template: Annotated[
        str | None, typer.Option("--template", metavar="TEXT|FILE", help="The input: a template, or a file with one.")
    ] = None,
    instructions: Annotated[
        str | None,
        typer.Option("--instructions", metavar="TEXT|FILE", help="The instructions: a template, or a file with one."),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint",
            metavar="PATH",
            help="/v1/responses or /v1/chat/completions.",
            show_default="/v1/responses",
        ),
    ] = None,
    max_output_tokens: Annotated[
        int | None, typer.Option("--max-output-tokens", metavar="N", min=1, help="Limit the length of an answer.")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Write here, atomically; - is stdout.")
    ] = Path("batch_input.jsonl"),
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Only the first N rows.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 at a bad row, and write nothing.")] = False,
    file: FileOption = None,
) -> int:
    """Write rows as a file for the Batch API.

    The requests come from a recipe of the project, or from --template or --prompt-id.
    """
    from bioforge.cli.batch.files import Parts, Stream
    from bioforge.cli.batch.provider import project_config
    from bioforge.cli.batch.rows import BadRows, batch_lines
    from bioforge.core.text import plural

    flags = Flags(prompt_id, prompt_version, model, template, instructions, endpoint, max_output_tokens)
    config = project_config(file)
    plugins = load_plugins()
    if recipe is not None or (config is not None and not flags.describe_request):
        requests = _from_recipe(config, recipe, flags, plugins)
    else:
        requests = _from_flags(flags)
    rows = _source(config, source, _mapping(columns))
    to_stdout = str(output) == "-"
    if not to_stdout:
        _check_output(output, config, rows)
    bad = BadRows(strict or (config is not None and source is None and config.input.strict))
    with ExitStack() as stack:
        writer: Parts | Stream
        if to_stdout:
            writer = Stream(stdout_bytes(), output)
        elif output.exists() and not output.is_file():
            writer = Stream(stack.enter_context(output.open("wb")), output)  # a device or a pipe cannot be replaced
        else:
            writer = Parts(output)
        stack.enter_context(writer)
        for content in batch_lines(requests, rows, plugins, limit, bad):
            writer.write(content)
        bad.check()
        parts = writer.finish()
    for note in requests.notes:
        echo(f"warning: {note}")
    for line in bad.lines():
        echo(line)
    for part in parts:
        if not to_stdout:
            print(part.path, flush=True)
        echo(f"{'stdout' if to_stdout else part.path}: {plural(part.lines, 'request')}, {part.bytes:,} bytes")
    for path in writer.leftovers():
        echo(f"warning: {path} is from an earlier command, not a part of this one")
    if not to_stdout:
        echo(f"next: bioforge batch create --in {parts[0].path}" + (" (and each of the others)" * (len(parts) > 1)))
    return EXIT_OK


# ------------------------------------------------------------------------------------------------------------ requests


def _from_recipe(config: ProjectConfig | None, name: str | None, flags: Flags, plugins: Plugins) -> RequestTemplate:
    from bioforge.cli.batch.rows import RequestTemplate
    from bioforge.engine.project import OpenProject
    from bioforge.recipes.definition import prompt_notes

    if config is None:
        raise UsageError(
            f"recipe {name!r}: there is no project here", "name its file with -f, or use --template or --prompt-id"
        )
    for flag, value in flags.by_name().items():
        if value is not None:
            raise UsageError(f"{flag} has no effect on a recipe", "leave out the flag, or the recipe")
    names = list(config.recipes)
    if name is None:
        if len(names) > 1:
            raise UsageError("the project has several recipes", f"name one: {', '.join(names)}")
        name = names[0]
    elif name not in config.recipes:
        raise UsageError(
            f"no recipe {name!r} in {config.path.name}", nearest(name, names) or f"recipes are: {', '.join(names)}"
        )
    for line in (*config.overrides, *config.notes):
        echo(f"note: {line}")
    project = OpenProject(config, plugins)
    recipe = config.recipes[name]
    if recipe.needs or recipe.scope == "all":
        why = f"needs {', '.join(recipe.needs)}" if recipe.needs else "is about all artists"
        raise UsageError(
            f"recipe {name!r} {why}, so its requests are known only in a run", "use `bioforge run --backend batch`"
        )
    variants = [variant for variant in project.recipe_variants if variant.recipe == name]
    return RequestTemplate(variants, project.backend.body, prompt_notes(variants))


def _from_flags(flags: Flags) -> RequestTemplate:
    from bioforge.backends.openai import wire
    from bioforge.cli.batch.rows import RequestTemplate
    from bioforge.recipes.definition import PROMPT_OBJECTS_END
    from bioforge.recipes.template import RecipeVariant

    definition = _definition(flags, folder_environment())
    notes = []
    if definition.prompt is not None:
        notes = [f"reusable prompts end at OpenAI on {PROMPT_OBJECTS_END}; use --template from then on"]
    return RequestTemplate([RecipeVariant(definition)], wire.body, notes)


def _definition(flags: Flags, environment: Environment) -> Definition:
    """Return a recipe from flags and environment. Raises `UsageError` for a contradiction."""
    from bioforge.backends.openai.wire import ENDPOINTS
    from bioforge.config.environment import PROMPT_IDS
    from bioforge.recipes.template import Definition

    endpoint = flags.endpoint or ENDPOINTS[0]
    if endpoint not in ENDPOINTS:
        raise UsageError(f"--endpoint {endpoint}: no such endpoint", f"endpoints are: {', '.join(ENDPOINTS)}")
    model = flags.model or environment.get("OPENAI_MODEL")
    prompt: dict[str, object] | None = None
    if flags.template is None:
        prompt_id = flags.prompt_id or (environment.first(*PROMPT_IDS) or (None,))[0]
        if prompt_id is None:
            raise UsageError(
                "there is neither a template nor a prompt",
                "use --model gpt-6-luna --template 'Write about {{ artist_name }}.', or --prompt-id ID",
            )
        # PROMPT_VERSION belongs to the prompt of the environment
        version = flags.prompt_version or (None if flags.prompt_id else environment.get("PROMPT_VERSION"))
        prompt = {"id": prompt_id}
        if version:
            prompt["version"] = version
    elif flags.prompt_id is not None or flags.prompt_version is not None:
        raise UsageError("--template and --prompt-id exclude each other", "leave out one of them")
    elif model is None:
        raise UsageError("--template needs a model", "use --model NAME, or OPENAI_MODEL in the environment or .env")
    limit = flags.max_output_tokens
    return Definition(
        recipe="batch",
        endpoint=endpoint,
        model=model,
        instructions=_template("--instructions", flags.instructions),
        input=_template("--template", flags.template),
        prompt=prompt,
        parameters={} if limit is None else {"max_output_tokens": limit},
        sources={"instructions": "--instructions", "input": "--template"},
    )


def _template(flag: str, value: str | None) -> str | None:
    from bioforge.config.templates import resolve

    try:
        return None if value is None else resolve(value, Path.cwd()).text
    except ValueError as problem:
        raise UsageError(f"{flag}: {problem}") from None


# ---------------------------------------------------------------------------------------------------------------- rows


def _source(config: ProjectConfig | None, given: str | None, columns: Mapping[str, str]) -> RowSource:
    """Return the source of the rows. A given file uses the project's options, unless columns are given."""
    from bioforge.cli.batch.rows import RowSource

    options: dict[str, object] = {}
    if config is not None:
        options = {name: value for name, value in config.input.options.items() if name != "strict"}
    if columns:
        options = {"columns": dict(columns)} if given is not None else {**options, "columns": dict(columns)}
    if given is not None:
        return RowSource(given, None, options, Path.cwd())
    if config is None:
        raise UsageError("there is no input", "name a CSV or JSONL file with --in")
    return RowSource(config.input.path, config.input.reader, options, config.root, config.path.name)


def _mapping(columns: Iterable[str] | None) -> dict[str, str]:
    found = {}
    for item in columns or ():
        name, _, column = (part.strip() for part in item.partition("="))
        if not name or not column:
            raise UsageError(f"--columns {item}: expected NAME=COLUMN", "like --columns artist_id=id")
        found[name] = column
    return found


def _check_output(output: Path, config: ProjectConfig | None, source: RowSource) -> None:
    from bioforge.cli.options import check_destination

    if output.is_dir():
        raise UsageError(f"-o {output}: this is a folder", "name a file")
    if config is not None:
        check_destination(config, output, "-o")
    if os.path.realpath(output) == os.path.realpath(source.root / source.path):
        raise UsageError(f"-o {output}: this is the input", "name another file; nothing was written")

"""`export`: the newest answer of every artist, streamed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioforge.cli.errors import command, echo, stdout_bytes
from bioforge.cli.options import FileOption, RecipeOption, SelectOption, check_destination, load_plugins, open_names
from bioforge.core.errors import EXIT_OK, UsageError

if TYPE_CHECKING:
    from bioforge.config.loader import ProjectConfig


@command
def export(
    format: Annotated[
        str | None,
        typer.Option(
            "-F", "--format", metavar="NAME", help="jsonl, csv, markdown or one of a plugin.", show_default="by suffix"
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write here, atomically.", show_default="stdout"),
    ] = None,
    recipe: RecipeOption = None,
    select: SelectOption = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only failures, with the answer where one was received.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="All variants and recipes, former ones too.")] = False,
    escape_formulas: Annotated[
        bool, typer.Option("--escape-formulas", help="csv: escape cells that spreadsheets would run as formulas.")
    ] = False,
    file: FileOption = None,
) -> int:
    """Write the newest answer of every artist. Works during a run."""
    from dataclasses import replace

    from bioforge.config.plugin_options import plugin_options
    from bioforge.core.files import atomic_write
    from bioforge.engine.outputs import bind_writer, writer_name
    from bioforge.store import Store
    from bioforge.store.export import records

    names = open_names(file)
    config = names.config
    selection = names.selection(recipe or (), select or ())
    if output is not None:
        check_destination(config, output, "-o")
    if everything and not recipe:
        selection = replace(selection, recipes=())
    elif not everything and not selection.variants:
        first = {name: variants[0] for name, variants in names.variants.items()}
        selection = replace(selection, variants=tuple((name, first[name]) for name in recipe or first))
    name = writer_name(str(output or ""), format)
    table: dict[str, object] = {"formulas": "escape"} if escape_formulas else {}
    table |= _options_of_output(config, name, output)
    writer = bind_writer(load_plugins(), plugin_options(config), name, table, f"--format {name}")
    with Store.read(config.state_path) as store:
        rows = records(store, selection, failed_only=failed)
        if output is None and (writer.to_folder or writer.to_path):
            place = "a folder of files" if writer.to_folder else "to a path"
            raise UsageError(f"--format {name} writes {place}, not to stdout", "name the path with -o")
        if output is not None and writer.to_path:
            if note := writer.path(rows, output):
                echo(note)
        elif output is not None and writer.to_folder:
            number = 0
            for path, content in writer.files(rows):
                with atomic_write(output / path, durable=False) as stream:
                    stream.write(content)
                number += 1
            echo(f"{number:,} files written to {output}")
        elif output is None:
            stdout = stdout_bytes()
            writer.stream(rows, stdout)
            stdout.flush()
        else:
            with atomic_write(output) as stream:
                writer.stream(rows, stream)
    return EXIT_OK


def _options_of_output(config: ProjectConfig, name: str, output: Path | None) -> dict[str, object]:
    """Return the options of the `[[output]]` with the same path and writer: an export to it equals that of a run."""
    from bioforge.engine.outputs import writer_name

    if output is None:
        return {}
    for known in config.outputs:
        same_place = (config.root / known.path).resolve() == output.resolve()
        if same_place and writer_name(known.path, known.writer) == name:
            return known.options
    return {}

"""`export`: every artist's newest answer, streamed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from bioforge.cli.common import FileOption, RecipeOption, SelectOption, check_destination, open_project
from bioforge.cli.edge import command, say
from bioforge.errors import EXIT_OK, UsageError


@command
def export(
    format: Annotated[
        str | None,
        typer.Option(
            "-F", "--format", metavar="NAME", help="jsonl, csv, markdown or a plugin's.", show_default="by suffix"
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write here, atomically.", show_default="stdout"),
    ] = None,
    recipe: RecipeOption = None,
    select: SelectOption = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only failures, with whatever was received.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="All variants and recipes, also former ones.")] = False,
    escape_formulas: Annotated[
        bool, typer.Option("--escape-formulas", help="csv: keep spreadsheets from running cells as formulas.")
    ] = False,
    file: FileOption = None,
) -> int:
    """Write every artist's newest answer. Works while a run goes on."""
    from dataclasses import replace

    from bioforge.files import atomic_write
    from bioforge.outputs import writer_name
    from bioforge.store import Store
    from bioforge.store.results import records

    project = open_project(file)
    selection = project.selection(recipe or (), select or ())
    if output is not None:
        check_destination(project.config, output, "-o")
    if everything and not recipe:
        selection = replace(selection, recipes=())
    elif not everything and not selection.variants:
        names = recipe or project.recipes
        selection = replace(selection, variants=tuple((name, project.variants[name][0]) for name in names))
    name = writer_name(str(output or ""), format)
    writer = project.plugins.writer(name)
    options: dict[str, object] = {"formulas": "escape"} if escape_formulas else {}
    with Store.read(project.config.state_path) as store:
        rows = records(store, selection, failed_only=failed)
        if getattr(writer, "writes_folder", False):
            if output is None:
                raise UsageError(f"--format {name} writes a folder of files", "name the folder with -o")
            from bioforge.interfaces import FolderWriter

            number = 0
            for path, content in cast("FolderWriter", writer)(rows, options):
                with atomic_write(output / path, durable=False) as stream:
                    stream.write(content)
                number += 1
            say(f"{number:,} files written to {output}")
            return EXIT_OK
        from bioforge.interfaces import Writer

        if output is None:
            cast("Writer", writer)(rows, sys.stdout.buffer, options)
            sys.stdout.buffer.flush()
        else:
            with atomic_write(output) as stream:
                cast("Writer", writer)(rows, stream, options)
    return EXIT_OK

"""`init`: write a project, or a plugin."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from bioforge.cli.errors import command, echo
from bioforge.core.errors import EXIT_OK, UsageError


@command
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write it.")] = Path(),
    plugin: Annotated[
        str | None,
        typer.Option("--plugin", metavar="NAME", help="Write a plugin instead: the folder bioforge-NAME, with tests."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--kind", metavar="reader|writer|backend", help="What the plugin provides.  [default: reader]"),
    ] = None,
) -> int:
    """Write a commented project, or an example of a plugin.

    The project runs at once, without a key and at no cost.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, not a folder", "`bioforge init DIR` creates the folder")
    if plugin is not None:
        return _init_plugin(folder, plugin, kind or "reader")
    if kind is not None:
        raise UsageError("--kind is for plugins", f"`bioforge init --plugin NAME --kind {kind}`")
    from bioforge.cli import scaffold

    written = scaffold.write(folder)
    for path in written:
        print(path)
    here = "" if folder == Path() else f"cd {folder} && "
    echo(f"next: {here}bioforge run")
    return EXIT_OK


def _init_plugin(folder: Path, name: str, kind: str) -> int:
    from bioforge.cli.scaffold import Skeleton
    from bioforge.plugins.manager import build_manager

    skeleton = Skeleton.of(name, kind)
    plugins = build_manager("")
    taken: dict[str, Collection[str]] = {
        "reader": plugins.readers(),
        "writer": plugins.writers(),
        "backend": plugins.backends(),
    }
    if skeleton.name in taken[kind]:
        raise UsageError(
            f"--plugin {skeleton.name}: bioforge already has a {kind} of this name",
            "two plugins cannot share a name; choose another one",
        )
    for path in skeleton.write(folder):
        print(path)
    echo(f"next: cd {folder / skeleton.distribution} && bioforge install -e '.[test]' && pytest")
    return EXIT_OK

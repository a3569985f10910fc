"""`plugins`, `install` and `uninstall`: list, add and remove plugins of this environment."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from bioforge.cli.errors import command, echo, show, show_error, stdout_screen
from bioforge.cli.maintain import Yes, confirmed
from bioforge.cli.options import check_format
from bioforge.core.errors import EXIT_FAILED, EXIT_OK

if TYPE_CHECKING:
    from bioforge.plugins.install import InstallReport

Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Make pip print less.")]


@command
def plugins(
    format: Annotated[str, typer.Option("--format", metavar="text|json", help="How to print it.")] = "text",
) -> int:
    """List plugins, built-in and installed.

    Shows their versions, and the formats and backends they provide. Faulty plugins are reported below the list; the exit
    code is then 1.
    """
    from dataclasses import asdict

    from bioforge.cli.format import json_text
    from bioforge.plugins.install import list_names
    from bioforge.plugins.manager import build_manager
    from bioforge.report.console import table

    check_format(format, ("text", "json"))
    loaded = build_manager(os.environ.get("BIOFORGE_LOAD_PLUGINS"))
    described, problems = loaded.describe(), list(loaded.problems)
    if format == "json":
        found = {"plugins": [asdict(info) for info in described], "problems": problems}
        print(json_text(found))
    else:
        rows = [
            [info.name, info.version or "-", _api(info.api), info.source, list_names(info.provides) or "-"]
            for info in described
        ]
        heads = ["plugin", "version", "api", "source", "provides"]
        show(table([heads, *rows], screen=stdout_screen(), drop=(2, 3)))
        sys.stdout.flush()
        for problem in problems:
            echo(f"error: {problem}")
    return EXIT_FAILED if problems else EXIT_OK


def _api(declared: object) -> str:
    """Return the declared version of the plugin contract, `-` if it is not an integer."""
    return str(declared) if isinstance(declared, int) else "-"


@command
def install(
    packages: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME|PATH",
            help="Names in the package index, folders or wheels. After --: more options for `pip install`.",
        ),
    ] = None,
    upgrade: Annotated[bool, typer.Option("-U", "--upgrade", help="Install the newest version.")] = False,
    editable: Annotated[
        list[str] | None,
        typer.Option(
            "-e", "--editable", metavar="PATH", help="A folder whose changes take effect at once. May be repeated."
        ),
    ] = None,
    quiet: Quiet = False,
) -> int:
    """Install plugins with pip, and check that they load."""
    from bioforge.plugins import install as installation

    options = [*(["--upgrade"] if upgrade else []), *(["--quiet"] if quiet else [])]
    return _print_report(installation.install(packages or (), options, editable or ()))


@command
def uninstall(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Plugins, as `bioforge plugins` lists them.")],
    yes: Yes = False,
    quiet: Quiet = False,
) -> int:
    """Uninstall plugins, and list the names that go with them."""
    from bioforge.plugins import install as installation

    plugins = installation.find_plugins(names, installation.list_plugins())
    installation.installer()
    listed = "; ".join(f"{plugin}{plugin.offers and f' ({plugin.offers})'}" for plugin in plugins)
    if not confirmed(f"Uninstall {listed}?", yes):
        return EXIT_OK
    return _print_report(installation.uninstall(plugins, ["--quiet"] if quiet else []))


def _print_report(report: InstallReport) -> int:
    show(report.lines)
    sys.stdout.flush()
    for note in report.notes:
        echo(f"note: {note}")
    for error in report.errors:
        show_error(error)
    return EXIT_FAILED if report.errors else EXIT_OK

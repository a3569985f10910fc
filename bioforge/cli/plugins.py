"""`install` and `uninstall`: plugins into this environment, with a look at whether they work, and out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bioforge.cli.errors import command, echo, show_error
from bioforge.cli.maintain import Yes, confirmed
from bioforge.core.errors import EXIT_FAILED, EXIT_OK

if TYPE_CHECKING:
    from bioforge.plugins.install import InstallReport

Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Have pip say less.")]


@command
def install(
    packages: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME|PATH",
            help="Names in the package index, folders or wheels. After --: further options for `pip install`.",
        ),
    ] = None,
    upgrade: Annotated[bool, typer.Option("-U", "--upgrade", help="Take the newest version.")] = False,
    editable: Annotated[
        list[str] | None,
        typer.Option("-e", "--editable", metavar="PATH", help="A folder whose changes count at once. May be repeated."),
    ] = None,
    quiet: Quiet = False,
) -> int:
    """Install plugins with pip, and see that they load."""
    from bioforge.plugins import install as installation

    options = [*(["--upgrade"] if upgrade else []), *(["--quiet"] if quiet else [])]
    return _print_report(installation.install(packages or (), options, editable or ()))


@command
def uninstall(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Plugins, as `bioforge plugins` lists them.")],
    yes: Yes = False,
    quiet: Quiet = False,
) -> int:
    """Uninstall plugins, and say which names are gone with them."""
    from bioforge.plugins import install as installation

    plugins = installation.find_plugins(names, installation.list_plugins())
    installation.installer()
    listed = "; ".join(f"{plugin}{plugin.offers and f' ({plugin.offers})'}" for plugin in plugins)
    if not confirmed(f"Uninstall {listed}?", yes):
        return EXIT_OK
    return _print_report(installation.uninstall(plugins, ["--quiet"] if quiet else []))


def _print_report(report: InstallReport) -> int:
    for line in report.lines:
        print(line, flush=True)
    for note in report.notes:
        echo(f"note: {note}")
    for error in report.errors:
        show_error(error)
    return EXIT_FAILED if report.errors else EXIT_OK

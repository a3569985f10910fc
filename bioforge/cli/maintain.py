"""`accept`, `forget` and `gc`: change the state on purpose, recorded as a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from bioforge.cli.errors import command, echo
from bioforge.cli.options import FileOption, RecipeOption, connect, open_names, open_project
from bioforge.core.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, PluginError, StateError, UsageError
from bioforge.core.text import printable

if TYPE_CHECKING:
    from bioforge.config.loader import ProjectConfig
    from bioforge.engine.project import OpenProject
    from bioforge.store import Store

Yes = Annotated[bool, typer.Option("-y", "--yes", help="Do not ask for confirmation.")]


def confirmed(question: str, yes: bool) -> bool:
    """Ask on a terminal. Elsewhere `--yes` is required: raises `UsageError` without it."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError(f"{question} There is no terminal to ask on", "add --yes; nothing was changed")
    return typer.confirm(printable(question), err=True)


@contextmanager
def recorded(store: Store, words: str) -> Iterator[int]:
    """Record a change of the state as a run, for `status`."""
    from bioforge.store import Selection, runs

    run = runs.begin(store, words, None, Selection())
    try:
        yield run
    except BaseException as error:
        with suppress(StateError):  # if the state itself failed, the next command closes this run
            if isinstance(error, KeyboardInterrupt):
                runs.end(store, run, "interrupted", EXIT_INTERRUPTED)
            else:
                runs.end(store, run, "stopped", EXIT_FAILED, f"error: {error}")
        raise
    runs.end(store, run, "finished", EXIT_OK)


@command
def accept(
    select: Annotated[
        list[str] | None, typer.Argument(metavar="SELECT", help="Ids, globs or reason:WORD.", show_default="all")
    ] = None,
    recipe: RecipeOption = None,
    yes: Yes = False,
    file: FileOption = None,
) -> int:
    """Declare existing answers current.

    They become fresh for today's definition without new requests, like `make --touch`.
    """
    from bioforge.core.text import plural
    from bioforge.engine.project import recover_state
    from bioforge.store import Store, maintenance

    names = open_names(file)
    selection = names.selection(recipe or (), select or ())
    project = _connect_if_possible(names.config)
    with Store.open(names.config.state_path) as store:
        recover_state(store)
        if project is not None:
            project.refresh(store)
        number = maintenance.acceptable(store, selection)
        if not number:
            echo("nothing to accept: no stale target of the selection has an answer")
        elif confirmed(f"Accept {plural(number, 'existing answer')} as current?", yes):
            with recorded(store, "accept") as run:
                accepted = maintenance.accept(store, selection, run)
            echo(f"{plural(accepted, 'target')} accepted (recorded in the table `accepted`)")
    return EXIT_OK


def _connect_if_possible(config: ProjectConfig) -> OpenProject | None:
    """Return the project, or None with a note if its backend is missing: the last plan then decides what is stale."""
    try:
        return connect(config)
    except PluginError as error:
        echo(f"note: {error.message}: stale targets are those of the last plan or run")
        return None


@command
def forget(
    select: Annotated[list[str], typer.Argument(metavar="SELECT", help="Ids, globs or reason:WORD.")],
    recipe: RecipeOption = None,
    yes: Yes = False,
    file: FileOption = None,
) -> int:
    """Delete answers on purpose, and print their cost.

    The next run sends their requests again, and pays again.
    """
    from bioforge.core.text import money, plural
    from bioforge.engine.project import recover_state
    from bioforge.store import Store, maintenance

    names = open_names(file)
    selection = names.selection(recipe or (), select)
    with Store.open(names.config.state_path) as store:
        recover_state(store)
        cost = maintenance.would_forget(store, selection)
        if not cost.answers:
            echo("nothing to forget: the selection has no answers")
        elif confirmed(
            f"Forget {plural(cost.answers, 'answer')} (cost: {money(cost.cost_usd)})? The next run pays again.", yes
        ):
            with recorded(store, "forget") as run:
                dropped = maintenance.forget(store, selection, run)
            echo(f"{plural(dropped.answers, 'answer')} forgotten (cost: {money(dropped.cost_usd)})")
    return EXIT_OK


@command
def gc(
    compress: Annotated[
        bool, typer.Option("--compress", help="Delete nothing: compress the raw bodies in the state.")
    ] = False,
    decompress: Annotated[
        bool, typer.Option("--decompress", help="Delete nothing: decompress them, so that SQL can read them.")
    ] = False,
    yes: Yes = False,
    file: FileOption = None,
) -> int:
    """Delete answers that nothing uses any more.

    These belong to no current artist and recipe. Frees the space.
    """
    if compress and decompress:
        raise UsageError("--compress and --decompress exclude each other", "nothing was changed")
    if compress or decompress:
        return _repack(open_names(file).config, on=compress)
    from bioforge.core.text import money, plural
    from bioforge.engine.project import recover_state
    from bioforge.store import Store, maintenance

    project = open_project(file)
    recipes = json.dumps(project.recipes)
    with Store.open(project.config.state_path) as store:
        recover_state(store)
        project.refresh(store)
        cost = maintenance.would_collect(store, recipes)
        if not cost.answers:
            echo("nothing to delete: every answer is used")
        elif confirmed(
            f"Delete {plural(cost.answers, 'unused answer')} (cost: {money(cost.cost_usd)})?"
            " You will pay again if you need them.",
            yes,
        ):
            before = project.config.state_path.stat().st_size
            with recorded(store, "gc") as run:
                dropped = maintenance.collect(store, recipes, run)
            freed = max(0, before - project.config.state_path.stat().st_size)
            echo(
                f"{plural(dropped.answers, 'answer')} deleted (cost: {money(dropped.cost_usd)});"
                f" {freed / 1e6:.1f} MB freed"
            )
    return EXIT_OK


def _repack(config: ProjectConfig, *, on: bool) -> int:
    from bioforge.core.text import plural
    from bioforge.engine.project import recover_state
    from bioforge.store import Store, compression

    path, word = config.state_path, "compressed" if on else "decompressed"
    with Store.open(path) as store:
        recover_state(store)
        before = path.stat().st_size
        with recorded(store, "gc --compress" if on else "gc --decompress"):
            done = compression.repack(store, on, lambda bodies: echo(f"{bodies:,} bodies {word} so far"))
            store.vacuum()
        after = path.stat().st_size
    echo(
        f"{plural(done.bodies, 'body', 'bodies')} {word}: {_megabytes(done.before)} →"
        f" {_megabytes(done.after)}; the state: {_megabytes(before)} → {_megabytes(after)}"
    )
    if on is not config.project.compress_bodies:
        is_set = "is set" if config.project.compress_bodies else "is not set"
        echo(
            f"note: new bodies are stored {'as they are' if on else 'compressed'}: `compress_bodies` {is_set} in [project]"
        )
    return EXIT_OK


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"

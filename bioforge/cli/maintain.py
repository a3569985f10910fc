"""`accept`, `forget` and `gc`: changing what the state holds, on purpose and with a record of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from bioforge.cli.errors import command, echo
from bioforge.cli.options import FileOption, RecipeOption, made_ready, open_names, open_project
from bioforge.core.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, PluginError, StateError, UsageError

if TYPE_CHECKING:
    from bioforge.config.loader import ProjectConfig
    from bioforge.engine.project import OpenProject
    from bioforge.store import Store

Yes = Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")]


def confirmed(question: str, yes: bool) -> bool:
    """Asks on a terminal; elsewhere nothing irreversible happens without --yes."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError(f"{question} There is no terminal to ask on", "add --yes; nothing was changed")
    return typer.confirm(question, err=True)


@contextmanager
def recorded(store: Store, words: str) -> Iterator[int]:
    """A run for what changes the state, so that `status` shows who did it."""
    from bioforge.store import Selection, runs

    run = runs.begin(store, words, None, Selection())
    try:
        yield run
    except BaseException as error:
        with suppress(StateError):  # where the state itself is the trouble, the next command closes this one
            if isinstance(error, KeyboardInterrupt):
                runs.end(store, run, "interrupted", EXIT_INTERRUPTED)
            else:
                runs.end(store, run, "stopped", EXIT_FAILED, f"error: {error}")
        raise
    runs.end(store, run, "finished", EXIT_OK)


@command
def accept(
    select: Annotated[
        list[str] | None, typer.Argument(metavar="SELECT", help="Ids, globs or reason:WORD; all when none is given.")
    ] = None,
    recipe: RecipeOption = None,
    yes: Yes = False,
    file: FileOption = None,
) -> int:
    """Declare existing answers current for today's definition, without asking for them again (make's touch)."""
    from bioforge.core.text import plural
    from bioforge.engine.project import recover_state
    from bioforge.store import Store, maintenance

    names = open_names(file)
    selection = names.selection(recipe or (), select or ())
    project = _ready_if_possible(names.config)
    with Store.open(names.config.state_path) as store:
        recover_state(store)
        if project is not None:
            project.refresh(store)
        number = maintenance.acceptable(store, selection)
        if not number:
            echo("nothing to accept: no stale target of the selection has an answer")
        elif confirmed(f"accept {plural(number, 'existing answer')} as current?", yes):
            with recorded(store, "accept") as run:
                accepted = maintenance.accept(store, selection, run)
            echo(f"{plural(accepted, 'target')} accepted (recorded in the table `accepted`)")
    return EXIT_OK


def _ready_if_possible(config: ProjectConfig) -> OpenProject | None:
    """None without its backend, which is said: what is stale is then what the last plan or run found."""
    try:
        return made_ready(config)
    except PluginError as error:
        echo(f"note: {error.message}: what is stale is as the last plan or run found it")
        return None


@command
def forget(
    select: Annotated[list[str], typer.Argument(metavar="SELECT", help="Ids, globs or reason:WORD.")],
    recipe: RecipeOption = None,
    yes: Yes = False,
    file: FileOption = None,
) -> int:
    """Drop answers on purpose; says what they had cost. The next run asks for them again, and pays again."""
    from bioforge.core.text import money, plural
    from bioforge.engine.project import recover_state
    from bioforge.store import Store, maintenance

    names = open_names(file)
    selection = names.selection(recipe or (), select)
    with Store.open(names.config.state_path) as store:
        recover_state(store)
        weighed = maintenance.would_forget(store, selection)
        if not weighed.answers:
            echo("nothing to forget: the selection has no answers")
        elif confirmed(f"forget {plural(weighed.answers, 'answer')} that had cost {money(weighed.cost_usd)}?", yes):
            with recorded(store, "forget") as run:
                dropped = maintenance.forget(store, selection, run)
            echo(f"{plural(dropped.answers, 'answer')} forgotten; they had cost {money(dropped.cost_usd)}")
    return EXIT_OK


@command
def gc(
    compress: Annotated[
        bool, typer.Option("--compress", help="Drop nothing: pack the raw bodies that the state has.")
    ] = False,
    decompress: Annotated[
        bool, typer.Option("--decompress", help="Drop nothing: unpack them, for SQLite's own functions to read.")
    ] = False,
    yes: Yes = False,
    file: FileOption = None,
) -> int:
    """Drop answers that no artist and recipe of today use, and give the space back."""
    if compress and decompress:
        raise UsageError("--compress and --decompress: either one", "nothing was changed")
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
        weighed = maintenance.would_collect(store, recipes)
        if not weighed.answers:
            echo("nothing to drop: every answer is used")
        elif confirmed(
            f"drop {plural(weighed.answers, 'unused answer')} that had cost {money(weighed.cost_usd)}, and pay again"
            " should one be wanted again?",
            yes,
        ):
            before = project.config.state_path.stat().st_size
            with recorded(store, "gc") as run:
                dropped = maintenance.collect(store, recipes, run)
            freed = max(0, before - project.config.state_path.stat().st_size)
            echo(
                f"{plural(dropped.answers, 'answer')} dropped; they had cost {money(dropped.cost_usd)};"
                f" {freed / 1e6:.1f} MB freed"
            )
    return EXIT_OK


def _repack(config: ProjectConfig, *, on: bool) -> int:
    from bioforge.core.text import plural
    from bioforge.engine.project import recover_state
    from bioforge.store import Store, compression

    path, word = config.state_path, "packed" if on else "unpacked"
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
        echo(f"note: new bodies are kept {'as they come' if on else 'packed'}: `compress_bodies` {is_set} in [project]")
    return EXIT_OK


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"

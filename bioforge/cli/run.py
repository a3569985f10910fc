"""`run` and `resume`: building what is stale."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from bioforge.cli.errors import command, echo
from bioforge.cli.options import (
    FileOption,
    RecipesArgument,
    SelectOption,
    check_destination,
    check_format,
    load,
    open_project,
    parse_seconds,
)
from bioforge.core.errors import EXIT_INTERRUPTED, EXIT_OK, UsageError

if TYPE_CHECKING:
    from bioforge.cli.progress import ConsoleObserver
    from bioforge.core.interfaces import Stop
    from bioforge.engine.project import OpenProject
    from bioforge.engine.types import RunOptions, RunResult
    from bioforge.store.runs import Run

BODY_COUNT = 5

Concurrency = Annotated[
    int | None, typer.Option("-j", "--concurrency", metavar="N", help="Requests in flight at once.", show_default="64")
]
MaxFailures = Annotated[
    int | None, typer.Option("--max-failures", metavar="N", help="Stop after N failed targets.", min=1)
]
BackendOption = Annotated[
    str | None, typer.Option("--backend", metavar="NAME", help="threads, async, batch, auto, or of a plugin.")
]
MaxCost = Annotated[float | None, typer.Option("--max-cost", metavar="USD", help="Spend at most this much.")]
Deadline = Annotated[
    str | None,
    typer.Option(
        "--deadline", metavar="TIME", help="Stop sending after this long, like 90s, 30m or 2h (exit code 75)."
    ),
]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="batch: submit, collect what is ready, and leave (exit code 75).")
]
PrintText = Annotated[bool, typer.Option("--print", help="Write each text to stdout as it arrives.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say why each target is built, and log every attempt.")]
LogFormat = Annotated[str, typer.Option("--log-format", metavar="console|json", help="How log lines look.")]
LogFile = Annotated[Path | None, typer.Option("--log-file", metavar="PATH", help="Also append JSON log lines here.")]


@command
def run(
    recipes: RecipesArgument = None,
    file: FileOption = None,
    dry_run: Annotated[
        bool, typer.Option("-n", "--dry-run", help="Show what would be sent, with the first 5 bodies; send nothing.")
    ] = False,
    always_make: Annotated[
        bool,
        typer.Option("-B", "--always-make", help="Build selected targets even when they are fresh (this pays again)."),
    ] = False,
    concurrency: Concurrency = None,
    max_failures: MaxFailures = None,
    select: SelectOption = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", metavar="N", min=1, help="Build at most N stale targets; the next run goes on with others."
        ),
    ] = None,
    backend: BackendOption = None,
    max_cost: MaxCost = None,
    no_wait: NoWait = False,
    deadline: Deadline = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", metavar="FILE", help="Do exactly this plan (from plan --out), or refuse.")
    ] = None,
    print_text: PrintText = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="One bad row stops the run before anything is sent.")
    ] = False,
    verbose: Verbose = False,
    log_format: LogFormat = "console",
    log_file: LogFile = None,
) -> int:
    """Ask for what is new, changed or failed, keep every answer, and write the outputs."""
    from dataclasses import replace

    from bioforge.engine.types import RunOptions

    if plan is not None and (recipes or select or limit or always_make):
        raise UsageError("--plan takes no recipes, --select, --limit or -B", "a plan already says what to do")
    seconds = parse_seconds(deadline)
    project = open_project(file, backend=backend, concurrency=concurrency, max_cost=max_cost, strict=strict)
    selection = project.with_needs(project.selection(recipes or (), select or (), limit))
    order = RunOptions(
        command=_command_line("run"),
        selection=selection if plan is None else replace(selection, plan=str(plan.absolute())),
        always_make=always_make,
        max_failures=max_failures,
        wait=not no_wait,
        deadline=seconds,
    )
    if dry_run:
        return _dry_run(project, order)
    return _build(
        project,
        order,
        print_text=print_text,
        verbose=verbose,
        log_format=log_format,
        log_file=log_file,
    )


@command
def resume(
    file: FileOption = None,
    concurrency: Concurrency = None,
    max_failures: MaxFailures = None,
    backend: BackendOption = None,
    max_cost: MaxCost = None,
    no_wait: NoWait = False,
    deadline: Deadline = None,
    print_text: PrintText = False,
    verbose: Verbose = False,
    log_format: LogFormat = "console",
    log_file: LogFile = None,
) -> int:
    """Continue the run that was interrupted, with its selection."""
    from bioforge.engine.types import RunOptions
    from bioforge.store import Selection, Store, batches, runs

    seconds = parse_seconds(deadline)
    with Store.read(load(file).state_path) as store:
        last = runs.unfinished(store)
        spent = 0.0 if last is None else runs.spent_usd(store, last.id)
        waiting = bool(batches.open_batches(store))
    if last is None:
        echo("nothing to resume: no run was broken off; `bioforge run` builds what is stale")
        return EXIT_OK
    project = open_project(
        file,
        backend=backend or last.backend,
        concurrency=concurrency,
        max_cost=_budget_left(last, spent, waiting, max_cost),
    )
    selection = Selection.from_json(last.selection)
    gone = [name for name in selection.recipes if name not in project.recipes]
    if gone:
        raise UsageError(
            f"run {last.id} built recipe {', '.join(gone)}, which the project no longer has",
            "start afresh with `bioforge run`; what was answered is kept",
        )
    echo(f"resuming run {last.id} (`bioforge {last.command}`, {'cut off' if last.ended_at is None else last.state})")
    order = RunOptions(
        command=_command_line("resume"),
        selection=selection,
        always_make=bool(last.always_make),
        max_failures=max_failures,
        run=last.id,
        wait=not no_wait,
        deadline=seconds,
    )
    return _build(
        project,
        order,
        print_text=print_text,
        verbose=verbose,
        log_format=log_format,
        log_file=log_file,
    )


def _budget_left(last: Run, spent: float, waiting: bool, given: float | None) -> float | None:
    """The budget of a resumed run: as given now, else what the earlier one and its open batches leave. With batches
    `waiting` to be collected, nothing left is no reason not to."""
    if given is not None or last.max_cost_usd is None:
        return given
    left = last.max_cost_usd - spent
    if not waiting and (last.stopped_by == "budget" or left <= 0):
        raise UsageError(
            f"run {last.id} stopped at its budget of ${last.max_cost_usd:g}", "give this one a budget: --max-cost USD"
        )
    from bioforge.engine.execute import SMALLEST_BUDGET

    return max(left, SMALLEST_BUDGET)


def _command_line(name: str) -> str:
    """The command as it was typed, for `status`, the lock's refusal and the record of runs."""
    from shlex import join

    arguments = sys.argv[1:]
    return join(arguments) if arguments[:1] == [name] else name


def _dry_run(project: OpenProject, order: RunOptions) -> int:
    from bioforge.cli.format import plan_lines
    from bioforge.store import Store
    from bioforge.store.queue import RequestFilter

    if order.selection.plan is not None:
        raise UsageError("--plan and --dry-run exclude each other", "the plan file itself lists what would be sent")
    with Store.open(project.config.state_path) as store:
        plan = project.plan(store, order.selection)
        for line in plan_lines(store, project, plan):
            echo(line)
        if order.always_make:
            echo("with -B, every target of the selection is built, fresh ones too")
        shown = 0
        which = RequestFilter.EVERYTHING if order.always_make else RequestFilter.STALE
        for request in project.requests(store, plan.selection, which):
            if shown == min(BODY_COUNT, order.selection.limit or BODY_COUNT):
                break
            shown += 1
            print(_readable(request.endpoint, request.body))
        echo(f"dry run: {shown} {'body' if shown == 1 else 'bodies'} shown, nothing was sent")
    return EXIT_OK


def _readable(endpoint: str, body: bytes) -> str:
    import json

    return json.dumps({"url": endpoint, "body": json.loads(body)}, ensure_ascii=False, indent=2)


def _build(
    project: OpenProject,
    order: RunOptions,
    *,
    print_text: bool,
    verbose: bool,
    log_format: str,
    log_file: Path | None,
) -> int:
    from bioforge.cli.progress import ConsoleObserver
    from bioforge.core.interfaces import Stop
    from bioforge.report.logs import configure
    from bioforge.report.reporter import make_reporter

    check_format(log_format, ("console", "json"), "--log-format")
    if log_file is not None:
        check_destination(project.config, log_file, "--log-file")
    key = project.config.api_key()
    logs = configure(log_format, verbose=verbose, log_file=log_file, secrets=(key,) if key else ())
    watcher = ConsoleObserver(project, order, make_reporter(logs, print_text=print_text), explain=verbose)
    stop = Stop()
    with closing(logs), _signals(stop, watcher), _alarm(stop, order.deadline):
        result = project.run(order, watcher, stop)
    watcher.summarise(result)
    if stop.level > 1:
        _leave(result)
    return result.exit_code


@contextmanager
def _alarm(stop: Stop, seconds: float | None) -> Iterator[None]:
    """Drain when the time is up: nothing new is sent, what is in flight is awaited.

    By the clock on the wall: a deadline does not wait for a machine that sleeps.
    """
    if seconds is None:
        yield
        return
    import time
    from threading import Event, Thread

    until, over = time.time() + seconds, Event()

    def watch() -> None:
        while (left := until - time.time()) > 0:
            if over.wait(min(left, 1.0)):
                return
        stop.raise_level("deadline")

    Thread(target=watch, name="bioforge-deadline", daemon=True).start()
    try:
        yield
    finally:
        over.set()


@contextmanager
def _signals(stop: Stop, watcher: ConsoleObserver) -> Iterator[None]:
    """Ctrl-C and SIGTERM: first drain, then leave. Before anything is in flight they simply end the command."""

    def handle(number: int, frame: FrameType | None) -> None:
        if not watcher.in_flight:
            raise KeyboardInterrupt
        level = stop.raise_level()
        if level == 1:
            echo(watcher.stopping())
        elif level == 2:
            echo("leaving now: requests in flight are recorded as maybe paid")
        else:
            os._exit(EXIT_INTERRUPTED)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(result: RunResult) -> None:
    """Threads may still wait for the provider; everything is recorded, so nothing is gained by waiting for them."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(result.exit_code)

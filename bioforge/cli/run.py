"""`run` and `resume`: build stale targets."""

from __future__ import annotations

import os
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioforge.cli.errors import check_stdout, command, echo, json_logs, log, stderr_screen
from bioforge.cli.options import (
    FileOption,
    RecipesArgument,
    SafeOption,
    SelectOption,
    check_destination,
    check_format,
    load,
    open_project,
    parse_seconds,
)
from bioforge.cli.signals import drain_at, drain_on_signals
from bioforge.core.errors import EXIT_OK, UsageError

if TYPE_CHECKING:
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
    str | None, typer.Option("--backend", metavar="NAME", help="threads, async, batch, auto, or one of a plugin.")
]
MaxCost = Annotated[float | None, typer.Option("--max-cost", metavar="USD", help="Spend at most this much.")]
Deadline = Annotated[
    str | None,
    typer.Option(
        "--deadline", metavar="TIME", help="Stop sending after this long, like 90s, 30m or 2h (exit code 75)."
    ),
]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="batch: submit, collect finished batches, and leave (exit code 75).")
]
PrintText = Annotated[bool, typer.Option("--print", help="Write each text to stdout as it arrives.")]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Print the reason of each target, and log every attempt.")
]
LogFormat = Annotated[str, typer.Option("--log-format", metavar="console|json", help="Form of log lines.")]
LogFile = Annotated[Path | None, typer.Option("--log-file", metavar="PATH", help="Also append JSON log lines here.")]


@command
def run(
    recipes: RecipesArgument = None,
    file: FileOption = None,
    safe: SafeOption = False,
    dry_run: Annotated[
        bool, typer.Option("-n", "--dry-run", help="Show the plan and the first 5 request bodies; send nothing.")
    ] = False,
    always_make: Annotated[
        bool,
        typer.Option("-B", "--always-make", help="Build the selected targets even if they are fresh; this pays again."),
    ] = False,
    concurrency: Concurrency = None,
    max_failures: MaxFailures = None,
    select: SelectOption = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", metavar="N", min=1, help="Build at most N stale targets; the next run continues with others."
        ),
    ] = None,
    backend: BackendOption = None,
    max_cost: MaxCost = None,
    no_wait: NoWait = False,
    deadline: Deadline = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", metavar="FILE", help="Do exactly this plan (from `plan --out`), or refuse.")
    ] = None,
    print_text: PrintText = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="One bad row stops the run before anything is sent.")
    ] = False,
    verbose: Verbose = False,
    log_format: LogFormat = "console",
    log_file: LogFile = None,
) -> int:
    """Build stale targets, keep every answer, and write the outputs."""
    from dataclasses import replace

    from bioforge.engine.types import RunOptions

    if plan is not None and (recipes or select or limit or always_make):
        raise UsageError("--plan excludes recipes, --select, --limit and -B", "a plan already has its selection")
    seconds = parse_seconds(deadline)
    project = open_project(file, backend=backend, concurrency=concurrency, max_cost=max_cost, strict=strict)
    selection = project.with_needs(project.selection(recipes or (), select or (), limit))
    options = RunOptions(
        command=_command_line("run"),
        selection=selection if plan is None else replace(selection, plan=str(plan.absolute())),
        always_make=always_make,
        max_failures=max_failures,
        wait=not no_wait,
        deadline=seconds,
    )
    if dry_run:
        return _dry_run(project, options)
    return _build(
        project,
        options,
        print_text=print_text,
        verbose=verbose,
        log_format=log_format,
        log_file=log_file,
    )


@command
def resume(
    file: FileOption = None,
    safe: SafeOption = False,
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
    """Continue the interrupted run, with its selection."""
    from bioforge.engine.types import RunOptions
    from bioforge.store import Selection, Store, batches, runs

    seconds = parse_seconds(deadline)
    with Store.read(load(file).state_path) as store:
        last = runs.unfinished(store)
        spent = 0.0 if last is None else runs.spent_usd(store, last.id)
        waiting = bool(batches.open_batches(store))
    if last is None:
        echo("nothing to resume: no run was interrupted; `bioforge run` builds stale targets")
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
            "start with `bioforge run`; existing answers are kept",
        )
    echo(f"resuming run {last.id} (`bioforge {last.command}`, {'cut off' if last.ended_at is None else last.state})")
    options = RunOptions(
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
        options,
        print_text=print_text,
        verbose=verbose,
        log_format=log_format,
        log_file=log_file,
    )


def _budget_left(last: Run, spent: float, waiting: bool, given: float | None) -> float | None:
    """Return the budget of a resumed run: the given one, else the rest of the earlier budget.

    Raises `UsageError` where nothing is left, unless open batches are `waiting` to be collected.
    """
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
    """Return the command as it was typed, for `status`, the message of the lock and the record of runs."""
    from shlex import join

    arguments = sys.argv[1:]
    return join(arguments) if arguments[:1] == [name] else name


def _dry_run(project: OpenProject, options: RunOptions) -> int:
    from bioforge.cli.format import plan_lines
    from bioforge.cli.run_json import log_plan
    from bioforge.store import Store
    from bioforge.store.queue import RequestFilter

    if options.selection.plan is not None:
        raise UsageError("--plan and --dry-run exclude each other", "the plan file lists the requests")
    with Store.open(project.config.state_path) as store:
        plan = project.plan(store, options.selection)
        if json_logs():
            log_plan(log, store, project, plan)
        else:
            for line in plan_lines(store, project, plan, stderr_screen()):
                echo(line)
        if options.always_make:
            echo("-B builds every target of the selection, fresh ones too")
        shown = 0
        which = RequestFilter.EVERYTHING if options.always_make else RequestFilter.STALE
        for request in project.requests(store, plan.selection, which):
            if shown == min(BODY_COUNT, options.selection.limit or BODY_COUNT):
                break
            shown += 1
            print(_request_json(request.endpoint, request.body))
        echo(f"dry run: {shown} {'body' if shown == 1 else 'bodies'} shown, nothing was sent")
    return EXIT_OK


def _request_json(endpoint: str, body: bytes) -> str:
    import json

    from bioforge.core.text import printable_json

    return printable_json(json.dumps({"url": endpoint, "body": json.loads(body)}, ensure_ascii=False, indent=2))


def _build(
    project: OpenProject,
    options: RunOptions,
    *,
    print_text: bool,
    verbose: bool,
    log_format: str,
    log_file: Path | None,
) -> int:
    from bioforge.cli.run_console import ConsoleObserver
    from bioforge.cli.run_json import JsonObserver
    from bioforge.core.interfaces import Stop
    from bioforge.report.logs import configure
    from bioforge.report.reporter import make_reporter

    check_format(log_format, ("console", "json"), "--log-format")
    if print_text:
        check_stdout()
    if log_file is not None:
        check_destination(project.config, log_file, "--log-file")
    key = project.config.api_key()
    logs = configure(log_format, verbose=verbose, log_file=log_file, secrets=(key,) if key else ())
    observer_class = JsonObserver if json_logs() else ConsoleObserver
    observer = observer_class(project, options, make_reporter(logs, print_text=print_text), explain=verbose)
    stop = Stop()
    with closing(logs):
        with drain_on_signals(stop, observer), drain_at(stop, options.deadline):
            result = project.run(options, observer, stop)
        observer.summarise(result)
    if stop.level > 1:
        _exit_now(result)
    return result.exit_code


def _exit_now(result: RunResult) -> None:
    """Exit without joining threads that still wait for the provider: everything is recorded."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(result.exit_code)

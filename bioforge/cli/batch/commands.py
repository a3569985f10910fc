"""`bioforge batch …`: the Batch API by hand, inside or outside a project."""

from __future__ import annotations

import re
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioforge.cli.batch import create, jsonl
from bioforge.cli.batch.provider import FileOption, LogOption, provider
from bioforge.cli.errors import command, echo, show, stdout_screen
from bioforge.cli.format import json_text
from bioforge.cli.maintain import Yes, confirmed, recorded
from bioforge.cli.options import FileOption as ProjectOption
from bioforge.cli.options import check_format, load
from bioforge.core.errors import EXIT_FAILED, EXIT_OK, BioforgeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The id of the batch, as `create` and `list` print it.")]
FormatOption = Annotated[str, typer.Option("--format", metavar="text|json", help="How to print it.")]

_ID = re.compile(r"[A-Za-z0-9_][\w.:=+~-]{0,199}", re.ASCII)


def _check_id(batch_id: str) -> None:
    """Raise `UsageError` for an id that is not safe in a URL and a file name."""
    if not _ID.fullmatch(batch_id):
        raise UsageError(
            f"{batch_id!r} is not the id of a batch", "ids look like batch_abc123: see `bioforge batch list`"
        )


@command
def status(
    batch_id: IdArgument,
    no_auto_save: Annotated[
        bool, typer.Option("--no-auto-save", help="Do not save the result files of a batch that has ended.")
    ] = False,
    format: FormatOption = "text",
    file: FileOption = None,
    log_file: LogOption = None,
) -> int:
    """Show a batch: state, times, counts, usage, errors.

    If it has ended, its results are saved, as `retrieve` does.
    """
    from bioforge.cli.batch import format as format_cli
    from bioforge.cli.batch import save_results
    from bioforge.core.types import BatchState

    check_format(format, ("text", "json"))
    _check_id(batch_id)
    with provider(file, "batch status", log_file) as opened:
        job = opened.jobs.job(batch_id)
        batch = opened.jobs.seen(job)
        cost = opened.jobs.cost(batch)
        if format == "json":
            print(json_text(format_cli.record(job, batch, cost)), flush=True)
        else:
            show(format_cli.lines(job, batch, cost, opened.simulated, stdout_screen()))
            sys.stdout.flush()
        if batch.ended and not no_auto_save:
            for line in save_results.lines(
                save_results.save(opened.jobs, batch, save_results.default_path(batch)), batch, opened.simulated
            ):
                echo(line)
    return EXIT_FAILED if batch.state is BatchState.FAILED else EXIT_OK


@command
def list_(
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Show at most N.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="Show all batches of the provider.")] = False,
    format: FormatOption = "text",
    file: FileOption = None,
    log_file: LogOption = None,
) -> int:
    """List the provider's batches, the newest first."""
    from bioforge.cli.batch import format as format_cli

    check_format(format, ("text", "json"))
    with provider(file, "batch list", log_file) as opened:
        # one more than is shown, to know if there are more
        jobs = list(islice(opened.jobs.jobs(), None if everything else limit + 1))
        batches = [opened.jobs.seen(job) for job in jobs]
        more = not everything and len(jobs) > limit
        if more:
            del jobs[limit:], batches[limit:]
        if format == "json":
            records = [
                format_cli.record(job, batch, opened.jobs.cost(batch)) for job, batch in zip(jobs, batches, strict=True)
            ]
            print(json_text(records))
        elif not batches:
            echo("no batches")
        else:
            show(format_cli.table_lines(batches, stdout_screen()))
    if more:
        echo("there are more batches: --limit N or --all shows them")
    return EXIT_OK


@command
def retrieve(
    batch_id: IdArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Save the answers here, and errors beside it.",
            show_default="results_ID.jsonl",
        ),
    ] = None,
    file: FileOption = None,
    log_file: LogOption = None,
) -> int:
    """Save the results of a batch that has ended.

    Finished rows are charged and can be retrieved, also from an expired or cancelled batch.
    """
    from bioforge.cli.batch import save_results
    from bioforge.cli.batch.format import is_over

    _check_id(batch_id)
    _check_output(output, file)
    with provider(file, "batch retrieve", log_file) as opened:
        batch = opened.jobs.seen(opened.jobs.job(batch_id))
        if not batch.ended:
            done = f": {batch.completed + batch.failed:,} of {batch.requests:,} requests done" if batch.requests else ""
            raise BioforgeError(
                f"{batch_id} is {batch.status or 'not known to have ended'}{done}",
                f"results are available at its end; `bioforge batch status {batch_id}` shows its progress",
            )
        saved = save_results.save(opened.jobs, batch, output or save_results.default_path(batch))
        for result in saved:
            print(result.path)
        if saved:
            for line in save_results.lines(saved, batch, opened.simulated):
                echo(line)
            return EXIT_OK
        raise BioforgeError(
            f"{batch_id} has no result files: {is_over(batch)}", f"`bioforge batch status {batch_id}` shows why"
        )


def _check_output(output: Path | None, file: Path | None) -> None:
    from bioforge.cli.batch.provider import project_config
    from bioforge.cli.options import check_destination

    if output is None:
        return
    if str(output) == "-" or output.is_dir():
        raise UsageError(f"-o {output}: expected the name of a file", "errors are saved in a second file beside it")
    if (config := project_config(file)) is not None:
        check_destination(config, output, "-o")
    if output.is_file() and not _is_result_file(output):
        raise UsageError(
            f"-o {output}: the file exists and is not a result file", "name another one; nothing was written"
        )


def _is_result_file(path: Path) -> bool:
    """Return True for a file that results may replace: it is empty or begins like a result file."""
    with path.open("rb") as stream:
        line = stream.readline()
    return not line.strip() or (line.startswith(b"{") and b'"custom_id"' in line)


@command
def cancel(batch_id: IdArgument, file: FileOption = None, log_file: LogOption = None) -> int:
    """Cancel a batch. Finished rows are charged, and can be retrieved."""
    from bioforge.cli.batch.format import is_over

    _check_id(batch_id)
    with provider(file, "batch cancel", log_file) as opened:
        batch = opened.jobs.seen(opened.jobs.job(batch_id))
        if batch.ended:
            raise BioforgeError(
                f"{batch_id} cannot be cancelled: {is_over(batch)}", f"`bioforge batch retrieve {batch_id}`"
            )
        batch = opened.jobs.cancel(batch)
    show([f"{batch.name} {batch.status}"])
    echo(
        f"this can take up to 10 minutes; {batch.completed:,} of {batch.requests:,} requests are answered so far."
        " Only finished requests are charged"
    )
    echo(f"next: bioforge batch retrieve {batch.name}")
    return EXIT_OK


@command
def abandon(
    name: Annotated[
        str, typer.Argument(metavar="ID", help="The batch, by its id or key as `bioforge status` shows it.")
    ],
    yes: Yes = False,
    file: ProjectOption = None,
) -> int:
    """Give up an open batch that the project can no longer reach.

    Its requests become maybe paid.
    """
    from bioforge.core.text import plural
    from bioforge.core.types import CLOSED
    from bioforge.engine.project import recover_state
    from bioforge.store import Store, batches

    config = load(file)
    with Store.open(config.state_path) as store:
        recover_state(store)
        batch = batches.by_key(store, name)
        if batch is None or batch.state in CLOSED:
            raise UsageError(f"{name} is not an open batch of this project", "`bioforge status` lists the open ones")
        question = (
            f"Give up {batch.name} with {plural(batch.requests, 'request')}? Answers that still arrive are lost; a run"
            " resends its requests, which may have been charged."
        )
        if confirmed(question, yes):
            with recorded(store, "batch abandon") as _:
                number = batches.give_up(store, batch)
            echo(f"{batch.name} given up: {plural(number, 'request')} maybe paid")
    return EXIT_OK


EXAMPLES = {
    "jsonl": (
        "bioforge batch jsonl",
        "bioforge batch jsonl bio --limit 100 -o trial.jsonl",
        "bioforge batch jsonl --in artists.csv --columns artist_name=name \\",
        "  --model gpt-6-luna --template 'Who is {{ artist_name }}?'",
    ),
    "create": (
        "bioforge batch create --in batch_input.jsonl",
        "ID=$(bioforge batch create --in batch_input.jsonl | tail -n 1)",
    ),
    "status": ("bioforge batch status batch_abc123", "bioforge batch status batch_abc123 --format json"),
    "list": ("bioforge batch list", "bioforge batch list --all --format json"),
    "retrieve": (
        "bioforge batch retrieve batch_abc123",
        "bioforge batch retrieve batch_abc123 -o out/bios.jsonl",
    ),
    "cancel": ("bioforge batch cancel batch_abc123",),
    "abandon": ("bioforge batch abandon batch_abc123",),
}


def group(epilog: str, format_examples: Callable[[Iterable[str]], str]) -> typer.Typer:
    """Return the commands as one group; `format_examples` turns a command's examples into its epilog."""
    commands = typer.Typer(
        name="batch",
        help="Use the Batch API by hand. It takes up to 24 hours at half the price; a project is not needed.",
        epilog=epilog,
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name, function in (
        ("jsonl", jsonl.jsonl),
        ("create", create.create),
        ("status", status),
        ("list", list_),
        ("retrieve", retrieve),
        ("cancel", cancel),
        ("abandon", abandon),
    ):
        commands.command(name, epilog=format_examples(EXAMPLES[name]))(function)
    return commands

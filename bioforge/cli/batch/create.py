"""`batch create`: check a file, upload it and create its batch, once."""

from __future__ import annotations

import time
from dataclasses import replace
from os import urandom
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioforge.cli.batch.provider import FileOption, LogOption, api_error, provider
from bioforge.cli.errors import check_stdout, command, echo
from bioforge.core.errors import EXIT_OK, BioforgeError, UsageError

if TYPE_CHECKING:
    from bioforge.backends.batch.service import CallError
    from bioforge.cli.batch.check import CheckedFile
    from bioforge.cli.batch.provider import BatchProvider, Jobs
    from bioforge.core.types import Batch

ROUNDS = 3
"""Attempts to create a batch while the outcome is unknown, each after a search for the batch."""

LONGEST_PAUSE = 60.0
"""Seconds before a search, at most: a person waits at the terminal."""

REMEMBERED = 31 * 86_400.0
"""Seconds to look back for an equal file: providers keep results for 30 days."""

_OVER = frozenset({"failed", "expired", "cancelling", "cancelled"})
"""Statuses of a batch that allow another one for the same file."""


@command
def create(
    source: Annotated[Path, typer.Option("--in", metavar="FILE", help="The JSONL file to send.")],
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint", metavar="PATH", help="The endpoint of its requests.", show_default="the url in the file"
        ),
    ] = None,
    completion_window: Annotated[
        str,
        typer.Option("--completion-window", metavar="TIME", help="Time until the batch expires; the API accepts 24h."),
    ] = "24h",
    again: Annotated[
        bool, typer.Option("--again", help="Create it even if an equal file has a batch: this pays twice.")
    ] = False,
    file: FileOption = None,
    log_file: LogOption = None,
) -> int:
    """Check a file, upload it, and create its batch.

    Prints the id of the file and the id of the batch, one per line.
    """
    from bioforge.cli.batch.check import check
    from bioforge.core.text import plural, printable

    check_stdout()
    checked = check(source, endpoint)
    of_model = f" for {checked.model}" if checked.model else ""
    with provider(file, "batch create", log_file) as opened:
        if not again:
            _refuse_equal(opened.jobs, checked)
        batch = _batch(checked)
        batch = replace(batch, file_id=opened.jobs.upload(batch, source))
        print(printable(str(batch.file_id)), flush=True)
        echo(f"uploaded {source}: {plural(checked.lines, 'request')}{of_model}, {checked.bytes:,} bytes")
        _wait_for_file(opened, batch)
        metadata = {"bioforge": batch.key, "sha256": checked.sha256, "project": opened.project[:512]}
        created = _create(opened, batch, {name: text for name, text in metadata.items() if text}, completion_window)
        print(printable(str(created.batch_id)), flush=True)
    simulated = ", simulated: nothing is charged" if opened.simulated else ""
    ending = "" if created.ended else f", ends within {completion_window}"
    echo(f"{created.batch_id}: {created.status}{ending}{simulated}")
    echo(f"next: bioforge batch status {created.batch_id}")
    return EXIT_OK


def _batch(checked: CheckedFile) -> Batch:
    """Return the batch as it is known before sending; its key identifies it at the provider."""
    from bioforge.core.types import Batch, BatchState

    return Batch(
        key=f"hand-{checked.sha256[:16]}-{urandom(4).hex()}",
        endpoint=checked.endpoint,
        model=checked.model or "",
        state=BatchState.PREPARED,
        requests=checked.lines,
        bytes=checked.bytes,
        prepared_at=time.time(),
    )


def _refuse_equal(jobs: Jobs, checked: CheckedFile) -> None:
    oldest = time.time() - REMEMBERED
    for job in jobs.jobs():
        created = job.get("created_at")
        if isinstance(created, int | float) and created < oldest:
            return
        metadata = job.get("metadata")
        digest = metadata.get("sha256") if isinstance(metadata, dict) else None
        if digest == checked.sha256 and job.get("status") not in _OVER:
            known = jobs.seen(job)
            raise UsageError(
                f"{checked.path}: {known.name} ({known.status}) has an equal file; nothing was sent",
                f"`bioforge batch status {known.name}` gets its results; --again sends the file again and pays again",
            )


def _wait_for_file(opened: BatchProvider, batch: Batch) -> None:
    """Wait until the provider has processed the uploaded file."""
    number = 0
    while opened.jobs.file_pending(batch.file_id or ""):
        if not number:
            echo(f"the provider is processing the file {batch.file_id}; waiting for it")
        time.sleep(min(opened.pause * 2**number, LONGEST_PAUSE))
        number = min(number + 1, 9)


def _create(opened: BatchProvider, batch: Batch, metadata: dict[str, str], window: str) -> Batch:
    """Return the created batch, or the one that an attempt of unknown outcome has created."""
    from bioforge.backends.batch.service import CallError

    jobs = opened.jobs
    last: CallError | None = None
    for number in range(ROUNDS):
        try:
            return jobs.create_job(batch, metadata, window)
        except KeyboardInterrupt:
            echo(f"warning: {_unknown(batch)}; {_how_to_check(batch)}")
            raise
        except CallError as error:
            if _is_unclear(error):
                last = error
            elif last is None:
                _delete_file(jobs, batch)
                raise
            else:  # an earlier attempt may have created a batch, which needs the file
                raise BioforgeError(f"{_unknown(batch)}: {_message(error, jobs)}", _how_to_check(batch)) from error
        echo(f"warning: the batch may have been created: {_message(last, jobs)}; searching for it")
        # the provider's list may lag behind: pause before the search
        time.sleep(min(last.outcome.retry_after or opened.pause * 2**number, LONGEST_PAUSE))
        found = _find(jobs, batch)
        if found is not None:
            echo(f"found: {found.batch_id}")
            return found
        echo("not found" + ("; trying again" if number < ROUNDS - 1 else ""))
    assert last is not None
    raise BioforgeError(
        f"no batch was created in {ROUNDS} tries: {_message(last, jobs)}",
        f"before another try, check that no batch exists: {_how_to_check(batch)}",
    )


def _is_unclear(error: CallError) -> bool:
    """Return True if the batch may exist: the call has no known outcome, or the server failed during it."""
    from bioforge.core.types import Paid

    return error.outcome.paid is Paid.MAYBE or (error.failure.http_status or 0) >= 500


def _find(jobs: Jobs, batch: Batch) -> Batch | None:
    """Return the batch that an attempt of unknown outcome created, or None. Raises if the search fails."""
    from bioforge.backends.batch.service import CallError

    try:
        return jobs.find(batch)
    except CallError as error:
        raise BioforgeError(f"{_unknown(batch)}: {_message(error, jobs)}", _how_to_check(batch)) from error


def _unknown(batch: Batch) -> str:
    return f"a batch may have been created for the file {batch.file_id}"


def _how_to_check(batch: Batch) -> str:
    return (
        f"look for input_file_id {batch.file_id} or metadata.bioforge {batch.key} in `bioforge batch list --format json`;"
        " then run this command again, which looks for an equal file first"
    )


def _delete_file(jobs: Jobs, batch: Batch) -> None:
    """Delete a file whose batch was refused."""
    from bioforge.backends.batch.service import CallError

    try:
        jobs.delete_file(batch.file_id or "")
    except CallError:
        return  # it expires


def _message(error: CallError, jobs: Jobs) -> str:
    return api_error(error, jobs).message

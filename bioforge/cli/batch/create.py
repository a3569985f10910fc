"""`batch create`: a checked file becomes a batch, once."""

from __future__ import annotations

import time
from dataclasses import replace
from os import urandom
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioforge.cli.batch.provider import FileOption, LogOption, failed, provider
from bioforge.cli.errors import command, echo
from bioforge.core.errors import EXIT_OK, BioforgeError, UsageError

if TYPE_CHECKING:
    from bioforge.backends.batch.service import CallError
    from bioforge.cli.batch.check import Checked
    from bioforge.cli.batch.provider import BatchProvider, Jobs
    from bioforge.core.types import Batch

ROUNDS = 3
"""How often a creation is tried whose end nobody knows, each time after looking for what it may have left."""

LONGEST_PAUSE = 60.0
"""Seconds before a look, whatever the server asks for: somebody is waiting at a terminal."""

REMEMBERED = 31 * 86_400.0
"""Seconds in which an equal file is looked for: results are kept for 30 days."""

_OVER = frozenset({"failed", "expired", "cancelling", "cancelled"})
"""Statuses in which a batch does not speak against another one for the same file."""


@command
def create(
    source: Annotated[Path, typer.Option("--in", metavar="FILE", help="The JSONL file to send.")],
    endpoint: Annotated[
        str | None,
        typer.Option("--endpoint", metavar="PATH", help="Its endpoint.", show_default="the url in the file"),
    ] = None,
    completion_window: Annotated[
        str, typer.Option("--completion-window", metavar="TIME", help="The API knows one.")
    ] = "24h",
    again: Annotated[
        bool, typer.Option("--again", help="Also where an equal file has a batch already: that pays twice.")
    ] = False,
    file: FileOption = None,
    log_file: LogOption = None,
) -> int:
    """Check a file, upload it, and create its batch. Prints the file's id and the batch's id, each on its line."""
    from bioforge.cli.batch.check import check
    from bioforge.core.text import plural

    checked = check(source, endpoint)
    of_model = f" for {checked.model}" if checked.model else ""
    with provider(file, "batch create", log_file) as opened:
        if not again:
            _refuse_equal(opened.jobs, checked)
        batch = _batch(checked)
        batch = replace(batch, file_id=opened.jobs.upload(batch, source))
        print(batch.file_id, flush=True)
        echo(f"uploaded {source}: {plural(checked.lines, 'request')}{of_model}, {checked.bytes:,} bytes")
        metadata = {"bioforge": batch.key, "sha256": checked.sha256, "project": opened.project[:512]}
        created = _created(opened, batch, {name: text for name, text in metadata.items() if text}, completion_window)
        print(created.batch_id, flush=True)
    simulated = ", simulated: nothing is charged" if opened.simulated else ""
    ending = "" if created.ended else f", to end within {completion_window}"
    echo(f"{created.batch_id}: {created.status}{ending}{simulated}")
    echo(f"next: bioforge batch status {created.batch_id}")
    return EXIT_OK


def _batch(checked: Checked) -> Batch:
    """Known before anything is sent: by its key it is found again."""
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


def _refuse_equal(jobs: Jobs, checked: Checked) -> None:
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
                f"{checked.path}: an equal file is in {known.name} already, which is {known.status}; nothing was sent",
                f"`bioforge batch status {known.name}` has its results; --again sends it once more, and pays once more",
            )


def _created(opened: BatchProvider, batch: Batch, metadata: dict[str, str], window: str) -> Batch:
    """The batch, created now or found as what a creation left whose end was lost."""
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
            if _unclear(error):
                last = error
            elif last is None:
                _tidy(jobs, batch)
                raise
            else:  # of the creation before this one nothing more is known, and it would need its file
                raise BioforgeError(f"{_unknown(batch)}: {_words(error, jobs)}", _how_to_check(batch)) from error
        echo(f"warning: it is unclear whether the batch was created: {_words(last, jobs)}; looking for it")
        # A list may lag behind, so the pause comes before the look and not after it.
        time.sleep(min(last.outcome.retry_after or opened.pause * 2**number, LONGEST_PAUSE))
        found = _found(jobs, batch)
        if found is not None:
            echo(f"it was: {found.batch_id} is adopted")
            return found
        echo("it was not" + ("; trying once more" if number < ROUNDS - 1 else ""))
    assert last is not None
    raise BioforgeError(
        f"no batch was created in {ROUNDS} tries: {_words(last, jobs)}",
        f"before another try, see that there is none: {_how_to_check(batch)}",
    )


def _unclear(error: CallError) -> bool:
    """Whether the job may have been created: nobody knows the end of the call, or the server failed in the middle."""
    from bioforge.core.types import Paid

    return error.outcome.paid is Paid.MAYBE or (error.failure.http_status or 0) >= 500


def _found(jobs: Jobs, batch: Batch) -> Batch | None:
    """What an unclear creation left. Where even that cannot be told, nothing may be created again."""
    from bioforge.backends.batch.service import CallError

    try:
        return jobs.find(batch)
    except CallError as error:
        raise BioforgeError(f"{_unknown(batch)}: {_words(error, jobs)}", _how_to_check(batch)) from error


def _unknown(batch: Batch) -> str:
    return f"it is not known whether a batch was created for the file {batch.file_id}"


def _how_to_check(batch: Batch) -> str:
    return (
        f"`bioforge batch list --format json` shows it, if there is one, with input_file_id {batch.file_id} and"
        f" metadata.bioforge {batch.key}; then run this command again, which looks for an equal file first"
    )


def _tidy(jobs: Jobs, batch: Batch) -> None:
    """A file whose batch was refused is of no use."""
    from bioforge.backends.batch.service import CallError

    try:
        jobs.delete_file(batch.file_id or "")
    except CallError:
        return  # it expires by itself


def _words(error: CallError, jobs: Jobs) -> str:
    return failed(error, jobs).message

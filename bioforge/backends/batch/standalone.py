"""The Batch API for programs without a project: prepare, submit, poll, fetch.

    prepared = backend.prepare(requests, Path("work"))
    batches = [backend.submit(one) for one in prepared]
    ...
    for batch in map(backend.poll, batches):
        if status(batch) in ("completed", "failed", "cancelled"):
            for row in backend.fetch(batch):
                print(row.custom_id, row.text if row.success else row.error)

Nothing is stored: the caller keeps the batches (plain values) and the results. A failed call raises `CallError`,
whose outcome says whether it may be repeated, and after how many seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from bioforge.backends.batch.names import naming, new_key
from bioforge.backends.batch.options import BatchOptions
from bioforge.backends.batch.packing import BatchBuilder
from bioforge.backends.batch.service import (
    BatchResult,
    BatchService,
    CallError,
    FileBatchService,
    InlineBatchService,
    ProcessedFiles,
    Undecided,
)
from bioforge.core.errors import OutputError
from bioforge.core.events import Attempt
from bioforge.core.files import atomic_write, private
from bioforge.core.interfaces import Outcome
from bioforge.core.types import Batch, BatchState, Failure, Paid, Request
from bioforge.core.usage import UsageLimits

PENDING_SECONDS = 30.0
"""Seconds after which a file that is being processed is worth another look."""


@dataclass(frozen=True, slots=True)
class PreparedBatch:
    """A batch that was not sent yet, and its file."""

    batch: Batch
    path: Path


def prepare(
    requests: Iterable[Request], folder: Path, service: BatchService, options: BatchOptions
) -> list[PreparedBatch]:
    """Write requests into as many files as their models, endpoints and sizes need; a repeated request once per file.

    Streams: keeps the names in a file, and no request.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = naming(service)
    names: dict[tuple[str, str], set[str]] = {}
    open_parcels: dict[tuple[str, str], tuple[BatchBuilder, IO[bytes]]] = {}
    done: list[PreparedBatch] = []
    with ExitStack() as stack:

        def seal(place: tuple[str, str]) -> None:
            parcel, stream = open_parcels.pop(place)
            stream.close()
            done.append(PreparedBatch(parcel.sealed(), Path(stream.name)))

        def begin(place: tuple[str, str], now: float) -> None:
            key = new_key(now)
            names[place] = set()
            opened = stack.enter_context(open(folder / f"{key}.jsonl", "xb", opener=private))
            open_parcels[place] = (BatchBuilder(Batch(key, *place, prepared_at=now)), opened)

        def asked(request: Request, number: int, now: float, key: str) -> tuple[str, bytes]:
            attempt = Attempt(request, number, "", name(request, number, key), now, key)
            return attempt.client_request_id, service.line(attempt)

        for request in requests:
            place = (request.endpoint, request.model)
            number, now = request.attempts + 1, time.time()
            if place not in open_parcels:
                begin(place, now)
            custom_id, line = asked(request, number, now, open_parcels[place][0].batch.key)
            if custom_id in names[place]:
                continue
            if not open_parcels[place][0].fits(len(line), options):
                seal(place)
                begin(place, now)
                custom_id, line = asked(request, number, now, open_parcels[place][0].batch.key)
            parcel, stream = open_parcels[place]
            names[place].add(custom_id)
            stream.write(line)
            parcel.add(request, len(line), None)
        for place in list(open_parcels):
            seal(place)
    return done


def submit(prepared: PreparedBatch, service: BatchService, project: str = "") -> Batch:
    """Upload and create, each exactly once.

    After an unclear end, submitting the same `prepared` again first checks whether it happened. While the
    provider cannot tell, it raises a `CallError` of the class `undecided`; the start is noted in a file beside
    that of `prepared`. While it processes the file, it raises one of the class `pending`. A refusal deletes the file.
    """
    batch = prepared.batch
    if isinstance(service, InlineBatchService):
        begun = prepared.path.with_suffix(".begun")
        if begun.exists():
            found = service.search(batch, ())
            if isinstance(found, Undecided):
                words = f"it is not known yet whether batch {batch.key} was created: {found.message}"
                raise CallError(Outcome(failure=Failure("undecided", words), paid=Paid.MAYBE, retryable=True))
            if found is not None:
                return found
        _mark(begun)
        return service.create_from(replace(batch, state=BatchState.CREATING), project, prepared.path)
    assert isinstance(service, FileBatchService)
    if (existing := service.find(batch)) is not None:
        return existing
    earlier = service.find_file(batch)
    file_id = earlier or service.upload(batch, prepared.path)
    if isinstance(service, ProcessedFiles) and service.file_pending(file_id):
        words = f"the provider is still processing the file of batch {batch.key} ({file_id}); submit it again later"
        raise CallError(Outcome(failure=Failure("pending", words), retryable=True, retry_after=PENDING_SECONDS))
    try:
        return service.create(replace(batch, state=BatchState.UPLOADED, file_id=file_id), project)
    except CallError as error:
        # a file of an earlier submission may have a batch that the provider does not list yet
        if earlier is None and error.outcome.paid is Paid.NO and not error.outcome.retryable:
            with suppress(CallError):
                service.delete_file(file_id)
        raise


def _mark(path: Path) -> None:
    """Write an empty marker file to disk before anything is sent."""
    try:
        with atomic_write(path):
            pass
    except OutputError as error:
        raise OutputError(error.message, "nothing was sent: solve that, then submit again") from error


def fetch(batch: Batch, service: BatchService) -> Iterator[BatchResult]:
    """Yield the results of both files, in no particular order. The caller notices requests without a result."""
    limited = UsageLimits()
    with TemporaryDirectory(prefix="bioforge-") as folder:
        for number, file_id in enumerate((batch.output_file_id, batch.error_file_id)):
            if file_id is None:
                continue
            path = Path(folder) / f"{number}.jsonl"
            service.download(file_id, path)
            with path.open("rb") as stream:
                for result in (service.read(batch, line) for line in stream if line.strip()):
                    yield replace(result, answer=limited(result.answer))

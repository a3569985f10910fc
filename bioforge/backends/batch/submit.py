"""Upload the file of a batch, if the provider wants one.

And create its job, each once, whatever happens to the responses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from bioforge.backends.batch.calls import Calls, Clock, Groups, RunStopped, check_patience, of_account
from bioforge.backends.batch.options import BatchOptions
from bioforge.backends.batch.service import (
    BatchService,
    CallError,
    FileBatchService,
    InlineBatchService,
    ProcessedFiles,
    Undecided,
)
from bioforge.core.events import BatchChanged, Notice, Stopped
from bioforge.core.files import create_private
from bioforge.core.interfaces import Work
from bioforge.core.types import UNSUBMITTED, Batch, BatchState, Paid

LOOKS = 3
"""Number of searches for a job that may be too new for the provider's list, before it is created again."""

LIST_LAG = 10.0
"""Seconds between these searches."""


FILE_SECONDS = 1800.0
"""Longest time for which a run waits until the provider has processed a file."""


class CreateUnknown(Exception):
    """The creation of a batch is unresolved; it stays as it is, and is looked for later."""

    def __init__(self, undecided: Undecided) -> None:
        super().__init__(undecided.message)
        self.undecided = undecided


class NotAccepted(RunStopped):
    """The account ends the run, and nothing that was sent has arrived."""


class Submitter:
    """Uploads and creates nothing a second time before it was searched for at the provider.

    `folder` returns the place for a file in transfer, `known` the provider's ids of all batches whose keys are
    known.
    """

    def __init__(
        self,
        work: Work,
        service: BatchService,
        calls: Calls,
        options: BatchOptions,
        folder: Callable[[], Path],
        known: Callable[[], Collection[str]],
        wall: Clock,
    ) -> None:
        self._work = work
        self._service = service
        self._calls = calls
        self._options = options
        self._folder = folder
        self._known = known
        self._wall = wall

    def submit(self, batch: Batch, *, earlier: bool) -> Groups[Batch]:
        """Return the batch with its job. `earlier`: another process may have come further than the state shows.

        Raises `CallError` when the provider refuses it without a job, and `CreateUnknown`.
        """
        service, project = self._service, self._work.project
        if isinstance(service, InlineBatchService):
            # one that is not being created yet was not asked for by anybody
            earlier = batch.state is BatchState.CREATING
        if earlier and (found := (yield from self._search(batch))) is not None:
            yield [BatchChanged(found, "found at the provider: it had been created")]
            return found
        if isinstance(service, InlineBatchService):
            created, note = yield from self._created_from_file(service, batch)
        else:
            assert isinstance(service, FileBatchService)
            if batch.file_id is None:
                file_id, note = yield from self._uploaded(service, batch, earlier)
                batch = replace(batch, state=BatchState.UPLOADED, file_id=file_id)
                yield [BatchChanged(batch, note)]
            yield from self._file_processed(batch)
            filed, uploaded = service, batch
            created, note = yield from self._created(batch, lambda: filed.create(uploaded, project))
        yield [BatchChanged(created, note)]
        return created

    def _created_from_file(self, service: InlineBatchService, batch: Batch) -> Groups[tuple[Batch, str]]:
        """Create the job with the requests.

        The start is durable first: from then on it is searched for before anything else happens to it, and
        its members are not released.
        """
        path, project = self._folder() / f"{batch.key}.jsonl", self._work.project
        creating = replace(batch, state=BatchState.CREATING)
        self._write(batch, path)
        try:
            if batch.state is not BatchState.CREATING:
                yield [BatchChanged(creating)]
            return (yield from self._created(creating, lambda: service.create_from(creating, project, path)))
        except NotAccepted as error:
            if batch.state is not BatchState.CREATING:
                yield [BatchChanged(batch, "it was not created")]
            raise RunStopped(error.stopped) from None
        finally:
            path.unlink(missing_ok=True)

    # -------------------------------------------------------------------------------------------------------- the file

    def _uploaded(self, service: FileBatchService, batch: Batch, earlier: bool) -> Groups[tuple[str, str]]:
        """Return the id of the file, and notices about it."""
        if earlier and (found := (yield from self._find_file(service, batch))) is not None:
            return found, "its file had been uploaded"
        path = self._folder() / f"{batch.key}.jsonl"
        self._write(batch, path)
        tries, since = 0, self._wall()
        try:
            while True:
                try:
                    return self._calls.once(lambda: service.upload(batch, path)), ""
                except CallError as error:
                    tries += 1
                    yield from self._before_again(error, tries, since, f"uploading batch {batch.key}")
                    if (found := (yield from self._find_file(service, batch))) is not None:
                        return found, "its file had arrived"
        finally:
            path.unlink(missing_ok=True)

    def _file_processed(self, batch: Batch) -> Groups[None]:
        """Wait until a batch can be created from its file; beyond `FILE_SECONDS` a later run goes on with the same file."""
        service, file_id, since, first = self._service, batch.file_id or "", self._wall(), True
        if not isinstance(service, ProcessedFiles):
            return
        what = f"looking at the file of batch {batch.key}"
        while (yield from self._calls.patiently(lambda: service.file_pending(file_id), what)):
            message = f"the provider is still processing the file of batch {batch.key} ({file_id})"
            if self._wall() - since > FILE_SECONDS:
                raise RunStopped(Stopped("waiting", message, "run again later: the file is not uploaded again"))
            if first:
                yield [Notice("batch", f"{message}; waiting for it")]
            first = False
            self._calls.sleep(self._wall() + self._options.poll_seconds)

    def _write(self, batch: Batch, path: Path) -> None:
        """Write the file of a batch line by line from the state."""
        path.unlink(missing_ok=True)
        with os.fdopen(create_private(path), "wb") as stream:
            for attempt in self._work.members.attempts_of(batch.key):
                stream.write(self._service.line(attempt))

    def _find_file(self, service: FileBatchService, batch: Batch) -> Groups[str | None]:
        what = f"looking for the file of batch {batch.key}"
        try:
            return (yield from self._calls.patiently(lambda: service.find_file(batch), what))
        except CallError as error:
            raise RunStopped(out_of_sight(batch, error)) from None

    # --------------------------------------------------------------------------------------------------------- the job

    def _created(self, batch: Batch, create: Callable[[], Batch]) -> Groups[tuple[Batch, str]]:
        """Create the job; after an unclear end, search for it before it is created again.

        A refusal of the second creation may be caused by the first, so it does not show that there is no job.
        """
        tries, since, unclear = 0, self._wall(), False
        while True:
            try:
                return _sent(self._calls.once(create)), ""
            except CallError as error:
                refused = error.outcome.paid is Paid.NO and not error.outcome.outage and not error.outcome.stops_run
                too_much = self._service.enqueued_limit(f"{error.failure.code} {error.failure.message}") is not None
                if refused and (too_much or not error.outcome.retryable):
                    if not unclear:
                        raise
                    if (found := (yield from self._search(batch))) is not None:
                        return found, "its creation had an unclear end; it was found at the provider"
                    raise RunStopped(in_doubt(batch, error)) from None
                if error.outcome.stops_run and error.outcome.paid is Paid.NO and not unclear:
                    raise NotAccepted(of_account(error)) from None
                unclear = unclear or not refused
                tries += 1
                yield from self._before_again(error, tries, since, f"creating batch {batch.key}")
                # a plain refusal most likely came before anything was done
                if (found := (yield from self._search(batch, LOOKS if unclear else 1))) is not None:
                    return found, "its creation had an unclear end; it was found at the provider"

    def _search(self, batch: Batch, looks: int = LOOKS) -> Groups[Batch | None]:
        """Search for the job of a batch.

        It may have been created a moment ago if its file has arrived or none is needed.
        """
        may_be_young = batch.file_id is not None or isinstance(self._service, InlineBatchService)
        for look in range(looks if may_be_young else 1):
            if look:
                self._calls.sleep(self._wall() + min(LIST_LAG, self._options.poll_seconds))
            try:
                found = yield from self._calls.patiently(lambda: self._found(batch), f"looking for batch {batch.key}")
            except CallError as error:
                raise RunStopped(out_of_sight(batch, error)) from None
            if isinstance(found, Undecided):
                raise CreateUnknown(found)
            if found is not None:
                return _sent(found)
        return None

    def _found(self, batch: Batch) -> Batch | Undecided | None:
        service = self._service
        if isinstance(service, InlineBatchService):
            return service.search(batch, self._known())
        assert isinstance(service, FileBatchService)
        return service.find(batch)

    def _before_again(self, error: CallError, tries: int, since: float, what: str) -> Groups[None]:
        """Wait before an action that may already be done is checked; raise where that does not help."""
        outcome = error.outcome
        if outcome.stops_run:
            raise RunStopped(of_account(error))
        unclear = outcome.paid is Paid.MAYBE
        if not outcome.retryable and not unclear:
            raise error
        check_patience(error, self._work.retry, since, self._wall())
        yield [Notice("batch", f"{what}: {error.failure.message}; looking whether it has happened")]
        if not unclear or tries > 1:
            self._calls.sleep(self._wall() + self._calls.delay(tries, outcome.retry_after))


def _sent(batch: Batch) -> Batch:
    """Return the batch as submitted if the provider reports no state: a job exists and is polled."""
    return replace(batch, state=BatchState.SUBMITTED) if batch.state in UNSUBMITTED else batch


def in_doubt(batch: Batch, error: CallError) -> Stopped:
    """Return the error for an unclear creation; releasing or creating could pay twice."""
    return Stopped(
        "outage",
        f"it is unclear whether batch {batch.key} was created, and the provider now says: {error.failure.message}",
        f"run again later: it is looked for first; `bioforge batch abandon {batch.key}` gives it up",
    )


def undecided(batch: Batch, doubt: Undecided) -> Stopped:
    """Return the error for an unresolved creation; releasing or creating could pay twice."""
    return Stopped(
        "waiting",
        f"it is not known yet whether batch {batch.key} was created: {doubt.message}",
        "run again later: bioforge looks for it first, and sends none of its requests again until then;"
        f" `bioforge batch abandon {batch.key}` gives it up",
    )


def out_of_sight(batch: Batch, error: CallError) -> Stopped:
    return Stopped(
        "outage",
        f"batch {batch.name} cannot be looked at: {error.failure.message}",
        "check that base_url and the key are those it was created with; its requests are not sent again until then",
    )

"""The interface of a vendor's Batch API, for the driver and for programs without a project.

A service is a handful of calls with normalized results; the driver adds the order, the retries and the bookkeeping.

There are two kinds of vendors, which differ in how a job is found again after an unclear creation (the connection
broke, the process died):

`FileBatchService`     a file is uploaded, then a job is created for it with our key in its metadata. Both can be
found in
                       the vendor's lists at any time, by name and by key.
`InlineBatchService`   the requests are sent with the creation, and a job carries only the names of its requests
                       (`custom_id`). These may be readable only after its end, so that a search has a third result:
                       `Undecided`. Then nothing is created, and the search is repeated until it is certain.

The driver never creates a job again before it has searched for the first one. A vendor is never paid twice if its
service is right in three places: `CallError.outcome.paid` is MAYBE for every creation that may have arrived, `find`
or `search` returns None only if there is no such job, and `custom_id` differs for each attempt.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from bioforge.core.events import Attempt
from bioforge.core.interfaces import Outcome
from bioforge.core.types import Batch, BatchState, Failure, Request

STATUSES: Mapping[BatchState, str] = {
    BatchState.PREPARING: "submitted",
    BatchState.PREPARED: "submitted",
    BatchState.CREATING: "submitted",
    BatchState.UPLOADED: "submitted",
    BatchState.SUBMITTED: "submitted",
    BatchState.IN_PROGRESS: "in_progress",
    BatchState.COMPLETED: "completed",
    BatchState.COLLECTED: "completed",
    BatchState.FAILED: "failed",
    BatchState.EXPIRED: "failed",
    BatchState.CANCELLED: "cancelled",
    BatchState.RELEASING: "cancelled",
    BatchState.RELEASED: "cancelled",
}
"""Five words for the statuses of all providers. An expired batch counts as failed, and still has results."""


def status(batch: Batch) -> str:
    """Return `submitted`, `in_progress`, `completed`, `failed` or `cancelled`."""
    return STATUSES[batch.state]


@dataclass(frozen=True, slots=True)
class BatchResult(Outcome):
    """The outcome in one line of a result file, with the line's `custom_id` (None: unreadable).

    `retryable`: the same request may succeed in the next batch. `stops_run`: no request can succeed (quota, key).
    """

    custom_id: str | None = None

    @classmethod
    def of(cls, outcome: Outcome, custom_id: str, request_id: str | None = None) -> BatchResult:
        """Return an outcome as the result of a line."""
        values = {field.name: getattr(outcome, field.name) for field in fields(outcome)}
        return cls(**{**values, "request_id": request_id, "body": outcome.body or None}, custom_id=custom_id)

    @property
    def success(self) -> bool:
        """Return True if there is a usable text."""
        return self.answer is not None and self.answer.problem is None

    @property
    def text(self) -> str | None:
        """Return the text of the answer, or None."""
        return None if self.answer is None else self.answer.text

    @property
    def data(self) -> Any:
        """Return the parsed body of the answer; None for a failure."""
        import json

        return None if self.answer is None else json.loads(self.answer.body)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Return the request's own metadata, as the answer repeats it."""
        data = self.data
        found = data.get("metadata") if isinstance(data, dict) else None
        return found if isinstance(found, dict) else {}

    @property
    def error(self) -> Failure | None:
        """Return why there is no usable text, or None."""
        return self.failure if self.answer is None else self.answer.problem


class CallError(Exception):
    """A failed call to the service. `outcome` says what it means; `paid` MAYBE if the call may have done its work."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.failure.message if outcome.failure else "the call failed")
        self.outcome = outcome

    @property
    def failure(self) -> Failure:
        return self.outcome.failure or Failure("internal", "the call failed without a message")


class BatchService(Protocol):
    """A vendor's Batch API. Calls are made once, block, and raise `CallError`; they are safe to call from a thread.

    This is the common part; a service also has the methods of one of the two protocols below.
    """

    def line(self, attempt: Attempt) -> bytes:
        """Return the line of a batch's file for this request, with its line feed. Pure.

        The file is written from the state, line by line; `Batch.requests` and `Batch.bytes` are its lines and
        its size.
        """

    def look(self, batch: Batch) -> Batch:
        """Return the current batch: state, counts, files, usage, problems.

        An ended batch is COMPLETED, EXPIRED, CANCELLED or FAILED (nothing of it was done), has its end time,
        and names the files for `download` in `output_file_id` and `error_file_id` (either may be None).
        `usage` is the vendor's sum for the batch; if None, a member without a line may have been charged.
        """

    def cancel(self, batch: Batch) -> Batch:
        """Request the end of a batch; what has finished by then is charged and can be collected."""

    def download(self, file_id: str, path: Path) -> int:
        """Stream a result file into `path`, which exists only when it is complete. Return its bytes."""

    def read(self, batch: Batch, line: bytes) -> BatchResult:
        """Return the result in a line. Pure; never raises for its content."""

    def enqueued_limit(self, text: str) -> int | None:
        """Return the limit of enqueued tokens that a refusal names; 0 if it names none, None for another refusal."""


@runtime_checkable
class FileBatchService(BatchService, Protocol):
    """A vendor that takes an uploaded file, and a job with our key in its metadata."""

    def custom_id(self, request: Request, number: int) -> str:
        """Return the name of a request within a file.

        Valid for the vendor, different for each attempt, traceable to its target. Pure.
        """

    def upload(self, batch: Batch, path: Path) -> str:
        """Return the id of the uploaded file, named `<key>.jsonl`."""

    def find_file(self, batch: Batch) -> str | None:
        """Return the id of a file that an earlier upload left, by name and size."""

    def create(self, batch: Batch, project: str) -> Batch:
        """Create the job for the uploaded file, with the batch's key in its metadata."""

    def find(self, batch: Batch) -> Batch | None:
        """Return the job that an earlier creation left, by its key and its input file."""

    def delete_file(self, file_id: str) -> None:
        """Delete an uploaded file that is no longer needed."""


@runtime_checkable
class ProcessedFiles(Protocol):
    """A `FileBatchService` whose files may be processed before a batch can be created from them."""

    def file_pending(self, file_id: str) -> bool:
        """Return True while the provider processes an uploaded file."""


@dataclass(frozen=True, slots=True)
class Undecided:
    """The creation of a batch is unresolved. `message` says what resolves it.

    `until` is when it is known at the latest (seconds since 1970); None where waiting does not help.
    """

    message: str
    until: float | None = None


@runtime_checkable
class InlineBatchService(BatchService, Protocol):
    """A vendor that takes the requests with the creation, without metadata for our key."""

    def custom_id_in(self, request: Request, number: int, key: str) -> str:
        """Return the name of a request within the batch `key`, like `FileBatchService.custom_id`. Pure.

        It starts with enough of the key to identify the batch, since a job has no other mark.
        """

    def create_from(self, batch: Batch, project: str, path: Path) -> Batch:
        """Create the job with the requests in the file at `path`, the lines of `line`."""

    def search(self, batch: Batch, known: Collection[str]) -> Batch | Undecided | None:
        """Return the job that an earlier creation left, among those that are not `known` (ids of our other batches).

        Return None, which allows another creation, only if every candidate was excluded.
        """

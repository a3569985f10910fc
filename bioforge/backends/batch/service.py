"""What a vendor's Batch API is to the driver, and to programs that use it without a project.

A service is a handful of calls with normalised results; the driver in `backends/batches/` has the order, the retries
and the bookkeeping. Nothing in here knows a vendor's words.

There are two kinds of vendors, and a service is of one of them. What decides is how a job is found again whose creation
has an unclear end (the connection broke, the process died):

`FileBatchService`     a file is uploaded, then a job is created for it, with our key in its metadata. Both are found in
                       the vendor's lists at any time, by name and by key.
`InlineBatchService`   the requests go with the creation, and a job carries nothing of ours but the names of its requests
                       (`custom_id`). These may be readable only when it has ended, so that looking for a job has a third
                       answer: `Undecided`. Then nothing is created, and it is looked for again until it is certain.

The driver never creates a job a second time before it has looked for the first one, so a vendor is served without paying
twice as long as its service tells the truth in three places: `CallError.outcome.paid` is MAYBE for every creation that may
have arrived, `find` or `search` gives None only when there is no such job, and `custom_id` differs for each attempt.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
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
"""Five words that every provider's statuses come down to. An expired batch counts as failed, and has rows all the same."""


def status(batch: Batch) -> str:
    """`submitted`, `in_progress`, `completed`, `failed` or `cancelled`."""
    return STATUSES[batch.state]


@dataclass(frozen=True, slots=True)
class BatchResult(Outcome):
    """The outcome in one line of a result file, with the line's `custom_id` (None: unreadable).

    `retryable`: the same request may succeed in the next batch. `stops_run`: no request can succeed (quota, key).
    """

    custom_id: str | None = None

    @property
    def success(self) -> bool:
        """Whether there is a text that can be used."""
        return self.answer is not None and self.answer.problem is None

    @property
    def text(self) -> str | None:
        return None if self.answer is None else self.answer.text

    @property
    def data(self) -> Any:
        """The body of the answer, parsed; None for a failure."""
        import json

        return None if self.answer is None else json.loads(self.answer.body)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The request's own metadata, as the answer echoes it."""
        data = self.data
        found = data.get("metadata") if isinstance(data, dict) else None
        return found if isinstance(found, dict) else {}

    @property
    def error(self) -> Failure | None:
        """Why there is no usable text."""
        return self.failure if self.answer is None else self.answer.problem


class CallError(Exception):
    """A call to the service that came to nothing. `outcome` says what that means, in the words of every attempt:
    `paid` MAYBE is a call nobody knows the end of, and may have done its work."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.failure.message if outcome.failure else "the call failed")
        self.outcome = outcome

    @property
    def failure(self) -> Failure:
        return self.outcome.failure or Failure("internal", "the call failed without a word")


class BatchService(Protocol):
    """A vendor's Batch API. Calls are made once, block, and raise `CallError`; they are safe to call from a thread.

    This is what both kinds have: a service has the methods of one of the two protocols below as well.
    """

    def line(self, attempt: Attempt) -> bytes:
        """The line of a batch's file that asks for this request, with its line feed. Pure. The file is written from the
        state, line by line; `Batch.requests` and `Batch.bytes` are its lines and its size."""

    def look(self, batch: Batch) -> Batch:
        """The batch as it is now: state, counts, files, usage, problems.

        An ended batch is one of COMPLETED, EXPIRED, CANCELLED and FAILED (nothing of it was done), names what
        `download` takes in `output_file_id` and `error_file_id` (either may stay None), and when it ended. `usage` is the
        vendor's own sum for the batch; None where it tells none, and then a member without a line may have been paid.
        """

    def cancel(self, batch: Batch) -> Batch:
        """Ask for its end; what has finished by then is charged for and can be collected."""

    def download(self, file_id: str, path: Path) -> int:
        """Stream a result file into `path`, which is there only when it is whole. Returns its bytes."""

    def read(self, batch: Batch, line: bytes) -> BatchResult:
        """What a line of a result file says. Pure; never raises for what came back."""

    def enqueued_limit(self, text: str) -> int | None:
        """The limit of enqueued tokens that a refusal names; 0 where it refuses for it without a number, None where it
        refuses for something else."""


@runtime_checkable
class FileBatchService(BatchService, Protocol):
    """A vendor that takes an uploaded file, and a job with our key in its metadata."""

    def custom_id(self, request: Request, number: int) -> str:
        """The name of a request within a file: of the form the vendor allows, different for each request and number
        of its attempt, and traceable to its target. Pure."""

    def upload(self, batch: Batch, path: Path) -> str:
        """The id of the uploaded file, under the name `<key>.jsonl`."""

    def find_file(self, batch: Batch) -> str | None:
        """The id of the file that an earlier upload of this batch has left, looked for by its name and size."""

    def create(self, batch: Batch, project: str) -> Batch:
        """Create the job for the uploaded file, with the batch's key in its metadata."""

    def find(self, batch: Batch) -> Batch | None:
        """The job that an earlier creation has left, looked for by its key and its input file in all jobs."""

    def delete_file(self, file_id: str) -> None:
        """Remove an uploaded file that nothing refers to."""


@dataclass(frozen=True, slots=True)
class Undecided:
    """Whether a batch was created cannot be known yet. `message` says what that depends on, for people.

    `until` is when it will be known at the latest (seconds since 1970); None where waiting does not help.
    """

    message: str
    until: float | None = None


@runtime_checkable
class InlineBatchService(BatchService, Protocol):
    """A vendor that takes the requests with the creation, and gives a job no place for a name of ours."""

    def custom_id_in(self, request: Request, number: int, key: str) -> str:
        """The name of a request within the batch `key`, as `FileBatchService.custom_id`. It begins with enough of the key
        to tell one batch from all others: by nothing else is a job recognised. Pure."""

    def create_from(self, batch: Batch, project: str, path: Path) -> Batch:
        """Create the job with the requests in the file at `path`, the lines that `line` gave."""

    def search(self, batch: Batch, known: Collection[str]) -> Batch | Undecided | None:
        """The job that an earlier creation has left, among those that are not `known` (ids of other batches of ours).

        None says that there is none, and allows another creation: only when every job that could be it was excluded.
        """

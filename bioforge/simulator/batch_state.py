"""The stored state of batches, and their API objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from bioforge.simulator.batch_faults import BatchFaults, parse_batch_faults
from bioforge.simulator.folder import Folder

TERMINAL = ("completed", "failed", "expired", "cancelled")

_MOMENTS = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


@dataclass(slots=True)
class LineCounts:
    """Number of lines by fate, and the usage of those answered 200."""

    entries: int = 0
    """Processed lines of the input."""
    completed: int = 0
    """Answered 200, and charged."""
    failed: int = 0
    """Answered with an error."""
    unfinished: int = 0
    """Not executed when the batch expired or was cancelled."""
    missing: int = 0
    """Not answered: the fault `lines_missing`."""
    lost: int = 0
    """Answered and charged, and in neither file: the fault `lines_lost`."""
    duplicated: int = 0
    """In their file twice: the fault `lines_duplicated`."""
    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(slots=True)
class JobState:
    """The stored description of a batch. Times are Unix times in seconds."""

    id: str
    number: int
    """Its position among all batches, from 1."""
    endpoint: str
    input_file_id: str
    input_digest: str
    """SHA-256 of the input file, in hexadecimal."""
    completion_window: str
    metadata: dict[str, str] | None
    keep_results: float | None
    """The seconds in `output_expires_after`."""
    faults_text: str
    created: float
    expires: float
    status: str = "validating"
    moments: dict[str, float] = field(default_factory=dict)
    """The time when it entered each status."""
    total: int | None = None
    """Lines of the input; None before it was read."""
    model: str | None = None
    tokens: int = 0
    """Estimated input tokens."""
    errors: list[dict[str, Any]] = field(default_factory=list)
    """Errors of the input; set before the status changes."""
    output_file_id: str | None = None
    error_file_id: str | None = None
    tally: LineCounts = field(default_factory=LineCounts)

    @property
    def faults(self) -> BatchFaults:
        return parse_batch_faults(self.faults_text)

    @property
    def over(self) -> bool:
        return self.status in TERMINAL

    def enter(self, status: str, now: float) -> None:
        self.status = status
        self.moments[status] = now

    def view(self) -> dict[str, Any]:
        """Return the API's batch object."""
        tally = self.tally
        errors = self.errors if self.status == "failed" else []
        counts = {"total": self.total or 0, "completed": tally.completed, "failed": tally.failed}
        if "wrong_counts" in self.faults:
            counts = dict.fromkeys(counts, 0)
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.model,
            "errors": {"object": "list", "data": errors} if errors else None,
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": self.status,
            "output_file_id": self.output_file_id if self.over else None,
            "error_file_id": self.error_file_id if self.over else None,
            "created_at": int(self.created),
            "expires_at": int(self.expires),
            **{f"{name}_at": int(self.moments[name]) if name in self.moments else None for name in _MOMENTS},
            "request_counts": counts,
            "usage": self._usage(),
            "metadata": self.metadata,
        }

    def _usage(self) -> dict[str, Any] | None:
        """Return the usage of lines answered 200; None before the input is read and with the fault `no_usage`."""
        if self.total is None or "no_usage" in self.faults:
            return None
        tally = self.tally
        return {
            "input_tokens": tally.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": tally.output_tokens,
            "output_tokens_details": {"reasoning_tokens": tally.reasoning_tokens},
            "total_tokens": tally.input_tokens + tally.output_tokens,
        }


class JobStates:
    """The batches of a folder, oldest first."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        found = (_read(description) for description in folder.descriptions("batches"))
        self._batches = {batch.id: batch for batch in sorted(found, key=lambda batch: batch.number)}

    def __iter__(self) -> Iterator[JobState]:
        return iter(list(self._batches.values()))

    def __len__(self) -> int:
        return len(self._batches)

    def find(self, batch_id: str) -> JobState | None:
        return self._batches.get(batch_id)

    def save(self, batch: JobState) -> None:
        """Store a batch in the folder."""
        self._folder.describe("batches", batch.id, asdict(batch))
        self._batches[batch.id] = batch

    def newest_first(self) -> list[str]:
        return list(reversed(self._batches))

    def created_since(self, moment: float) -> int:
        count = 0
        for batch in reversed(self._batches.values()):
            if batch.created <= moment:
                break
            count += 1
        return count

    def enqueued(self, model: str | None) -> int:
        """Return the estimated input tokens of the model's accepted, unfinished batches."""
        waiting = (batch for batch in self._batches.values() if not batch.over and not batch.errors)
        return sum(batch.tokens for batch in waiting if batch.model == model)


def _read(description: dict[str, Any]) -> JobState:
    known = {name: description[name] for name in _NAMES if name in description}
    return JobState(**{**known, "tally": LineCounts(**description["tally"])})


_NAMES = tuple(field.name for field in fields(JobState))

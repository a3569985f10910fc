"""What backends report: small facts, yielded in groups, each group durable before the next step is taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bioforge.core.types import Batch, Failure, Paid, Request, Response, Usage


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt as it was admitted: its number over all runs, its worker (`W01` …), wall-clock time in seconds.

    In a batch (`batch` is its key) `client_request_id` is the line's `custom_id`. `row` is its row in the state,
    0 until it has been recorded and read back.
    """

    request: Request
    number: int
    worker: str
    client_request_id: str
    at: float
    batch: str | None = None
    row: int = 0


@dataclass(frozen=True, slots=True)
class Started:
    """The intent to send. It is durable before the first byte leaves."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Succeeded:
    """A usable answer. `seconds` is the time from sending to the last byte."""

    attempt: Attempt
    answer: Response
    seconds: float
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Unusable:
    """An answer that was paid for and cannot be used; kept whole, `answer.problem` says why.

    `followed`, which the engine says: something else is asked for in its place.
    """

    attempt: Attempt
    answer: Response
    seconds: float
    request_id: str | None = None
    followed: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt without an answer. Not `final`: the same request is tried again in `retry_in` seconds.

    `counted` is False for failures that say nothing about this request (quota, key, long pauses): they use up no
    attempt. `body` is what was received, where anything was. `retry_after` is what the provider asked for, in seconds.
    """

    attempt: Attempt
    failure: Failure
    paid: Paid
    seconds: float
    final: bool
    counted: bool = True
    retry_in: float | None = None
    request_id: str | None = None
    body: bytes | None = None
    followed: bool = False
    """Said by the engine: something else is asked for in its place."""
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class BatchChanged:
    """A batch as it is now. `note` says in a few words what happened where that is not plain from its state."""

    batch: Batch
    note: str = ""


@dataclass(frozen=True, slots=True)
class BatchCollected:
    """Every member of a batch has its outcome. `counts` by class: answered, unusable, failed, rejected, expired,
    cancelled, missing, duplicated, unknown, unreadable; zeros are left out. `usage` is the sum over its answers."""

    batch: Batch
    counts: Mapping[str, int]
    usage: Usage


@dataclass(frozen=True, slots=True)
class UnmatchedLine:
    """A line of a result file that belongs to no open member: kept, since it may have been paid for.

    `kind` is duplicated, unknown or unreadable.
    """

    batch: str
    kind: str
    custom_id: str | None
    line: bytes


@dataclass(frozen=True, slots=True)
class LimitLearned:
    """The provider said how many tokens of a model may be enqueued in batches."""

    model: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Notice:
    """Something people want to see in the log that belongs to no single request: breaker, pause, concurrency."""

    kind: str
    message: str
    fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stopped:
    """The backend stops before its work is done: `kind` is one of
    `budget, quota, key, failures, outage, interrupted, deadline, waiting`; `message` says what happened, `hint` what to
    do."""

    kind: str
    message: str
    hint: str = ""


Event = (
    Started
    | Succeeded
    | Unusable
    | Failed
    | BatchChanged
    | BatchCollected
    | UnmatchedLine
    | LimitLearned
    | Notice
    | Stopped
)

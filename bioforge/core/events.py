"""Events that backends yield in groups. Each group is durable before the backend continues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bioforge.core.types import Batch, Failure, Paid, Request, Response, Usage


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt: its number over all runs, its worker (`W01` …), and its wall-clock start in seconds.

    In a batch (`batch` is its key), `client_request_id` is the line's `custom_id`. `row` is its id in the state, 0
    until it is recorded.
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
    """The intent to send; durable before the first byte leaves."""

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
    """An answer that was paid for and is not usable; `answer.problem` says why.

    `followed`, set by the engine: a repair or fallback replaces the request.
    """

    attempt: Attempt
    answer: Response
    seconds: float
    request_id: str | None = None
    followed: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt without an answer. Not `final`: the request is retried in `retry_in` seconds.

    `counted` is False for failures that have nothing to do with the request (quota, key, long pauses): they use up no
    attempt. `body` is the received content, if any. `retry_after` is the delay in seconds that the provider asked for.
    `followed`, set by the engine: a repair or fallback replaces the request.
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
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class BatchChanged:
    """A batch in its new state. `note` explains the change if the state alone does not."""

    batch: Batch
    note: str = ""


@dataclass(frozen=True, slots=True)
class BatchCollected:
    """A batch whose members all have an outcome.

    `counts` by class: answered, unusable, failed, rejected, expired, cancelled, missing, duplicated, unknown,
    unreadable; zeros are left out. `usage` is the sum over its answers.
    """

    batch: Batch
    counts: Mapping[str, int]
    usage: Usage


@dataclass(frozen=True, slots=True)
class UnmatchedLine:
    """A line of a result file that belongs to no open member; kept, because it may have been charged.

    `kind` is duplicated, unknown or unreadable.
    """

    batch: str
    kind: str
    custom_id: str | None
    line: bytes


@dataclass(frozen=True, slots=True)
class LimitLearned:
    """The number of tokens of a model that may be enqueued in batches, as the provider reported it."""

    model: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Notice:
    """A message for the log about no single request: circuit breaker, pause, concurrency."""

    kind: str
    message: str
    fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stopped:
    """The backend stops before its work is done.

    `kind` is one of `budget, quota, key, refused, failures, outage, interrupted, deadline, waiting`; `message` says what
    happened, `hint` what to do.
    """

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

"""The nouns: artists, requests, answers and failures as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

PLAIN_DIALECT = "openai-compatible"
"""The form of bodies that is no part of a request's hash, and the one that the embedded server speaks."""

SIMULATOR_DIALECT = "simulator"
"""Dialect of the simulator: its answers are never shared with a real API."""


class Paid(StrEnum):
    """What is known about the money of one attempt."""

    YES = "yes"
    NO = "no"
    MAYBE = "maybe"
    """Sent, and nobody can know whether it was answered and charged for."""


@dataclass(frozen=True, slots=True)
class Artist:
    """One input row. `columns` holds every further column by name, in input order; values are text
    from CSV and any JSON value from JSONL. `source` and `line` say where the row begins (line counts from 1)."""

    artist_id: str
    artist_name: str
    artist_data: str = ""
    columns: Mapping[str, object] = field(default_factory=dict)
    source: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was kept out: where it stands and what is wrong with it, in one short sentence."""

    source: str
    line: int
    message: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer. `cached_tokens` are part of `input_tokens`, `reasoning_tokens` of `output_tokens`."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something has no usable answer.

    `error_class` is one short word people group by (`rate_limit`, `timeout`, `truncated`, `refusal`, …),
    `code` what the provider called it, `message` a sentence for people.
    """

    error_class: str
    message: str
    code: str | None = None
    http_status: int | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation that goes on after the input: `role` is `user` or `assistant`."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """One request before it takes an endpoint's form: texts rendered for an artist, and the recipe's parameters.

    `prompt` is a reusable prompt (`{"id", "version", "variables"}`) where the recipe uses one; `instructions` and
    `input` are None where the recipe does not have them. `turns` follow the input.
    """

    endpoint: str
    model: str | None
    instructions: str | None
    input: str | None
    prompt: Mapping[str, object] | None
    parameters: Mapping[str, object]
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """The exact body for an endpoint, and the target it is sent for.

    `body` is canonical JSON in UTF-8, sent byte for byte. `input_tokens` is an estimate, `max_output_tokens` the
    most the answer can have, or None where nothing bounds it. `attempts` counts the attempts of earlier runs.
    """

    request_hash: str
    endpoint: str
    model: str
    body: bytes
    artist_id: str
    recipe: str
    variant: str = ""
    target: int = 0
    reason: str = "new"
    input_tokens: int = 0
    output_tokens: int = 0
    max_output_tokens: int | None = None
    attempts: int = 0
    service_tier: str | None = None
    """Sent along and no part of the identity: an answer is the same answer, however it was bought."""
    max_attempts: int | None = None
    """The most times it is sent, whatever those attempts come to. None: as the retry policy counts them."""


@dataclass(frozen=True, slots=True)
class Response:
    """What came back and was paid for. `body` is the raw response as received; the rest is read from it.

    `problem` is None when the text can be used, and otherwise says why not (truncated, refused, malformed …).
    `parsed` is the text as JSON where a schema was asked for and holds; `validation` the hash of what it was checked by.
    """

    body: bytes
    text: str | None = None
    usage: Usage | None = None
    model: str | None = None
    response_id: str | None = None
    service_tier: str | None = None
    cost_usd: float | None = None
    problem: Failure | None = None
    parsed: str | None = None
    validation: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """One recipe for one artist, as a run or a plan lists it. `reason` is None when it is fresh."""

    id: int
    artist_id: str
    artist_name: str
    recipe: str
    variant: str
    request_hash: str | None
    reason: str | None
    detail: str | None


class BatchState(StrEnum):
    """How far a batch has come. Each is durable before the step that follows it is taken."""

    PREPARING = "preparing"
    """Its members are being recorded; nothing was sent."""
    PREPARED = "prepared"
    """Its members are complete; its file may or may not have arrived, and no job was asked for."""
    CREATING = "creating"
    """The requests are on their way, where they go with the creation: the batch may or may not have been created."""
    UPLOADED = "uploaded"
    """Its file has arrived; the batch may or may not have been created."""
    SUBMITTED = "submitted"
    """Created, and not yet begun."""
    IN_PROGRESS = "in progress"
    COMPLETED = "completed"
    FAILED = "failed"
    """Refused after its creation, or broken off by the provider."""
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    RELEASING = "releasing"
    """Refused, so that nothing can come of it any more; its members are being given back."""
    COLLECTED = "collected"
    """Every member has its outcome."""
    RELEASED = "released"
    """It never came to be: its members were given back."""


UNSUBMITTED = frozenset({BatchState.PREPARED, BatchState.CREATING, BatchState.UPLOADED})
"""States in which its requests are complete, and no job is known that has them."""

ENDED = frozenset({BatchState.COMPLETED, BatchState.FAILED, BatchState.EXPIRED, BatchState.CANCELLED})
"""States in which the provider will do nothing more, and results wait to be collected."""

CLOSED = frozenset({BatchState.COLLECTED, BatchState.RELEASED})
"""States in which nothing is left to do."""


@dataclass(frozen=True, slots=True)
class BatchProblem:
    """Why a batch was refused: `line` of its file (from 1) where the provider names one."""

    code: str
    message: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """One Batch API job. `key` is ours, known before anything is sent, and stands in the job's metadata.

    `requests`, `bytes`, `input_tokens` (estimated) and `estimated_usd` are of its file; `completed` and `failed` what the
    provider counts, which is not to be trusted; `status` its own word. Times in seconds since 1970.
    """

    key: str
    endpoint: str
    model: str
    state: BatchState = BatchState.PREPARING
    requests: int = 0
    bytes: int = 0
    input_tokens: int = 0
    estimated_usd: float | None = None
    prepared_at: float = 0.0
    file_id: str | None = None
    batch_id: str | None = None
    status: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    completed: int = 0
    failed: int = 0
    submitted_at: float | None = None
    expires_at: float | None = None
    ended_at: float | None = None
    usage: Usage | None = None
    problems: tuple[BatchProblem, ...] = ()
    awaited: bool = True
    """Whether this run waits for it; others are collected when they happen to be ready."""

    @property
    def name(self) -> str:
        """As people find it: the provider's id once there is one."""
        return self.batch_id or self.key

    @property
    def ended(self) -> bool:
        return self.state in ENDED

"""Values shared by all packages: artists, requests, answers, failures, batches. Frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

PLAIN_DIALECT = "openai-compatible"
"""Dialect of OpenAI-compatible bodies; the only one that is not part of the request hash."""

SIMULATOR_DIALECT = "simulator"
"""Dialect of the simulator: its answers are never shared with a real API."""


class Paid(StrEnum):
    """Payment state of one attempt."""

    YES = "yes"
    NO = "no"
    MAYBE = "maybe"
    """Sent, and may have been charged."""


@dataclass(frozen=True, slots=True)
class Artist:
    """One input row.

    `columns` holds every further column by name, in input order; values are text from CSV and any JSON value from
    JSONL. `source` and `line` (from 1) say where the row begins.
    """

    artist_id: str
    artist_name: str
    artist_data: str = ""
    columns: Mapping[str, object] = field(default_factory=dict)
    source: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class BadRow:
    """A rejected row: its place, and a short sentence about what is wrong."""

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
    web_searches: int = 0
    """Searches with a fee of their own."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why there is no usable answer.

    `error_class` is a word to group by (`rate_limit`, `timeout`, `truncated`, `refusal`, …), `code` the provider's own,
    `message` a sentence for people.
    """

    error_class: str
    message: str
    code: str | None = None
    http_status: int | None = None


NOT_VALIDATED = Failure("schema", "stored, and not validated yet")
"""The problem of an answer from the moment it is stored until its schema has validated it."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation after the input; `role` is `user` or `assistant`."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """One request independent of its endpoint's format: rendered texts and the recipe's parameters.

    `prompt` is a reusable prompt (`{"id", "version", "variables"}`). `instructions` and `input` are None if the recipe
    has none. `turns` follow the input.
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
    """The exact body for an endpoint, and its target.

    `body` is canonical JSON in UTF-8, sent byte for byte. `input_tokens` is an estimate, `max_output_tokens` the limit
    of the answer, or None. `attempts` counts the attempts of earlier runs.
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
    """Sent, but not part of the request hash."""
    max_attempts: int | None = None
    """Maximum number of attempts, counted or not. None: as the retry policy says."""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer that was paid for. `body` is the raw response as received; the other fields are read from it.

    `problem` is None if the text is usable (else truncated, refused, malformed …). `parsed` is the text as JSON if it
    fits the schema, `validation` the hash of the schema it was validated against.
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
    """One recipe for one artist, as a run or a plan lists it. `reason` is None if it is fresh."""

    id: int
    artist_id: str
    artist_name: str
    recipe: str
    variant: str
    request_hash: str | None
    reason: str | None
    detail: str | None


class BatchState(StrEnum):
    """State of a batch. Each state is durable before the next step begins."""

    PREPARING = "preparing"
    """Its members are being recorded; nothing was sent."""
    PREPARED = "prepared"
    """Its members are complete; its file may have been uploaded, the batch was not created."""
    CREATING = "creating"
    """Its requests are being sent with the creation; the batch may have been created."""
    UPLOADED = "uploaded"
    """Its file is uploaded; the batch may have been created."""
    SUBMITTED = "submitted"
    """Created, not started."""
    IN_PROGRESS = "in progress"
    COMPLETED = "completed"
    FAILED = "failed"
    """Rejected after its creation, or aborted by the provider."""
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    RELEASING = "releasing"
    """Rejected; its members are being returned to the queue."""
    COLLECTED = "collected"
    """Every member has its outcome."""
    RELEASED = "released"
    """Never created; its members are in the queue again."""


UNSUBMITTED = frozenset({BatchState.PREPARED, BatchState.CREATING, BatchState.UPLOADED})
"""States in which the members are complete and no job is known."""

ENDED = frozenset({BatchState.COMPLETED, BatchState.FAILED, BatchState.EXPIRED, BatchState.CANCELLED})
"""States in which the provider is done and results can be collected."""

CLOSED = frozenset({BatchState.COLLECTED, BatchState.RELEASED})
"""States in which nothing is left to do."""


@dataclass(frozen=True, slots=True)
class BatchProblem:
    """A reason why a batch was rejected; `line` of its file (from 1), if the provider names one.

    `final`: the same file would be rejected again.
    """

    code: str
    message: str
    line: int | None = None
    final: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """One Batch API job. `key` is our own id, known before anything is sent, and part of the job's metadata.

    `requests`, `bytes`, `input_tokens` (estimated) and `estimated_usd` describe its file. `completed` and `failed` are
    the provider's counts, which can be wrong; `status` is the provider's word. Times in seconds since 1970.
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
    """The run waits for this batch; others are collected if they are ready."""

    @property
    def name(self) -> str:
        """Return the provider's id, or our key before there is one."""
        return self.batch_id or self.key

    @property
    def ended(self) -> bool:
        return self.state in ENDED

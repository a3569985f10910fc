"""Interfaces for plugin authors: readers, writers and backends, and their arguments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, Protocol

from bioforge.core.budget import Budget
from bioforge.core.events import Attempt, Event
from bioforge.core.types import PLAIN_DIALECT, Artist, BadRow, Batch, Failure, Paid, Rendered, Request, Response, Usage

if TYPE_CHECKING:
    from pydantic import BaseModel

# ---------------------------------------------------------------------------------------------------------- readers


class Reader(Protocol):
    """Read one opened source into rows, lazily and in order.

    `stream` is binary, decompressed and at its start; `source` is its name in messages. Yield an `Artist` for each good
    row and a `BadRow` for each rejected one; raise `InputError` only if the source as a whole cannot be read. `options`
    is the `[input]` table without `path`, `reader` and `strict`: a mapping, or an instance of the reader's attribute
    `Options` (see `bioforge.config.options`), if it has one.
    """

    def __call__(self, stream: IO[bytes], source: str, options: Any) -> Iterable[Artist | BadRow]: ...


class PathReader(Protocol):
    """A reader that needs a file's path. Set `reads_path = True`.

    Standard input, gzip and downloads are written to a file first. Do not change the file.
    """

    reads_path: bool

    def __call__(self, path: Path, source: str, options: Any) -> Iterable[Artist | BadRow]: ...


# ---------------------------------------------------------------------------------------------------------- writers

Record = Mapping[str, object]
"""One export record: `artist_id, artist_name, artist_data, recipe, variant, request, response_text, parsed,
response_id, created, model, usage, cost_usd, error`. Empty keys are absent, except `error`, which is None.
"""


class Writer(Protocol):
    """Write records to a binary stream, one at a time.

    The file is renamed into place when it is complete. `options` is the `[[output]]` table without `path`, `writer`,
    `recipe` and `all`: a mapping, or an instance of the writer's attribute `Options`, if it has one.
    """

    def __call__(self, records: Iterable[Record], stream: IO[bytes], options: Any) -> None: ...


class FolderWriter(Protocol):
    """Write records as files of a folder. Set `writes_folder = True`.

    Yield (file name relative to the folder, content) pairs. The caller writes each file atomically, and removes files
    that an earlier run wrote and this one does not.
    """

    writes_folder: bool

    def __call__(self, records: Iterable[Record], options: Any) -> Iterator[tuple[str, bytes]]: ...


class PathWriter(Protocol):
    """Write records to a path that is not rewritten as a whole, such as a database table. Set `writes_path = True`.

    The folder exists. The writer itself must make its changes atomic. Its return value is shown instead of the number
    of records. After an `OutputError`, the next run calls it again.
    """

    writes_path: bool

    def __call__(self, records: Iterable[Record], path: Path, options: Any) -> str | None: ...


AnyReader = Reader | PathReader
AnyWriter = Writer | FolderWriter | PathWriter

# --------------------------------------------------------------------------------------------------------- backends


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a run. None: not limited by the project (the provider's headers still count)."""

    concurrency: int = 64
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    max_cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Retry settings; times in seconds. `maybe_paid`: resend a request that may have been charged."""

    max_attempts: int = 6
    first_delay: float = 0.5
    max_delay: float = 60.0
    maybe_paid: bool = True
    outage_seconds: float = 300.0
    """Duration of an outage after which the run gives up (exit code 75)."""


class Stop:
    """Signal to stop: level 1 asks the backend to drain, level 2 to leave now. Safe to use in a signal handler.

    `reason` is the first cause: `interrupted` (a person or a signal), `deadline` or `failures`. Only a second interrupt
    raises the level to 2.
    """

    def __init__(self) -> None:
        self.level = 0
        self.reason = ""
        self._interrupts = 0
        self._wake: list[Callable[[], None]] = []

    def raise_level(self, reason: str = "interrupted") -> int:
        self._interrupts += reason == "interrupted"
        self.level = max(self.level, self._interrupts, 1)
        self.reason = self.reason or reason
        for wake in tuple(self._wake):
            wake()
        return self.level

    def subscribe(self, wake: Callable[[], None]) -> None:
        """Call `wake` at each rise of the level and each nudge, on the thread that caused it."""
        self._wake.append(wake)

    def nudge(self) -> None:
        """Make the backend look for new requests now. Thread-safe."""
        for wake in tuple(self._wake):
            wake()


@dataclass(frozen=True, slots=True)
class Gauges:
    """Live numbers of a backend, for the progress display. `waiting` says why nothing is being sent.

    `batches` are the open ones, `look_at` is the time of their next poll (seconds since 1970).
    """

    in_flight: int = 0
    concurrency: int = 0
    retrying: int = 0
    waiting: str = ""
    batches: tuple[Batch, ...] = ()
    look_at: float | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A request in a batch. `open` until it has its outcome."""

    attempt: Attempt
    open: bool


class Members(Protocol):
    """The requests in batches, read from the state in pages."""

    def attempts_of(self, batch: str, *, open_only: bool = False) -> Iterator[Attempt]:
        """Yield the attempts in the order of the lines of the batch's file."""

    def find(self, batch: str, custom_ids: Sequence[str]) -> Mapping[str, Member]:
        """Return the members that exist, by `custom_id`."""


class NoMembers:
    """Members without any batch."""

    def attempts_of(self, batch: str, *, open_only: bool = False) -> Iterator[Attempt]:
        return iter(())

    def find(self, batch: str, custom_ids: Sequence[str]) -> Mapping[str, Member]:
        return {}


@dataclass(frozen=True, slots=True)
class Load:
    """Number of different requests to one model, and their estimated tokens."""

    model: str
    requests: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class PurchaseJob:
    """Input for a backend that can buy in several ways. Times in seconds.

    `call_seconds` is the average duration of a call so far, by service tier (`standard`, `flex`); `batch_seconds` that
    of a batch; `deadline` the time limit of the run.
    """

    loads: tuple[Load, ...]
    limits: Limits = field(default_factory=Limits)
    deadline: float | None = None
    call_seconds: Mapping[str, float] = field(default_factory=dict)
    batch_seconds: float | None = None

    @property
    def requests(self) -> int:
        return sum(load.requests for load in self.loads)


@dataclass(frozen=True, slots=True)
class PurchaseOption:
    """One way to buy: its cost in US dollars (None: unknown) and its expected duration in seconds.

    `note` says why it is excluded, or the value of its time.
    """

    name: str
    cost_usd: float | None
    seconds: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class PurchaseDecision:
    """The chosen one of `ways`, with the reason in one sentence.

    `tier` is its price tier (None: standard); `then` is the way for requests that the first one does not finish.
    """

    way: str
    reason: str
    ways: tuple[PurchaseOption, ...]
    tier: str | None = None
    then: str | None = None


Step = Callable[[], None]


def run_inline(step: Step) -> None:
    """Run a step while everything else waits for it."""
    step()


@dataclass(slots=True)
class RunControl:
    """The signals between a run and its backends while requests are sent. All backends of a run share one.

    The run asks to stop through `stop` and knows with `more()` whether further requests may come at any time, announced by
    a nudge of `stop`. A backend assigns `gauges` whenever they change, and counts money in `budget`.

    A backend may set `commit`, through which the engine stores each group of events: it runs a step, returns when that is
    done, and raises what the step raised, so that calls on the engine's thread continue during the step. It sets
    `cancels_unsent` if attempts that were announced are not sent when a stop arrives while the announcement is stored.
    """

    stop: Stop = field(default_factory=Stop)
    budget: Budget = field(default_factory=Budget)
    gauges: Gauges = field(default_factory=Gauges)
    more: Callable[[], bool] = lambda: False
    commit: Callable[[Step], None] = run_inline
    cancels_unsent: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """The work of a backend: requests to pull lazily and in order, limits, and the control of the run.

    A backend pulls from `requests` only when it can send. A recorded answer can make further requests ready, so `requests`
    that were exhausted are pulled again after each group of events. The rest is for backends whose work outlives a run:
    `batches` are those that earlier runs left open and `members` the requests in them; `retries()` reads the requests that
    failed in this run and may be sent again; `enqueued_tokens` are the known limits by model; `wait` False means to submit,
    collect what is ready, and return. `folder` is for temporary files; `project` names the project in what is stored at the
    provider. `proven` returns True for a request of a recipe that was answered in an earlier run: its requests need not go alone
    at first. `control` has a budget of `limits.max_cost_usd` where none is given.
    """

    requests: Iterator[Request]
    limits: Limits = field(default_factory=Limits)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    control: RunControl = field(default=None)  # type: ignore[assignment]
    batches: Sequence[Batch] = ()
    members: Members = field(default_factory=NoMembers)
    retries: Callable[[], Iterator[Request]] = lambda: iter(())
    enqueued_tokens: Mapping[str, int] = field(default_factory=dict)
    wait: bool = True
    choice: PurchaseDecision | None = None
    proven: Callable[[Request], bool] = lambda _: True
    folder: Path | None = None
    project: str = ""

    def __post_init__(self) -> None:
        if self.control is None:
            object.__setattr__(self, "control", RunControl(budget=Budget(self.limits.max_cost_usd)))


class Backend(ABC):
    """Executes requests. Only `execute` is required; a backend never sees the state.

    `dialect` names the format of its bodies: backends with the same dialect share answers.
    """

    dialect: str = PLAIN_DIALECT
    batches: bool = False
    """True if its requests can outlive the run (`--no-wait`)."""
    endpoints: tuple[str, ...] = ("/v1/responses", "/v1/chat/completions")
    """Endpoints that a recipe may use; the first is the default."""
    base_url: str = "https://api.openai.com/v1"
    """Address of the vendor, for hints to users of the simulator, which speaks only the plain dialect."""
    Options: ClassVar[type[BaseModel] | None] = None
    """Model that validates its table in the project file (see `bioforge.config.options`). None: the backend validates
    it.
    """

    def __init__(self, context: BackendContext) -> None:
        self.context = context

    @abstractmethod
    def execute(self, work: Work) -> Iterator[Sequence[Event]]:
        """Yield groups of events. When `yield` returns, that group is durable: yield `Started`, then send.

        Failed requests are events; an exception means that the backend itself is broken.
        """

    def check(self) -> None:  # noqa: B027 - most backends have nothing to check
        """Raise `UsageError` if nothing can be sent (no key, …). Called before anything is sent."""

    def body(self, rendered: Rendered) -> dict[str, object]:
        """Return the request body for `rendered.endpoint`; by default in the format of `/v1/responses`.

        The same texts must give the same body. Parameters are those of the project file. A schema is in `text`, as
        `/v1/responses` takes it, for all endpoints but `/v1/chat/completions`.
        """
        body: dict[str, object] = dict(rendered.parameters)
        for key, value in (
            ("model", rendered.model),
            ("instructions", rendered.instructions),
            ("input", rendered.input),
            ("prompt", rendered.prompt),
        ):
            if value is not None:
                body[key] = value
        return body

    def price(self, model: str, usage: Usage, service_tier: str | None = None) -> float | None:
        """Return the cost in US dollars; None if the price is unknown. Without a tier: as this backend buys."""
        return None

    def choose(self, job: PurchaseJob) -> PurchaseDecision | None:
        """Choose a way to buy, if the backend has several: `plan` shows it, and `Work.choice` has it."""
        return None


@dataclass(frozen=True, slots=True)
class BackendContext:
    """Settings of a backend.

    `base_url` has no trailing slash; `api_key` is None if none is set. `options` is the table `[backend.NAME]`, a
    mapping or an instance of the backend's `Options`; `siblings` are all such tables by name, as mappings. `timeout` is
    in seconds, for one call. With `allow_http`, the key may go to another machine unencrypted.
    """

    base_url: str
    api_key: str | None = field(repr=False)
    api_key_env: str = "OPENAI_API_KEY"
    timeout: float = 600.0
    options: Any = field(default_factory=dict)
    root: Path = Path()
    siblings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    allow_http: bool = False


BackendFactory = Callable[[BackendContext], Backend]


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Rate limits that the provider reported with an answer; resets in seconds from now; None: not reported."""

    limit_requests: int | None = None
    remaining_requests: int | None = None
    reset_requests: float | None = None
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    reset_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one attempt, independent of the vendor. Exactly one of `answer` and `failure` is set.

    `retryable`: the same request may succeed later. `stops_run`: no request can succeed now (key, quota, spend limit).
    `overloaded`: the provider asked for less traffic. `outage`: the provider was unreachable or broken (connection
    errors, 5xx). `retry_after`: the delay in seconds that the provider asked for.
    """

    answer: Response | None = None
    failure: Failure | None = None
    paid: Paid = Paid.NO
    retryable: bool = False
    stops_run: bool = False
    overloaded: bool = False
    outage: bool = False
    retry_after: float | None = None
    rate_limits: RateLimits | None = None
    request_id: str | None = None
    seconds: float = 0.0
    body: bytes | None = None
    hint: str = ""


class Sender(Protocol):
    """A vendor's synchronous client, thread-safe. Never raises for a failed request."""

    def send(self, request: Request, client_request_id: str) -> Outcome: ...
    def close(self) -> None: ...


class AsyncSender(Protocol):
    """A vendor's asynchronous client, used on one event loop. Never raises for a failed request."""

    async def send(self, request: Request, client_request_id: str) -> Outcome: ...
    async def close(self) -> None: ...

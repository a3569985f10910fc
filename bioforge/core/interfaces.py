"""What a plugin author reads: readers, backends and writers, and what they are given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, Protocol

from bioforge.core.events import Attempt, Event
from bioforge.core.types import PLAIN_DIALECT, Artist, BadRow, Batch, Failure, Paid, Rendered, Request, Response, Usage

if TYPE_CHECKING:
    from pydantic import BaseModel

# ---------------------------------------------------------------------------------------------------------- readers


class Reader(Protocol):
    """Reads one opened source into rows, lazily and in order.

    `stream` is binary and positioned at the start, unpacked where it was gzip; `source` is its name in messages. Yield an
    `Artist` for each good row and a `BadRow` for each that must be kept out; raise `InputError` only when the source as
    a whole cannot be read. `options` is the `[input]` table of the project file without `path`, `reader` and `strict`: as
    it was written, or an instance of the reader's attribute `Options` (see `bioforge.config.options`), where it has one.
    """

    def __call__(self, stream: IO[bytes], source: str, options: Any) -> Iterable[Artist | BadRow]: ...


class PathReader(Protocol):
    """A reader for what has to be a file: it is given its path. A reader is one when it has `reads_path = True`.

    Standard input, gzip and downloads are put into a file before; it is not to be changed.
    """

    reads_path: bool

    def __call__(self, path: Path, source: str, options: Any) -> Iterable[Artist | BadRow]: ...


# ---------------------------------------------------------------------------------------------------------- writers

Record = Mapping[str, object]
"""One export record: `artist_id, artist_name, artist_data, recipe, variant, request, response_text, parsed,
response_id, created, model, usage, cost_usd, error`; absent where empty, except `error`, which is then None."""


class Writer(Protocol):
    """Writes records to a binary stream, one at a time; never holds them all.

    The file is put in its place when it is whole. `options` is the `[[output]]` table without `path`, `writer`, `recipe`
    and `all`: as it was written, or an instance of the writer's attribute `Options`, where it has one.
    """

    def __call__(self, records: Iterable[Record], stream: IO[bytes], options: Any) -> None: ...


class FolderWriter(Protocol):
    """Writes records as files of a folder. A writer is a folder writer when it has `writes_folder = True`.

    Yields (file name relative to the folder, content) pairs; the caller writes each atomically and removes files
    that an earlier run wrote and this one does not.
    """

    writes_folder: bool

    def __call__(self, records: Iterable[Record], options: Any) -> Iterator[tuple[str, bytes]]: ...


class PathWriter(Protocol):
    """Writes records where a path leads, for what is no file that is written anew each time: a table of a database, a
    record of deliveries. A writer is one when it has `writes_path = True`.

    That readers never see half of it is the writer's own care. The folder exists. What it returns is shown in place of
    the number of records. `OutputError` says that not all of it could be done: it is called again by the next run.
    """

    writes_path: bool

    def __call__(self, records: Iterable[Record], path: Path, options: Any) -> str | None: ...


AnyReader = Reader | PathReader
AnyWriter = Writer | FolderWriter | PathWriter

# --------------------------------------------------------------------------------------------------------- backends


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be sent: None means not limited by the project (the provider's own headers still count)."""

    concurrency: int = 64
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    max_cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Times in seconds. `maybe_paid`: whether a request whose fate is unknown may be sent (and paid for) again."""

    max_attempts: int = 6
    first_delay: float = 0.5
    max_delay: float = 60.0
    maybe_paid: bool = True
    outage_seconds: float = 300.0
    """How long nothing but outages may come back before the run gives up (exit code 75)."""


class Stop:
    """Carries Ctrl-C to the backend: level 1 asks to drain, level 2 to leave now. Safe to call in a signal handler.

    `reason` is what asked first: `interrupted` (a person or a signal), `deadline` or `failures`. Only a person who asks
    twice makes it leave.
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
        """`wake` is called at each rise of the level and at each nudge, from whatever thread did it."""
        self._wake.append(wake)

    def nudge(self) -> None:
        """Have the backend look for new requests now. Safe from any thread."""
        for wake in tuple(self._wake):
            wake()


@dataclass(frozen=True, slots=True)
class Gauges:
    """Live numbers of a backend at work, for the progress display. `waiting` says why nothing is being sent.

    `batches` are those that are open, `look_at` when they are looked at next (seconds since 1970).
    """

    in_flight: int = 0
    concurrency: int = 0
    retrying: int = 0
    waiting: str = ""
    batches: tuple[Batch, ...] = ()
    look_at: float | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A request in a batch, as it was prepared. `open` until it has its outcome."""

    attempt: Attempt
    open: bool


class Members(Protocol):
    """The requests in batches as the state keeps them, read in pages and never all at once."""

    def attempts_of(self, batch: str, *, open_only: bool = False) -> Iterator[Attempt]:
        """In the order in which they were prepared, which is that of the lines of the batch's file."""

    def find(self, batch: str, custom_ids: Sequence[str]) -> Mapping[str, Member]:
        """Those of a batch that exist, by `custom_id`."""


class NoMembers:
    """Where there never was a batch."""

    def attempts_of(self, batch: str, *, open_only: bool = False) -> Iterator[Attempt]:
        return iter(())

    def find(self, batch: str, custom_ids: Sequence[str]) -> Mapping[str, Member]:
        return {}


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be asked of one model: different requests, and their tokens, estimated."""

    model: str
    requests: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class PurchaseJob:
    """What a backend that can buy in several ways chooses by. Times in seconds.

    `call_seconds` is how long a call has taken so far, on average, by service tier (`standard`, `flex`);
    `batch_seconds` how long batches have taken; `deadline` how long the run may take.
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
    """One way to buy: its price in US dollars (None: unknown) and how long it is expected to take, in seconds.

    `note` says why it is out of the question, or what its time is worth.
    """

    name: str
    cost_usd: float | None
    seconds: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class PurchaseDecision:
    """The way that was chosen out of `ways`, with the reason in one sentence.

    `tier` is the price tier of the chosen way (None: standard); `then` the way for what the first one leaves over.
    """

    way: str
    reason: str
    ways: tuple[PurchaseOption, ...]
    tier: str | None = None
    then: str | None = None


Step = Callable[[], None]


def run_inline(step: Step) -> None:
    """Does a step while everything else waits for it."""
    step()


@dataclass(slots=True)
class Work:
    """What a backend is given: requests to pull lazily and in order, the limits, and the stop signal.

    A backend pulls from `requests` only when it can send; it assigns `gauges` whenever they change. An answer that was
    recorded can bring about further requests, so `requests` that had no more are asked again after each group of
    events; and while `more()` is true further ones may come at any time, announced by a nudge. The rest is for
    backends whose work outlives a run: `batches` are those that earlier runs left open and `members` what is in them;
    `retries` reads anew the requests that failed in this run and are to be tried again; `enqueued_tokens` are the
    limits learned so far by model; not `wait` means to submit, collect what is ready, and leave. `folder` is for
    files that are in the way of nobody; `project` names the project in what is stored with the provider.

    `meanwhile` is a backend's to set, and the engine's to use: a group is stored through it, so that calls whose turn is
    on the engine's own thread go on meanwhile. It returns when the step is done, and raises what the step raised. So is
    `withdraws`: that what was announced is not sent when a stop comes while the announcement is stored. Who gives a copy of
    the work to another backend passes both on.
    """

    requests: Iterator[Request]
    limits: Limits = field(default_factory=Limits)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    stop: Stop = field(default_factory=Stop)
    gauges: Gauges = field(default_factory=Gauges)
    batches: Sequence[Batch] = ()
    members: Members = field(default_factory=NoMembers)
    retries: Callable[[], Iterator[Request]] = lambda: iter(())
    enqueued_tokens: Mapping[str, int] = field(default_factory=dict)
    wait: bool = True
    choice: PurchaseDecision | None = None
    folder: Path | None = None
    project: str = ""
    more: Callable[[], bool] = lambda: False
    meanwhile: Callable[[Step], None] = run_inline
    withdraws: bool = False


class Backend(ABC):
    """Executes requests. Only `execute` must be written; a backend never sees the state.

    `dialect` names the form of its bodies: backends with the same dialect share answers.
    """

    dialect: str = PLAIN_DIALECT
    batches: bool = False
    """Whether what it sends may outlive the run, so that `--no-wait` has a meaning."""
    endpoints: tuple[str, ...] = ("/v1/responses", "/v1/chat/completions")
    """What a recipe may ask for; the first one where it names none."""
    base_url: str = "https://api.openai.com/v1"
    """Where the vendor is found: said to who uses the embedded server, which speaks only the dialect above."""
    Options: ClassVar[type[BaseModel] | None] = None
    """What its table in the project file is checked by (see `bioforge.config.options`). None: it checks it itself."""

    def __init__(self, context: BackendContext) -> None:
        self.context = context

    @abstractmethod
    def execute(self, work: Work) -> Iterator[Sequence[Event]]:
        """Yield groups of events. When `yield` returns, that group is durable: so yield `Started` before sending,
        and only then send. Failed requests are events; an exception means the backend itself is broken."""

    def check(self) -> None:  # noqa: B027 - most backends have nothing to check
        """Raise `UsageError` when nothing could be sent (no key, …). Called before anything is sent."""

    def body(self, rendered: Rendered) -> dict[str, object]:
        """The request body for `rendered.endpoint`. This default is the shape of `/v1/responses`.

        The same texts give the same body. Parameters come as they stand in the project file, and where a recipe has a
        schema, it stands in `text` as `/v1/responses` takes it, for all endpoints but `/v1/chat/completions`.
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
        """US dollars for `usage` of `model`; None where the price is unknown. Without a tier: as this backend buys."""
        return None

    def choose(self, job: PurchaseJob) -> PurchaseDecision | None:
        """How to buy, for a backend that has several ways: shown by `plan`, and given back in `Work.choice`."""
        return None


@dataclass(frozen=True, slots=True)
class BackendContext:
    """What a backend is built from. `base_url` ends without a slash; `api_key` is None when none is set;
    `options` is the table `[backend.NAME]` of the project file, or an instance of the backend's `Options`, where it has
    them; `siblings` all such tables by name, as they were written; `timeout` is seconds for one call."""

    base_url: str
    api_key: str | None = field(repr=False)
    api_key_env: str = "OPENAI_API_KEY"
    timeout: float = 600.0
    options: Any = field(default_factory=dict)
    root: Path = Path()
    siblings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


BackendFactory = Callable[[BackendContext], Backend]


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Rate limits as the provider reports them with an answer; reset in seconds from now; None where not said."""

    limit_requests: int | None = None
    remaining_requests: int | None = None
    reset_requests: float | None = None
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    reset_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended, in words without a vendor. Exactly one of `answer` and `failure` is set.

    `retryable`: the same request may succeed later. `stops_run`: the cause lies with key, quota or spend limit, so
    no request can succeed now. `overloaded`: the provider asked for less traffic. `outage`: it was not reachable or
    broken (connection errors, 5xx). `retry_after` in seconds, as the provider asked.
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
    """A vendor's synchronous client: safe to call from several threads. Never raises for a failed request."""

    def send(self, request: Request, client_request_id: str) -> Outcome: ...
    def close(self) -> None: ...


class AsyncSender(Protocol):
    """A vendor's asynchronous client, used on one event loop. Never raises for a failed request."""

    async def send(self, request: Request, client_request_id: str) -> Outcome: ...
    async def close(self) -> None: ...

"""A Batch API in memory, a state in memory, and a clock nobody has to wait for: what stories of batches are told with.

Time passes only where a story says so: in a wait of the driver, which names the moment it waits for; in a call that takes
long (`Trouble.seconds`); and, with `Clock.step`, at each look at the clock.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bioforge.backends.batch.driver import BatchDriver, BatchOptions
from bioforge.backends.batch.service import BatchResult, CallError, Undecided
from bioforge.core.budget import Budget
from bioforge.core.events import (
    Attempt,
    BatchChanged,
    BatchCollected,
    Event,
    Failed,
    LimitLearned,
    Notice,
    Started,
    Stopped,
    Succeeded,
    UnmatchedLine,
    Unusable,
)
from bioforge.core.interfaces import (
    Backend,
    BackendContext,
    Limits,
    Member,
    Outcome,
    PurchaseDecision,
    RetryPolicy,
    RunControl,
    Stop,
    Work,
)
from bioforge.core.types import CLOSED, ENDED, Batch, BatchProblem, BatchState, Failure, Paid, Request, Response, Usage
from bioforge.simulator import Ledger

from .bench import QUICK, Bench, Recorded

NOW = 1_700_000_000.0
"""When every story begins, in seconds since 1970."""

TOKENS = 10
"""Estimated input tokens of each request."""

USAGE = Usage(input_tokens=10, output_tokens=20)
"""What each answer takes."""

POLL = 15.0

AT_ONCE = RetryPolicy(first_delay=0.0)
"""Waits between two tries of a call that take no time, as nobody could make it pass there."""


def requests(total: int, first: int = 0, model: str = "m", **values: Any) -> list[Request]:
    """Different requests for a-0, a-1 …"""
    return [
        Request(
            **{
                "request_hash": f"v1:{number:064x}",
                "endpoint": "/v1/responses",
                "model": model,
                "body": b'{"artist":%d}' % number,
                "artist_id": f"a-{number}",
                "recipe": "bio",
                "target": number + 1,
                "input_tokens": TOKENS,
                "output_tokens": 20,
                **values,
            }
        )
        for number in range(first, first + total)
    ]


class Clock:
    """The clock on the wall. It stands still but for `step`, which passes at each look at it."""

    def __init__(self) -> None:
        self.now = NOW
        self.step = 0.0
        self.hurries = False

    def __call__(self) -> float:
        self.now += POLL / 2 if self.hurries else self.step
        return self.now


# ------------------------------------------------------------------------------------------------------ the service


@dataclass(frozen=True)
class Trouble:
    """How a call ends instead of well. `done`: its work was done all the same; `seconds`: how long it took."""

    outcome: Outcome
    done: bool = False
    seconds: float = 0.0

    def after(self, seconds: float) -> Trouble:
        return replace(self, seconds=seconds)


def _refusal(error_class: str, status: int, message: str, code: str | None = None, **values: Any) -> Trouble:
    return Trouble(Outcome(failure=Failure(error_class, message, code, status), **values))


_UNCLEAR = Outcome(failure=Failure("timeout", "no answer came"), paid=Paid.MAYBE, retryable=True)
LOST = Trouble(_UNCLEAR, done=True)
"""The work was done, and its answer lost on the way."""
DROPPED = Trouble(_UNCLEAR)
"""The connection broke before anything was done, and nobody here can know that."""
OUTAGE = _refusal("overloaded", 503, "come back later", retryable=True, outage=True)
REFUSED = _refusal("bad_request", 400, "the model has no batches", "model_not_supported")
GONE = _refusal("not_found", 404, "there is no such thing")
KEY = _refusal("authentication", 401, "who are you?", stops_run=True, hint="set the key")
FORBIDDEN = _refusal("permission", 403, "not with this key", stops_run=True, hint="ask for the permission")
QUOTA = _refusal("quota", 429, "no money left", "insufficient_quota", stops_run=True, hint="add credit")


@dataclass(frozen=True)
class Course:
    """What becomes of a job: after how many looks it has ended, and how. `billed`: whether it tells its usage; `late`: in
    how many looks after its end its files are not named yet."""

    looks: int = 1
    end: BatchState = BatchState.COMPLETED
    problems: tuple[BatchProblem, ...] = ()
    billed: bool = True
    late: int = 0
    more: tuple[bytes, ...] = ()
    """Further lines of its output file."""


@dataclass
class Job:
    """A batch as the provider has it."""

    key: str
    id: str
    model: str
    file_id: str
    names: list[str]
    course: Course
    created: float
    looks: int = 0
    hidden: int = 0
    """In how many looks at the list it is still missing."""
    ended: bool = False
    usage: Usage | None = None
    output: str | None = None
    errors: str | None = None
    completed: int = 0
    failed: int = 0
    seen_ended: int = 0
    """Looks since its end."""

    @property
    def named(self) -> bool:
        """Whether its files are told."""
        return self.ended and self.seen_ended >= self.course.late

    @property
    def state(self) -> BatchState:
        return self.course.end if self.ended else BatchState.IN_PROGRESS


IN_OUTPUT = ("answered", "unusable", "twice")
IN_NEITHER = ("missing", "lost")
BILLED = (*IN_OUTPUT, "lost")


class FakeService:
    """A provider's Batch API. What it does wrong is told in advance, by the name of the call, the artist or the job.

    `fates` says what becomes of an artist's request each time it is asked: answered, unusable, twice (two lines, one
    bill), refused, forbidden, busy, unclear, expired, cancelled, quota, wordless; missing (no line, no bill), lost (no line, and
    billed). `story` has all calls in order; others may write into it too.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.story: list[str] = []
        self.trouble: dict[str, list[Trouble | None]] = {}
        self.fates: dict[str, list[str]] = {}
        self.courses: list[Course] = []
        self.usual = Course()
        self.cost_usd = 0.01
        self.files: dict[str, tuple[str, bytes]] = {}
        self.jobs: list[Job] = []
        self.hidden = 0
        self.pending = 0
        """In how many looks at an uploaded file it is still being processed."""
        self.limit: int | None = None
        """Tokens that may be enqueued, at 10 for each request."""
        self.others = 0
        """Tokens that others have enqueued."""
        self.names_limit = True
        self.refuses = "create"
        """What goes wrong beyond the limit: create, or the job once it exists (`failed`)."""
        self.looked: list[tuple[str, float]] = []
        """The job and the moment of every look."""
        self.before: Callable[[str], object] = lambda call: None
        """Called in the thread of each call, before it does anything; the call as the story has it."""
        self.after: Callable[[str], object] = lambda call: None
        self._keys: dict[str, str] = {}
        self._number = 0

    def name(self, key: str) -> str:
        """b1, b2 … in the order of their appearance."""
        return self._keys.setdefault(key, f"b{len(self._keys) + 1}")

    def calls(self, *kinds: str) -> list[str]:
        """The calls of these kinds, in order."""
        return [word for word in self.story if word.split(" b")[0].split(" of")[0] in kinds]

    def _call(self, call: str, key: str, act: Callable[[], Any]) -> Any:
        words = f"{call} {self.name(key)}"
        self.story.append(words)
        self.clock.hurries = call == "find"
        self.before(words)
        found = self.trouble.get(call)
        trouble = found.pop(0) if found else None
        try:
            result = act() if trouble is None or trouble.done else None
            if trouble is not None:
                self.clock.now += trouble.seconds
                raise CallError(trouble.outcome)
            return result
        finally:
            self.after(words)

    def _new_id(self, kind: str) -> str:
        self._number += 1
        return f"{kind}-{self._number}"

    # -------------------------------------------------------------------------------------------------------- pure

    def custom_id(self, request: Request, number: int) -> str:
        return f"{request.artist_id}.{number}"

    def line(self, attempt: Attempt) -> bytes:
        assert attempt.request.body, "a line without its body"
        return b'{"id":"%b","body":%b}\n' % (attempt.client_request_id.encode(), attempt.request.body)

    def read(self, batch: Batch, line: bytes) -> BatchResult:
        try:
            found = json.loads(line)
            name, fate = found["id"], found["fate"]
        except (ValueError, LookupError):
            return BatchResult(custom_id=None, failure=Failure("unreadable", "no JSON"), paid=Paid.MAYBE, body=line)
        match fate:
            case "answered" | "twice" | "unusable":
                text, problem = f"About {name.partition('.')[0]}.", Failure("truncated", "max_output_tokens")
                used = None if fate != "unusable" else problem
                answer = Response(line, text, USAGE, "m-1", f"resp-{name}", cost_usd=self.cost_usd, problem=used)
                return BatchResult(answer, custom_id=name, paid=Paid.YES, request_id=f"req-{name}")
            case "refused":
                return BatchResult(
                    custom_id=name, failure=Failure("bad_request", "not this", "invalid_prompt", 400), body=b"{}"
                )
            case "forbidden":
                failure = Failure("permission", "flagged", None, 403)
                return BatchResult(custom_id=name, failure=failure, stops_run=True)
            case "busy":
                return BatchResult(
                    custom_id=name, failure=Failure("server_error", "try later", None, 500), retryable=True, body=b"{}"
                )
            case "unclear":
                return BatchResult(
                    custom_id=name, failure=Failure("malformed", "no JSON"), paid=Paid.MAYBE, retryable=True, body=b"?"
                )
            case "expired" | "cancelled":
                return BatchResult(custom_id=name, failure=Failure(fate, "too late", f"batch_{fate}"), retryable=True)
            case "quota":
                return BatchResult(
                    custom_id=name, failure=Failure("quota", "no money left", "insufficient_quota", 429), stops_run=True
                )
            case _:
                return BatchResult(custom_id=name)

    def names_in(self, content: bytes) -> list[str]:
        """The names of the lines of an uploaded file."""
        return [json.loads(line)["id"] for line in content.splitlines()]

    def enqueued_limit(self, text: str) -> int | None:
        if "enqueued" not in text:
            return None
        found = re.search(r"limit (\d+)", text)
        return int(found[1]) if found else 0

    # ------------------------------------------------------------------------------------------------------- calls

    def upload(self, batch: Batch, path: Path) -> str:
        def act() -> str:
            file_id = self._new_id("file")
            self.files[file_id] = (path.name, path.read_bytes())
            return file_id

        uploaded: str = self._call("upload", batch.key, act)
        return uploaded

    def file_pending(self, file_id: str) -> bool:
        self.pending = max(0, self.pending - 1)
        self.clock.hurries = self.pending > 0
        return self.pending > 0

    def find_file(self, batch: Batch) -> str | None:
        def act() -> str | None:
            names = {name: file_id for file_id, (name, _) in self.files.items()}
            return names.get(f"{batch.key}.jsonl")

        found: str | None = self._call("find file of", batch.key, act)
        return found

    def create(self, batch: Batch, project: str) -> Batch:
        created: Batch = self._call("create", batch.key, lambda: self._create(batch))
        return created

    def _create(self, batch: Batch) -> Batch:
        assert batch.file_id is not None
        names = self.names_in(self.files[batch.file_id][1])
        assert len(set(names)) == len(names), f"a custom_id stands twice in one file: {names}"
        course = self.courses.pop(0) if self.courses else self.usual
        if (words := self._too_much(batch.model, TOKENS * len(names))) is not None:
            if self.refuses == "create":
                raise CallError(Outcome(failure=Failure("bad_request", words, "token_limit_exceeded", 400)))
            course = Course(end=BatchState.FAILED, problems=(BatchProblem("token_limit_exceeded", words),))
        job = Job(
            batch.key, self._new_id("batch"), batch.model, batch.file_id, names, course, self.clock.now, 0, self.hidden
        )
        self.jobs.append(job)
        return replace(
            batch, state=BatchState.SUBMITTED, batch_id=job.id, submitted_at=job.created, status="validating"
        )

    def _too_much(self, model: str, tokens: int) -> str | None:
        if self.limit is None:
            return None
        ours = sum(TOKENS * len(job.names) for job in self.jobs if job.model == model and not job.ended)
        if ours + self.others + tokens <= self.limit:
            return None
        return f"too many enqueued tokens{f', limit {self.limit}' if self.names_limit else ''}"

    def find(self, batch: Batch) -> Batch | None:
        def act() -> Batch | None:
            found = None
            for job in self.jobs:
                if job.key == batch.key and job.hidden > 0:
                    job.hidden -= 1
                elif job.key == batch.key:
                    found = self._seen(batch, job)
            return found

        answer: Batch | None = self._call("find", batch.key, act)
        return answer

    def look(self, batch: Batch) -> Batch:
        (job,) = [job for job in self.jobs if job.id == batch.batch_id]
        self.looked.append((self.name(batch.key), self.clock.now))

        def act() -> Batch:
            job.looks += 1
            job.seen_ended += job.ended
            if job.looks >= job.course.looks:
                self.finish(job)
            return self._seen(batch, job)

        seen: Batch = self._call("look at", batch.key, act)
        return seen

    def _seen(self, batch: Batch, job: Job) -> Batch:
        course = job.course
        return replace(
            batch,
            state=job.state,
            status=str(job.state),
            file_id=job.file_id,
            batch_id=job.id,
            submitted_at=job.created,
            output_file_id=job.output if job.named else None,
            error_file_id=job.errors if job.named else None,
            completed=job.completed,
            failed=job.failed,
            ended_at=batch.ended_at or (self.clock.now if job.ended else None),
            usage=job.usage if course.billed else None,
            problems=course.problems if job.ended else (),
        )

    def delivered(self) -> set[tuple[str | None, str]]:
        """Batch and name of every answer that stands in an output file."""
        found = set()
        for job in (job for job in self.jobs if job.output is not None):
            names = {self.read(_ANY, line).custom_id for line in self.files[job.output or ""][1].splitlines()}
            found |= {(job.key, name) for name in job.names if name in names}
        return found

    def finish(self, job: Job) -> None:
        """The end of a job: what became of its requests, in files and on the bill."""
        if job.ended:
            return
        job.ended = True
        if job.course.end is BatchState.FAILED:
            return
        absent = {BatchState.EXPIRED: "expired", BatchState.CANCELLED: "cancelled"}.get(job.course.end)
        output, errors, answers = list(job.course.more), list[bytes](), 0
        for name in job.names:
            told = self.fates.get(name.partition(".")[0])
            fate = told.pop(0) if told else absent or "answered"
            answers += fate in BILLED
            job.completed += fate in BILLED
            job.failed += fate not in BILLED and fate != "missing"
            line = json.dumps({"id": name, "fate": fate}).encode()
            if fate not in IN_NEITHER:
                (output if fate in IN_OUTPUT else errors).extend([line] * (2 if fate == "twice" else 1))
        job.usage = Usage(answers * USAGE.input_tokens, answers * USAGE.output_tokens)
        job.output, job.errors = self._file(output), self._file(errors)

    def _file(self, lines: Sequence[bytes]) -> str | None:
        if not lines:
            return None
        file_id = self._new_id("file")
        self.files[file_id] = ("results", b"\n".join(lines) + b"\n")
        return file_id

    def cancel(self, batch: Batch) -> Batch:
        raise AssertionError("nobody asked for that")

    def delete_file(self, file_id: str) -> None:
        assert all(job.file_id != file_id for job in self.jobs), "the file of a job"
        key = self.files[file_id][0].removesuffix(".jsonl")
        self._call("delete file of", key, lambda: self.files.pop(file_id))

    def download(self, file_id: str, path: Path) -> int:
        (job,) = [job for job in self.jobs if file_id in (job.output, job.errors)]
        kind = "output" if file_id == job.output else "errors"
        size: int = self._call(f"download {kind} of", job.key, lambda: path.write_bytes(self.files[file_id][1]))
        return size


_ANY = Batch("", "", "")


class FakeInlineService(FakeService):
    """The same provider without files and without a place for our key: a job is recognised by the names of its requests,
    which it tells when it has ended. Each search is a look at those that are still at work."""

    patience: float | None = 86_400.0
    """Seconds after a search in which it will be known; None: never."""

    def custom_id_in(self, request: Request, number: int, key: str) -> str:
        return f"{request.artist_id}.{number}.{self.name(key)}"

    def create_from(self, batch: Batch, project: str, path: Path) -> Batch:
        assert batch.state is BatchState.CREATING, "nobody would look for it"

        def act() -> Batch:
            file_id = self._new_id("file")
            self.files[file_id] = (path.name, path.read_bytes())
            return replace(self._create(replace(batch, file_id=file_id)), file_id=None)

        created: Batch = self._call("create", batch.key, act)
        return created

    def search(self, batch: Batch, known: Collection[str]) -> Batch | Undecided | None:
        found: Batch | Undecided | None = self._call("find", batch.key, lambda: self._search(batch, known))
        return found

    def _search(self, batch: Batch, known: Collection[str]) -> Batch | Undecided | None:
        unclear = []
        for job in self.jobs:
            if job.hidden > 0:
                job.hidden -= 1
                continue
            if job.id in known or len(job.names) != batch.requests:
                continue
            job.looks += 1
            if job.looks >= job.course.looks:
                self.finish(job)
            if not job.ended:
                unclear.append(job.id)
            elif job.names[0].rpartition(".")[2] == self.name(batch.key):
                return self._seen(batch, job)
        if not unclear:
            return None
        return Undecided(f"{unclear} at work", None if self.patience is None else self.clock.now + self.patience)

    def stranger(self, number: int, course: Course) -> Job:
        """A job that another program has created."""
        names = [f"z-{place}.1.theirs" for place in range(number)]
        self.jobs.append(Job("theirs", self._new_id("batch"), "m", "", names, course, self.clock.now))
        return self.jobs[-1]

    def _seen(self, batch: Batch, job: Job) -> Batch:
        return replace(super()._seen(batch, job), file_id=None)


# -------------------------------------------------------------------------------------------------------- the state


@dataclass
class RecordedAttempt:
    attempt: Attempt
    open: bool = True


_ORDER = [
    BatchState.PREPARING,
    BatchState.PREPARED,
    BatchState.CREATING,
    BatchState.UPLOADED,
    BatchState.SUBMITTED,
    BatchState.IN_PROGRESS,
]


@dataclass
class Book:
    """What a state keeps of requests and batches; asserts of each event what must be true of it.

    A request is in batch, in flight, waiting, interrupted, answered, unusable, failed or unclear.
    """

    requests: dict[str, Request] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)
    attempts: list[RecordedAttempt] = field(default_factory=list)
    members: dict[str, dict[str, RecordedAttempt]] = field(default_factory=dict)
    """Attempts by batch and name, calls under the batch ""."""
    batches: dict[str, Batch] = field(default_factory=dict)
    collected: dict[str, BatchCollected] = field(default_factory=dict)
    strays: list[UnmatchedLine] = field(default_factory=list)
    limits: dict[str, int] = field(default_factory=dict)
    ends: dict[tuple[str | None, str], str] = field(default_factory=dict)
    """What each attempt came to, by batch and name."""
    page: int = 100
    uploads: bool = True
    """Whether a batch has a file before it is created."""

    def record(self, events: Sequence[Event]) -> None:
        for event in events:
            match event:
                case Started(attempt):
                    self._start(attempt)
                case Succeeded(attempt):
                    self._end(attempt, "answered")
                case Unusable(attempt):
                    self._end(attempt, "unusable")
                case Failed(attempt):
                    unclear = event.paid is Paid.MAYBE
                    self._end(attempt, ("unclear" if unclear else "failed") if event.final else "waiting")
                case BatchChanged(batch):
                    self._change(batch)
                case BatchCollected(batch, counts):
                    assert not list(self.attempts_of(batch.key, open_only=True)), "collected with a member that is open"
                    ours = sum(counts.values()) - sum(counts.get(kind, 0) for kind in _STRAY)
                    assert ours == len(list(self.attempts_of(batch.key))), f"not every member is counted: {counts}"
                    self.collected[batch.key] = event
                case UnmatchedLine():
                    self.strays += [event] if event not in self.strays else []
                case LimitLearned(model, tokens):
                    self.limits[model] = tokens

    def _start(self, attempt: Attempt) -> None:
        request = attempt.request
        state = self.states.get(request.request_hash)
        assert state not in ("in batch", "in flight", "answered", "unusable"), (
            f"asked again although {state}: {request}"
        )
        assert attempt.row == 0
        assert attempt.number == self.tries[request.request_hash] + 1
        if attempt.batch is not None:
            assert self.batches[attempt.batch].state is BatchState.PREPARING
        self.requests[request.request_hash] = request
        self.states[request.request_hash] = "in flight" if attempt.batch is None else "in batch"
        self.tries[request.request_hash] += 1
        self.attempts.append(RecordedAttempt(replace(attempt, row=len(self.attempts) + 1)))
        members = self.members.setdefault(attempt.batch or "", {})
        assert attempt.client_request_id not in members, f"a name that was used before: {attempt}"
        members[attempt.client_request_id] = self.attempts[-1]

    def _end(self, attempt: Attempt, state: str) -> None:
        recorded = self.members[attempt.batch or ""][attempt.client_request_id]
        assert attempt.batch is None or attempt.row == recorded.attempt.row
        assert recorded.open, f"a second end of {attempt}"
        recorded.open = False
        self.ends[attempt.batch, attempt.client_request_id] = state
        self.states[attempt.request.request_hash] = state

    def _change(self, batch: Batch) -> None:
        before = self.batches.get(batch.key)
        if before is None:
            assert (batch.state, batch.requests) == (BatchState.PREPARING, 0)
        else:
            assert before.state not in CLOSED, f"{batch.key} was closed"
            if before.state in _ORDER and batch.state in _ORDER:
                back = (before.state, batch.state) == (BatchState.CREATING, BatchState.PREPARED)
                assert back or _ORDER.index(before.state) <= _ORDER.index(batch.state)
        if batch.state is BatchState.PREPARED:
            assert batch.requests == len(list(self.attempts_of(batch.key)))
        if batch.state is BatchState.RELEASED:
            assert not list(self.attempts_of(batch.key, open_only=True)), "given up with a member that is open"
        if batch.state is BatchState.COLLECTED:
            assert before is not None
            assert before.state in ENDED
        if batch.state in (BatchState.UPLOADED, BatchState.SUBMITTED, *ENDED):
            assert (batch.file_id is not None) == self.uploads
        if batch.state in (BatchState.SUBMITTED, *ENDED):
            assert batch.batch_id is not None
        self.batches[batch.key] = batch

    # --------------------------------------------------------------------------------------------------- as members

    def attempts_of(self, batch: str, *, open_only: bool = False) -> Iterator[Attempt]:
        known = list(self.members.get(batch, {}).values())
        for first in range(0, len(known), self.page):
            page = [self._read(one.attempt) for one in known[first : first + self.page] if one.open or not open_only]
            yield from page

    def find(self, batch: str, custom_ids: Sequence[str]) -> Mapping[str, Member]:
        known = self.members.get(batch, {})
        found = {name: known[name] for name in custom_ids if name in known}
        return {name: Member(self._read(one.attempt, b""), one.open) for name, one in found.items()}

    def _read(self, attempt: Attempt, body: bytes | None = None) -> Attempt:
        request = attempt.request
        kept = replace(
            request,
            body=request.body if body is None else body,
            output_tokens=0,
            max_output_tokens=None,
            attempts=self.tries[request.request_hash],
        )
        return replace(attempt, request=kept)

    # -------------------------------------------------------------------------------------------------- handing out

    def source(self, wanted: Iterable[Request]) -> Iterator[Request]:
        """What a run has to ask for, each looked up when it is asked for, as a state's pages are."""
        for request in wanted:
            if self.states.get(request.request_hash) not in ("in batch", "in flight", "answered", "unusable"):
                yield replace(request, attempts=self.tries[request.request_hash])

    def retries(self) -> Iterator[Request]:
        for digest, request in list(self.requests.items()):
            if self.states[digest] == "waiting":
                yield replace(request, attempts=self.tries[digest])

    def recover(self) -> None:
        """What the next process makes of what the last one left."""
        for batch in self.batches.values():
            if batch.state in (BatchState.PREPARING, BatchState.RELEASING):
                for one in self.members.get(batch.key, {}).values():
                    if one.open:
                        one.open = False
                        self.states[one.attempt.request.request_hash] = "interrupted"
                self.batches[batch.key] = replace(batch, state=BatchState.RELEASED)
        for digest, state in self.states.items():
            self.states[digest] = {"waiting": "interrupted", "in flight": "unclear"}.get(state, state)

    def open(self, *awaited: str) -> list[Batch]:
        """The open batches, oldest first; without names all of them are awaited, else those with these keys."""
        found = [batch for batch in self.batches.values() if batch.state not in CLOSED]
        return [replace(batch, awaited=not awaited or batch.key in awaited) for batch in found]

    def count(self) -> dict[str, int]:
        """Requests by what they have come to."""
        return dict(Counter(self.states.values()))


_STRAY = ("duplicated", "unknown", "unreadable")


# -------------------------------------------------------------------------------------------------------- one process


class World:
    """A driver with its service, its state and its clock. `run` plays everything that happens.

    `story` is the service's, with the events between its calls: what was durable when. Each wait of the driver passes in
    no time; `waits` has their seconds. `next` is another process later on, with the same provider and the same state.
    """

    def __init__(
        self,
        asked: Iterable[Request] = (),
        *,
        clock: Clock | None = None,
        service: FakeService | None = None,
        book: Book | None = None,
        price: float = 0.01,
        max_cost_usd: float | None = None,
        retry: RetryPolicy = AT_ONCE,
        random: float = 0.5,
        batches: Sequence[Batch] = (),
        learned: Mapping[str, int] | None = None,
        folder: Path | None = None,
        requeue: bool = True,
        proven: bool = True,
        **options: Any,
    ) -> None:
        self.clock = clock or Clock()
        self.service = service or FakeService(self.clock)
        self.book = book or Book()
        self.story = self.service.story
        self.stop = Stop()
        self.options = BatchOptions(**{"poll_seconds": POLL, "poll_max_seconds": 20 * POLL, **options})
        self.work = Work(
            self.book.source(asked),
            Limits(max_cost_usd=max_cost_usd),
            retry,
            RunControl(self.stop, Budget(max_cost_usd)),
            batches=batches,
            members=self.book,
            retries=self.book.retries,
            enqueued_tokens=learned or {},
            proven=lambda _: proven,
            folder=folder,
            project="test",
        )
        self.driver = BatchDriver(
            self.work,
            self.service,
            self.options,
            lambda request: price,
            requeue=requeue,
            wall=self.clock,
            random=lambda: random,
        )
        self.events: list[Event] = []
        self.waits: list[float] = []
        self.look: Callable[[Sequence[Event]], object] = lambda group: None
        """Called with each group of events when it is durable."""
        self.tick: Callable[[float], object] = self.pass_time
        """Called with the moment that is waited for; it must make it come."""
        self._gauges = self.work.control.gauges

    @classmethod
    def inline(cls, asked: Iterable[Request] = (), **values: Any) -> World:
        """With a provider that takes the requests with the creation."""
        clock = Clock()
        return cls(asked, clock=clock, service=FakeInlineService(clock), book=Book(uploads=False), **values)

    def next(self, asked: Iterable[Request] = (), *awaited: str, **values: Any) -> World:
        self.book.recover()
        shared = {"clock": self.clock, "service": self.service, "book": self.book, "learned": self.book.limits}
        return World(asked, **{**shared, "batches": self.book.open(*awaited), **values})

    def run(self, *, wait: bool = True) -> World:
        with closing(self.driver):
            self.play(self.driver.run(wait=wait))
            self.play([self.driver.left_waiting()])
        return self

    def play(self, groups: Iterable[Sequence[Event]]) -> None:
        for group in groups:
            self.book.record(group)
            self.events += group
            self.story += self._words(group)
            self.look(group)
            gauges, self._gauges = self._gauges, self.work.control.gauges
            moment = self._gauges.look_at
            if moment is not None and moment > self.clock.now and gauges is not self._gauges and not self.stop.level:
                self.waits.append(moment - self.clock.now)
                assert len(self.waits) < 1000, "it waits for ever"
                self.tick(moment)

    def pass_time(self, moment: float) -> None:
        self.clock.now = moment

    def _words(self, group: Sequence[Event]) -> list[str]:
        """A group as words of the story, the same ones in a row counted."""
        words: list[str] = []
        for event in group:
            match event:
                case Started(attempt):
                    word = f"members of {self.service.name(attempt.batch or '')}"
                case Succeeded():
                    word = "answers"
                case Unusable():
                    word = "unusable"
                case Failed():
                    word = "failed" if event.final else "given back"
                case BatchChanged(batch):
                    word = f"{self.service.name(batch.key)} {batch.state}"
                case BatchCollected() | UnmatchedLine() | Notice():
                    continue
                case LimitLearned():
                    word = f"limit {event.tokens}"
                case Stopped():
                    word = f"stopped: {event.kind}"
            if words and words[-1].partition(" × ")[0] == word:
                words[-1] = f"{word} × {int(words[-1].partition(' × ')[2] or 1) + 1}"
            else:
                words.append(word)
        return words

    def of(self, *kinds: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]

    @property
    def stopped(self) -> Stopped | None:
        found = self.of(Stopped)
        assert len(found) <= 1
        assert not found or self.events[-1] is found[0]
        return found[0] if found else None

    @property
    def kind(self) -> str | None:
        """Why it stopped, in one word."""
        return None if self.stopped is None else self.stopped.kind

    @property
    def notices(self) -> list[str]:
        return [event.message for event in self.of(Notice)]

    @property
    def sizes(self) -> list[int]:
        """Requests of each job there ever was, in the order of creation."""
        return [len(job.names) for job in self.service.jobs]

    @property
    def counts(self) -> list[dict[str, int]]:
        """What became of the members of each collected batch."""
        return [{kind: n for kind, n in event.counts.items() if n} for event in self.of(BatchCollected)]

    def failed(self, artist: str) -> list[Failed]:
        return [event for event in self.of(Failed) if event.attempt.request.artist_id == artist]

    def asked(self, artist: str) -> int:
        """How often an artist's request stands in a job."""
        return sum(name.startswith(f"{artist}.") for job in self.service.jobs for name in job.names)

    def notes(self, state: BatchState) -> list[str]:
        """What was said about batches that came into a state."""
        return [event.note for event in self.of(BatchChanged) if event.batch.state is state]


# ------------------------------------------------------------------------------------------------- a real backend


class RecordedBatches(Recorded):
    """As of any backend; the answers of batches are known by the names of their lines."""

    def check(self, ledger: Ledger) -> None:
        started = [event.attempt.client_request_id for event in self.of(Started)]
        ended = [event.attempt.client_request_id for event in self.of(Succeeded, Unusable, Failed)]
        assert len(set(started)) == len(started)
        assert sorted(started) == sorted(ended)
        paid = {event.attempt.client_request_id for event in self.of(Succeeded, Unusable)}
        maybe = {event.attempt.client_request_id for event in self.failed if event.paid is Paid.MAYBE}
        charged = {charge.custom_id or charge.client_request_id for charge in ledger.entries()}
        assert paid <= charged
        assert charged <= paid | maybe


class BatchBench(Bench):
    """A backend whose work outlives a run, against a simulator that is done with a batch at once; with a state in memory
    beside it, which goes on from run to run."""

    def __init__(
        self, factory: Callable[[BackendContext], Backend], stack: ExitStack, choice: PurchaseDecision | None = None
    ) -> None:
        super().__init__(factory, stack)
        self.choice = choice
        self.book = Book()
        self.table: dict[str, Any] = {"poll_seconds": 0.002, "poll_max_seconds": 0.01}

    def __call__(self, **options: Any) -> BatchBench:
        super().__call__(**{"batch_seconds": 0, **options})
        return self

    def backend(self, base_url: str | None = None, timeout: float = 20.0, key: str | None = "key") -> Backend:
        tables: Mapping[str, Mapping[str, object]] = {"batch": self.table}
        batch = self.choice is None
        context = BackendContext(
            base_url or self.server.base_url,
            key,
            timeout=timeout,
            options=self.table if batch else {},
            siblings=tables,
        )
        return self.factory(context)

    def work(self, source: Iterator[Request], limits: Limits, retry: RetryPolicy = QUICK, **values: Any) -> Work:
        return Work(
            source,
            limits,
            retry,
            batches=self.book.open(),
            members=self.book,
            retries=self.book.retries,
            choice=self.choice,
            **values,
        )

    def run(
        self,
        source: Iterator[Request],
        concurrency: int = 8,
        retry: RetryPolicy = QUICK,
        timeout: float = 20.0,
        stop: Stop | None = None,
        base_url: str | None = None,
        key: str | None = "key",
        look: Callable[[Recorded, Work], object] = lambda recorded, work: None,
        wait: bool = True,
        **limits: Any,
    ) -> RecordedBatches:
        self.book.recover()
        work = self.work(
            source,
            Limits(concurrency, **limits),
            retry,
            control=RunControl(stop or Stop(), Budget(limits.get("max_cost_usd"))),
            wait=wait,
        )
        recorded = RecordedBatches()
        for group in self.backend(base_url, timeout, key).execute(work):
            self.book.record(group)
            if group:
                recorded.groups.append(group)
            look(recorded, work)
        return recorded

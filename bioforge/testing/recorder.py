"""Record the events of a backend, and check them against a state in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from bioforge.core.events import (
    Attempt,
    BatchChanged,
    BatchCollected,
    Event,
    Failed,
    Notice,
    Started,
    Stopped,
    Succeeded,
    Unusable,
)
from bioforge.core.interfaces import Member
from bioforge.core.types import CLOSED, ENDED, Batch, BatchState, Failure, Paid, Request, Response, Usage


class Recorded:
    """The events of a run in their groups, with queries."""

    def __init__(self) -> None:
        self.groups: list[Sequence[Event]] = []

    def of(self, *kinds: type[Any]) -> list[Any]:
        """Return all events of these kinds, in order."""
        return [event for group in self.groups for event in group if isinstance(event, kinds)]

    @property
    def succeeded(self) -> list[Succeeded]:
        return self.of(Succeeded)

    @property
    def failed(self) -> list[Failed]:
        return self.of(Failed)

    @property
    def lost(self) -> list[Failed]:
        """Return the final failures."""
        return [event for event in self.failed if event.final]

    @property
    def stopped(self) -> Stopped | None:
        """Return the event that stopped the run early: the last one, and at most one."""
        found = self.of(Stopped)
        assert len(found) <= 1, found
        if found:
            assert self.groups[-1][-1] is found[0], "events came after it had stopped"
        return found[0] if found else None

    def notices(self, kind: str) -> list[Notice]:
        return [event for event in self.of(Notice) if event.kind == kind]

    def check(self, charges: Iterable[str | None]) -> None:
        """Assert that every attempt has one start and one outcome, and that every charge is accounted for.

        `charges` are the ids a server has charged for: the `client_request_id` of attempts.
        """
        started = [event.attempt.client_request_id for event in self.of(Started)]
        ended = [event.attempt.client_request_id for event in self.of(Succeeded, Unusable, Failed)]
        assert len(set(started)) == len(started), "two attempts have the same id"
        assert sorted(started) == sorted(ended), "an attempt has no end, or more than one"
        paid = {event.attempt.client_request_id for event in self.of(Succeeded, Unusable)}
        maybe = {event.attempt.client_request_id for event in self.failed if event.paid is Paid.MAYBE}
        ids = list(charges)
        charged = set(ids)
        assert len(ids) == len(charged), "an attempt was charged for twice"
        assert paid <= charged, f"answers nobody has charged for: {paid - charged}"
        assert charged <= paid | maybe, f"charged, and said to cost nothing: {charged - paid - maybe}"


def check_answer(answer: Response) -> None:
    """Assert that each value of an answer has the type that is stored."""
    assert isinstance(answer, Response), f"expected an Answer, found {type(answer).__name__}"
    _check(answer, ("body",), bytes)
    _check(answer, ("text", "model", "response_id", "service_tier", "parsed", "validation"), str | None)
    _check(answer, ("cost_usd",), float | int | None)
    _check(answer, ("usage",), Usage | None)
    _check(answer, ("problem",), Failure | None)
    if answer.usage is not None:
        _check(answer.usage, tuple(one.name for one in fields(Usage)), int)
    if answer.problem is not None:
        _check(answer.problem, ("error_class", "message"), str)


def _check(value: object, names: Sequence[str], kind: Any) -> None:
    for name in names:
        found = getattr(value, name)
        word = (
            getattr(kind, "__name__", str(kind))
            if isinstance(kind, type)
            else str(kind).replace("bioforge.core.types.", "")
        )
        assert isinstance(found, kind), f"{type(value).__name__}.{name}: expected {word}, found {found!r:.60}"


def _identity(request: Request) -> tuple[object, ...]:
    """Return the parts of a request that must not change; the tier is not one of them."""
    one = request
    return one.request_hash, one.endpoint, one.model, one.body, one.artist_id, one.recipe, one.variant, one.target


@dataclass(slots=True)
class RecordedAttempt:
    """An attempt in the state; `open` until its outcome."""

    attempt: Attempt
    open: bool = True


@dataclass
class Book:
    """The requests and batches of a state, from run to run; asserts the rules for each event.

    A request is in batch, in flight, waiting, interrupted, answered, unusable, failed or unclear.
    """

    given: dict[str, Request] = field(default_factory=dict)
    """Requests that were pulled, by hash."""
    requests: dict[str, Request] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)
    members: dict[str, dict[str, RecordedAttempt]] = field(default_factory=dict)
    """Attempts by batch and name; single calls under the batch ""."""
    batches: dict[str, Batch] = field(default_factory=dict)
    _recorded: int = 0

    def record(self, events: Sequence[Event]) -> None:
        """Make a group of events durable."""
        for event in events:
            match event:
                case Started(attempt):
                    self._start(attempt)
                case Succeeded(attempt, answer):
                    check_answer(answer)
                    self._end(attempt, "answered")
                case Unusable(attempt, answer):
                    check_answer(answer)
                    self._end(attempt, "unusable")
                case Failed(attempt):
                    unclear = event.paid is Paid.MAYBE
                    self._end(attempt, ("unclear" if unclear else "failed") if event.final else "waiting")
                case BatchChanged(batch):
                    self._change(batch)
                case BatchCollected(batch):
                    left = list(self.attempts_of(batch.key, open_only=True))
                    assert not left, f"a batch was collected, and these members have no end: {left}"

    def _start(self, attempt: Attempt) -> None:
        digest = attempt.request.request_hash
        state = self.states.get(digest)
        given = self.given.get(digest)
        if given is not None:
            assert _identity(attempt.request) == _identity(given), (
                f"another request than the one it was given: {attempt}"
            )
        assert attempt.row == 0, f"the state gives an attempt its number, a backend leaves it 0: {attempt}"
        assert state not in ("in batch", "in flight", "answered", "unusable"), (
            f"asked again although {state}: {attempt}"
        )
        assert attempt.number == self.tries[digest] + 1, f"not the number of this attempt over all runs: {attempt}"
        if attempt.batch is not None:
            assert self.batches[attempt.batch].state is BatchState.PREPARING, "its members were complete"
        self.requests[digest] = attempt.request
        self.states[digest] = "in flight" if attempt.batch is None else "in batch"
        self.tries[digest] += 1
        self._recorded += 1
        members = self.members.setdefault(attempt.batch or "", {})
        assert attempt.client_request_id not in members, f"an id that was used before: {attempt}"
        members[attempt.client_request_id] = RecordedAttempt(replace(attempt, row=self._recorded))

    def _end(self, attempt: Attempt, state: str) -> None:
        recorded = self.members.get(attempt.batch or "", {}).get(attempt.client_request_id)
        assert recorded is not None, f"the end of what never began: {attempt}"
        assert recorded.open, f"a second end of {attempt}"
        digest = recorded.attempt.request.request_hash
        assert attempt.request.request_hash == digest, f"the end of another request than {digest} began: {attempt}"
        if attempt.batch is None:
            assert attempt.row == 0, f"the state gives an recorded its number, a backend leaves it 0: {attempt}"
        recorded.open = False
        self.states[attempt.request.request_hash] = state

    def _change(self, batch: Batch) -> None:
        before = self.batches.get(batch.key)
        if before is None:
            assert (batch.state, batch.requests) == (BatchState.PREPARING, 0), f"a batch begins with nothing: {batch}"
        else:
            assert before.state not in CLOSED, f"{batch.key} was closed"
        if batch.state is BatchState.PREPARED:
            assert batch.requests == len(list(self.attempts_of(batch.key))), "not every member was recorded"
        if batch.state in CLOSED:
            assert not list(self.attempts_of(batch.key, open_only=True)), f"{batch.key} was closed with an open member"
        if batch.state is BatchState.COLLECTED:
            assert before is not None
            assert before.state in ENDED, f"{batch.key} was collected before it had ended"
        self.batches[batch.key] = batch

    # --------------------------------------------------------------------------------- what `Work` asks it: `Members`

    def attempts_of(self, batch: str, *, open_only: bool = False) -> Iterator[Attempt]:
        for one in list(self.members.get(batch, {}).values()):
            if one.open or not open_only:
                yield self._read(one.attempt)

    def find(self, batch: str, custom_ids: Sequence[str]) -> Mapping[str, Member]:
        known = self.members.get(batch, {})
        found = {name: known[name] for name in custom_ids if name in known}
        return {name: Member(self._read(one.attempt), one.open) for name, one in found.items()}

    def _read(self, attempt: Attempt) -> Attempt:
        return replace(attempt, request=self._again(attempt.request.request_hash, attempt.request))

    def _again(self, digest: str, request: Request) -> Request:
        return replace(request, attempts=self.tries[digest])

    def retries(self) -> Iterator[Request]:
        """Yield the requests that failed in this run and may be retried."""
        for digest, request in list(self.requests.items()):
            if self.states[digest] == "waiting":
                yield self._again(digest, request)

    def open(self) -> list[Batch]:
        """Return the batches that earlier runs left open."""
        return [batch for batch in self.batches.values() if batch.state not in CLOSED]

    def settle(self) -> None:
        """Recover what the last process left, as the next one does."""
        for batch in list(self.batches.values()):
            if batch.state in (BatchState.PREPARING, BatchState.RELEASING):
                for one in self.members.get(batch.key, {}).values():
                    if one.open:
                        one.open = False
                        self.states[one.attempt.request.request_hash] = "interrupted"
                self.batches[batch.key] = replace(batch, state=BatchState.RELEASED)
        for digest, state in self.states.items():
            self.states[digest] = {"waiting": "interrupted", "in flight": "unclear"}.get(state, state)

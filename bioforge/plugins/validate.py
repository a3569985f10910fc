"""Validate what backends of plugins report before it is stored, so that their faults lose no answer.

Paid answers are kept, whatever else is wrong: values of a wrong type are converted, with a notice; an unannounced
answer is kept, then the run stops. Events that would pay twice, or give an artist another's answer, stop the run
first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from decimal import Decimal
from itertools import product
from numbers import Real
from operator import attrgetter
from typing import Any, TypeVar, get_args

from bioforge.core.errors import BioforgeError, BrokenBackendError
from bioforge.core.events import Attempt, BatchChanged, Event, Failed, Notice, Started, Stopped, Succeeded, Unusable
from bioforge.core.interfaces import Member, Outcome, RateLimits, Work
from bioforge.core.text import plural
from bioforge.core.types import Batch, Failure, Paid, Request, Response, Usage
from bioforge.core.usage import UsageLimits

Execute = Callable[[Work], Iterator[Sequence[Event]]]
Ended = TypeVar("Ended", Succeeded, Unusable, Failed)

_KINDS = get_args(Event)
_HINT = (
    "delivered answers are kept; fix or replace the plugin before `bioforge resume`, which resends what is"
    " unclear; BIOFORGE_DEBUG=1 shows where it went wrong"
)
_UNCLEAR = "attribution"


def guarded(execute: Execute, work: Work, backend: str, plugin: str) -> Iterator[Sequence[Event]]:
    """Yield the groups of a plugin's backend.

    Raises `BrokenBackendError` that names it, after the events it had reported.
    """
    who = f"backend {backend!r} of plugin {plugin!r}"
    check = _Check(work, who)
    groups: Iterator[Sequence[Event]] | None = None
    try:
        groups = iter(execute(check.work))
        for group in groups:
            events = check(group)
            yield from _in_order(events)
            if check.wrong:
                raise BrokenBackendError(f"{who} {check.wrong}", _HINT)
        if check.forgotten:
            raise BrokenBackendError(f"{who} {check.forgotten}", _HINT)
    except (BioforgeError, GeneratorExit):
        raise
    except (Exception, SystemExit) as error:
        raise BrokenBackendError(f"{who} failed: {type(error).__name__}: {error}", _HINT) from error
    finally:
        close = getattr(groups, "close", None)
        if close is not None:
            close()


def _in_order(events: Sequence[Event]) -> Iterator[list[Event]]:
    """Split events into groups in which no attempt both starts and ends, since a start is recorded first."""
    group: list[Event] = []
    begun: set[str] = set()
    for event in events:
        match event:
            case Started(attempt):
                begun.add(attempt.client_request_id)
            case Succeeded(attempt) | Unusable(attempt) | Failed(attempt) if attempt.client_request_id in begun:
                yield group
                group, begun = [], set()
        group.append(event)
    if group:
        yield group


class _Noted(Iterator[Request]):
    """Requests, each noted as owed when it is pulled."""

    def __init__(self, requests: Iterator[Request], owed: dict[str, Request]) -> None:
        self._requests = requests
        self._owed = owed

    def __next__(self) -> Request:
        request = next(self._requests)
        self._owed[request.request_hash] = request
        return request


class _Check:
    """Checks events against the requests and attempts of a run. `wrong` is the first fault that stops the run."""

    def __init__(self, work: Work, who: str) -> None:
        self.wrong = ""
        self._work = work
        self._who = who
        self._owed: dict[str, Request] = {}
        self._open: dict[str, Attempt] = {}
        self._batches = {batch.key for batch in work.batches}
        self._members: dict[tuple[str, str], Member] = {}
        self._spent = work.control.budget.spent
        self._told: set[str] = set()
        self._limited = UsageLimits()
        self._stopped = False
        self._notes: list[Event] = []
        retries = work.retries
        self.work = replace(
            work, requests=_Noted(work.requests, self._owed), retries=lambda: _Noted(retries(), self._owed)
        )

    def __call__(self, group: object) -> list[Event]:
        """Return the events that can be stored."""
        found: Iterable[Any]
        if isinstance(group, _KINDS):
            found = [group]
            self._refuse(f"yielded {type(group).__name__}, expected a list of events")
        elif isinstance(group, Iterable) and not isinstance(group, str | bytes | Mapping):
            found = group
        else:
            self._refuse(f"yielded {type(group).__name__}, expected a list of events")
            return []
        given, events = list(found), list[Event]()
        self._look_up(given)
        for event in given:
            try:
                events += self._event(event)
            except BioforgeError:
                raise
            except Exception as error:
                self._refuse(f"gave a {type(event).__name__} that cannot be read: {type(error).__name__}: {error}")
        notes, self._notes = self._notes, []
        return [*notes, *events]

    @property
    def forgotten(self) -> str:
        """Return the fault of attempts without an outcome at the end of the run, or an empty text."""
        number = len(self._open)
        if not number or self._stopped or self._work.control.stop.level:
            return ""
        return f"ended without saying what became of {plural(number, 'attempt')}: they may have been paid for"

    def _refuse(self, wrong: str) -> None:
        self.wrong = self.wrong or wrong

    def _event(self, event: Any) -> list[Event]:
        match event:
            case Started(attempt):
                return self._started(attempt)
            case Succeeded() | Unusable():
                return self._answered(event)
            case Failed():
                return self._failed(event)
            case BatchChanged(batch):
                if not isinstance(batch, Batch) or not isinstance(batch.key, str):
                    raise TypeError(f"expected a Batch, found {type(batch).__name__}")
                self._batches.add(batch.key)
                return [event]
        self._stopped = self._stopped or isinstance(event, Stopped)
        if isinstance(event, _KINDS):
            return [event]
        self._refuse(f"yielded {type(event).__name__}, which is no event")
        return []

    # ------------------------------------------------------------------------------------------------- beginnings

    def _started(self, attempt: Attempt) -> list[Event]:
        digest, name = attempt.request.request_hash, attempt.client_request_id
        if not isinstance(name, str) or not name:
            self._refuse(f"announced an attempt without a client_request_id: {name!r}")
            return []
        if name in self._open:
            self._refuse(f"announced attempt {name!r} twice")
            return []
        if digest not in self._owed:
            self._refuse(
                f"announced a request that it was not given, or that was answered or is under way: {digest:.16}…"
            )
            return []
        if attempt.batch is not None and attempt.batch not in self._batches:
            self._refuse(f"announced a member of batch {attempt.batch!r}, which it had not recorded")
            return []
        limit = self._work.control.budget.limit
        if limit is not None and self._spent > limit:
            self._refuse(f"goes on although the budget is used up (${self._spent:.4f} of ${limit:g})")
            return []
        attempt = replace(attempt, request=self._owed.pop(digest), row=0)
        if attempt.batch is None:
            self._open[name] = attempt
        return [Started(attempt)]

    # ------------------------------------------------------------------------------------------------------- ends

    def _answered(self, event: Succeeded | Unusable) -> list[Event]:
        answer = self._limited(self._answer(event.answer), event.attempt.request)
        self._notes += self._limited.notices()
        self._spent += answer.cost_usd or 0.0
        if event.attempt.batch is None:  # for backends that do not count in the budget
            budget = self._work.control.budget
            budget.spent = max(budget.spent, self._spent)
        problem, before = answer.problem, list[Event]()
        if isinstance(event, Unusable) and problem is None:
            problem = Failure("unusable", "the backend did not say why")
        attempt, announced = self._new_attempt(event.attempt)
        if attempt is None:
            # paid for: kept, whatever else is wrong with it
            attempt = replace(event.attempt, batch=None, row=0)
            before = [Started(attempt)]
            self._refuse(f"answered attempt {attempt.client_request_id!r}, which it had not announced")
        elif announced and attempt.request.request_hash != event.attempt.request.request_hash:
            problem = Failure(_UNCLEAR, "the backend gave it for another request than the one that it had announced")
            self._refuse(
                f"gave the answer of one request under attempt {attempt.client_request_id!r}, which is another's"
            )
        self._owed.pop(attempt.request.request_hash, None)
        end = (attempt, replace(answer, problem=problem), self._seconds(event.seconds), self._text(event.request_id))
        return [*before, Succeeded(*end) if problem is None else Unusable(*end)]

    def _failed(self, event: Failed) -> list[Event]:
        attempt, _ = self._new_attempt(event.attempt)
        if attempt is None:
            self._refuse(f"ended attempt {event.attempt.client_request_id!r}, which is not under way")
            return []
        try:
            paid = Paid(event.paid)
        except ValueError:
            self._note(f"said {event.paid!r} of what was paid, expected one of {', '.join(Paid)}")
            paid = Paid.MAYBE
        failure = self._failure(event.failure) or Failure("internal", "the backend did not say why")
        if not event.final:
            self._owed[attempt.request.request_hash] = attempt.request
        return [
            replace(
                event,
                attempt=attempt,
                failure=failure,
                paid=paid,
                seconds=self._seconds(event.seconds),
                final=bool(event.final),
                counted=bool(event.counted),
                request_id=self._text(event.request_id),
                body=event.body if isinstance(event.body, bytes) else None,
            )
        ]

    def _new_attempt(self, attempt: Attempt) -> tuple[Attempt | None, bool]:
        """Return the announced attempt that ends, with True for one of this run; None for an unknown one."""
        name = attempt.client_request_id
        if attempt.batch is None:
            return self._open.pop(name, None), True
        member = self._members.get((attempt.batch, name))
        return (member.attempt if member is not None and member.open else None), False

    def _look_up(self, events: Iterable[Any]) -> None:
        """Look up the members that these events name, per batch."""
        names: dict[str, list[str]] = {}
        for event in events:
            attempt = event.attempt if isinstance(event, Succeeded | Unusable | Failed) else None
            if (
                isinstance(attempt, Attempt)
                and isinstance(attempt.batch, str)
                and isinstance(attempt.client_request_id, str)
            ):
                names.setdefault(attempt.batch, []).append(attempt.client_request_id)
        self._members = {
            (batch, name): member
            for batch, several in names.items()
            for name, member in self._work.members.find(batch, several).items()
        }

    # ----------------------------------------------------------------------------------------------------- values

    def _answer(self, answer: Any) -> Response:
        if not isinstance(answer, Response):
            self._note(f"gave {type(answer).__name__} for an answer")
            body = answer if isinstance(answer, bytes) else str(answer).encode("utf-8", "replace")
            return Response(
                body, problem=Failure("malformed", f"the backend gave {type(answer).__name__} for an answer")
            )
        problem = self._failure(answer.problem)
        body = answer.body
        if not isinstance(body, bytes):
            self._note(f"gave an answer whose body is {type(body).__name__}, expected bytes")
            body = str(body).encode("utf-8", "replace")
        if answer.text is not None and not isinstance(answer.text, str):
            problem = problem or Failure("malformed", f"the backend gave {type(answer.text).__name__} for the text")
        return Response(
            body=body,
            text=self._text(answer.text, "text"),
            usage=self._usage(answer.usage),
            model=self._text(answer.model, "model"),
            response_id=self._text(answer.response_id, "response_id"),
            service_tier=self._text(answer.service_tier, "service_tier"),
            cost_usd=self._number(answer.cost_usd, "cost_usd"),
            problem=problem,
            parsed=self._parsed(answer.parsed),
            validation=self._text(answer.validation, "validation"),
        )

    def _failure(self, failure: Any) -> Failure | None:
        if failure is None:
            return None
        if not isinstance(failure, Failure):
            self._note(f"gave {type(failure).__name__} for a Failure")
            return Failure("internal", self._text(str(failure)) or type(failure).__name__)
        status = failure.http_status
        return Failure(
            self._text(failure.error_class, "error_class") or "internal",
            self._text(failure.message, "message") or "",
            self._text(failure.code, "code"),
            status if isinstance(status, int) else None,
        )

    def _usage(self, usage: Any) -> Usage | None:
        if usage is None:
            return None
        known = {field.name for field in fields(Usage)}
        given = usage if isinstance(usage, Mapping) else {name: getattr(usage, name, 0) for name in known}
        if not isinstance(usage, Usage):
            self._note(f"gave {type(usage).__name__} for a Usage")
        counts = {name: self._number(value, f"usage.{name}") for name, value in given.items() if name in known}
        return Usage(**{name: round(value) for name, value in counts.items() if value is not None})

    def _number(self, value: Any, name: str) -> float | None:
        """Return any finite number, also a Decimal; None for anything else."""
        if value is None or (type(value) in (int, float) and 0 <= value < math.inf):
            return value  # type: ignore[no-any-return]
        self._note(f"gave {value!r:.40} for {name}, expected a number from 0")
        try:
            number = float(value) if isinstance(value, Real) or hasattr(value, "__float__") else math.nan
        except (ValueError, OverflowError):
            return None
        return number if 0 <= number < math.inf else None

    def _seconds(self, value: Any) -> float:
        return self._number(value, "seconds") or 0.0

    def _parsed(self, value: Any) -> str | None:
        if value is None or isinstance(value, str):
            return self._text(value, "parsed")
        self._note(f"gave {type(value).__name__} for parsed, expected JSON text")
        return json.dumps(value, ensure_ascii=False, default=str)

    def _text(self, value: Any, name: str = "request_id") -> str | None:
        if value is None:
            return None
        if not isinstance(value, str):
            self._note(f"gave {type(value).__name__} for {name}, expected text")
        text = str(value)
        # half of a surrogate pair cannot be kept
        return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")

    def _note(self, slip: str) -> None:
        """Report a fault once; the run continues."""
        if slip not in self._told and len(self._told) < 100:
            self._told.add(slip)
            self._notes.append(Notice("plugin", f"{self._who} {slip}"))


_MOST = 1 << 62
"""Upper limit of numbers that can be stored. NaN and infinity are not below it."""


def internal_failure(error: BaseException) -> Outcome:
    """Return the outcome of an attempt whose sender raised, which it must not; it may have been charged."""
    return _unclear(f"{type(error).__name__}: {error}")


def sanitize(outcome: object) -> Outcome:
    """Return a sender's outcome if it is valid, else the valid parts of it."""
    try:
        return outcome if _is_sound(outcome) else _mended(outcome)  # type: ignore[return-value]
    except Exception as error:
        return internal_failure(error)


def _is_sound(outcome: object) -> bool:
    """Check a common outcome quickly: all types at once, then numbers and texts."""
    if type(outcome) is not Outcome:
        return False
    answer, failure = outcome.answer, outcome.failure
    if answer is not None:
        if failure is not None or type(answer) is not Response or not _is_sound_answer(answer):
            return False
    elif failure is None or not _is_sound_failure(failure):
        return False
    if tuple(map(type, _beside(outcome))) not in _BESIDE:
        return False
    seconds, after, limits = outcome.seconds, outcome.retry_after, outcome.rate_limits
    return (
        -_MOST < seconds < _MOST
        and (after is None or -_MOST < after < _MOST)
        and (limits is None or _are_limits(limits))
        and _can_be_kept(f"{outcome.request_id}{outcome.hint}")
    )


def _is_sound_answer(answer: Response) -> bool:
    if tuple(map(type, _parts(answer))) not in _ANSWERS:
        return False
    text, usage, cost, problem, parsed = answer.text, answer.usage, answer.cost_usd, answer.problem, answer.parsed
    return (
        (not text or _can_be_kept(text))
        and (not parsed or _can_be_kept(parsed))
        and (usage is None or _is_usage(usage))
        and (cost is None or 0 <= cost < _MOST)
        and (problem is None or _is_sound_failure(problem))
        and _can_be_kept(f"{answer.model}{answer.response_id}{answer.service_tier}{answer.validation}")
    )


_beside = attrgetter(
    "paid", "seconds", "retry_after", "rate_limits", "request_id", "hint", "body",
    "retryable", "stops_run", "overloaded", "outage",
)  # fmt: skip
_parts = attrgetter(
    "body", "text", "usage", "model", "response_id", "service_tier", "cost_usd", "problem", "parsed", "validation"
)
_counts = attrgetter("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
_pace = attrgetter(
    "limit_requests", "remaining_requests", "reset_requests", "limit_tokens", "remaining_tokens", "reset_tokens"
)
_NO = type(None)
_BESIDE = frozenset(
    product([Paid], [float, int], [float, int, _NO], [RateLimits, _NO], [str, _NO], [str], [bytes, _NO], *[[bool]] * 4)
)
_ANSWERS = frozenset(
    product([bytes], [str, _NO], [Usage, _NO], *[[str, _NO]] * 3, [float, int, _NO], [Failure, _NO], *[[str, _NO]] * 2)
)
"""Types of the parts of a valid outcome."""


def _is_sound_failure(failure: object) -> bool:
    return (
        type(failure) is Failure
        and type(failure.error_class) is str
        and _is_text(failure.error_class)
        and type(failure.message) is str
        and _is_text(failure.message)
        and _is_text(failure.code)
        and (failure.http_status is None or (type(failure.http_status) is int and 0 <= failure.http_status < _MOST))
    )


def _is_text(value: object) -> bool:
    """Return text that can be stored, or None."""
    return value is None or (type(value) is str and _can_be_kept(value))


def _can_be_kept(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _is_usage(usage: object) -> bool:
    if type(usage) is not Usage:
        return False
    values = _counts(usage)
    return set(map(type, values)) == _INT and min(values) >= 0 and max(values) < _MOST


def _are_limits(limits: object) -> bool:
    if type(limits) is not RateLimits:
        return False
    values = _pace(limits)
    return set(map(type, values)) <= _NUMBERS and all(value is None or -_MOST < value < _MOST for value in values)


_INT = {int}
_NUMBERS = {int, float, _NO}

# ------------------------------------------------------------------------------------------ what was not sound


def _mended(outcome: object) -> Outcome:
    if not isinstance(outcome, Outcome):
        return _unclear(f"the sender gave {_shown(outcome)}, expected an Outcome")
    if outcome.answer is not None:
        return _answered(outcome)
    if outcome.failure is None:
        return _unclear("the sender reported neither an answer nor a failure", outcome.body)
    if not _is_sound_failure(outcome.failure):
        return _unclear(f"the sender gave {_shown(outcome.failure)}, which is no Failure of texts", outcome.body)
    told = outcome.failure.message
    for name in ("paid", "seconds", "retry_after", "rate_limits", "request_id", "hint", "body"):
        alone = Outcome(failure=outcome.failure, **{name: getattr(outcome, name)})
        if not _is_sound(alone):
            return _unclear(f"{told} (the sender gave {name} {_shown(getattr(outcome, name))})", outcome.body)
    return _unclear(f"{told} (the sender gave a flag that is neither True nor False)", outcome.body)


def _answered(outcome: Outcome) -> Outcome:
    answer = outcome.answer
    body = getattr(answer, "body", None)
    if isinstance(body, str):
        body = body.encode("utf-8", "replace")
    if not isinstance(answer, Response) or not isinstance(body, bytes | bytearray | memoryview):
        return _unclear(f"the sender gave {_shown(answer)} as an answer, expected an Answer with its body as bytes")
    problem = answer.problem
    if problem is not None and not _is_sound_failure(problem):
        problem = Failure("internal", f"the sender gave the problem {_shown(problem)}, expected a Failure of texts")
    text = answer.text
    if isinstance(text, str):
        text = text.encode("utf-8", "replace").decode()
    elif text is not None:
        problem = problem or Failure("internal", f"the sender gave the text {_shown(text)}, expected a str")
        text = None
    made = Response(
        bytes(body),
        text,
        answer.usage if _is_usage(answer.usage) else None,
        _text(answer.model),
        _text(answer.response_id),
        _text(answer.service_tier),
        _amount(answer.cost_usd),
        problem,
        _text(answer.parsed),
        _text(answer.validation),
    )
    seconds = _number(outcome.seconds)
    limits = outcome.rate_limits
    return Outcome(
        answer=made,
        paid=Paid.YES,
        seconds=0.0 if seconds is None else seconds,
        rate_limits=limits if limits is not None and _are_limits(limits) else None,
        request_id=_text(outcome.request_id),
    )


def _unclear(message: str, body: object = None) -> Outcome:
    message = message.encode("utf-8", "replace").decode()
    made = Outcome(failure=Failure("internal", message), paid=Paid.MAYBE, retryable=False)
    return replace(made, body=bytes(body)) if isinstance(body, bytes | bytearray) else made


def _text(value: object) -> str | None:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def _number(value: object) -> float | None:
    """Any number that can be counted with, like a Decimal; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        return None
    found = float(value)
    return found if math.isfinite(found) else None


def _amount(value: object) -> float | None:
    found = _number(value)
    return found if found is not None and found >= 0 else None


def _shown(value: object) -> str:
    """Format a value briefly, also if its `repr` fails."""
    try:
        return f"{value!r:.60}"
    except Exception:
        return type(value).__name__

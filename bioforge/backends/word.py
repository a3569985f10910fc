"""What senders report, taken at their word only where it can be: a plugin's mistake costs its own attempt and no other's.

An answer was paid for: it is kept with what is sound of it. What is wrong beside it becomes unknown (a cost that is no
number, say), and an answer without a usable text is kept as unusable. A failure that is told wrongly may have been paid.
"""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal
from itertools import product
from numbers import Real
from operator import attrgetter

from bioforge.core.interfaces import Outcome, RateLimits
from bioforge.core.types import Answer, Failure, Paid, Usage

_MOST = 1 << 62
"""Beyond that no number can be kept. What is not a number, or infinite, is not below it either."""


def broken(error: BaseException) -> Outcome:
    """The outcome of an attempt whose sender raised, which it must not: nobody knows what became of it."""
    return _unclear(f"{type(error).__name__}: {error}")


def kept(outcome: object) -> Outcome:
    """The outcome as a sender gave it, if it is one; else what can be said of it."""
    try:
        return outcome if _is_sound(outcome) else _mended(outcome)  # type: ignore[return-value]
    except Exception as error:
        return broken(error)


def _is_sound(outcome: object) -> bool:
    """The quick look at each of many thousand a second: all types at once, then what numbers and texts say."""
    if type(outcome) is not Outcome:
        return False
    answer, failure = outcome.answer, outcome.failure
    if answer is not None:
        if failure is not None or type(answer) is not Answer or not _is_sound_answer(answer):
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


def _is_sound_answer(answer: Answer) -> bool:
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
"""The types that the parts of a sound outcome can have."""


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
    """Text that can be kept, or None."""
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
    if not isinstance(answer, Answer) or not isinstance(body, bytes | bytearray | memoryview):
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
    made = Answer(
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
    """Short, whatever its author has made of `repr`."""
    try:
        return f"{value!r:.60}"
    except Exception:
        return type(value).__name__

"""What a refusal means: status, headers and body of an HTTP error, or the error of a request in a batch. Pure.

https://platform.claude.com/docs/en/api/errors

what                                                     next
no credit left, a spend limit, an unpaid bill            stops the run: no request can succeed
a key that is wrong, or may not                          stops the run
too many requests or tokens, 529 overloaded              tried again, more slowly
5xx                                                      tried again, an outage
408, 409                                                 tried again
anything else: 400, 404, 413, 422                        final for this request
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from bioforge.plugin import Failure, Outcome, Paid, RateLimits
from bioforge_anthropic.wire import readable

SPENT_CODES = frozenset(
    {
        "contract_spend_limit_reached",
        "enforced_spend_limit_reached",
        "linked_organization_billing_unavailable",
        "linked_organization_spend_limit_reached",
    }
)
"""In `error.details.error_code`: no wait helps, somebody has to pay or raise a limit."""

SPENT_WORDS = ("credit balance is too low", "reached your specified api usage limits")
"""In the message of a 400 that says nothing else of it."""

ON_HOLD = "organization_on_hold"

LONGEST_WAIT = 86_400.0
"""Seconds. Whoever asks for more than a day has a broken clock."""

UNCLEAR = frozenset({499, 504, 520, 524})
"""Statuses by which somebody in between says that no answer came: the request may have been worked on."""

_HINTS = {
    "quota": "add credit or raise the spend limit in the console, then run again: nothing is lost",
    "authentication": "set a valid key in the variable that api_key_env names",
    "permission": "this key may not do that: check its workspace and its permissions in the console",
}

_BY_TYPE = {
    "billing_error": "quota",
    "authentication_error": "authentication",
    "permission_error": "permission",
    "not_found_error": "not_found",
    "request_too_large": "too_large",
    "rate_limit_error": "rate_limit",
    "timeout_error": "timeout",
    "api_error": "server_error",
    "overloaded_error": "overloaded",
    "conflict_error": "conflict",
    "invalid_request_error": "bad_request",
}

_BY_STATUS = {
    401: "authentication",
    402: "quota",
    403: "permission",
    404: "not_found",
    408: "timeout",
    409: "conflict",
    413: "too_large",
    422: "unprocessable",
    429: "rate_limit",
    499: "timeout",
    504: "timeout",
    529: "overloaded",
}

_TRANSIENT = frozenset({"rate_limit", "timeout", "server_error", "overloaded", "conflict"})


def read_failure(
    status: int, headers: Mapping[str, str], content: bytes, wall: Callable[[], float] = time.time
) -> Outcome:
    """The outcome of a call that was answered with an HTTP error; `headers` by lower-case name. Its body is kept."""
    error, request_id = _error(content)
    failure = failure_of(error, status, _plain(content))
    kind = failure.error_class
    stops, outage = kind in _HINTS, status >= 500
    retryable = not stops and (outage or kind in _TRANSIENT)
    asked = headers.get("x-should-retry", "").strip().lower()
    if asked in ("true", "false") and not stops:
        retryable = asked == "true"
    return Outcome(
        failure=failure,
        paid=Paid.MAYBE if status in UNCLEAR else Paid.NO,
        retryable=retryable,
        stops_run=stops,
        overloaded=retryable and kind in ("rate_limit", "overloaded"),
        outage=outage,
        retry_after=read_retry_after(headers, wall) if retryable else None,
        rate_limits=read_rate_limits(headers, wall),
        request_id=request_id_of(headers) or request_id,
        body=content,
        hint=_HINTS.get(kind, ""),
    )


def failure_of(error: Mapping[str, Any], status: int | None = None, otherwise: str = "") -> Failure:
    """What the `error` object of the API says."""
    kind, code = _word(error.get("type")), _word(_dict(error.get("details")).get("error_code"))
    message = _word(error.get("message")) or otherwise or (f"HTTP {status}" if status else "refused without words")
    return Failure(_class(kind, code, message, status), message, code or kind, status)


def is_retryable(failure: Failure) -> bool:
    """Whether the same request may succeed later."""
    return failure.error_class in _TRANSIENT


def stops_run(failure: Failure) -> bool:
    """Whether no request can succeed now."""
    return failure.error_class in _HINTS


def _class(kind: str | None, code: str | None, message: str, status: int | None) -> str:
    words = message.lower()
    if code in SPENT_CODES or (status in (None, 400, 402, 403, 429) and any(said in words for said in SPENT_WORDS)):
        return "quota"
    if code == ON_HOLD:
        return "permission"
    if status is not None and 300 <= status < 400:
        return "redirect"
    if status is not None and status in _BY_STATUS:
        return _BY_STATUS[status]
    if status is not None and status >= 500:
        return "server_error"
    return _BY_TYPE.get(kind or "", "bad_request")


# ------------------------------------------------------------------------------------------------------------ headers


def read_rate_limits(headers: Mapping[str, str], wall: Callable[[], float] = time.time) -> RateLimits | None:
    """What the `anthropic-ratelimit-*` headers tell; None where there are none.

    Of the tokens it is what the API calls the tightest limit at the moment: input and output together, else the input.
    """
    now = _date(headers.get("date")) or wall()
    tokens = "tokens" if "anthropic-ratelimit-tokens-remaining" in headers else "input-tokens"
    found = RateLimits(
        limit_requests=_limit(headers, "requests-limit"),
        remaining_requests=_limit(headers, "requests-remaining"),
        reset_requests=_until(headers, "requests-reset", now),
        limit_tokens=_limit(headers, f"{tokens}-limit"),
        remaining_tokens=_limit(headers, f"{tokens}-remaining"),
        reset_tokens=_until(headers, f"{tokens}-reset", now),
    )
    return None if found == _NOTHING else found


_NOTHING = RateLimits()


def read_retry_after(headers: Mapping[str, str], wall: Callable[[], float] = time.time) -> float | None:
    """Seconds the API asks to wait: `retry-after` in seconds, or as an HTTP date."""
    value = headers.get("retry-after")
    seconds = _seconds(value)
    if seconds is None and (moment := _date(value)) is not None:
        seconds = max(0.0, moment - wall())
    return None if seconds is None else min(seconds, LONGEST_WAIT)


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """The API's id of an answer, fit to be stored."""
    found = headers.get("request-id")
    return readable(found) if found else None


def read_moment(text: object) -> float | None:
    """Seconds since 1970 of `2026-08-20T18:37:24.100435Z`; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.timestamp() if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _limit(headers: Mapping[str, str], name: str) -> int | None:
    seconds = _seconds(headers.get(f"anthropic-ratelimit-{name}"))
    return None if seconds is None else int(seconds)


def _until(headers: Mapping[str, str], name: str, now: float) -> float | None:
    moment = read_moment(headers.get(f"anthropic-ratelimit-{name}"))
    return None if moment is None else min(max(0.0, moment - now), LONGEST_WAIT)


def _date(text: str | None) -> float | None:
    """Seconds since 1970 of an HTTP date."""
    try:
        return parsedate_to_datetime(text or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _seconds(text: str | None) -> float | None:
    """A number of 0 or more, or None."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if value >= 0.0 and math.isfinite(value) else None


# --------------------------------------------------------------------------------------------------------------- body


def _error(content: bytes) -> tuple[dict[str, Any], str | None]:
    """The `error` object of a body, or what can be taken for one, and the id of the request where it is told."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return {}, None
    if not isinstance(body, dict):
        return {}, None
    error = body.get("error", {})
    return (error if isinstance(error, dict) else {"message": error}), _word(body.get("request_id"))


def _plain(content: bytes) -> str:
    """The beginning of a body that is not in the API's form: often a proxy's page."""
    return " ".join(content[:200].decode("utf-8", "replace").split())


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _word(value: object) -> str | None:
    """A text that is not empty, or None."""
    return readable(value) if isinstance(value, str) and value else None

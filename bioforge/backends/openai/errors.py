"""Map status, headers and body of an HTTP error to an `Outcome`. Pure; reads any bytes."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from bioforge.core.interfaces import Outcome, RateLimits
from bioforge.core.types import Failure, Paid

QUOTA_CODES = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "billing_hard_limit_reached",
        "billing_not_active",
    }
)
"""Values of `error.code` or `error.type` for which waiting does not help: credit or a limit is used up."""

LONGEST_WAIT = 86_400.0
"""Seconds. A longer wait comes from a wrong clock."""

EPOCH = 1e9
"""Seconds above which a number is a moment since 1970, not a wait."""

_HINTS = {
    "quota": "add credit or raise the spend limit of the account or project, then run again: nothing is lost",
    "authentication": "set a valid key in the variable that api_key_env names (default: OPENAI_API_KEY)",
    "permission": "this key may not use the model or the endpoint: check the project's permissions",
}

_CLASSES = {
    400: "bad_request",
    401: "authentication",
    403: "permission",
    404: "not_found",
    408: "timeout",
    409: "conflict",
    413: "too_large",
    422: "unprocessable",
    429: "rate_limit",
    503: "overloaded",
}

_RETRIED = frozenset({408, 409, 429})

_DURATION = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(ms|h|m|s)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def read_failure(status: int, headers: Mapping[str, str], content: bytes) -> Outcome:
    """Return the outcome of an attempt that got an HTTP error; `headers` by lower-case name.

    An error is not charged. Its body is kept.
    """
    error = _error(content)
    code, kind = _word(error.get("code")), _word(error.get("type"))
    message = _word(error.get("message")) or _plain(content) or f"HTTP {status}"
    error_class = _class(status, code, kind, message)
    if error_class == "redirect" and (target := headers.get("location")):
        message = f"redirected to {readable(target)}"
    stops = error_class in _HINTS
    outage = status >= 500
    retryable = not stops and (outage or status in _RETRIED)
    asked = headers.get("x-should-retry", "").strip().lower()
    if asked in ("true", "false") and not stops:
        retryable = asked == "true"
    return Outcome(
        failure=Failure(error_class, message, code or kind, status),
        paid=Paid.NO,
        retryable=retryable,
        stops_run=stops,
        # A request that is never to be sent again, such as one larger than the limit, says nothing about traffic.
        overloaded=retryable and (status == 503 or error_class in ("rate_limit", "slow_down", "overloaded")),
        outage=outage,
        retry_after=read_retry_after(headers) if retryable else None,
        rate_limits=read_rate_limits(headers),
        request_id=request_id_of(headers),
        body=content,
        hint=_HINTS.get(error_class, ""),
    )


def read_rate_limits(headers: Mapping[str, str]) -> RateLimits | None:
    """Return the values of the `x-ratelimit-*` headers; None without any."""
    get = headers.get
    found = RateLimits(
        limit_requests=_number(get("x-ratelimit-limit-requests")),
        remaining_requests=_number(get("x-ratelimit-remaining-requests")),
        reset_requests=parse_duration(get("x-ratelimit-reset-requests")),
        limit_tokens=_number(get("x-ratelimit-limit-tokens")),
        remaining_tokens=_number(get("x-ratelimit-remaining-tokens")),
        reset_tokens=parse_duration(get("x-ratelimit-reset-tokens")),
    )
    return None if found == _NOTHING else found


_NOTHING = RateLimits()


def parse_duration(text: str | None, wall: Callable[[], float] = time.time) -> float | None:
    """Return the seconds of `6m0s`, `41ms`, `1m2.5s`, a bare number or seconds since 1970; None for anything else."""
    if not text:
        return None
    text = text.strip()
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return _from_now(_seconds(text), wall)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def read_retry_after(headers: Mapping[str, str], wall: Callable[[], float] = time.time) -> float | None:
    """Return the seconds to wait: `retry-after-ms`, else `Retry-After` in seconds or as an HTTP date."""
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return min(milliseconds / 1000.0, LONGEST_WAIT)
    value = headers.get("retry-after")
    seconds = _from_now(_seconds(value), wall)
    if seconds is None and value:
        try:
            seconds = max(0.0, parsedate_to_datetime(value).timestamp() - wall())
        except (ValueError, TypeError, OverflowError):
            return None
    return None if seconds is None else min(seconds, LONGEST_WAIT)


def _from_now(seconds: float | None, wall: Callable[[], float]) -> float | None:
    """Return a number of seconds; one above 1e9 is a moment since 1970, above 1e12 in milliseconds."""
    if seconds is None or seconds <= EPOCH:
        return seconds
    return max(0.0, (seconds if seconds <= EPOCH * 1000 else seconds / 1000) - wall())


def _class(status: int, code: str | None, kind: str | None, message: str) -> str:
    if status < 500 and (code in QUOTA_CODES or kind in QUOTA_CODES):
        return "quota"
    if status == 429:
        if "slow_down" in (code, kind):
            return "slow_down"
        if code == "resource_unavailable" or "resource unavailable" in message.lower():
            return "overloaded"
    if 300 <= status < 400:
        return "redirect"
    return _CLASSES.get(status) or ("server_error" if status >= 500 else "bad_request")


def _error(content: bytes) -> dict[str, Any]:
    """Return the `error` object of a body, or what serves as one; empty if there is none."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(body, dict):
        return {}
    error = body.get("error", body)
    if isinstance(error, dict):
        return error
    return {"message": error} if isinstance(error, str) else {}


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """Return the provider's request id in a form that can be stored."""
    found = headers.get("x-request-id")
    return None if found is None else readable(found)


def readable(text: str) -> str:
    """Replace lone surrogates, which JSON can carry and no file or database can."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def _plain(content: bytes) -> str:
    """Return the start of a body that is not in the API's form, often a proxy's page."""
    return " ".join(content[:200].decode("utf-8", "replace").split())


def _word(value: object) -> str | None:
    """Return a text or number as text, else None."""
    if isinstance(value, str):
        return readable(value) or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _number(text: str | None) -> int | None:
    seconds = _seconds(text)
    return None if seconds is None else int(seconds)


def _seconds(text: str | None) -> float | None:
    """Return a number from 0, or None."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value >= 0.0 and math.isfinite(value) else None

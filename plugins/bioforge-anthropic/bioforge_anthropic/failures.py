"""Outcomes of refusals: bioforge's table of outcomes, with the headers and codes of this API. Pure.

https://platform.claude.com/docs/en/api/errors
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from email.utils import parsedate_to_datetime

from bioforge.plugin import Outcome, RateLimits
from bioforge.plugin import read_failure as read_http_error
from bioforge_anthropic.wire import readable

LONGEST_WAIT = 86_400.0
"""Seconds. A longer wait comes from a wrong clock."""


def read_failure(
    status: int, headers: Mapping[str, str], content: bytes, wall: Callable[[], float] = time.time
) -> Outcome:
    """Return the outcome of a call that got an HTTP error; `headers` by lower-case name. Its body is kept."""
    return with_headers(read_http_error(status, headers, content), headers, wall)


def with_headers(outcome: Outcome, headers: Mapping[str, str], wall: Callable[[], float] = time.time) -> Outcome:
    """Return an outcome with the rate limits, the wait and the id that this API's headers name."""
    return replace(
        outcome,
        retry_after=read_retry_after(headers, wall) if outcome.retryable else None,
        rate_limits=read_rate_limits(headers, wall),
        request_id=request_id_of(headers) or _request_id_in(outcome.body or b""),
    )


def _request_id_in(content: bytes) -> str | None:
    """Return the id that the body of an error repeats."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    found = body.get("request_id") if isinstance(body, dict) else None
    return readable(found) if isinstance(found, str) and found else None


# ------------------------------------------------------------------------------------------------------------ headers


def read_rate_limits(headers: Mapping[str, str], wall: Callable[[], float] = time.time) -> RateLimits | None:
    """Read the `anthropic-ratelimit-*` headers; None without them.

    For tokens use the API's tightest limit: input and output together, else input.
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
    """Return the seconds of `retry-after`, given as a number or an HTTP date."""
    value = headers.get("retry-after")
    seconds = _seconds(value)
    if seconds is None and (moment := _date(value)) is not None:
        seconds = max(0.0, moment - wall())
    return None if seconds is None else min(seconds, LONGEST_WAIT)


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """Return the API's id of an answer, cleaned for storage."""
    found = headers.get("request-id")
    return readable(found) if found else None


def read_moment(text: object) -> float | None:
    """Parse a time like `2026-08-20T18:37:24.100435Z` to seconds since 1970; None for other texts."""
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
    """Parse an HTTP date to seconds since 1970."""
    try:
        return parsedate_to_datetime(text or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _seconds(text: str | None) -> float | None:
    """Parse a number of 0 or more, or return None."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if value >= 0.0 and math.isfinite(value) else None

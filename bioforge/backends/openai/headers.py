"""Read the rate limits, waits and ids in a response's headers. Pure."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

from bioforge.backends.openai.error_body import readable
from bioforge.core.interfaces import RateLimits

LONGEST_WAIT = 86_400.0
"""Seconds. A longer wait comes from a wrong clock."""

EPOCH = 1e9
"""Seconds above which a number is a moment since 1970, not a wait."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(ms|h|m|s)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


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


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """Return the provider's request id in a form that can be stored."""
    found = headers.get("x-request-id")
    return None if found is None else readable(found)


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

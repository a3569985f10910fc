"""Faults of requests: names, probabilities and scripts. Pure and reproducible.

A draw depends only on the seed, the request body and the number of the attempt at this body; not on the order of
arrival, the number of connections or the clock. Each attempt at a body has its own draw, and a repeated run with the
same seed has the same faults.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from hashlib import blake2b
from struct import unpack
from typing import Any

from bioforge.simulator.errors import ApiError, overloaded

REFUSED = ("bad_request", "rate_limit", "rate_limit_bare", "slow_down", "server_error", "unavailable")
"""Answered with an error, not charged. `bad_request` depends on the body only: it hits every attempt at it."""

CUT_OFF = ("drop_before", "drop_after", "truncated", "malformed", "hang")
"""The answer is lost or damaged. All but `drop_before` are processed and charged."""

UNUSABLE = ("incomplete", "content_filter", "refusal", "misfit")
"""A well-formed, charged answer without the requested text. `misfit` is JSON that does not fit the request's schema; it
has no effect without a schema."""

FAULTS = (*REFUSED, *CUT_OFF, *UNUSABLE)
"""All faults, in the order of a draw."""

NONE = "ok"
"""The script's entry for an attempt without a fault."""

Script = Mapping[str, Sequence[str]] | Callable[[Mapping[str, Any], int], str | None]
"""Scripted faults: a text in the body to the faults of its attempts, or a function of the parsed body and the number of
the attempt (from 1). After the end of a list, and for None, the probabilities decide."""

_TWO_TO_53 = 2.0**53


def check_faults(faults: Mapping[str, float]) -> None:
    """Raise ValueError for an unknown name, a probability outside 0..1, or a sum over 1."""
    for name, probability in faults.items():
        check_name(name)
        if isinstance(probability, bool) or not isinstance(probability, (int, float)):
            raise ValueError(f"fault {name!r}: probability must be a number from 0 to 1, not {probability!r}")
        if not 0 <= probability <= 1:
            raise ValueError(f"fault {name!r}: probability must be from 0 to 1, not {probability!r}")
    total = math.fsum(faults.values())
    if total > 1 + 1e-9:
        raise ValueError(f"fault probabilities add up to {total:g}, which is more than 1")


def check_name(name: str, *, also: Sequence[str] = ()) -> None:
    """Raise ValueError for a name that is neither a fault nor in `also`."""
    known = (*FAULTS, *also)
    if name not in known:
        near = get_close_matches(str(name), known, n=1, cutoff=0.5)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown fault {name!r}{hint} (faults: {', '.join(known)})")


def check_script(script: Script) -> None:
    """Raise ValueError for an invalid script."""
    if callable(script):
        return
    for text, names in script.items():
        if isinstance(names, str):
            raise ValueError(f"script for {text!r}: a list of faults is needed, not the text {names!r}")
        for name in names:
            check_name(name, also=(NONE,))


def draw(seed: int, faults: Mapping[str, float], digest: bytes, occurrence: int) -> str | None:
    """Return the fault of this attempt at a body, or None.

    `bad_request` depends on the body only and is drawn first; the other faults keep their probabilities.
    """
    always = faults.get("bad_request", 0.0)
    if always and uniform(seed, digest, 0)[0] < always:
        return "bad_request"
    point = uniform(seed, digest, occurrence)[0] * (1.0 - always)
    edge = 0.0
    for name in FAULTS:
        if name != "bad_request" and (probability := faults.get(name)):
            edge += probability
            if point < edge:
                return name
    return None


def scripted(script: Script, body: Mapping[str, Any], text: str, occurrence: int) -> str | None:
    """Return the script's entry for this attempt: a fault, `ok`, or None.

    `text` is the canonical JSON of `body`. The first match with an entry for this attempt decides.
    """
    if callable(script):
        name = script(body, occurrence)
        if name is not None:
            check_name(name, also=(NONE,))
        return name
    for needle, names in script.items():
        if needle in text and occurrence <= len(names):
            return names[occurrence - 1]
    return None


def delay(seed: int, median: float, sigma: float, digest: bytes, occurrence: int) -> float:
    """Return the latency in seconds: log-normal around its median, reproducible like the faults."""
    if sigma == 0 or median == 0:
        return median
    _, first, second = uniform(seed, digest, occurrence)
    normal = math.sqrt(-2.0 * math.log(1.0 - first)) * math.cos(2.0 * math.pi * second)
    return median * math.exp(sigma * normal)


def uniform(seed: int, digest: bytes, occurrence: int) -> tuple[float, float, float]:
    """Return three independent numbers, each at least 0 and below 1."""
    key = f"{seed}:{occurrence}".encode()
    first, second, third = unpack("<3Q", blake2b(digest + key, digest_size=24).digest())
    # 53 bits, as many as a float holds: all 64 could round up to 1.0
    return (first >> 11) / _TWO_TO_53, (second >> 11) / _TWO_TO_53, (third >> 11) / _TWO_TO_53


def refusal(fault: str, retry_after: float) -> ApiError | None:
    """Return the error of a fault that refuses the request; None for other faults."""
    match fault:
        case "bad_request":
            message = "This request is refused for what it says. (simulated fault: bad_request)"
            return ApiError(400, message, code="invalid_prompt")
        case "rate_limit":
            message = f"Rate limit reached. Please try again in {retry_after:g}s. (simulated fault: rate_limit)"
            return ApiError(
                429, message, type="requests", code="rate_limit_exceeded", headers=retry_headers(retry_after)
            )
        case "rate_limit_bare":
            message = "Rate limit reached. (simulated fault: rate_limit_bare)"
            return ApiError(429, message, type="requests", code="rate_limit_exceeded")
        case "slow_down":
            message = "Your traffic grew too fast: slow down. (simulated fault: slow_down)"
            return ApiError(429, message, type="requests", code="slow_down")
        case "server_error":
            message = "The server had an error while processing your request. (simulated fault: server_error)"
            return ApiError(500, message, type="server_error", code="server_error")
        case "unavailable":
            return overloaded()
        case _:
            return None


def retry_headers(seconds: float) -> dict[str, str]:
    """Return `retry-after` in whole seconds, rounded up, and `retry-after-ms` if rounding changed it."""
    whole = math.ceil(seconds)
    headers = {"retry-after": str(whole)}
    if whole != seconds:
        headers["retry-after-ms"] = str(math.ceil(seconds * 1000))
    return headers


def malformed(digest: bytes) -> tuple[str, bytes]:
    """Return content type and body of a complete 200 that is not an answer; one of four, chosen by the request."""
    return _MALFORMED[digest[4] % len(_MALFORMED)]


_MALFORMED = (
    ("text/html", b"<html><body><h1>200 OK</h1><p>simulated fault: malformed</p></body></html>"),
    ("application/json", b'{"output": null}'),
    ("application/json", b"[]"),
    ("application/json", b'"text"'),
)

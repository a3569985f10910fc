"""Read and write batch files and batch objects. Pure; never raises for what the API returned."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bioforge.backends.batch.service import BatchResult
from bioforge.backends.openai.error_body import error_in, readable
from bioforge.backends.openai.errors import BATCH_REFUSED, CODES, read_error_object, read_failure, without_answer
from bioforge.backends.openai.wire import Price, read_answer, read_usage, sent
from bioforge.core.events import Attempt
from bioforge.core.types import ENDED, Batch, BatchProblem, BatchState, Failure, Paid, Usage
from bioforge.core.usage import is_plausible

TIER = "batch"
"""The price tier of batches."""

HASH_DIGITS = 40
"""Hexadecimal digits of a request's hash in a `custom_id` of at most 64 characters."""

_STATES = {
    "validating": BatchState.SUBMITTED,
    "in_progress": BatchState.IN_PROGRESS,
    "finalizing": BatchState.IN_PROGRESS,
    "cancelling": BatchState.IN_PROGRESS,
    "completed": BatchState.COMPLETED,
    "failed": BatchState.FAILED,
    "expired": BatchState.EXPIRED,
    "cancelled": BatchState.CANCELLED,
}

_ENDINGS = ("completed_at", "failed_at", "expired_at", "cancelled_at")

_CUSTOM_ID = re.compile(rf"t\d+-\d+-([0-9a-f]{{{HASH_DIGITS}}})")

_BODY = re.compile(rb'"body"\s*:\s*(?=\{)')
_LONGEST_END = 64
"""Bytes after a body in which the end of its line is searched; other lines are parsed as a whole."""
_AFTER_BODY = re.compile(rb'\}\s*(?:,\s*"error"\s*:\s*null\s*)?\}\s*$')

_GROUPS = r"\d{1,3}(?:[,._'\u00a0\u202f ]\d{3})+|\d+"
_LIMIT = re.compile(
    rf"\blimit(?:\s+(?:of|is))?\s*[:=]?\s*(?P<first>{_GROUPS})(?![.,_]?\d)(?!\w)"
    rf"|(?<![\d.,_])(?P<second>{_GROUPS})\s+enqueued\b",
    re.IGNORECASE,
)
_ENQUEUED = re.compile(r"enqueued[\s_-]+token|token_limit_exceeded", re.IGNORECASE)


# --------------------------------------------------------------------------------------------------- the file we send


def line(attempt: Attempt) -> bytes:
    """Return the line for a request, with its line feed. The body is sent unchanged."""
    custom_id = json.dumps(attempt.client_request_id).encode()
    url = json.dumps(attempt.request.endpoint).encode()
    return b'{"custom_id":%b,"method":"POST","url":%b,"body":%b}\n' % (custom_id, url, sent(attempt.request))


def custom_id(target: int, number: int, request_hash: str) -> str:
    """Return the name of a line: target, attempt, and the start of the request's hash.

    At most 64 characters of `[A-Za-z0-9_-]`, if target and number together have at most 21 digits.
    """
    return f"t{target}-{number}-{request_hash.partition(':')[2][:HASH_DIGITS]}"


def hash_of(custom_id: str) -> str | None:
    """Return the start of the request's hash (`v1:` and 40 digits) in the name of a line."""
    found = _CUSTOM_ID.fullmatch(custom_id)
    return None if found is None else f"v1:{found[1]}"


# ----------------------------------------------------------------------------------------------- the files we get back


def read_line(batch: Batch, line: bytes, price: Price | None = None) -> BatchResult:
    """Return the result in a line of an output or error file. The caller skips blank lines."""

    def at_batch_price(model: str, usage: Usage, tier: str | None) -> float | None:
        # What the answer calls its tier is that of the machine it ran on, not that of the bill.
        return None if price is None else price(model, usage, TIER)

    found = _without_body(line)
    if found is not None:
        entry, content = found
        answer = read_answer(batch.endpoint, content, batch.model, at_batch_price)
        if without_answer(answer, {}) is None:
            response = entry["response"]
            return BatchResult(
                answer, custom_id=entry["custom_id"], paid=Paid.YES, request_id=_text(response.get("request_id"))
            )
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        return _unreadable(line, f"the line is not JSON: {error}")
    if not isinstance(entry, dict):
        return _unreadable(line, f"the line is JSON without an object: {type(entry).__name__}")
    name = _text(entry.get("custom_id"))
    if name is None:
        return _unreadable(line, "the line has no custom_id")
    response = entry.get("response")
    if isinstance(response, dict):
        return _answered(batch, name, response, at_batch_price)
    return _not_answered(name, entry.get("error"), line)


def _without_body(line: bytes) -> tuple[dict[str, Any], bytes] | None:
    """Return the line with null in place of the body, and the body as received; None unless the line is plainly a 200.

    An answer is parsed once and kept byte for byte. The rest of the line proves that the body was cut out
    completely: it is JSON with exactly that null in its place.
    """
    start, end = _BODY.search(line), _AFTER_BODY.search(line, max(0, len(line) - _LONGEST_END))
    if start is None or end is None or end.start() <= start.end():
        return None
    try:
        entry = json.loads((line[: start.end()] + b"null" + line[end.start() :]).decode())
        response = entry["response"]
        plain = response["body"] is None and response["status_code"] == 200
        name = _text(entry["custom_id"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    if not plain or name is None:
        return None
    entry["custom_id"] = name
    return entry, line[start.end() : end.start()]


def _answered(batch: Batch, name: str, response: Mapping[str, Any], price: Price) -> BatchResult:
    content = _bytes(response.get("body"))
    status = _status(response.get("status_code"))
    request_id = _text(response.get("request_id"))
    if not 200 <= status < 300:
        return BatchResult.of(read_failure(status, {}, content), name, request_id)
    answer = read_answer(batch.endpoint, content, batch.model, price)
    if (failed := without_answer(answer, {})) is not None:
        return BatchResult.of(failed, name, request_id)
    return BatchResult(answer, custom_id=name, paid=Paid.YES, request_id=request_id)


def _status(value: object) -> int:
    """Return the HTTP status, from the body if there is no number."""
    if isinstance(value, str) and len(value) == 3 and value.isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else 200


def _not_answered(name: str, error: object, line: bytes) -> BatchResult:
    if not isinstance(error, dict | str):
        failure = Failure("batch_error", "the line has neither an answer nor an error")
        return BatchResult(custom_id=name, failure=failure, paid=Paid.MAYBE, retryable=True, body=line)
    found, content = error_in(error), _bytes({"error": error})
    message = found.message or found.code or "the batch could not ask for this row"
    rule = CODES.get(found.code or "")
    if rule is None and (known := read_error_object(error, {}, content)) is not None:
        return BatchResult.of(known, name)
    failure = Failure("batch_error" if rule is None else rule.error_class, message, found.code)
    return BatchResult(custom_id=name, failure=failure, retryable=rule is not BATCH_REFUSED, body=content)


def _unreadable(line: bytes, message: str) -> BatchResult:
    return BatchResult(custom_id=None, failure=Failure("unreadable", message), paid=Paid.MAYBE, body=line)


def _bytes(body: object) -> bytes:
    """Return a body as bytes; some servers put it into the line as a string of JSON."""
    if body is None:
        return b""
    try:
        if isinstance(body, str):
            return readable(body).encode()
        try:
            return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which only escapes can carry
            return json.dumps(body, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return b""


# ------------------------------------------------------------------------------------------------- the object of the API


def key_of(body: Mapping[str, Any]) -> str:
    """Return our key in a job's metadata; empty if it has none."""
    return _text(_object(body.get("metadata")).get("bioforge")) or ""


def read_batch(batch: Batch, body: Mapping[str, Any]) -> Batch:
    """Return the batch updated from the API's object; fields that it lacks stay as they are."""
    status = _text(body.get("status"))
    state = batch.state if status is None else _STATES.get(status, BatchState.IN_PROGRESS)
    counts = _object(body.get("request_counts"))
    submitted, expires = _time(body.get("created_at")), _time(body.get("expires_at"))
    requests = batch.requests or _count(counts.get("total")) or 0
    usage = read_usage(body)
    return replace(
        batch,
        endpoint=batch.endpoint or _text(body.get("endpoint")) or "",
        model=batch.model or _text(body.get("model")) or "",
        state=state,
        status=status or batch.status,
        batch_id=_text(body.get("id")) or batch.batch_id,
        file_id=_text(body.get("input_file_id")) or batch.file_id,
        output_file_id=_text(body.get("output_file_id")) or batch.output_file_id,
        error_file_id=_text(body.get("error_file_id")) or batch.error_file_id,
        requests=requests,
        completed=_or(_count(counts.get("completed")), batch.completed),
        failed=_or(_count(counts.get("failed")), batch.failed),
        submitted_at=batch.submitted_at if submitted is None else submitted,
        expires_at=batch.expires_at if expires is None else expires,
        ended_at=_ended_at(body, status, state) or batch.ended_at,
        usage=usage if usage is not None and is_plausible(usage, max(1, requests)) else batch.usage,
        problems=_problems(body) or batch.problems,
    )


def _ended_at(body: Mapping[str, Any], status: str | None, state: BatchState) -> float | None:
    if state not in ENDED:
        return None
    times = (_time(body.get(name)) for name in (f"{status}_at", *_ENDINGS))
    return next((time for time in times if time is not None), None)


def _problems(body: Mapping[str, Any]) -> tuple[BatchProblem, ...]:
    errors = body.get("errors")
    entries = errors if isinstance(errors, list) else _object(errors).get("data")
    return tuple(
        BatchProblem(
            _text(entry.get("code")) or "unknown",
            _text(entry.get("message")) or "refused without words",
            _count(entry.get("line")),
            final=entry.get("code") in BATCH_REFUSED.codes,
        )
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict)
    )


def enqueued_limit(text: str) -> int | None:
    """Return the tokens in `Limit: 1,350,000 enqueued tokens`; 0 for such a refusal without a number, else None."""
    if _ENQUEUED.search(text) is None:
        return None
    found = _LIMIT.search(text)
    digits = "" if found is None else re.sub(r"\D", "", found["first"] or found["second"])
    # More digits than any limit has are no number of tokens.
    return int(digits) if 0 < len(digits) <= 15 else 0


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    """Return a text that is not empty, or None."""
    return readable(value) if isinstance(value, str) and value else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def _time(value: object) -> float | None:
    """Return seconds since 1970; None for 0 and for anything but a number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if seconds > 0 and math.isfinite(seconds) else None


def _or(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value

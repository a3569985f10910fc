"""Build the requests of a Message Batch; read its results and the batch object.

Without I/O: bytes in, values out. Invalid responses raise no exception.

https://platform.claude.com/docs/en/build-with-claude/batch-processing
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bioforge.plugin import (
    Attempt,
    Batch,
    BatchResult,
    BatchState,
    Failure,
    Paid,
    Undecided,
    read_error_object,
    read_failure,
    without_answer,
)
from bioforge_anthropic.failures import read_moment
from bioforge_anthropic.prices import BATCH
from bioforge_anthropic.wire import read_answer, readable, sent

MARK = 16
"""Characters of a batch's key at the start of each `custom_id`: the random ones at the key's end."""

HASH_DIGITS = 20
"""Hexadecimal digits of a request's hash in a `custom_id`, which may have 64 characters."""

PIECE = 1 << 16
"""Bytes that are sent at once."""

AFTER = 3_600.0
"""Seconds after a batch was to expire in which it may still be ending."""

LATE = 600.0
"""Seconds after a batch's end in which its results may still appear."""

_MARKED = re.compile(r"[A-Za-z0-9_]{1,16}(?=-t)")
_MESSAGE = re.compile(rb'"message"\s*:\s*(?=\{)')
_AFTER_MESSAGE = re.compile(rb"\}\s*\}\s*\}\s*$")

_NOT_BEGUN = {
    "canceled": ("cancelled", "the batch was cancelled before this request was answered"),
    "expired": ("expired", "the batch expired before this request was answered"),
}


# ---------------------------------------------------------------------------------------------------------- requests


def mark_of(key: str) -> str:
    """Return the prefix of all `custom_id`s of a batch."""
    return re.sub(r"[^A-Za-z0-9_]", "", key)[-MARK:]


def custom_id(key: str, target: int, number: int, request_hash: str) -> str:
    """Return the `custom_id` of a request: batch, target, attempt and the start of the request's hash.

    At most 64 characters of `[a-zA-Z0-9_-]`, as long as target and number together have no more than 23 digits.
    """
    return f"{mark_of(key)}-t{target}-{number}-{request_hash.partition(':')[2][:HASH_DIGITS]}"


def mark_in(name: str) -> str:
    """Return the prefix in a `custom_id`; empty for another form of name."""
    found = _MARKED.match(name)
    return found[0] if found else ""


def line(attempt: Attempt) -> bytes:
    """Return an element of `requests` with a line feed; its params are the request's body."""
    name = json.dumps(attempt.client_request_id).encode()
    return b'{"custom_id":%b,"params":%b}\n' % (name, sent(attempt.request))


_BEGIN, _END = b'{"requests":[', b"]}"


def creation(lines: Iterable[bytes]) -> Generator[bytes]:
    """Yield the body of a creation in pieces; each line of the file is an element."""
    piece, begin = bytearray(_BEGIN), b""
    for line in lines:
        piece += begin + line.removesuffix(b"\n")
        begin = b","
        if len(piece) >= PIECE:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece) + _END


def length_of_creation(size: int) -> int:
    """Return the length of the body for a file's length: commas replace line feeds, except the last one."""
    return size - 1 + len(_BEGIN) + len(_END)


# ----------------------------------------------------------------------------------------------------------- results


def name_in(line: bytes) -> str | None:
    """Return the `custom_id` of a line of results, or None."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return _text(entry.get("custom_id")) if isinstance(entry, dict) else None


def read_line(batch: Batch, line: bytes) -> BatchResult:
    """Read a line of results. The caller skips blank lines."""
    found = _without_message(line)
    if found is not None:
        name, content = found
        answer = read_answer(content, batch.model, BATCH)
        if without_answer(answer, {}) is None:
            return BatchResult(answer, custom_id=name, paid=Paid.YES)
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        return _unreadable(line, f"the line is not JSON: {error}")
    known = _text(entry.get("custom_id")) if isinstance(entry, dict) else None
    if known is None:
        return _unreadable(line, "the line has no custom_id")
    result = _object(entry.get("result"))
    kind = _text(result.get("type"))
    if kind == "succeeded":
        return _succeeded(batch, known, result.get("message"))
    if kind == "errored":
        return _errored(known, _object(result.get("error")))
    if kind in _NOT_BEGUN:
        return BatchResult(custom_id=known, failure=Failure(*_NOT_BEGUN[kind], kind), retryable=True)
    failure = Failure("batch_error", f"the line has a result of an unknown type: {kind}", kind)
    return BatchResult(custom_id=known, failure=failure, paid=Paid.MAYBE, retryable=True, body=line)


def _without_message(line: bytes) -> tuple[str, bytes] | None:
    """Return the `custom_id` and the message as received; None for a line that is not an answer.

    An answer is parsed once and kept byte for byte. The rest of the line must be JSON with null in place of the message,
    which proves that the whole message was cut out.
    """
    start, end = _MESSAGE.search(line), _AFTER_MESSAGE.search(line)
    if start is None or end is None or end.start() < start.end():
        return None
    try:
        entry = json.loads(line[: start.end()] + b"null" + line[end.start() + 1 :])
        result = entry["result"]
        plain = result["message"] is None and result["type"] == "succeeded"
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    name = _text(entry.get("custom_id"))
    return (name, line[start.end() : end.start() + 1]) if plain and name else None


def _succeeded(batch: Batch, name: str, message: object) -> BatchResult:
    content = _bytes(message)
    answer = read_answer(content, batch.model, BATCH)
    if (failed := without_answer(answer, {})) is not None:
        return BatchResult.of(failed, name)
    return BatchResult(answer, custom_id=name, paid=Paid.YES)


def _errored(name: str, response: Mapping[str, Any]) -> BatchResult:
    """Return the result of a request that was refused, which is not charged. The response is that of a call."""
    content = _bytes(dict(response))
    outcome = read_error_object(response, {}, content) or read_failure(400, {}, content)
    assert outcome.failure is not None
    outcome = replace(outcome, paid=Paid.NO, failure=replace(outcome.failure, http_status=None))
    return BatchResult.of(outcome, name, _text(response.get("request_id")))


def _unreadable(line: bytes, message: str) -> BatchResult:
    return BatchResult(custom_id=None, failure=Failure("unreadable", message), paid=Paid.MAYBE, body=line)


def _bytes(body: object) -> bytes:
    try:
        try:
            return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        except UnicodeEncodeError:  # a lone surrogate needs an escape
            return json.dumps(body, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return b""


# ------------------------------------------------------------------------------------------------- the object of the API


def requests_in(job: Mapping[str, Any]) -> int:
    """Return the number of requests of a batch; 0 if unknown."""
    return sum(_counts(job).values())


def read_batch(batch: Batch, job: Mapping[str, Any]) -> Batch:
    """Return the batch updated from the API's object; missing fields keep their values."""
    status = _text(job.get("processing_status"))
    counts = _counts(job)
    batch_id = _text(job.get("id")) or batch.batch_id
    submitted, expires, ended = (read_moment(job.get(f"{name}_at")) for name in ("created", "expires", "ended"))
    has_results = _text(job.get("results_url")) is not None
    return replace(
        batch,
        state=_state(batch, status, counts, job),
        status=status or batch.status,
        batch_id=batch_id,
        # results have no separate id
        output_file_id=batch_id if has_results else batch.output_file_id,
        requests=batch.requests or sum(counts.values()),
        completed=counts["succeeded"],
        failed=counts["errored"] + counts["canceled"] + counts["expired"],
        submitted_at=batch.submitted_at if submitted is None else submitted,
        expires_at=batch.expires_at if expires is None else expires,
        ended_at=batch.ended_at if ended is None else ended,
    )


def undecided(jobs: Sequence[Mapping[str, Any]]) -> Undecided:
    """Describe candidate batches whose `custom_id`s cannot be read yet."""
    ids = ", ".join(str(job.get("id")) for job in jobs)
    has, it, tells, they = (
        ("has", "its", "tells", "it has") if len(jobs) == 1 else ("have", "their", "tell", "they have")
    )
    ends = [_until(job) for job in jobs]
    return Undecided(
        f"{ids} {has} as many requests, and {tells} {it} requests' names only when {they} ended",
        max((end for end in ends if end is not None), default=None),
    )


def _until(job: Mapping[str, Any]) -> float | None:
    """Return the latest time at which a batch's `custom_id`s become readable (seconds since 1970); None for never."""
    if job.get("processing_status") != "ended":
        expires = read_moment(job.get("expires_at"))
        return None if expires is None else expires + AFTER
    ended = read_moment(job.get("ended_at"))
    return None if ended is None or job.get("archived_at") is not None else ended + LATE


def _state(batch: Batch, status: str | None, counts: Mapping[str, int], job: Mapping[str, Any]) -> BatchState:
    """Return the state of a batch. The API reports only that it has ended; its results tell success or failure."""
    if status is None:
        return batch.state
    if status != "ended":
        return BatchState.IN_PROGRESS
    if counts["canceled"] and job.get("cancel_initiated_at") is not None:
        return BatchState.CANCELLED
    return BatchState.EXPIRED if counts["expired"] else BatchState.COMPLETED


def _counts(job: Mapping[str, Any]) -> dict[str, int]:
    told = _object(job.get("request_counts"))
    names = ("processing", "succeeded", "errored", "canceled", "expired")
    return {name: _count(told.get(name)) for name in names}


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    """Return a text that is not empty, or None."""
    return readable(value) if isinstance(value, str) and value else None


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else 0

"""Execution of one line of a batch. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from bioforge.simulator.answers import Bill, answer
from bioforge.simulator.batch_faults import BatchFaults, hits
from bioforge.simulator.errors import ApiError
from bioforge.simulator.options import SimulatorOptions
from bioforge.simulator.request_bodies import canonical, digest_of

Fate = Literal["output", "error", "missing", "unfinished"]
"""Answered 200, answered with an error, not answered, or not executed when the batch ended."""

UNFINISHED = {
    "batch_expired": "This request could not be executed before the completion window expired.",
    "batch_cancelled": "This request was cancelled, as its batch was.",
}

_TIMEOUT = "This request timed out. (simulated fault: drop_before)"


@dataclass(frozen=True, slots=True)
class LineResult:
    """The result of a line."""

    fate: Fate
    line: str = ""
    """JSON; empty without an answer."""
    copies: int = 1
    """The number of times it is in its file."""
    bill: Bill | None = None
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class LineSettings:
    """Settings that all lines of a batch share."""

    endpoint: str
    options: SimulatorOptions
    faults: BatchFaults

    @classmethod
    def of(cls, endpoint: str, options: SimulatorOptions, faults: BatchFaults) -> LineSettings:
        return cls(endpoint, replace(options, several_parts=True) if "several_items" in faults else options, faults)


@dataclass(frozen=True, slots=True)
class LineAttempt:
    """A line to execute: body, ids, and the number of the attempt at its body."""

    custom_id: str
    body: dict[str, Any]
    line_id: str
    request_id: str
    text: str
    """Canonical JSON of the body, and its SHA-256."""
    digest: bytes
    occurrence: int


def execute(setting: LineSettings, task: LineAttempt, created: int, refused: ApiError | None = None) -> LineResult:
    """Answer a line, or return `refused` for it. `created` is Unix time in seconds."""
    faults, seed = setting.faults, setting.options.seed
    if hits("lines_missing", faults, seed, task.digest, task.occurrence):
        return LineResult("missing", copies=0)
    refused = refused or _refusal(faults, seed, task)
    copies = 2 if hits("lines_duplicated", faults, seed, task.digest, task.occurrence) else 1
    if refused is not None:
        return LineResult("error", _line(setting, task, _response(task, refused.status, refused.body()), None), copies)
    try:
        reply = answer(
            setting.endpoint,
            task.body,
            setting.options,
            task.occurrence,
            created=created,
            text=task.text,
            digest=task.digest,
        )
    except Exception as error:
        # a script given as a function may raise anything: show it to the test
        failure = ApiError(500, f"The simulator failed: {error!r}", type="server_error")
        return LineResult("error", _line(setting, task, _response(task, failure.status, failure.body()), None), copies)
    if reply.fault == "drop_before":
        timeout = {"code": "request_timeout", "message": _TIMEOUT}
        return LineResult("error", _line(setting, task, None, timeout), copies)
    if reply.bill is None:
        return LineResult("error", _line(setting, task, _response(task, reply.status, reply.body), None), copies)
    if hits("lines_lost", faults, seed, task.digest, task.occurrence):
        copies = 0
    body: object = _encode(reply.body) if "string_bodies" in faults else reply.body
    line = _line(setting, task, _response(task, reply.status, body), None)
    return LineResult("output", line, copies, reply.bill, _reasoning(reply.body))


def unfinished(setting: LineSettings, custom_id: str, line_id: str, code: str) -> LineResult:
    """Return the error line of a request that was not executed: `batch_expired` or `batch_cancelled`."""
    error = {"code": code, "message": UNFINISHED[code]}
    return LineResult("unfinished", _shape(setting.faults, line_id, custom_id, None, error))


def unknown(setting: LineSettings, custom_id: str, line_id: str, model: str | None, created: int) -> str:
    """Return a line for a custom_id that is not in the input."""
    words = {"input": "Unknown"} if setting.endpoint.endswith("responses") else {"messages": [_UNKNOWN]}
    body = {"model": model or "gpt-6-luna", **words}
    options = replace(setting.options, faults={}, script={})
    reply = answer(setting.endpoint, body, options, created=created)
    response = {"status_code": 200, "request_id": f"req_{line_id[-16:]}", "body": reply.body}
    return _shape(setting.faults, line_id, custom_id, response, None)


def task_of(line: bytes) -> tuple[str, dict[str, Any]]:
    """Return `custom_id` and body of a valid line."""
    task = json.loads(line)
    return task["custom_id"], task["body"]


def prepare(custom_id: str, body: dict[str, Any], line_id: str, request_id: str, seen: dict[bytes, int]) -> LineAttempt:
    """Return the attempt for a line; `seen` counts the attempts at each body."""
    text = canonical(body)
    digest = digest_of(text)
    seen[digest] = occurrence = seen.get(digest, 0) + 1
    return LineAttempt(custom_id, body, line_id, request_id, text, digest, occurrence)


def _refusal(faults: BatchFaults, seed: int, task: LineAttempt) -> ApiError | None:
    if "errors_only" in faults:
        return ApiError(400, "This request is refused. (simulated fault: errors_only)", code="invalid_prompt")
    if hits("row_errors", faults, seed, task.digest, task.occurrence):
        message = "The server had an error while processing your request. (simulated fault: row_errors)"
        return ApiError(500, message, type="server_error", code="server_error")
    return None


def _response(task: LineAttempt, status: int, body: object) -> dict[str, Any]:
    return {"status_code": status, "request_id": task.request_id, "body": body}


def _line(setting: LineSettings, task: LineAttempt, response: object, error: object) -> str:
    return _shape(setting.faults, task.line_id, task.custom_id, response, error)


def _shape(faults: BatchFaults, line_id: str, custom_id: str, response: object, error: object) -> str:
    if "keys_missing" in faults:
        return _encode({"custom_id": custom_id, "response": response})
    return _encode({"id": line_id, "custom_id": custom_id, "response": response, "error": error})


def _reasoning(body: Mapping[str, Any]) -> int:
    usage = body["usage"]
    details = usage.get("output_tokens_details") or usage.get("completion_tokens_details")
    return int(details["reasoning_tokens"])


_UNKNOWN = {"role": "user", "content": "Unknown"}
_encode = json.JSONEncoder(separators=(",", ":")).encode

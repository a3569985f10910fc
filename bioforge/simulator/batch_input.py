"""Validation of the input file of a batch, and its token count."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bioforge.simulator.errors import ApiError
from bioforge.simulator.request_bodies import parse
from bioforge.simulator.text import input_tokens

MAX_LINES = 50_000
MAX_CUSTOM_ID = 64
MAX_ERRORS = 100
"""The largest number of listed errors; reading ends there."""

Busy = Callable[[], bool]
"""Returns True when a step has taken long enough and other requests should run."""


@dataclass(slots=True)
class LineCheck:
    """The result of checking a file."""

    total: int = 0
    model: str | None = None
    bodies: int = 0
    """Number of lines with a body; the first determines the model."""
    tokens: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    """`{code, line, message, param}`; the line number from 1, None for the whole file."""

    def add(self, code: str, line: int | None, message: str, param: str | None = None) -> None:
        self.errors.append({"code": code, "line": line, "message": message, "param": param})


def read_lines(path: Path, offset: int = 0) -> Iterator[tuple[bytes, int]]:
    """Yield the lines from an offset on, each with the offset after it."""
    with path.open("rb", buffering=1 << 18) as file:
        file.seek(offset)
        for line in file:
            offset += len(line)
            yield line, offset


def check_lines(
    path: Path, endpoint: str, check: LineCheck, busy: Busy, *, broken_line: int | None = None
) -> Iterator[None]:
    """Check all lines and fill in `check`; yield whenever `busy`.

    `broken_line` is treated as invalid JSON; beyond the end it is the last line.
    """
    seen: set[str] = set()
    number = 0
    for line, _ in read_lines(path):
        number += 1
        if number > MAX_LINES:
            check.errors.clear()
            message = f"The batch input file has more than {MAX_LINES} lines. Split it into several batches."
            check.add("too_many_tasks", None, message)
            break
        _check_line(check, number, line, endpoint, seen)
        if number == broken_line:
            _not_json(check, number)
        if len(check.errors) >= MAX_ERRORS:
            break
        if busy():
            yield
    check.total = number
    if number == 0:
        check.add("empty_file", None, "The batch input file is empty. It must have at least one line.")
    elif broken_line is not None and broken_line > number:
        _not_json(check, number)


def _check_line(check: LineCheck, number: int, line: bytes, endpoint: str, seen: set[str]) -> None:
    try:
        task = parse(line)
    except ApiError:
        return _not_json(check, number)
    _check_id(check, number, task.get("custom_id"), seen)
    if task.get("method") != "POST":
        found = json.dumps(task.get("method"))
        check.add("invalid_method", number, f"The method of a request must be 'POST', not {found}.", "method")
    if task.get("url") != endpoint:
        found = json.dumps(task.get("url"))
        message = f"The URL of the request, {found}, does not match the batch endpoint '{endpoint}'."
        check.add("url_mismatch", number, message, "url")
    body = task.get("body")
    if not isinstance(body, dict):
        check.add("missing_required_parameter", number, "Missing required parameter: 'body'.", "body")
        return None
    if body.get("stream"):
        message = "Batches do not stream: 'stream' must be false or absent."
        check.add("unsupported_parameter", number, message, "body.stream")
    model = body.get("model")
    check.bodies += 1
    if check.bodies == 1:
        check.model = model if isinstance(model, str) else None
    elif model != check.model:
        message = f"All requests of a batch must use one model: {json.dumps(model)} is not {json.dumps(check.model)}."
        check.add("model_mismatch", number, message, "body.model")
    check.tokens += input_tokens(body)
    return None


def _check_id(check: LineCheck, number: int, name: object, seen: set[str]) -> None:
    if not isinstance(name, str) or not name:
        check.add("missing_required_parameter", number, "Missing required parameter: 'custom_id'.", "custom_id")
    elif len(name) > MAX_CUSTOM_ID:
        message = f"The custom_id has {len(name)} characters, at most {MAX_CUSTOM_ID} are allowed."
        check.add("string_above_max_length", number, message, "custom_id")
    elif name in seen:
        message = f"The custom_id '{name}' is already used by another request of this batch."
        check.add("duplicate_custom_id", number, message, "custom_id")
    else:
        seen.add(name)


def _not_json(check: LineCheck, number: int) -> None:
    check.add("invalid_json_line", number, "This line is not parseable as valid JSON.")

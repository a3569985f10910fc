"""The input file of a batch, line by line: what the API would refuse it for, and how many tokens it asks."""

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
"""Errors that are listed; reading ends at the last of them."""

Busy = Callable[[], bool]
"""Whether it is time to let somebody else go on."""


@dataclass(slots=True)
class LineCheck:
    """What was found in a file."""

    total: int = 0
    model: str | None = None
    asked: int = 0
    """Lines with a body; the first of them says which model it is."""
    tokens: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    """`{code, line, message, param}`; the line from 1, or None for the file."""

    def add(self, code: str, line: int | None, message: str, param: str | None = None) -> None:
        self.errors.append({"code": code, "line": line, "message": message, "param": param})


def read_lines(path: Path, offset: int = 0) -> Iterator[tuple[bytes, int]]:
    """The lines from a place on, each with the place after it."""
    with path.open("rb", buffering=1 << 18) as file:
        file.seek(offset)
        for line in file:
            offset += len(line)
            yield line, offset


def judge(
    path: Path, endpoint: str, verdict: LineCheck, busy: Busy, *, broken_line: int | None = None
) -> Iterator[None]:
    """Fills in the verdict, which is complete at the end; yields whenever `busy`.

    `broken_line` is taken for invalid JSON whatever it says; beyond the end it is the last one.
    """
    seen: set[str] = set()
    number = 0
    for line, _ in read_lines(path):
        number += 1
        if number > MAX_LINES:
            verdict.errors.clear()
            message = f"The batch input file has more than {MAX_LINES} lines. Split it into several batches."
            verdict.add("too_many_tasks", None, message)
            break
        _judge_line(verdict, number, line, endpoint, seen)
        if number == broken_line:
            _not_json(verdict, number)
        if len(verdict.errors) >= MAX_ERRORS:
            break
        if busy():
            yield
    verdict.total = number
    if number == 0:
        verdict.add("empty_file", None, "The batch input file is empty. It must have at least one line.")
    elif broken_line is not None and broken_line > number:
        _not_json(verdict, number)


def _judge_line(verdict: LineCheck, number: int, line: bytes, endpoint: str, seen: set[str]) -> None:
    try:
        task = parse(line)
    except ApiError:
        return _not_json(verdict, number)
    _judge_id(verdict, number, task.get("custom_id"), seen)
    if task.get("method") != "POST":
        found = json.dumps(task.get("method"))
        verdict.add("invalid_method", number, f"The method of a request must be 'POST', not {found}.", "method")
    if task.get("url") != endpoint:
        found = json.dumps(task.get("url"))
        message = f"The URL of the request, {found}, does not match the batch endpoint '{endpoint}'."
        verdict.add("url_mismatch", number, message, "url")
    body = task.get("body")
    if not isinstance(body, dict):
        verdict.add("missing_required_parameter", number, "Missing required parameter: 'body'.", "body")
        return None
    if body.get("stream"):
        message = "Batches do not stream: 'stream' must be false or absent."
        verdict.add("unsupported_parameter", number, message, "body.stream")
    model = body.get("model")
    verdict.asked += 1
    if verdict.asked == 1:
        verdict.model = model if isinstance(model, str) else None
    elif model != verdict.model:
        message = f"All requests of a batch must use one model: {json.dumps(model)} is not {json.dumps(verdict.model)}."
        verdict.add("model_mismatch", number, message, "body.model")
    verdict.tokens += input_tokens(body)
    return None


def _judge_id(verdict: LineCheck, number: int, name: object, seen: set[str]) -> None:
    if not isinstance(name, str) or not name:
        verdict.add("missing_required_parameter", number, "Missing required parameter: 'custom_id'.", "custom_id")
    elif len(name) > MAX_CUSTOM_ID:
        message = f"The custom_id has {len(name)} characters, at most {MAX_CUSTOM_ID} are allowed."
        verdict.add("string_above_max_length", number, message, "custom_id")
    elif name in seen:
        message = f"The custom_id '{name}' is already used by another request of this batch."
        verdict.add("duplicate_custom_id", number, message, "custom_id")
    else:
        seen.add(name)


def _not_json(verdict: LineCheck, number: int) -> None:
    verdict.add("invalid_json_line", number, "This line is not parseable as valid JSON.")

"""Check a file for the Batch API before its upload: a refusal costs the upload and a wait."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bioforge.cli.format import shorten
from bioforge.core.errors import InputError
from bioforge.core.text import plural

MOST_LINES = 50_000
MOST_BYTES = 209_715_200
"""The API's limits for one file."""

SHOWN = 5
"""Mistakes to show; the others are counted."""


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A file without mistakes. `model` is None if no line names one; `sha256` is hexadecimal."""

    path: Path
    lines: int
    bytes: int
    endpoint: str
    model: str | None
    sha256: str


def check(path: Path, endpoint: str | None = None) -> CheckedFile:
    """Check a file line by line. Raises `InputError` with its mistakes. The default endpoint is that of the first line."""
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise InputError(
                f"{path}: {size:,} bytes exceed the limit of {MOST_BYTES:,} bytes for a batch; nothing was sent",
                "split it by lines, as `bioforge batch jsonl` does",
            )
        checker = _Checker(path, endpoint)
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            for line in stream:
                digest.update(line)
                checker.line(line)
                if checker.number > MOST_LINES:
                    break
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", "check --in") from None
    checker.finish()
    return CheckedFile(path, checker.number, size, checker.endpoint or "", checker.model, digest.hexdigest())


@dataclass(slots=True)
class _Checker:
    path: Path
    endpoint: str | None
    number: int = 0
    model: str | None = None
    mistakes: int = 0
    shown: list[str] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)

    def line(self, content: bytes) -> None:
        self.number += 1
        if self.number > MOST_LINES:
            self.add(f"more than {MOST_LINES:,} lines: split it, as `bioforge batch jsonl` does")
            return
        try:
            task = json.loads(content.rstrip())
        except UnicodeDecodeError:
            self.add("not UTF-8")
        except json.JSONDecodeError as error:
            self.add("the line is empty" if not content.strip() else f"not JSON: {error.msg} at column {error.colno}")
        except (ValueError, RecursionError) as error:
            self.add(f"not usable JSON: {error}")
        else:
            if isinstance(task, dict):
                self.task(task)
            else:
                self.add("not a JSON object")

    def task(self, task: dict[str, Any]) -> None:
        self.custom_id(task.get("custom_id"))
        if task.get("method") != "POST":
            self.add(f"method: expected 'POST', found {_format_value(task.get('method'))}")
        url = task.get("url")
        if not isinstance(url, str) or not url.startswith("/v1/"):
            self.add(f"url: expected an endpoint like '/v1/responses', found {_format_value(url)}")
        elif self.endpoint is None:
            self.endpoint = url
        elif url != self.endpoint:
            self.add(f"url: {_format_value(url)} differs from the batch's endpoint {self.endpoint!r}")
        body = task.get("body")
        if not isinstance(body, dict):
            self.add(f"body: expected an object, found {_format_value(body)}")
        else:
            self.body(body)

    def custom_id(self, name: object) -> None:
        if not isinstance(name, str) or not name:
            self.add(f"custom_id: expected text, found {_format_value(name)}")
        elif name in self.ids:
            self.add(f"custom_id {name!r} is already used in line {self.ids[name]}")
        else:
            self.ids[name] = self.number

    def body(self, body: dict[str, Any]) -> None:
        if body.get("stream"):
            self.add("body.stream: a batch cannot stream answers")
        model = body.get("model")
        if model is not None and not isinstance(model, str):
            self.add(f"body.model: expected text, found {_format_value(model)}")
        elif self.number == 1:
            self.model = model
        elif model != self.model:
            self.add(f"body.model: {_format_value(model)} is not {_format_value(self.model)}; a batch has one model")

    def add(self, message: str) -> None:
        self.mistakes += 1
        if len(self.shown) < SHOWN:
            self.shown.append(f"  {self.path}:{self.number}: {message}")

    def finish(self) -> None:
        if not self.number:
            raise InputError(f"{self.path} is empty", "`bioforge batch jsonl` writes such files")
        if self.mistakes:
            lines = "\n".join(self.shown)
            more = f"\n  … and {self.mistakes - len(self.shown):,} more" if self.mistakes > len(self.shown) else ""
            mistakes = plural(self.mistakes, "mistake")
            raise InputError(f"{self.path} has {mistakes}; nothing was sent:\n{lines}{more}", "fix them and try again")


def _format_value(value: object) -> str:
    if value is None:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else repr(value)
    return shorten(text, 60)

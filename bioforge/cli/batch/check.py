"""Checking a file for the Batch API before it is sent: whatever would be refused there costs an upload and a wait."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bioforge.core.errors import InputError

MOST_LINES = 50_000
MOST_BYTES = 209_715_200
"""Of one file; the API's own limits."""

SHOWN = 5


@dataclass(frozen=True, slots=True)
class Checked:
    """What a good file holds. `model` is None where no line names one; `sha256` in hexadecimal digits."""

    path: Path
    lines: int
    bytes: int
    endpoint: str
    model: str | None
    sha256: str


def check(path: Path, endpoint: str | None = None) -> Checked:
    """Reads a file line by line. Raises `InputError` with its mistakes; without an `endpoint` the first line tells."""
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise InputError(
                f"{path}: {size:,} bytes are more than the {MOST_BYTES:,} that a batch may have; nothing was sent",
                "split it by lines; `bioforge batch jsonl` does",
            )
        found = _Found(path, endpoint)
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            for line in stream:
                digest.update(line)
                found.line(line)
                if found.number > MOST_LINES:
                    break
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", "check --in") from None
    found.finish()
    return Checked(path, found.number, size, found.endpoint or "", found.model, digest.hexdigest())


@dataclass(slots=True)
class _Found:
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
            self.add(f"more than {MOST_LINES:,} lines; split it (`bioforge batch jsonl` does)")
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
            self.add(f"method: expected 'POST', found {_shown(task.get('method'))}")
        url = task.get("url")
        if not isinstance(url, str) or not url.startswith("/v1/"):
            self.add(f"url: expected an endpoint like '/v1/responses', found {_shown(url)}")
        elif self.endpoint is None:
            self.endpoint = url
        elif url != self.endpoint:
            self.add(f"url: {_shown(url)} is not {self.endpoint!r}, which the batch is for")
        body = task.get("body")
        if not isinstance(body, dict):
            self.add(f"body: expected an object, found {_shown(body)}")
        else:
            self.body(body)

    def custom_id(self, name: object) -> None:
        if not isinstance(name, str) or not name:
            self.add(f"custom_id: expected a text, found {_shown(name)}")
        elif name in self.ids:
            self.add(f"custom_id {name!r} is taken already, by line {self.ids[name]}")
        else:
            self.ids[name] = self.number

    def body(self, body: dict[str, Any]) -> None:
        if body.get("stream"):
            self.add("body.stream: answers of a batch cannot be streamed")
        model = body.get("model")
        if model is not None and not isinstance(model, str):
            self.add(f"body.model: expected a text, found {_shown(model)}")
        elif self.number == 1:
            self.model = model
        elif model != self.model:
            self.add(f"body.model: {_shown(model)} is not {_shown(self.model)}; a batch has one model")

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
            words = "1 mistake" if self.mistakes == 1 else f"{self.mistakes:,} mistakes"
            raise InputError(f"{self.path} has {words}; nothing was sent:\n{lines}{more}", "mend them and try again")


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:59] + "…"

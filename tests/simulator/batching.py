"""Batches as a client sees them: lines to upload, a batch made of them, its end and its results."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from openai import OpenAI
from openai.types import Batch

ENDPOINT = "/v1/responses"


def body(name: str, model: str = "gpt-6-luna", **parameters: Any) -> dict[str, Any]:
    return {"model": model, "input": name, **parameters}


def chat(name: str, model: str = "gpt-6-luna", **parameters: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": name}], **parameters}


def lines(bodies: Sequence[dict[str, Any]] | int, endpoint: str = ENDPOINT) -> bytes:
    """An input file: one line for each body, or for so many artists, called r-0, r-1 …"""
    asked = [body(f"Artist {number}") for number in range(bodies)] if isinstance(bodies, int) else bodies
    tasks = (
        {"custom_id": f"r-{place}", "method": "POST", "url": endpoint, "body": body} for place, body in enumerate(asked)
    )
    return "".join(json.dumps(task) + "\n" for task in tasks).encode()


def submit(client: OpenAI, content: bytes | int, **arguments: Any) -> Batch:
    """Uploads an input file, or lines for so many artists, and creates a batch of it."""
    data = lines(content) if isinstance(content, int) else content
    file = client.files.create(file=("input.jsonl", data), purpose="batch")
    arguments = {"endpoint": ENDPOINT, "completion_window": "24h", **arguments}
    return client.batches.create(input_file_id=file.id, **arguments)


def watch(client: OpenAI, batch: Batch, *until: str) -> Batch:
    """Looks at a batch until it has one of these statuses, or is over."""
    wanted = (*until, "completed", "failed", "expired", "cancelled")
    deadline = time.monotonic() + 60
    while batch.status not in wanted:
        assert time.monotonic() < deadline, f"still {batch.status}"
        batch = client.batches.retrieve(batch.id)
    return batch


def run(client: OpenAI, content: bytes | int, **arguments: Any) -> Batch:
    """A batch that was submitted and is over."""
    return watch(client, submit(client, content, **arguments))


def results(client: OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """The lines of an output or error file; none where there is no file."""
    if file_id is None:
        return []
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def ids(found: Sequence[dict[str, Any]]) -> list[str]:
    return [line["custom_id"] for line in found]

"""Calls by the method of the OpenAI cookbook's `api_request_parallel_processor.py`, rewritten: a script that one copies.

Kept from it: requests from a JSON Lines file, a bucket for requests, a queue of retries with at most 5 attempts, every
answer appended to a results file when it has come, no timeout but aiohttp's. Added, since it has nothing to go on after an
interruption and everybody adds it: rows with an answer in the results file are not sent again.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp

ATTEMPTS = 5
REQUESTS_PER_MINUTE = 3600.0
RESULTS = Path("results.jsonl")


def done() -> set[str]:
    """Rows with an answer to what would be sent now."""
    found: set[str] = set()
    for line in RESULTS.read_text("utf-8").splitlines() if RESULTS.exists() else ():
        try:
            request, answer, metadata = json.loads(line)
        except ValueError:
            continue  # the last line of a run that was killed
        if isinstance(answer, dict):
            found.add(json.dumps([request, metadata], sort_keys=True))
    return found


def append(record: list[Any]) -> None:
    with RESULTS.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")


async def main() -> int:
    job = json.loads(Path("job.json").read_text("utf-8"))
    url, headers = f"{job['base_url']}/chat/completions", {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
    there = done()
    waiting: list[tuple[dict[str, Any], dict[str, str], int, list[str]]] = []
    for row in job["rows"]:
        request, metadata = {"model": job["model"], "messages": row["messages"]}, {"row": row["id"]}
        if json.dumps([request, metadata], sort_keys=True) not in there:
            waiting.append((request, metadata, ATTEMPTS, []))
    retries: asyncio.Queue[tuple[dict[str, Any], dict[str, str], int, list[str]]] = asyncio.Queue()
    in_progress = len(waiting)
    failed = 0

    async def call(
        session: aiohttp.ClientSession, request: dict[str, Any], metadata: dict[str, str], left: int, errors: list[str]
    ) -> None:
        nonlocal in_progress, failed
        error: object = None
        answer: Any = None
        try:
            async with session.post(url, headers=headers, json=request) as response:
                answer = await response.json()
            if "error" in answer:
                error = answer["error"]
        except Exception as problem:
            error = problem
        if error is None:
            append([request, answer, metadata])
            in_progress -= 1
            return
        errors.append(str(error))
        if left:
            retries.put_nowait((request, metadata, left, errors))
            return
        append([request, errors, metadata])
        in_progress -= 1
        failed += 1

    capacity, last = REQUESTS_PER_MINUTE, time.time()
    tasks: set[asyncio.Task[None]] = set()
    queue = iter(waiting)
    async with aiohttp.ClientSession() as session:
        upcoming = None
        while in_progress:
            if upcoming is None:
                upcoming = retries.get_nowait() if not retries.empty() else next(queue, None)
            now = time.time()
            capacity = min(capacity + REQUESTS_PER_MINUTE * (now - last) / 60.0, REQUESTS_PER_MINUTE)
            last = now
            if upcoming and capacity >= 1:
                capacity -= 1
                request, metadata, left, errors = upcoming
                task = asyncio.create_task(call(session, request, metadata, left - 1, errors))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                upcoming = None
            await asyncio.sleep(0.001)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

"""What a person would write by hand, without keeping anything that is not needed: `python bare.py NAME ARGUMENT…`.

Each is a process of its own, as a script is, and prints what it measured inside itself as JSON. The ratio to it says what
safety costs.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import sqlite3
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

MODEL = "gpt-6-luna"
INSTRUCTIONS = "Write a short biography of this artist, using only what is given."
TEMPLATE = "{{ artist_name }}\n{{ artist_data }}"
HEADERS = {"Authorization": "Bearer x"}
SPLIT = 50_000


def body(i: int) -> dict[str, Any]:
    """What `bioforge run` sends for the same row of the made input."""
    asked = f"Artist Number {i}\npainter, active {1850 + i % 150}"
    return {"model": MODEL, "instructions": INSTRUCTIONS, "input": asked, "max_output_tokens": 400}


def text_of(answer: dict[str, Any]) -> str:
    return "".join(
        part["text"]
        for item in answer["output"]
        if item["type"] == "message"
        for part in item["content"]
        if part["type"] == "output_text"
    )


async def loop(url: str, number: str, in_flight: str) -> dict[str, float]:
    """A loop that stores nothing."""
    import aiohttp

    numbers = iter(range(int(number)))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=int(in_flight))) as session:

        async def lane() -> None:
            for i in numbers:
                async with session.post(f"{url}/responses", json=body(i), headers=HEADERS) as response:
                    text_of(json.loads(await response.read()))

        before = time.perf_counter()
        await asyncio.gather(*(lane() for _ in range(int(in_flight))))
        return {"rate": int(number) / (time.perf_counter() - before)}


async def sketch(url: str, number: str, in_flight: str, path: str) -> dict[str, float]:
    """The same loop with SQLite: intents are durable before they are sent, answers within five milliseconds."""
    import aiohttp

    total, width = int(number), int(in_flight)
    ready: asyncio.Queue[int | None] = asyncio.Queue()
    answered: list[tuple[Any, ...]] = []
    with closing(_durable(path)) as db:
        db.execute("CREATE TABLE intents (id INTEGER PRIMARY KEY, body TEXT)")
        db.execute(
            "CREATE TABLE answers (id INTEGER PRIMARY KEY, model TEXT, text TEXT, input INT, output INT, body BLOB)"
        )

        def commit(intents: range, answers: list[tuple[Any, ...]]) -> None:
            db.execute("BEGIN")
            db.executemany("INSERT INTO intents VALUES (?, ?)", ((i, json.dumps(body(i))) for i in intents))
            db.executemany("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)", answers)
            db.execute("COMMIT")

        async def keeper() -> None:
            sent = stored = 0
            while stored < total:
                group = answered[:]
                answered.clear()
                last = min(total, sent + max(0, 4 * width - ready.qsize()))
                if group or last > sent:
                    await asyncio.to_thread(commit, range(sent, last), group)
                for i in range(sent, last):
                    ready.put_nowait(i)
                sent, stored = last, stored + len(group)
                await asyncio.sleep(0.005)
            for _ in range(width):
                ready.put_nowait(None)

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=width)) as session:

            async def lane() -> None:
                while (i := await ready.get()) is not None:
                    async with session.post(f"{url}/responses", json=body(i), headers=HEADERS) as response:
                        raw = await response.read()
                    answer = json.loads(raw)
                    usage = answer["usage"]
                    answered.append(
                        (i, answer["model"], text_of(answer), usage["input_tokens"], usage["output_tokens"], raw)
                    )

            before = time.perf_counter()
            await asyncio.gather(keeper(), *(lane() for _ in range(width)))
            return {"rate": total / (time.perf_counter() - before)}


def threads(url: str, number: str, workers: str) -> dict[str, float]:
    """Calls of the openai SDK in a pool of threads."""
    from concurrent.futures import ThreadPoolExecutor

    from openai import OpenAI

    with OpenAI(base_url=url, api_key="x", max_retries=0) as client, ThreadPoolExecutor(int(workers)) as pool:
        client.responses.create(**body(0))
        before = time.perf_counter()
        list(pool.map(lambda i: client.responses.create(**body(i)).output_text, range(int(number))))
        return {"rate": int(number) / (time.perf_counter() - before)}


def plan(path: str, state: str) -> dict[str, float]:
    """Read the CSV, render, hash, insert."""
    import jinja2

    template = jinja2.Environment().from_string(TEMPLATE)
    with closing(sqlite3.connect(state)) as db, open(path, newline="", encoding="utf-8") as stream:
        db.execute("CREATE TABLE artists (artist_id TEXT PRIMARY KEY, name TEXT, data TEXT, request_hash TEXT)")
        for row in csv.DictReader(stream):
            asked = {"model": MODEL, "instructions": INSTRUCTIONS, "input": template.render(**row)}
            digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
            values = (row["artist_id"], row["artist_name"], row["artist_data"], digest)
            db.execute("INSERT INTO artists VALUES (?, ?, ?, ?)", values)
        db.commit()
    return {}


def lines(path: str, folder: str) -> dict[str, int]:
    """Files for the Batch API, 50,000 lines each."""
    import jinja2

    template = jinja2.Environment().from_string(TEMPLATE)
    files = 0
    with open(path, newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        while rows := list(islice(reader, SPLIT)):
            with open(f"{folder}/bare-{files:04}.jsonl", "w", encoding="utf-8") as out:
                for row in rows:
                    asked: dict[str, Any] = {
                        "model": MODEL,
                        "instructions": INSTRUCTIONS,
                        "input": template.render(**row),
                    }
                    asked["max_output_tokens"] = 400
                    line = {"custom_id": row["artist_id"], "method": "POST", "url": "/v1/responses", "body": asked}
                    out.write(json.dumps(line) + "\n")
            files += 1
    return {"files": files}


def submit(path: str, folder: str, url: str) -> dict[str, int]:
    """The same files, uploaded and created by the SDK."""
    from openai import OpenAI

    made = lines(path, folder)
    with OpenAI(base_url=url, api_key="x", max_retries=0) as client:
        for place in range(made["files"]):
            with open(f"{folder}/bare-{place:04}.jsonl", "rb") as stream:
                file = client.files.create(file=stream, purpose="batch")
            client.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h")
    return made


def collect(url: str, file: str, folder: str) -> dict[str, int]:
    """A result file, fetched and put into SQLite in durable groups of 500."""
    request = urllib.request.Request(f"{url}/files/{file}/content", headers=HEADERS)
    result = Path(folder) / "bare-result.jsonl"
    with urllib.request.urlopen(request) as answer, result.open("wb") as out:
        while piece := answer.read(1 << 16):
            out.write(piece)
    with closing(_durable(f"{folder}/bare-collected.db")) as db, result.open(encoding="utf-8") as stream:
        db.execute(
            "CREATE TABLE answers (custom_id TEXT PRIMARY KEY, model TEXT, text TEXT, input INT, output INT, body TEXT)"
        )
        total = 0
        while group := list(islice(_entries(stream), 500)):
            db.execute("BEGIN")
            db.executemany("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)", group)
            db.execute("COMMIT")
            total += len(group)
    return {"lines": total}


def _entries(stream: Iterator[str]) -> Iterator[tuple[Any, ...]]:
    for line in stream:
        entry = json.loads(line)
        answer = entry["response"]["body"]
        usage = answer["usage"]
        sizes = usage["input_tokens"], usage["output_tokens"]
        yield (entry["custom_id"], answer["model"], text_of(answer), *sizes, json.dumps(answer))


def export(state: str, out: str) -> dict[str, int]:
    """A SELECT over the state, each row as a line of JSON."""
    total = 0
    with closing(sqlite3.connect(f"file:{state}?mode=ro", uri=True)) as db, open(out, "w", encoding="utf-8") as stream:
        found = db.execute(
            "SELECT a.artist_id, a.artist_name, a.artist_data, t.recipe, t.variant, r.text, r.response_id, r.created_at,"
            " r.model, r.input_tokens, r.output_tokens, r.cost_usd"
            " FROM targets t JOIN artists a ON a.id = t.artist JOIN responses r ON r.id = t.built_response ORDER BY a.id"
        )
        names = [column[0] for column in found.description]
        for row in found:
            stream.write(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) + "\n")
            total += 1
    return {"lines": total}


def _durable(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    return db


SCRIPTS = {
    "loop": loop,
    "sketch": sketch,
    "threads": threads,
    "plan": plan,
    "lines": lines,
    "submit": submit,
    "collect": collect,
    "export": export,
}


def main() -> None:
    said: Any = SCRIPTS[sys.argv[1]](*sys.argv[2:])  # type: ignore[operator]
    if asyncio.iscoroutine(said):
        said = asyncio.run(said)
    print(json.dumps(said))


if __name__ == "__main__":
    main()

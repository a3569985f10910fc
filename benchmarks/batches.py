"""Batches in numbers, each a ratio inside one run: `python benchmarks/batches.py [--rows N] [NAME...]`.

Everything runs on this machine and on loopback; the server is the embedded simulator in a process of its own. A bare
script is what a person would write by hand: it keeps no record of what was sent, and could not say what was paid for.
"""

from __future__ import annotations

import argparse
import csv
import json
import sqlite3
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from main_job import INSTRUCTIONS, bioforge, project, simulator

BATCH = """
[backend.batch]
poll_seconds = 0.5
poll_max_seconds = 2.0
"""
WAITED = (0, 1, 75)


def with_batches(root: Path) -> None:
    path = root / "bioforge.toml"
    path.write_text(path.read_text() + BATCH)


def lines_written(number: int) -> str:
    """CSV to files for the Batch API, by hand and by `batch jsonl`."""
    with project(number) as root:
        before = time.perf_counter()
        _bare_lines(root)
        bare = time.perf_counter() - before
        ours, _ = bioforge(root, "batch", "jsonl", "-o", "ours.jsonl")
    return f"{ours / bare:.2f} × a bare script ({ours:.1f} and {bare:.1f} s for {number:,} lines), goal 2"


def _bare_lines(root: Path) -> list[Path]:
    import jinja2

    template = jinja2.Environment().from_string("{{ artist_name }}\n{{ artist_data }}")
    files: list[Path] = []
    with (root / "artists.csv").open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        while rows := [row for _, row in zip(range(50_000), reader, strict=False)]:
            files.append(root / f"bare-{len(files)}.jsonl")
            with files[-1].open("w", encoding="utf-8") as out:
                for row in rows:
                    body = {
                        "model": "gpt-6-luna",
                        "instructions": INSTRUCTIONS,
                        "input": template.render(**row),
                        "max_output_tokens": 400,
                    }
                    line = {"custom_id": row["artist_id"], "method": "POST", "url": "/v1/responses", "body": body}
                    out.write(json.dumps(line) + "\n")
    return files


def submitted(number: int) -> str:
    """From an untouched CSV to created batches, every member durable before its file is sent."""
    with simulator("--batch-seconds", "3600") as url, project(number, url, backend="batch") as root:
        with_batches(root)
        before = time.perf_counter()
        for path in _bare_lines(root):
            _upload(url, path)
        bare = time.perf_counter() - before
        ours, _ = bioforge(root, "run", "--no-wait", expected=WAITED)
    return f"{ours / bare:.2f} × a script that keeps nothing ({ours:.1f} and {bare:.1f} s for {number:,} rows)"


def _upload(url: str, path: Path) -> None:
    from openai import OpenAI

    with OpenAI(base_url=url, api_key="x", max_retries=0) as client:
        with path.open("rb") as stream:
            file = client.files.create(file=stream, purpose="batch")
        client.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h")


def collected(number: int) -> str:
    """The result file of one batch, from the provider into the state, by hand and by `run`."""
    number = min(number, 50_000)
    with simulator("--batch-seconds", "0") as url, project(number, url, backend="batch") as root:
        with_batches(root)
        bioforge(root, "run", "--no-wait", expected=WAITED)
        output = _finished(url)
        before = time.perf_counter()
        _bare_collect(url, output, root)
        bare = time.perf_counter() - before
        ours, _ = bioforge(root, "run")
    return f"{ours / bare:.2f} × a bare script ({ours:.1f} and {bare:.1f} s for {number:,} lines), goal 2"


def _finished(url: str) -> str:
    """The output file of the only batch, once the simulator has executed it."""
    while True:
        request = urllib.request.Request(f"{url}/batches", headers={"Authorization": "Bearer x"})
        with urllib.request.urlopen(request) as answer:
            (batch,) = json.load(answer)["data"]
        if batch["status"] == "completed":
            found: str = batch["output_file_id"]
            return found
        time.sleep(0.2)


def _bare_collect(url: str, output: str, root: Path) -> None:
    request = urllib.request.Request(f"{url}/files/{output}/content", headers={"Authorization": "Bearer x"})
    with urllib.request.urlopen(request) as answer, (root / "bare.jsonl").open("wb") as out:
        while piece := answer.read(1 << 16):
            out.write(piece)
    with closing(sqlite3.connect(root / "bare.db", isolation_level=None)) as db, (root / "bare.jsonl").open() as stream:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(
            "CREATE TABLE answers (custom_id TEXT PRIMARY KEY, model TEXT, text TEXT, input INT, output INT, body TEXT)"
        )
        while lines := [line for _, line in zip(range(500), stream, strict=False)]:
            db.execute("BEGIN")
            for line in lines:
                entry = json.loads(line)
                body = entry["response"]["body"]
                text = "".join(
                    part["text"]
                    for item in body["output"]
                    if item["type"] == "message"
                    for part in item["content"]
                    if part["type"] == "output_text"
                )
                usage = body["usage"]
                db.execute(
                    "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        entry["custom_id"],
                        body["model"],
                        text,
                        usage["input_tokens"],
                        usage["output_tokens"],
                        json.dumps(body),
                    ),
                )
            db.execute("COMMIT")


def memory(number: int) -> str:
    peak = {}
    with simulator("--batch-seconds", "0") as url:
        for size in (12_000, max(number, 120_000)):
            with project(size, url, backend="batch") as root:
                with_batches(root)
                peak[size] = bioforge(root, "run")[1]
                with closing(sqlite3.connect(root / "bioforge.db")) as db:
                    (files,) = db.execute("SELECT count(*) FROM batches").fetchone()
    small, large = peak.values()
    return (
        f"{large / small:.2f} × that at 12,000 ({large:.0f} MB at {max(peak):,} in {files} batches, {small:.0f} MB),"
        " goals 1.5 and 200 MB"
    )


ROWS: dict[str, Callable[[int], str]] = {
    "lines-written": lines_written,
    "submitted": submitted,
    "collected": collected,
    "memory": memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*ROWS, []], help="rows to measure; all when none is named")
    parser.add_argument("--rows", type=int, default=120_000, help="artists in each measurement")
    given = parser.parse_args()
    for name in given.names or ROWS:
        print(f"{name:20} {ROWS[name](given.rows)}", flush=True)


if __name__ == "__main__":
    main()

"""The main job in numbers, each a ratio inside one run: `python benchmarks/main_job.py [--rows N] [NAME...]`.

Everything runs on this machine and on loopback; the server is the embedded simulator in a process of its own. A bare
script is what a person would write by hand without keeping anything: the ratio says what safety costs.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import hashlib
import json
import math
import os
import re
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

INSTRUCTIONS = "Write a short biography of this artist, using only what is given."
PROJECT = """
[project]
name = "bench"
[provider]
base_url = "{url}"
[input]
path = "artists.csv"
[recipe.bio]
model = "gpt-6-luna"
instructions = "{instructions}"
input = "{{{{ artist_name }}}}\\n{{{{ artist_data }}}}"
max_output_tokens = 400
[backend]
name = "{backend}"
concurrency = {concurrency}
"""


def rows(path: Path, number: int) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["artist_id", "artist_name", "artist_data", "born", "url"])
        for i in range(number):
            writer.writerow(
                [i, f"Artist Number {i}", f"painter, active {1850 + i % 150}", 1820 + i % 150, f"https://x/{i}"]
            )


@contextmanager
def simulator(*options: str) -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, "-m", "bioforge", "simulate", "--port", "0", *options], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        found = re.search(r"http://\S+", process.stderr.readline())
        assert found is not None
        try:
            yield found[0]
        finally:
            process.terminate()
            process.communicate()


@contextmanager
def project(number: int, url: str = "simulator", backend: str = "async", concurrency: int = 64) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows(root / "artists.csv", number)
        os.utime(root / "artists.csv", (1, 1))
        text = PROJECT.format(url=url, instructions=INSTRUCTIONS, backend=backend, concurrency=concurrency)
        (root / "bioforge.toml").write_text(text)
        yield root


def bioforge(root: Path, *arguments: str, expected: tuple[int, ...] = (0, 1)) -> tuple[float, float]:
    """(seconds, peak memory in MB) of a command as a whole process that ends with one of the `expected` codes."""
    before = time.perf_counter()
    env = {**os.environ, "OPENAI_API_KEY": "bench"}
    process = subprocess.Popen(
        [sys.executable, "-m", "bioforge", *arguments],
        cwd=root,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.stderr.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in expected:
        raise SystemExit(said.decode())
    return time.perf_counter() - before, used.ru_maxrss / 1024


def rate(root: Path, low: float = 0.0, high: float = 1.0) -> float:
    """Answers a second, from the first request to the last answer, or between two quantiles of the answers."""
    with closing(sqlite3.connect(root / "bioforge.db")) as db:
        ends = [row[0] for row in db.execute("SELECT started_at + seconds FROM attempts WHERE paid = 'yes' ORDER BY 1")]
        begin = db.execute("SELECT min(started_at) FROM attempts").fetchone()[0]
    first, last = int(low * len(ends)), int(high * len(ends)) - 1
    return (last - first) / (ends[last] - (ends[first] if low else begin))


def body(i: int) -> dict[str, object]:
    return {
        "model": "gpt-6-luna",
        "instructions": INSTRUCTIONS,
        "input": f"Artist Number {i}\npainter, active {1850 + i % 150}",
        "max_output_tokens": 400,
    }


def bare_aiohttp(url: str, number: int, in_flight: int) -> float:
    """Answers a second of a loop that stores nothing."""
    import aiohttp

    async def work() -> float:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight)) as session:
            numbers = iter(range(number))

            async def lane() -> None:
                for i in numbers:
                    async with session.post(
                        f"{url}/responses", json=body(i), headers={"Authorization": "Bearer x"}
                    ) as response:
                        json.loads(await response.read())

            before = time.perf_counter()
            await asyncio.gather(*(lane() for _ in range(in_flight)))
            return number / (time.perf_counter() - before)

    return asyncio.run(work())


def async_zero_latency(number: int) -> str:
    with simulator() as url, project(number, url) as root:
        bare = bare_aiohttp(url, number, 64)
        bioforge(root, "run")
        ours = rate(root)
    return f"{ours / bare:.2f} × a bare aiohttp loop ({ours:,.0f} and {bare:,.0f} answers/s), goal 0.7"


def async_slow_answers(number: int) -> str:
    median, sigma, in_flight = 1.0, 0.7, 256
    number = min(number, 6_000)
    faults = [
        f"--fault={name}=0.01"
        for name in ("rate_limit_bare", "server_error", "unavailable", "drop_before", "truncated")
    ]
    with (
        simulator("--latency", str(median), "--latency-sigma", str(sigma), *faults) as url,
        project(number, url, concurrency=in_flight) as root,
    ):
        bioforge(root, "run")
        ours = rate(root, 0.1, 0.85)
    ideal = in_flight / (median * math.exp(sigma**2 / 2))
    return f"{ours / ideal:.2f} × the ideal ({ours:,.0f} of {ideal:,.0f} answers/s while full), goal 0.95"


def threads(number: int) -> str:
    number, workers = min(number, 4_000), 32
    with simulator() as url, project(number, url, backend="threads", concurrency=workers) as root:
        from openai import OpenAI

        with OpenAI(base_url=url, api_key="x", max_retries=0) as client, ThreadPoolExecutor(workers) as pool:
            client.responses.create(**body(0))  # type: ignore[call-overload]
            before = time.perf_counter()
            list(pool.map(lambda i: client.responses.create(**body(i)).output_text, range(number)))  # type: ignore[call-overload]
            bare = number / (time.perf_counter() - before)
        bioforge(root, "run")
        ours = rate(root)
    return f"{ours / bare:.2f} × SDK calls in a ThreadPoolExecutor ({ours:,.0f} and {bare:,.0f} answers/s), goal 1.5"


def first_plan(number: int) -> str:
    with project(number) as root:
        before = time.perf_counter()
        _bare_plan(root)
        bare = time.perf_counter() - before
        ours, _ = bioforge(root, "plan")
    return (
        f"{ours / bare:.2f} × reading, rendering, hashing and inserting by hand ({ours:.1f} and {bare:.1f} s), goal 2"
    )


def _bare_plan(root: Path) -> None:
    import jinja2

    template = jinja2.Environment().from_string("{{ artist_name }}\n{{ artist_data }}")
    with closing(sqlite3.connect(root / "bare.db")) as db, (root / "artists.csv").open(newline="") as stream:
        db.execute("CREATE TABLE artists (artist_id TEXT PRIMARY KEY, name TEXT, data TEXT, request_hash TEXT)")
        for row in csv.DictReader(stream):
            asked = {"model": "gpt-6-luna", "instructions": INSTRUCTIONS, "input": template.render(**row)}
            digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
            db.execute(
                "INSERT INTO artists VALUES (?, ?, ?, ?)",
                (row["artist_id"], row["artist_name"], row["artist_data"], digest),
            )
        db.commit()


def nothing_changed(number: int) -> str:
    times = {}
    with simulator() as url:
        for size in (1_000, number):
            with project(size, url) as root:
                bioforge(root, "run")
                times[size] = min(bioforge(root, "run")[0] for _ in range(3))
    return (
        f"{times[number] / times[1_000]:.2f} × the same at 1,000 artists"
        f" ({times[number]:.2f} s at {number:,}, {times[1_000]:.2f} s), goal 2 and 1 s"
    )


def one_changed(number: int) -> str:
    with simulator() as url, project(number, url) as root:
        bioforge(root, "run")
        path = root / "artists.csv"
        path.write_text(path.read_text().replace("painter, active 1857", "sculptor, active 1857", 1))
        bioforge(root, "run")
        with closing(sqlite3.connect(root / "bioforge.db")) as db:
            (asked,) = db.execute("SELECT count(*) FROM attempts WHERE run = 2").fetchone()
    return f"{asked} request of {number:,}, goal 1"


def memory(number: int) -> str:
    peak = {}
    with simulator() as url:
        for size in (10_000, max(number, 20_000)):
            with project(size, url) as root:
                peak[size] = bioforge(root, "run")[1]
    small, large = peak.values()
    return (
        f"{large / small:.2f} × that at 10,000 ({large:.0f} MB at {max(peak):,}, {small:.0f} MB), goals 1.5 and 200 MB"
    )


def start_up(number: int) -> str:
    def best(*command: str) -> float:
        times = []
        for _ in range(7):
            before = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - before)
        return min(times)

    typer = best("-c", "import typer")
    shown = {flag: best("-m", "bioforge", flag) / typer for flag in ("--help", "--version")}
    return ", ".join(f"{flag} {ratio:.2f}" for flag, ratio in shown.items()) + " × `import typer`, goal 2.5"


ROWS: dict[str, Callable[[int], str]] = {
    "async-zero-latency": async_zero_latency,
    "async-slow-answers": async_slow_answers,
    "threads": threads,
    "first-plan": first_plan,
    "nothing-changed": nothing_changed,
    "one-changed": one_changed,
    "memory": memory,
    "start-up": start_up,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*ROWS, []], help="rows to measure; all when none is named")
    parser.add_argument("--rows", type=int, default=20_000, help="artists in each measurement")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for name in given.names or ROWS:
        print(f"{name:20} {ROWS[name](given.rows)}", flush=True)


if __name__ == "__main__":
    main()

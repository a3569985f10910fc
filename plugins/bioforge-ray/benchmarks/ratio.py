"""Measure the CPU of the engine and of the cluster per row: `python benchmarks/ratio.py [--rows N]`.

Run one project against one loopback server with `async`, with `ray` (one and two workers), and with a backend that
answers at once, which leaves only the engine. The server is minimal and a separate process, since the simulator would
use most of the CPU. CPU is per row and process, from a fifth to four fifths of the rows. All share this machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

PROJECT = """
[project]
name = "bench"
[provider]
base_url = "{url}"
[input]
path = "artists.csv"
[recipe.bio]
model = "gpt-6-luna"
instructions = "Write a short biography of this artist, using only what is given."
input = "{{{{ artist_name }}}}\\n{{{{ artist_data }}}}"
max_output_tokens = 400
[backend]
concurrency = {in_flight}
[backend.ray]
workers = {workers}
cpus_per_worker = 0.5
"""

ANSWER = json.dumps(
    {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": "gpt-6-luna-2026-05-01",
        "output": [
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "A painter of quiet rooms. " * 12, "annotations": []}],
            }
        ],
        "usage": {
            "input_tokens": 30,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 80,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 110,
        },
    }
).encode()

INSTANT = '''
"""A backend that sends nothing: what is left of a run is the engine."""
from bioforge.backends.openai.outcomes import interpret
from bioforge.backends.openai.prices import price
from bioforge.plugin import AsyncBackend, Executor, Request, hookimpl

BIOFORGE_API = 1
REQUEST = Request("sha256:0", "/v1/responses", "gpt-6-luna", b"{}", "1", "bio")
OUTCOME = interpret(REQUEST, 200, {}, %r, 0.001, price)


class InstantExecutor(Executor):
    def submit(self, attempts):
        for attempt in attempts:
            self.put(attempt, OUTCOME)

    def close(self, abandon):
        pass


class InstantBackend(AsyncBackend):
    def executor(self, concurrency):
        return InstantExecutor()


@hookimpl
def bioforge_backends():
    return {"instant": InstantBackend}
'''


@dataclass(frozen=True)
class Measured:
    """Rows per second, and CPU milliseconds per row of the driver and of all workers."""

    rate: float
    driver: float
    workers: float


class _Connection(asyncio.Protocol):
    """A minimal HTTP connection that answers each body after the latency."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = self.received[:end].lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            if len(self.received) < end + 4 + length:
                return
            self.received = self.received[end + 4 + length :]
            asyncio.get_running_loop().call_later(self.latency, self.answer)

    def answer(self) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(ANSWER)}\r\n\r\n"
        self.transport.write(head.encode() + ANSWER)  # type: ignore[attr-defined]


def _serve(latency: float, tell: Connection) -> None:
    async def work() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: _Connection(latency), "127.0.0.1", 0)
        tell.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(work())


@contextmanager
def server(latency: float) -> Iterator[str]:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(latency, there), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}/v1"
    finally:
        process.terminate()
        process.join()


def instant_plugin(root: Path) -> None:
    """Register the instant backend as an entry point."""
    (root / "instant_backend.py").write_text(INSTANT % ANSWER)
    information = root / "instant_backend-0.1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: instant-backend\nVersion: 0.1\n")
    (information / "entry_points.txt").write_text("[bioforge]\ninstant = instant_backend\n")


def measure(backend: str, url: str, rows: int, in_flight: int, workers: int = 1) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with (root / "artists.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["artist_id", "artist_name", "artist_data"])
            writer.writerows([i, f"Artist Number {i}", f"painter, active {1850 + i % 150}"] for i in range(rows))
        (root / "bioforge.toml").write_text(PROJECT.format(url=url, in_flight=in_flight, workers=workers))
        instant_plugin(root)
        path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen(
            [sys.executable, "-m", "bioforge", "run", "--backend", backend],
            cwd=root,
            env={**os.environ, "OPENAI_API_KEY": "bench", "PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        first = _sample(process, root, rows // 5)
        last = _sample(process, root, rows * 4 // 5)
        said = process.communicate()[1]
        if process.returncode or first is None or last is None:
            raise SystemExit(said.decode())
    done = last[1] - first[1]
    return Measured(done / (last[0] - first[0]), 1000 * (last[2] - first[2]) / done, 1000 * (last[3] - first[3]) / done)


def _sample(process: subprocess.Popen[bytes], root: Path, answers: int) -> tuple[float, int, float, float] | None:
    """Wait for a number of answers; return (time, answers, CPU of the driver, CPU of the workers)."""
    database = root / "bioforge.db"
    while process.poll() is None:
        if database.exists():
            with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
                try:
                    found = db.execute("SELECT count(*) FROM responses").fetchone()[0]
                except sqlite3.OperationalError:
                    found = 0  # its tables do not exist yet
            if found >= answers:
                workers = [pid for pid in _below(process.pid) if _title(pid).startswith(b"ray::Worker")]
                return time.perf_counter(), found, _cpu(process.pid), sum(map(_cpu, workers))
        time.sleep(0.05)
    return None


def _below(pid: int) -> Iterator[int]:
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            yield child
            yield from _below(child)


def _title(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _cpu(pid: int) -> float:
    """Return the CPU seconds of a process without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--latency", type=float, default=0.02, help="seconds until the server answers")
    given = parser.parse_args()
    print(
        f"{given.rows:,} rows, {given.in_flight} in flight, {given.latency:g} s, {os.cpu_count()} cores for all of it\n"
    )
    print(f"{'':12} {'rows/s':>8} {'× async':>8} {'driver ms/row':>14} {'workers ms/row':>15}")
    with server(given.latency) as url:
        base = measure("async", url, given.rows, given.in_flight)
        for name, backend, workers in (
            ("async", "", 0),
            ("ray, 1", "ray", 1),
            ("ray, 2", "ray", 2),
            ("engine only", "instant", 1),
        ):
            found = measure(backend, url, given.rows, given.in_flight, workers) if backend else base
            print(
                f"{name:12} {found.rate:>8,.0f} {found.rate / base.rate:>8.2f} {found.driver:>14.3f} "
                f"{found.workers:>15.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""The library in numbers, each a ratio inside one run: `python benchmarks/library.py [--rows N] [NAME...]`.

Everything runs on this machine and on loopback; the server is the embedded simulator in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from main_job import bare_aiohttp, body, simulator

from bioforge.api import Client, Config, LimitsConfig, Outcome, ProviderConfig

LATENCY = 0.05
SEQUENTIAL = 40
"""Calls that are made one after the other: each takes as long as the latency, however many there are."""


def config(url: str, concurrency: int = 64) -> Config:
    provider = ProviderConfig(base_url=url, api_key="bench")  # type: ignore[arg-type]  # pydantic makes it a secret
    return Config(provider=provider, model="gpt-6-luna", limits=LimitsConfig(concurrency=concurrency))


def prompts(number: int) -> Iterator[str]:
    return (f"Artist Number {i}\npainter, active {1850 + i % 150}" for i in range(number))


def sequential(client: Client) -> float:
    """Answers a second of calls one after the other."""
    client.generate_sync("to connect")
    before = time.perf_counter()
    for prompt in prompts(SEQUENTIAL):
        client.generate_sync(prompt)
    return SEQUENTIAL / (time.perf_counter() - before)


def many(client: Client, number: int, **options: object) -> float:
    """Answers a second of `generate_many`, from the first item to the last outcome."""

    async def work() -> float:
        before = time.perf_counter()
        answered = 0
        outcomes = client.generate_many(prompts(number), **options)  # type: ignore[call-overload]
        outcome: Outcome[str]
        async for outcome in outcomes:
            answered += outcome.ok
        assert answered == number
        return number / (time.perf_counter() - before)

    return asyncio.run(work())


def default_concurrency(number: int) -> str:
    with simulator("--latency", str(LATENCY)) as url, Client(config(url)) as client:
        slow, fast = sequential(client), many(client, min(number, 6_400))
    return f"{fast / slow:.1f} × sequential calls at 50 ms ({fast:,.0f} and {slow:.1f} answers/s), goal 5"


def concurrency_64(number: int) -> str:
    with simulator("--latency", str(LATENCY)) as url, Client(config(url)) as client:
        slow, fast = sequential(client), many(client, min(number, 6_400), concurrency=64)
    return (
        f"{fast / slow:.1f} × sequential calls at 50 ms with 64 items at once ({fast:,.0f} and {slow:.1f} answers/s),"
        " goal 50"
    )


def concurrency_64_kept(number: int) -> str:
    with simulator("--latency", str(LATENCY)) as url, tempfile.TemporaryDirectory() as folder:
        with Client(config(url)) as client:
            slow = sequential(client)
        with Client(config(url), state=Path(folder) / "answers.db") as client:
            fast = many(client, min(number, 6_400), concurrency=64)
    return f"{fast / slow:.1f} × sequential calls that keep nothing, every answer durable, goal 50"


def zero_latency(number: int) -> str:
    with simulator() as url:
        bare = bare_aiohttp(url, number, 64)
        with Client(config(url)) as client:
            client.generate_sync("to connect")
            ours = many(client, number, instructions=body(0)["instructions"], max_output_tokens=400)
    return f"{ours / bare:.2f} × a bare aiohttp loop ({ours:,.0f} and {bare:,.0f} answers/s)"


def kept_answers(number: int) -> str:
    with simulator() as url, tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "answers.db"
        with Client(config(url), state=state) as client:
            first = many(client, number)
        with Client(config(url), state=state) as client:
            second = many(client, number)
    return f"{second / first:.1f} × asking for them ({second:,.0f} and {first:,.0f} answers/s)"


MEMORY = """
import resource, sys
from bioforge.api import Client, Config, LimitsConfig, ProviderConfig
config = Config(provider=ProviderConfig(base_url=sys.argv[1], api_key="bench"), model="gpt-6-luna")
with Client(config) as client:
    for outcome in client.generate_many_sync(f"Artist Number {i}" for i in range(int(sys.argv[2]))):
        outcome.unwrap()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def memory(number: int) -> str:
    sizes = (2_000, max(number, 4_000))
    with simulator() as url:
        small, large = (
            float(
                subprocess.run([sys.executable, "-c", MEMORY, url, str(size)], capture_output=True, check=True).stdout
            )
            for size in sizes
        )
    return (
        f"{large / small:.2f} × that at {sizes[0]:,} items ({large:.0f} MB at {sizes[1]:,}, {small:.0f} MB), goal 1.5"
    )


def start_up(number: int) -> str:
    def best(statement: str) -> float:
        times = []
        for _ in range(7):
            before = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            times.append(time.perf_counter() - before)
        return min(times)

    bare, ours = best("import asyncio, pydantic.main"), best("import bioforge.api")
    return f"{ours / bare:.2f} × `import asyncio, pydantic`, goal 2.5"


ROWS: dict[str, Callable[[int], str]] = {
    "default-concurrency": default_concurrency,
    "concurrency-64": concurrency_64,
    "concurrency-64-kept": concurrency_64_kept,
    "zero-latency": zero_latency,
    "kept-answers": kept_answers,
    "memory": memory,
    "start-up": start_up,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*ROWS, []], help="rows to measure; all when none is named")
    parser.add_argument("--rows", type=int, default=20_000, help="items in each measurement")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for name in given.names or ROWS:
        print(f"{name:20} {ROWS[name](given.rows)}", flush=True)


if __name__ == "__main__":
    main()

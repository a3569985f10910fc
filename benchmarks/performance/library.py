"""Rows about the library: `bioforge.api` against calls one after the other, and against the bare loop."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bioforge.api import Client, Config, ItemResult, LimitsConfig, ProviderConfig
from performance.bare import body
from performance.findings import Found, at_least, at_most, noted
from performance.measuring import bare, middle, took
from performance.projects import Bench
from performance.servers import embedded

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
        outcome: ItemResult[str]
        async for outcome in outcomes:
            answered += outcome.ok
        if answered != number:
            raise ValueError(f"{answered} answers of {number}")
        return number / (time.perf_counter() - before)

    return asyncio.run(work())


def default_concurrency(bench: Bench) -> Found:
    rows = min(bench.rows, 6_400)
    with embedded("--latency", str(LATENCY)) as server, Client(config(server.url)) as client:
        slow, fast = sequential(client), many(client, rows)
    figures = {"ours, answers/s": fast, "sequential, answers/s": slow}
    return Found([at_least(5, "calls one after the other, at 50 ms", fast / slow)], rows, figures)


def concurrency_64(bench: Bench) -> Found:
    """Without a state, and with one in which every answer is durable."""
    rows = min(bench.rows, 6_400)
    with embedded("--latency", str(LATENCY)) as server, tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        with Client(config(server.url)) as client:
            slow, fast = sequential(client), many(client, rows, concurrency=64)
        with Client(config(server.url), state=Path(folder) / "answers.db") as client:
            kept = many(client, rows, concurrency=64)
    return Found(
        [
            at_least(50, "calls one after the other, 64 at once at 50 ms", fast / slow),
            at_least(50, "the same with every answer durable", kept / slow),
        ],
        rows,
        {"ours, answers/s": fast, "kept, answers/s": kept, "sequential, answers/s": slow},
    )


def zero_latency(bench: Bench) -> Found:
    rows, server = min(bench.rows, 50_000), bench.server
    ours, loop = [], []
    for _ in range(bench.repeats):
        loop.append(bare(bench.folder, "loop", server.url, rows, 64)[1]["rate"])
        with Client(config(server.url)) as client:
            client.generate_sync("to connect")
            ours.append(many(client, rows, instructions=body(0)["instructions"], max_output_tokens=400))
    ratios = [mine / theirs for mine, theirs in zip(ours, loop, strict=True)]
    figures = {"server": server.name, "ours, answers/s": ours, "bare loop, answers/s": loop, "ratios": ratios}
    return Found([noted("a bare aiohttp loop, no state", middle(ratios))], rows, figures)


def kept_answers(bench: Bench) -> Found:
    rows, server = min(bench.rows, 50_000), bench.server
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        state = Path(folder) / "answers.db"
        rates = []
        for _ in range(2):
            with Client(config(server.url), state=state) as client:
                rates.append(many(client, rows))
    asked, again = rates
    figures = {"server": server.name, "asked, answers/s": asked, "known, answers/s": again}
    return Found([noted("asking, when the answers are known", again / asked)], rows, figures)


MEMORY = """
import sys
from bioforge.api import Client, Config, ProviderConfig
config = Config(provider=ProviderConfig(base_url=sys.argv[1], api_key="bench"), model="gpt-6-luna")
with Client(config) as client:
    for outcome in client.generate_many_sync(f"Artist Number {i}" for i in range(int(sys.argv[2]))):
        outcome.unwrap()
"""


def memory(bench: Bench) -> Found:
    sizes = (min(bench.rows, 2_000), min(bench.rows, 100_000))
    small, large = (
        took([sys.executable, "-c", MEMORY, bench.server.url, str(size)], bench.folder).peak for size in sizes
    )
    figures = {"MB": large, f"MB at {sizes[0]:,}": small}
    return Found([at_most(1.5, f"the memory at {sizes[0]:,} items", large / small)], sizes[1], figures)


def start_up(bench: Bench) -> Found:
    statements = {"bare": "import asyncio, pydantic.main", "ours": "import bioforge.api"}
    times: dict[str, list[float]] = {name: [] for name in statements}
    for _ in range(2 * bench.repeats + 1):
        for name, statement in statements.items():
            times[name].append(took([sys.executable, "-c", statement], bench.folder).wall)
    bare_one, ours = min(times["bare"]), min(times["ours"])
    figures = {"`import bioforge.api`, s": ours, "`import asyncio, pydantic`, s": bare_one}
    return Found([at_most(2.5, "`import asyncio, pydantic`: `import bioforge.api`", ours / bare_one)], 0, figures)

"""Rows about calls: answers a second, with everything durable, against loops that keep nothing."""

from __future__ import annotations

import math

from performance.findings import Found, at_least, noted
from performance.measuring import bare, bioforge, middle
from performance.projects import Bench, rate
from performance.servers import embedded

SLOW = {"median": 1.0, "sigma": 0.7, "in_flight": 256}
FAULTS = ("rate_limit_bare", "server_error", "unavailable", "drop_before", "truncated")
"""One in a hundred each: limits, errors, a connection that breaks, an answer that is cut."""


def async_zero_latency(bench: Bench) -> Found:
    """Interleaved with the bare loops, so that what else the machine does meets them all."""
    rows, server = min(bench.rows, 50_000), bench.server
    ours, loop, sketch, whole = [], [], [], []
    for _ in range(bench.repeats):
        with bench.project(rows, server.url) as root:
            loop.append(bare(root, "loop", server.url, rows, 64)[1]["rate"])
            took = bioforge(root, "run")
            ours.append(rate(root))
            whole.append(rows / took.wall)
            sketch.append(bare(root, "sketch", server.url, rows, 64, root / "sketch.db")[1]["rate"])
    ratios = [mine / theirs for mine, theirs in zip(ours, loop, strict=True)]
    possible = [mine / theirs for mine, theirs in zip(sketch, loop, strict=True)]
    return Found(
        [
            at_least(0.7, "a bare aiohttp loop that stores nothing", middle(ratios)),
            noted("that loop: the same loop with SQLite, the sketch", middle(possible)),
        ],
        rows,
        {
            "server": server.name,
            "ours, answers/s": ours,
            "ours as a whole process, answers/s": whole,
            "bare loop, answers/s": loop,
            "loop with SQLite, answers/s": sketch,
            "ratios": ratios,
        },
    )


def async_slow_answers(bench: Bench) -> Found:
    median, sigma, in_flight = SLOW["median"], SLOW["sigma"], int(SLOW["in_flight"])
    rows = min(bench.rows, 6_000)
    faults = [f"--fault={name}=0.01" for name in FAULTS]
    with (
        embedded("--latency", str(median), "--latency-sigma", str(sigma), *faults) as server,
        bench.project(rows, server.url, concurrency=in_flight) as root,
    ):
        bioforge(root, "run", expected=(0, 1))
        ours = rate(root, 0.1, 0.85)
    ideal = in_flight / (median * math.exp(sigma**2 / 2))
    return Found(
        [at_least(0.95, "the ideal: in flight / mean latency, while full", ours / ideal)],
        rows,
        {"server": server.name, "ours, answers/s": ours, "ideal, answers/s": ideal},
    )


def threads(bench: Bench) -> Found:
    rows, workers, server = min(bench.rows, 3_000), 32, bench.server
    ours, pool = [], []
    for _ in range(bench.repeats):
        with bench.project(rows, server.url, backend="threads", concurrency=workers) as root:
            pool.append(bare(root, "threads", server.url, rows, workers)[1]["rate"])
            bioforge(root, "run")
            ours.append(rate(root))
    ratios = [mine / theirs for mine, theirs in zip(ours, pool, strict=True)]
    return Found(
        [at_least(1.5, "calls of the SDK in a ThreadPoolExecutor", middle(ratios))],
        rows,
        {"server": server.name, "ours, answers/s": ours, "SDK, answers/s": pool, "ratios": ratios},
    )

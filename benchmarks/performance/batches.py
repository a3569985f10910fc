"""Rows about the Batch API: lines written and split, batches created, results collected; on the embedded server."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from performance.bare import SPLIT
from performance.findings import Found, at_most, noted
from performance.measuring import bare, bioforge, middle
from performance.projects import Bench
from performance.servers import embedded

WAITED = (0, 75)
MEMORY_ROWS = 120_000
PATIENCE = 1800.0
"""Seconds for the embedded server to execute what it was given."""


def lines_written(bench: Bench) -> Found:
    """From the CSV to files for the Batch API, by hand and by `batch jsonl`."""
    rows = bench.rows
    ours, by_hand = [], []
    for _ in range(bench.repeats if rows <= 100_000 else 1):
        with bench.project(rows) as root:
            by_hand.append(bare(root, "lines", "artists.csv", ".")[0])
            ours.append(bioforge(root, "batch", "jsonl", "-o", "ours.jsonl"))
            _all_lines(root, rows)
    ratios = [mine.wall / theirs.wall for mine, theirs in zip(ours, by_hand, strict=True)]
    return Found(
        [at_most(2, "a bare script that writes the same lines", middle(ratios))],
        rows,
        {"ours, s": [one.wall for one in ours], "by hand, s": [one.wall for one in by_hand], "ratios": ratios},
    )


def _all_lines(root: Path, rows: int) -> None:
    """Both have written every row; else one of the two times is of something else."""
    for pattern in ("ours*.jsonl", "bare-*.jsonl"):
        found = 0
        for path in root.glob(pattern):
            with path.open("rb") as stream:
                found += sum(piece.count(b"\n") for piece in iter(lambda: stream.read(1 << 20), b""))
        if found != rows:
            raise ValueError(f"{pattern} has {found} lines of {rows}")


def submitted(bench: Bench) -> Found:
    """From an untouched CSV to created batches, every member durable before its file is sent."""
    rows = min(bench.rows, 100_000)
    with embedded("--batch-seconds", "3600") as server, bench.project(rows, server.url, backend="batch") as root:
        by_hand, _ = bare(root, "submit", "artists.csv", ".", server.url)
        ours = bioforge(root, "run", "--no-wait", expected=WAITED)
    return Found(
        [noted("a script that writes, uploads and creates, and keeps nothing", ours.wall / by_hand.wall)],
        rows,
        {"ours, s": ours.wall, "by hand, s": by_hand.wall},
    )


def collected(bench: Bench) -> Found:
    """The result file of one batch, from the provider into the state, by hand and by `run`."""
    rows = SPLIT if bench.rows >= 20_000 else bench.rows
    with embedded("--batch-seconds", "0") as server, bench.project(rows, server.url, backend="batch") as root:
        bioforge(root, "run", "--no-wait", expected=WAITED)
        (batch,) = server.wait_for_batches(PATIENCE)
        by_hand, said = bare(root, "collect", server.url, batch["output_file_id"], ".")
        ours = bioforge(root, "run")
    if said["lines"] != rows:
        raise ValueError(f"the result has {said['lines']} lines of {rows}")
    return Found(
        [at_most(2, "a bare script that fetches and stores one result", ours.wall / by_hand.wall)],
        rows,
        {"ours, s": ours.wall, "by hand, s": by_hand.wall},
    )


def memory(bench: Bench) -> Found:
    sizes = (min(10_000, bench.rows), min(MEMORY_ROWS, bench.rows))
    peaks, files = [], 0
    with embedded("--batch-seconds", "0") as server:
        for size in sizes:
            with bench.project(size, server.url, backend="batch") as root:
                peaks.append(bioforge(root, "run").peak)
                with closing(sqlite3.connect(root / "bioforge.db")) as db:
                    (files,) = db.execute("SELECT count(*) FROM batches").fetchone()
    small, large = peaks
    return Found(
        [
            at_most(200, f"at most for a run in {files} batches", large, "MB"),
            at_most(1.5, f"that at {sizes[0]:,} rows", large / small),
        ],
        sizes[1],
        {f"at {sizes[0]:,} rows, MB": small},
    )

"""Rows about knowing what to do: the first plan, nothing to do, one thing to do, the memory it takes; and starting up."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing

from performance.findings import Found, at_most, exactly, noted
from performance.measuring import Took, bare, best, bioforge, middle, took
from performance.projects import Bench, change_row

SMALL = 1_000
MIDDLE = 10_000


def first_plan(bench: Bench) -> Found:
    rows = bench.rows
    ours, by_hand = [], []
    for _ in range(bench.repeats if rows <= 100_000 else 1):
        with bench.project(rows) as root:
            by_hand.append(bare(root, "plan", "artists.csv", "bare.db")[0])
            ours.append(bioforge(root, "plan"))
    wall = [mine.wall / theirs.wall for mine, theirs in zip(ours, by_hand, strict=True)]
    cpu = [mine.cpu / theirs.cpu for mine, theirs in zip(ours, by_hand, strict=True)]
    return Found(
        [
            at_most(2, "reading, rendering, hashing and inserting by hand", middle(wall)),
            noted("the same in seconds of a processor", middle(cpu)),
        ],
        rows,
        {"ours, s": [one.wall for one in ours], "by hand, s": [one.wall for one in by_hand], "ratios": wall},
    )


def nothing_changed(bench: Bench) -> Found:
    quickest = {}
    for size in (SMALL, bench.rows):
        root = bench.built(size).root
        bioforge(root, "run")
        quickest[size] = best(3, lambda root=root: bioforge(root, "run"))  # type: ignore[misc]
    seconds, small = quickest[bench.rows].wall, quickest[SMALL].wall
    return Found(
        [
            at_most(1, "for a run with nothing to do", seconds, "s"),
            at_most(2, f"the same at {SMALL:,} rows", seconds / small),
        ],
        bench.rows,
        {f"seconds at {size:,}": one.wall for size, one in quickest.items()},
    )


def one_changed(bench: Bench) -> Found:
    """Counted at the server and in the state; then the row is as before, and that costs nothing."""
    built, server = bench.built(bench.rows), bench.server
    root = built.root
    before = server.requests()
    source = bench.input(bench.rows)
    change_row(root / "artists.csv")
    changed = bioforge(root, "run")
    asked = server.requests() - before
    with closing(sqlite3.connect(root / "bioforge.db")) as db:
        latest = "SELECT count(*) FROM attempts WHERE run = (SELECT max(id) FROM runs)"
        (noted_down,) = db.execute(latest).fetchone()
    (root / "artists.csv").unlink()
    (root / "artists.csv").hardlink_to(source)
    reverted = bioforge(root, "run")
    again = server.requests() - before - asked
    return Found(
        [
            exactly(1, "at the server when one row changed", asked, "request"),
            exactly(1, "in the state", noted_down, "request"),
            exactly(0, "when it is as before", again, "request"),
            exactly(bench.rows, "had built everything", built.requests, "request"),
        ],
        bench.rows,
        {"server": server.name, "seconds": changed.wall, "seconds to go back": reverted.wall},
    )


def memory(bench: Bench) -> Found:
    sizes = (min(MIDDLE, bench.rows), bench.rows)
    peaks: dict[str, list[float]] = {"plan": [], "run": []}
    for size in sizes:
        with bench.project(size) as root:
            peaks["plan"].append(bioforge(root, "plan").peak)
        peaks["run"].append(bench.built(size).took.peak)
    checks = []
    for command, (small, large) in peaks.items():
        checks += [
            at_most(200, f"at most for `{command}`", large, "MB"),
            at_most(1.5, f"that of `{command}` at {sizes[0]:,} rows", large / small),
        ]
    return Found(checks, bench.rows, {f"`{name}` at {sizes[0]:,} rows, MB": peak[0] for name, peak in peaks.items()})


def export(bench: Bench) -> Found:
    root = bench.built(bench.rows).root
    ours, by_hand = [], []
    for _ in range(bench.repeats if bench.rows <= 100_000 else 1):
        ran, said = bare(root, "export", "bioforge.db", "bare.jsonl")
        if said["lines"] != bench.rows:
            raise ValueError(f"the bare export has {said['lines']} lines of {bench.rows}")
        by_hand.append(ran)
        ours.append(bioforge(root, "export", "--format", "jsonl", "-o", "ours.jsonl"))
    for name in ("bare.jsonl", "ours.jsonl"):
        (root / name).unlink()
    ratios = [mine.wall / theirs.wall for mine, theirs in zip(ours, by_hand, strict=True)]
    return Found(
        [at_most(2, "a bare SELECT with JSON encoding", middle(ratios))],
        bench.rows,
        {"ours, s": [one.wall for one in ours], "by hand, s": [one.wall for one in by_hand], "ratios": ratios},
    )


def start_up(bench: Bench) -> Found:
    """The quickest of several, interleaved."""
    commands = {
        "import typer": ("-c", "import typer"),
        "--help": ("-m", "bioforge", "--help"),
        "--version": ("-m", "bioforge", "--version"),
    }
    times: dict[str, list[Took]] = {name: [] for name in commands}
    for _ in range(2 * bench.repeats + 1):
        for name, command in commands.items():
            times[name].append(took([sys.executable, *command], bench.folder))
    quickest = {name: min(one.wall for one in found) for name, found in times.items()}
    return Found(
        [
            at_most(2.5, f"`import typer`: `{flag}`", quickest[flag] / quickest["import typer"])
            for flag in ("--help", "--version")
        ],
        0,
        {f"`{name}`, s": value for name, value in quickest.items()},
    )

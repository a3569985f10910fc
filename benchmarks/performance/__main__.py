"""How fast? `python benchmarks/performance [NAME…] [--rows N] [--quick] [--out results.json]`.

Everything runs on this machine and on loopback. The names are the rows of the table, `table` for all of them, and `scale`,
`soak` and `comparison`; all are measured when none is given. Results are added to the file cell by cell, so that it can be
done in parts; `report.py` makes docs/performance.md of them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from performance import batches, calls, comparison, library, planning, scale, soak
from performance.findings import Found, figure, line
from performance.machine import machine, versions
from performance.measuring import NotMeasured
from performance.projects import Bench

ROWS: dict[str, Callable[[Bench], Found]] = {
    "async-zero-latency": calls.async_zero_latency,
    "async-slow-answers": calls.async_slow_answers,
    "threads": calls.threads,
    "first-plan": planning.first_plan,
    "nothing-changed": planning.nothing_changed,
    "one-changed": planning.one_changed,
    "memory": planning.memory,
    "batch-lines": batches.lines_written,
    "batch-submitted": batches.submitted,
    "batch-collected": batches.collected,
    "batch-memory": batches.memory,
    "export": planning.export,
    "start-up": planning.start_up,
    "library-default": library.default_concurrency,
    "library-64": library.concurrency_64,
    "library-zero-latency": library.zero_latency,
    "library-kept": library.kept_answers,
    "library-memory": library.memory,
    "library-start-up": library.start_up,
}
TABLE = "table"
"""Stands for all rows of the table."""
MORE = ("scale", "soak", "comparison")
QUICK = {"rows": 500, "sizes": (200, 500), "soak": 2_000, "compared": 100, "repeats": 1}
"""To see that it works; the figures say nothing."""


class Results:
    """The file that is filled cell by cell."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.all: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}

    def add(self, value: Any, *place: str) -> None:
        """A value at a place: `add(3, "rows", "threads")`."""
        table = self.all
        for name in place[:-1]:
            table = table.setdefault(name, {})
        table[place[-1]] = value
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_name(self._path.name + ".new")
        unfinished.write_text(json.dumps(self.all, indent=1) + "\n", "utf-8")
        unfinished.replace(self._path)


def main(arguments: Sequence[str] | None = None) -> int:
    given = _given(arguments)
    names = [one for name in given.names or [TABLE, *MORE] for one in (ROWS if name == TABLE else [name])]
    if unknown := [name for name in names if name not in (*ROWS, *MORE)]:
        raise SystemExit(f"unknown: {', '.join(unknown)} (there are: {', '.join((*ROWS, TABLE, *MORE))})")
    _allow_files(4096)
    results = Results(given.out)
    with (
        tempfile.TemporaryDirectory(dir=given.folder, prefix="performance-") as folder,
        closing(Bench(given.rows, Path(folder), given.repeats)) as bench,
    ):
        results.add(machine(bench.folder), "machine")
        results.add(versions(), "versions")
        print(f"on {bench.server.name}: {', '.join(f'{name} {text}' for name, text in versions().items())}", flush=True)
        broken = 0
        for name in names:
            before = time.perf_counter()
            try:
                match name:
                    case "scale":
                        broken += _scale(bench, results, given.sizes)
                    case "soak":
                        _soak(bench, results, given.soak_rows)
                    case "comparison":
                        broken += _comparison(bench, results, given)
                    case _:
                        _row(bench, results, name, before)
            except (NotMeasured, ValueError, RuntimeError, OSError) as error:
                # What cannot be measured is said, and takes nothing from the others.
                broken += 1
                where = traceback.extract_tb(error.__traceback__)[-1]
                print(f"{name:20} NOT MEASURED: {error} ({where.name}:{where.lineno})", flush=True)
                place = ("rows", name, str(given.rows)) if name in ROWS else (name, "not measured")
                results.add({"broken": bench.nowhere(str(error))} if name in ROWS else str(error), *place)
        return int(broken > 0)


def _row(bench: Bench, results: Results, name: str, before: float) -> None:
    found = ROWS[name](bench)
    checks = [check.record() for check in found.checks]
    record = {
        "rows": found.rows,
        "checks": checks,
        "details": _rounded(found.details),
        "seconds": round(time.perf_counter() - before, 1),
        "bioforge": versions()["bioforge"],
    }
    results.add(record, "rows", name, str(bench.rows))
    for check in checks:
        print(line(name, found.rows, check), flush=True)


def _scale(bench: Bench, results: Results, sizes: Sequence[int]) -> int:
    broken = 0
    for size in sizes:

        def say(job: str, figures: dict[str, Any], size: int = size) -> None:
            results.add(figures, "scale", str(size), job)
            if "skipped" in figures:
                print(f"{'scale':20} {size:>9,}  {job:28} {figures['skipped']}", flush=True)
                return
            shown = f"{figures['wall']:9,.2f} s {figures['cpu']:9,.2f} s of CPU {figures['peak']:7,.0f} MB"
            if "state" in figures:
                shown += f" {figures['state'] / size:7,.0f} bytes of state for a row"
            print(f"{'scale':20} {size:>9,}  {job:28} {shown}", flush=True)

        try:
            whole = scale.scale(bench, size, say)
            # Without what an earlier measurement had and this one has not.
            results.add(whole, "scale", str(size))
        except NotMeasured as error:
            broken += 1
            say("the rest", {"skipped": f"{size:,} rows: {bench.nowhere(str(error))}"})
        if size != bench.rows:
            bench.forget(size)
    return broken


def _soak(bench: Bench, results: Results, rows: int) -> None:
    found = soak.soak(bench, rows)
    results.add(found, "soak")
    growth, end = found["growth"], found["end"]
    shown = f"memory × {growth['memory']:.2f} ({end['memory']:.0f} MB), files × {growth['files']:.2f}"
    print(f"{'soak':20} {rows:>9,}  {shown} since a quarter; {found['audit']}", flush=True)


def _comparison(bench: Bench, results: Results, given: argparse.Namespace) -> int:
    tools = comparison.known(given.pythons)
    names = given.tools.split(",") if given.tools else list(tools)
    if unknown := [name for name in names if name not in tools]:
        raise SystemExit(f"unknown: {', '.join(unknown)} (there are: {', '.join(tools)})")
    broken = 0
    for name in names:
        try:
            found = comparison.compare(bench, tools[name](), given.compared_rows)
        except (NotMeasured, OSError) as error:
            broken += 1
            found = {"broken": bench.nowhere(str(error))}
        results.add(found, "comparison", name)
        if "broken" in found:
            print(f"comparison {name:20} NOT MEASURED: {found['broken']}", flush=True)
            continue
        again = ", ".join(
            f"{words} {figure(found[stage]['wall'], 's')} and {found[stage]['requests']:,} requests"
            for stage, words in (("nothing", "unchanged"), ("one", "one row changed"))
        )
        peak = found["first"]["peak"]
        print(f"comparison {name:20} {found['rate']:8,.0f} rows/s {peak:6,.0f} MB; {again}", flush=True)
    return broken


def _given(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="performance", description="How fast is it, and does it stay so?")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join((*ROWS, TABLE, *MORE))}; default: all")
    parser.add_argument("--rows", type=int, help="of each row of the table (20,000)")
    parser.add_argument("--sizes", help="of scale, comma-separated (10000,100000,1000000)")
    parser.add_argument("--soak-rows", type=int, help="(200,000)")
    parser.add_argument("--compared-rows", type=int, help="(3,000)")
    parser.add_argument("--repeats", type=int, help="of what is interleaved (3)")
    parser.add_argument("--tools", help="of the comparison, comma-separated; default: all")
    parser.add_argument(
        "--pythons", default=os.environ.get("PERFORMANCE_PYTHONS", "venvs/{tool}/bin/python"),
        help="the interpreter that has a tool, with {tool} for its name",
    )  # fmt: skip
    parser.add_argument("--folder", type=Path, help="where to put what is made; a million rows take 14 GB")
    parser.add_argument("--quick", action="store_true", help="few rows everywhere, to see that it works")
    parser.add_argument("--out", type=Path, default=Path("results.json"), help="results are added, cell by cell")
    given = parser.parse_args(arguments)
    quick: Any = QUICK if given.quick else {}
    given.rows = given.rows or quick.get("rows", 20_000)
    given.sizes = [int(size) for size in given.sizes.split(",")] if given.sizes else quick.get("sizes", scale.SIZES)
    given.soak_rows = given.soak_rows or quick.get("soak", soak.ROWS)
    given.compared_rows = given.compared_rows or quick.get("compared", comparison.ROWS)
    given.repeats = given.repeats or quick.get("repeats", 3)
    return given


def _allow_files(wanted: int) -> None:
    """For this process and what it starts: 256 calls in flight are as many connections, on both sides."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now < wanted and now != resource.RLIM_INFINITY:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most)
        )


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return {name: _rounded(one) for name, one in value.items()} if hasattr(value, "items") else value


if __name__ == "__main__":
    # Also who is told to end ends the servers, and leaves nothing.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())

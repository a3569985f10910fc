"""Who pays twice? `python benchmarks/money_safety [--tools A,B] [--scenarios X,Y] [--repeats N] [--out results.json]`.

Everything runs on this machine and on loopback; the server is the embedded simulator in a process of its own. What is
counted, and how, stands in `counting.py`; `report.py` makes docs/money-safety.md of the results.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import batch_scenarios  # noqa: F401  # registers them
import fault_scenarios  # noqa: F401  # registers them
from adapters import Adapter
from adapters.known import known
from scenarios import ALL, Scenario
from stage import Staging

import bioforge


def main() -> None:
    parser = argparse.ArgumentParser(prog="money_safety", description="Who pays twice, loses or mixes up answers?")
    parser.add_argument("--tools", help="comma-separated; default: all")
    parser.add_argument("--scenarios", help="comma-separated; default: all")
    parser.add_argument("--repeats", type=int, default=3, help="of scenarios with random moments")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time")
    parser.add_argument(
        "--pythons", default=os.environ.get("MONEY_SAFETY_PYTHONS", "venvs/{tool}/bin/python"),
        help="the interpreter that has a tool, with {tool} for its name",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("results.json"), help="results are added, cell by cell")
    given = parser.parse_args()
    tools = known(given.pythons)
    chosen = [tools[name]() for name in _names(given.tools, tools)]
    results = json.loads(given.out.read_text()) if given.out.exists() else {"cells": {}, "tools": {}}
    results["machine"] = machine(given.repeats)
    there = []
    for adapter in chosen:
        try:
            results["tools"][adapter.name] = adapter.versions()
            there.append(adapter)
        except (RuntimeError, OSError) as error:
            results["tools"][adapter.name] = f"not run: {error}"
    cells = [
        (adapter, ALL[name])
        for name in _names(given.scenarios, ALL)
        for adapter in there
        if ("batch" if adapter.batch else "calls") in ALL[name].kinds and adapter.name.startswith(ALL[name].only)
    ]
    with ThreadPoolExecutor(given.jobs) as pool:
        for (adapter, story), found in zip(
            cells, pool.map(lambda cell: played(cell[0], cell[1], given.repeats), cells), strict=True
        ):
            results["cells"].setdefault(story.name, {})[adapter.name] = found
            given.out.write_text(json.dumps(results, indent=1) + "\n")
            print(f"{story.name:14} {adapter.name:18} {summary(found)}", flush=True)


def played(adapter: Adapter, story: Scenario, repeats: int) -> list[dict[str, Any]]:
    """A cell: one report for each repeat."""
    return [play(adapter, story, repeat) for repeat in range(repeats if story.random else 1)]


def play(adapter: Adapter, story: Scenario, repeat: int) -> dict[str, Any]:
    before = time.perf_counter()
    try:
        with Staging(adapter, story.options, repeat, story.name, story.disk) as stage:
            stage.hopeless = story.hopeless
            story.play(stage)
            found = stage.report()
    except Exception as error:
        # A mistake of the harness is a result too, and no number.
        found = {"broken": repr(error), "where": traceback.format_exc().splitlines()[-3].strip()}
    return found | {"seconds": round(time.perf_counter() - before, 1)}


def summary(found: Sequence[dict[str, Any]]) -> str:
    if any("broken" in one for one in found):
        return f"BROKEN {next(one['broken'] for one in found if 'broken' in one)}"
    total = {
        name: sum(one[name] for one in found) for name in ("twice", "in_flight", "lost", "wrong", "unfit", "needless")
    }
    answered = ",".join(f"{one['answered']}/{one['rows']}" for one in found)
    runs = ",".join(str(one["runs"]) for one in found)
    seconds = sum(one["seconds"] for one in found)
    if "maybe" in found[0]:
        maybe = sum(one["maybe"] for one in found)
        low, high = (sum(one["unanswered"][place] for one in found) for place in (0, 1))
        runs += f" maybe paid {maybe}, without an answer {low}" + (f" to {high}" if high > low else "")
    unnamed = f" unnamed {sum(one['unnamed'] for one in found)}" if "unnamed" in found[0] else ""
    return f"{total} answered {answered} runs {runs}{unnamed} {seconds:.0f} s"


def machine(repeats: int) -> dict[str, Any]:
    root = Path(__file__).parent.parent.parent
    ran = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}, {os.cpu_count()} cores",
        "bioforge": f"{bioforge.__version__} ({ran.stdout.strip() or 'no repository'})",
        "repeats": repeats,
    }


def _names(given: str | None, there: Sequence[str] | Any) -> list[str]:
    names = given.split(",") if given else list(there)
    if unknown := [name for name in names if name not in there]:
        raise SystemExit(f"unknown: {', '.join(unknown)} (there are: {', '.join(there)})")
    return names


if __name__ == "__main__":
    main()

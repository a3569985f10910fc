"""A long run with faults: do memory or open files grow with the answers that have come?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from performance.calls import FAULTS
from performance.measuring import KEY, NotMeasured, bioforge
from performance.projects import Bench
from performance.servers import embedded

ROWS = 200_000
EVERY = 1.0
"""Seconds from one look to the next; a look also asks the server how many answers it has charged."""


def soak(bench: Bench, rows: int = ROWS) -> dict[str, Any]:
    faults = [f"--fault={name}=0.01" for name in FAULTS]
    with embedded(*faults) as server, bench.project(rows, server.url, backend="async", concurrency=64) as root:
        samples: list[dict[str, float]] = []
        environment = {**os.environ, "OPENAI_API_KEY": KEY}
        before = time.perf_counter()
        with (root / "run.err").open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "bioforge", "run"], cwd=root, env=environment, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=err,
            )  # fmt: skip
        every = min(EVERY, rows / 200_000)
        while process.poll() is None:
            with suppress(OSError, ValueError, IndexError):
                samples.append({"answers": server.ledger()["totals"]["charges"], **look(process.pid)})
            with suppress(subprocess.TimeoutExpired):
                process.wait(every)
        seconds = time.perf_counter() - before
        if process.returncode not in (0, 1):
            words = (root / "run.err").read_text("utf-8", "replace")[-300:]
            raise NotMeasured(f"`bioforge run` ended with {process.returncode}: {words}")
        audit = json.loads(bioforge(root, "audit", "--format", "json", expected=(0, 1)).out)
        counts = server.ledger()
    return {"rows": rows, "seconds": round(seconds, 1), "code": process.returncode} | found(samples, audit, counts)


def found(samples: list[dict[str, float]], audit: dict[str, Any], counts: dict[str, Any]) -> dict[str, Any]:
    """Memory and files at a quarter of the answers, and at the last look that saw it at work."""
    total = max((one["answers"] for one in samples), default=0)
    working = [one for one in samples if 0 < one["answers"] < total]
    if len(working) < 2:
        raise NotMeasured("the run was over before it could be watched")
    last = working[-1]
    quarter = next((one for one in working if one["answers"] >= total / 4), last)
    return {
        "quarter": quarter,
        "end": last,
        "most": {name: max(one[name] for one in working) for name in ("memory", "files")},
        "growth": {name: round(last[name] / quarter[name], 3) for name in ("memory", "files")},
        "samples": len(working),
        "faults": counts["counts"]["faults"],
        "audit": {name: value for name, value in audit.items() if isinstance(value, int | float)},
    }


def look(pid: int) -> dict[str, float]:
    """Resident memory in MB, and open files."""
    status = Path(f"/proc/{pid}/status").read_text()
    memory = int(status.split("VmRSS:")[1].split()[0]) / 1024
    return {"memory": round(memory, 1), "files": len(os.listdir(f"/proc/{pid}/fd"))}

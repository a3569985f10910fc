"""Where it was measured, and with what: a number without them says nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
import subprocess
import time
from pathlib import Path
from statistics import median
from typing import Any

import bioforge
from performance.servers import nginx_path

LIBRARIES = ("aiohttp", "openai", "sqlite-utils", "jinja2", "pydantic", "typer")


def machine(folder: Path) -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GB",
        "disk": f"{_filesystem(folder)}, {_sync(folder) * 1000:.2f} ms for a write of 4 KB and fsync",
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def versions() -> dict[str, str]:
    root = Path(__file__).parent.parent.parent
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True)
    found = {
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "bioforge": f"{bioforge.__version__} ({commit.stdout.strip() or 'no repository'})",
        "nginx": "not installed: the embedded server stands for it",
    }
    if program := nginx_path():
        said = subprocess.run([program, "-v"], capture_output=True, text=True).stderr
        found["nginx"] = said.strip().rpartition("/")[2]
    for name in LIBRARIES:
        found[name] = importlib.metadata.version(name)
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _filesystem(folder: Path) -> str:
    """The type of the mount that holds the folder."""
    best = ("", "unknown")
    mounts = Path("/proc/mounts")
    for line in mounts.read_text().splitlines() if mounts.exists() else ():
        _, point, kind, *_ = line.split()
        inside = str(folder.resolve()).startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def _sync(folder: Path) -> float:
    """Seconds until 4 KB are safe: what a group commit costs at least."""
    path = folder / "sync"
    times = []
    with path.open("wb", buffering=0) as stream:
        for _ in range(50):
            before = time.perf_counter()
            stream.write(b"x" * 4096)
            os.fsync(stream.fileno())
            times.append(time.perf_counter() - before)
    path.unlink()
    return float(median(times))

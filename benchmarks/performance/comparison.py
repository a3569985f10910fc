"""bioforge beside the tools that people use for the same job: the same rows, the same server, 64 calls at once.

The scripts are those of benchmarks/money_safety/tools, each after its tool's own documentation.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from performance.bare import INSTRUCTIONS, MODEL
from performance.measuring import NotMeasured, Took, took
from performance.projects import Bench, change_row, configure, write_rows
from performance.servers import Server

HERE = Path(__file__).parent
SCRIPTS = HERE.parent / "money_safety" / "tools"
ROWS = 3_000
CONCURRENCY = 64
TIMEOUT = 60.0
BATCH_ONLY = ("batchor", "llm-batch-py")
"""Known to money_safety, and left out: they have no calls, only batches."""


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    argv: Sequence[str]
    packages: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    backend: str = ""
    """Of bioforge; the others have a script."""

    def prepare(self, folder: Path, rows: int, url: str, *, changed: bool = False) -> None:
        if self.backend:
            write_rows(folder / "artists.csv", rows)
            if changed:
                change_row(folder / "artists.csv")
            more = '[[output]]\npath = "out.jsonl"\n'
            configure(folder, url, backend=self.backend, concurrency=CONCURRENCY, more=more)
            return
        job = {
            "base_url": url,
            "model": MODEL,
            "concurrency": CONCURRENCY,
            "timeout": TIMEOUT,
            "rows": [row(i, changed=changed and i == 7) for i in range(rows)],
        }
        (folder / "job.json").write_text(json.dumps(job), "utf-8")

    def run(self, folder: Path) -> Took:
        return took(self.argv, folder, env={"HOME": str(folder), **self.env})

    def answered(self, folder: Path) -> int:
        """Rows with a text in its output."""
        if (results := folder / "results.jsonl").exists():  # the cookbook's script appends
            with results.open(encoding="utf-8") as stream:
                return len({json.loads(line)[2]["row"] for line in stream})
        with (folder / "out.jsonl").open(encoding="utf-8") as stream:
            records = [json.loads(line) for line in stream]
        return sum(bool(record.get("text") or record.get("response_text")) for record in records)

    def versions(self) -> str:
        code = "import importlib.metadata as m, sys; print(*(f'{n} {m.version(n)}' for n in sys.argv[1:]), sep=', ')"
        return took([self.argv[0], "-c", code, *self.packages], HERE).out.strip()


def row(i: int, *, changed: bool = False) -> dict[str, Any]:
    asked = f"Artist Number {i}\n{'sculptor' if changed else 'painter'}, active {1850 + i % 150}"
    messages = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": asked}]
    return {"id": str(i), "messages": messages}


def known(pythons: str) -> dict[str, Callable[[], Tool]]:
    """Makers by name. `pythons` is the path of a tool's interpreter with `{tool}` for its name."""

    def script(name: str, file: str, packages: Sequence[str], *, own: bool = False) -> Callable[[], Tool]:
        python = sys.executable if own else os.path.abspath(pythons.replace("{tool}", name))
        argv = [python, str(HERE / "tools" / "unlimited.py"), str(SCRIPTS / file)]
        return lambda: Tool(name, argv, packages)

    def ours(backend: str) -> Callable[[], Tool]:
        argv = [sys.executable, "-m", "bioforge", "run"]
        return lambda: Tool(f"bioforge-{backend}", argv, ["bioforge"], backend=backend)

    return {
        "bioforge-async": ours("async"),
        "bioforge-threads": ours("threads"),
        "cookbook": script("cookbook", "cookbook.py", ["aiohttp"], own=True),
        "litellm": script("litellm", "litellm_batch.py", ["litellm", "diskcache", "openai"]),
        "langchain": script(
            "langchain", "langchain_batch.py", ["langchain-openai", "langchain-community", "openai"]
        ),
        "curator": script("curator", "curator_run.py", ["bespokelabs-curator", "openai"]),
    }  # fmt: skip


def compare(bench: Bench, tool: Tool, rows: int) -> dict[str, Any]:
    """The first run, one with nothing changed, one with one row changed."""
    found: dict[str, Any] = {"rows": rows, "versions": tool.versions()}
    server = bench.server
    with tempfile.TemporaryDirectory(dir=bench.folder, prefix=f"{tool.name}-") as name:
        folder = Path(name)
        for stage in ("first", "nothing", "one"):
            tool.prepare(folder, rows, server.url, changed=stage == "one")
            found[stage] = _stage(tool, folder, server, rows)
    found["rate"] = rows / found["first"]["wall"]
    return found


def _stage(tool: Tool, folder: Path, server: Server, rows: int) -> dict[str, Any]:
    before = server.requests()
    ran = tool.run(folder)
    if (answered := tool.answered(folder)) < rows:
        raise NotMeasured(f"{tool.name} answered {answered} of {rows} rows")
    return {**ran.figures(), "requests": server.requests() - before}

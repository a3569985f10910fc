"""Other tools: each is a short script in `tools/`, run by an interpreter that has the tool installed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from counting import Row

from adapters import CONCURRENCY, MODEL, TIMEOUT, Command
from adapters.bioforge import write

TOOLS = Path(__file__).parent.parent / "tools"


class Script:
    """A script that reads `job.json` and leaves `out.jsonl`."""

    def __init__(
        self, name: str, script: str, python: str, packages: Sequence[str], arguments: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.batch = "batch" in arguments
        self._command = Command([python, str(TOOLS / script), *arguments])
        self._packages = packages

    def prepare(self, folder: Path, rows: Sequence[Row], prompt: str, base_url: str) -> None:
        job = {
            "base_url": base_url,
            "model": MODEL,
            "concurrency": CONCURRENCY,
            "timeout": TIMEOUT,
            "rows": [
                {
                    "id": row.id,
                    "messages": [
                        {"role": "system", "content": prompt},
                        {"role": "user", "content": f"{row.name}\n{row.data}"},
                    ],
                }
                for row in rows
            ],
        }
        write(folder / "job.json", json.dumps(job))

    def command(self, folder: Path) -> Command:
        return self._command

    def results(self, folder: Path) -> dict[str, str]:
        path = folder / "out.jsonl"
        records = map(json.loads, path.read_text("utf-8").splitlines()) if path.exists() else ()
        return {record["id"]: record["text"] for record in records if record["text"]}

    def kept(self, folder: Path) -> list[tuple[str, str]]:
        return []

    def said(self, folder: Path) -> dict[str, Any]:
        return {}

    def versions(self) -> str:
        code = "import importlib.metadata as m, sys; print(*(f'{n} {m.version(n)}' for n in sys.argv[1:]), sep=', ')"
        ran = subprocess.run([self._command.argv[0], "-c", code, *self._packages], capture_output=True, text=True)
        if ran.returncode:
            raise RuntimeError(ran.stderr.strip().splitlines()[-1])
        return ran.stdout.strip()


class Curator(Script):
    """Where it gives out no dataset because a row is missing, what it has stands in its cache, and can be read there."""

    def kept(self, folder: Path) -> list[tuple[str, str]]:
        found = []
        for path in folder.glob("curator-cache/*/responses_*.jsonl"):
            for line in path.read_text("utf-8").splitlines():
                try:
                    record = json.loads(line)
                    row, text = record["generic_request"]["original_row"]["id"], record["response_message"]
                except (ValueError, KeyError):
                    continue
                if isinstance(text, str):
                    found.append((row, text))
        return found


class Cookbook(Script):
    """The script that everybody copies: its results file is its output, the newest answer of a row counts."""

    def __init__(self) -> None:
        super().__init__("cookbook", "cookbook.py", sys.executable, ["aiohttp"])

    def results(self, folder: Path) -> dict[str, str]:
        path = folder / "results.jsonl"
        job = json.loads((folder / "job.json").read_text("utf-8"))
        asked = {row["id"]: row["messages"] for row in job["rows"]}
        found: dict[str, str] = {}
        for line in path.read_text("utf-8").splitlines() if path.exists() else ():
            try:
                request, answer, metadata = json.loads(line)
                # What one reads out of it: the answers to what is asked now.
                if asked.get(metadata["row"]) == request["messages"]:
                    found[metadata["row"]] = answer["choices"][0]["message"]["content"]
            except (ValueError, KeyError, TypeError):
                continue
        return {row: text for row, text in found.items() if text}

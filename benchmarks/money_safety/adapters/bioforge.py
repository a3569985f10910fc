"""bioforge by its backends."""

from __future__ import annotations

import csv
import json
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from counting import Row

from adapters import CONCURRENCY, MODEL, TIMEOUT, Command

PROJECT = """
[project]
name = "money-safety"
[provider]
base_url = "{url}"
timeout = {timeout}
[input]
path = "artists.csv"
[recipe.bio]
model = "{model}"
instructions = "prompt.md"
input = "{{{{ artist_name }}}}\\n{{{{ artist_data }}}}"
{recipe}[backend]
name = "{backend}"
concurrency = {concurrency}
{tables}
[[output]]
path = "out.jsonl"
"""
TABLES = """
[backend.batch]
poll_seconds = 0.2
poll_max_seconds = 0.5
[backend.auto]
min_saving_usd = 0.0
flex = false
"""


class Bioforge:
    def __init__(self, backend: str, source: Path | None = None, *, name: str = "", more: str = "") -> None:
        self.name = name or f"bioforge-{backend}"
        self.batch = backend in ("batch", "auto")
        self.backend = backend
        self.source = source
        """Where an older bioforge lies that is run instead of the installed one."""
        self.more = more
        """Further lines of the project file."""
        self.recipe = ""
        """Further lines of the recipe."""

    def prepare(self, folder: Path, rows: Sequence[Row], prompt: str, base_url: str) -> None:
        settings = {
            "url": base_url,
            "timeout": TIMEOUT,
            "model": MODEL,
            "concurrency": CONCURRENCY,
            "recipe": self.recipe,
        }
        tables = (TABLES if self.batch else "") + self.more
        write(folder / "bioforge.toml", PROJECT.format(**settings, backend=self.backend, tables=tables))
        write(folder / "prompt.md", prompt)
        unfinished = folder / "artists.csv.new"
        with unfinished.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["artist_id", "artist_name", "artist_data"])
            writer.writerows((row.id, row.name, row.data) for row in rows)
        unfinished.replace(folder / "artists.csv")

    def command(self, folder: Path) -> Command:
        env = {"PYTHONPATH": str(self.source)} if self.source else {}
        return Command([sys.executable, "-m", "bioforge", "run"], env)

    def results(self, folder: Path) -> dict[str, str]:
        path = folder / "out.jsonl"
        records = map(json.loads, path.read_text("utf-8").splitlines()) if path.exists() else ()
        return {r["artist_id"]: r["response_text"] for r in records if r.get("response_text") and not r.get("error")}

    def kept(self, folder: Path) -> list[tuple[str, str]]:
        return []

    def said(self, folder: Path) -> dict[str, Any]:
        command = [sys.executable, "-m", "bioforge", "audit"]
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
        lines = ran.stdout.strip().splitlines() or [ran.stderr.strip()]
        state = folder / "bioforge.db"
        named: list[str] = []
        maybe = 0
        if state.exists() and ran.returncode != 2:
            with closing(sqlite3.connect(f"file:{state}?mode=ro", uri=True)) as db:
                rows = db.execute("SELECT client_request_id FROM attempts WHERE paid IN ('yes', 'maybe')")
                named = [row[0] for row in rows if row[0]]
                ((maybe,),) = db.execute("SELECT count(*) FROM attempts WHERE paid = 'maybe' AND batch IS NULL")
        return {"audit": lines[-1], "code": ran.returncode, "named": named, "maybe": maybe}

    def versions(self) -> str:
        ran = subprocess.run([sys.executable, "-m", "bioforge", "--version"], capture_output=True, text=True)
        return ran.stdout.strip()


def write(path: Path, text: str) -> None:
    """As a whole or not at all: a running tool may be reading it."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_text(text, "utf-8")
    unfinished.replace(path)

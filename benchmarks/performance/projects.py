"""Project folders with made inputs, and states that were bought once and are used by several rows."""

from __future__ import annotations

import csv
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from performance.bare import INSTRUCTIONS, MODEL
from performance.measuring import NotMeasured, Took, bioforge
from performance.servers import Server, answering

PROJECT = """
[project]
name = "performance"
{project}
[provider]
base_url = "{url}"
[input]
path = "artists.csv"
[recipe.bio]
model = "{model}"
instructions = "{instructions}"
input = "{{{{ artist_name }}}}\\n{{{{ artist_data }}}}"
max_output_tokens = 400
[backend]
name = "{backend}"
concurrency = {concurrency}
[backend.batch]
poll_seconds = 0.5
poll_max_seconds = 2.0
"""
BYTES_A_ROW = 14_000
"""Of free space that is asked for before anything is made: states, inputs, outputs and what a server keeps."""
CHANGED = 7


def write_rows(path: Path, number: int) -> None:
    """The made input. Its time is long past: a file that was just written has to be read again to know that it is the same."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["artist_id", "artist_name", "artist_data", "born", "url"])
        writer.writerows(
            (i, f"Artist Number {i}", f"painter, active {1850 + i % 150}", 1820 + i % 150, f"https://x/{i}")
            for i in range(number)
        )
    os.utime(path, (1, 1))


def change_row(path: Path) -> None:
    """One row says something else."""
    changed = path.with_name("changed.csv")
    with path.open(encoding="utf-8", newline="") as source, changed.open("w", encoding="utf-8", newline="") as out:
        for line in source:
            out.write(line.replace("painter", "sculptor", 1) if line.startswith(f"{CHANGED},") else line)
    os.utime(changed, (2, 2))
    changed.replace(path)


def configure(
    root: Path, url: str, *, backend: str = "async", concurrency: int = 64, project: str = "", more: str = ""
) -> None:
    settings = {"url": url, "backend": backend, "concurrency": concurrency, "project": project}
    text = PROJECT.format(**settings, model=MODEL, instructions=INSTRUCTIONS) + more
    (root / "bioforge.toml").write_text(text, "utf-8")


@dataclass(frozen=True, slots=True)
class Built:
    """A project whose rows all have their answers."""

    root: Path
    took: Took
    """The run that bought them."""
    requests: int


@dataclass(slots=True)
class Bench:
    """What the rows of one invocation share: a folder, a server, inputs and built states."""

    rows: int
    folder: Path
    repeats: int = 3
    _closing: ExitStack = field(default_factory=ExitStack)
    _server: Server | None = None
    _inputs: dict[int, Path] = field(default_factory=dict)
    _built: dict[int, Built] = field(default_factory=dict)

    @property
    def server(self) -> Server:
        """The one that answers at once; begun when it is first asked for."""
        if self._server is None:
            self._server = self._closing.enter_context(answering(self.folder / "server"))
        return self._server

    def nowhere(self, text: str) -> str:
        """Without the paths of this machine."""
        return text.replace(str(self.folder), "…").replace(str(Path.home()), "~")

    def close(self) -> None:
        self._closing.close()

    def need_space(self, rows: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < rows * BYTES_A_ROW:
            need = rows * BYTES_A_ROW / 1e9
            raise NotMeasured(
                f"{rows:,} rows want {need:.0f} GB in {self.folder}, there are {free / 1e9:.0f}; --folder"
            )

    def input(self, rows: int) -> Path:
        if rows not in self._inputs:
            self.need_space(rows)
            path = self.folder / f"artists-{rows}.csv"
            write_rows(path, rows)
            self._inputs[rows] = path
        return self._inputs[rows]

    @contextmanager
    def project(
        self, rows: int, url: str = "simulator", *, backend: str = "async", concurrency: int = 64, project: str = ""
    ) -> Iterator[Path]:
        """A fresh project with so many rows, gone after the block."""
        source = self.input(rows)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="project-") as folder:
            root = Path(folder)
            os.link(source, root / "artists.csv")
            configure(root, url, backend=backend, concurrency=concurrency, project=project)
            yield root

    def built(self, rows: int) -> Built:
        """A project of which everything is fresh. Whoever changes it, changes it back."""
        if rows not in self._built:
            root = self._closing.enter_context(self.project(rows, self.server.url))
            self._built[rows] = built(root, self.server)
        return self._built[rows]

    def forget(self, rows: int) -> None:
        """Give back the space of what no further row needs."""
        if found := self._built.pop(rows, None):
            for path in found.root.glob("bioforge.db*"):
                path.unlink()


def built(root: Path, server: Server) -> Built:
    before = server.requests()
    took = bioforge(root, "run")
    return Built(root, took, server.requests() - before)


def rate(root: Path, low: float = 0.0, high: float = 1.0) -> float:
    """Answers a second, from the first request to the last answer, or between two quantiles of the answers."""
    with closing(sqlite3.connect(root / "bioforge.db")) as db:
        (begin,) = db.execute("SELECT min(started_at) FROM attempts").fetchone()
        (total,) = db.execute("SELECT count(*) FROM attempts WHERE paid = 'yes'").fetchone()
        first, last = int(low * total), int(high * total) - 1

        def end(place: int) -> float:
            order = "SELECT started_at + seconds FROM attempts WHERE paid = 'yes' ORDER BY 1 LIMIT 1 OFFSET ?"
            return float(db.execute(order, (place,)).fetchone()[0])

        return (last - first + (0 if low else 1)) / (end(last) - (end(first) if low else begin))


def state_bytes(root: Path) -> int:
    """Of the state with its log, which a reader needs too."""
    return sum(path.stat().st_size for path in root.glob("bioforge.db*"))

"""A project folder to run commands in: in this process for most tests, in one of its own where it may die or be
signalled, and in an interpreter of its own where that is what a test is about."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import chdir, closing
from functools import cache
from pathlib import Path
from typing import Any

from processes import ENVIRONMENT, Child, Ran, program
from typer.testing import CliRunner

from bioforge.simulator import Simulator

ARTISTS = """artist_id,artist_name,artist_data,born
1,Björk,Icelandic singer,1965
2,"Abakanowicz, Magdalena",Polish sculptor,1930
3,Absalon,,1964
0,"Abbey, Edwin Austin","American
painter",1852
"""

PROJECT = """
[project]
name = "test"
[provider]
base_url = "{base_url}"
[input]
path = "artists.csv"
[recipe.bio]
model = "gpt-6-luna"
instructions = "Write a biography."
input = "{{{{ artist_name }}}}: {{{{ artist_data }}}}"
max_output_tokens = 400
[retry]
first_delay = 0.001
[backend]
concurrency = 4
{more}
"""


@cache
def command_line() -> Any:
    """The program as its entry point makes it, which takes as long as many a command."""
    import typer.main

    from bioforge.cli.app import app

    return typer.main.get_command(app)


def invoke(*arguments: str, env: Mapping[str, str] | None = None, stdin: str | None = None) -> Ran:
    """A command in this process, in its working folder, with texts for streams."""
    code = 0
    with CliRunner().isolation(input=stdin, env={**ENVIRONMENT, **(env or {})}) as streams:
        try:
            command_line().main(args=list(arguments), prog_name="bioforge")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
        out, err = (stream.getvalue().decode().replace("\r\n", "\n") for stream in streams[:2])
    return Ran(code, out, err)


class ProjectFolder:
    """A project in a folder of its own, with a simulator beside it whose ledger outlives every run."""

    def __init__(self, root: Path, server: Simulator) -> None:
        self.root = root
        self.server = server
        self.write("artists.csv", ARTISTS)
        self.configure()

    def configure(self, more: str = "", **replaced: str) -> None:
        """Write bioforge.toml anew: `replaced` exchanges texts of it, `more` stands at its end."""
        text = PROJECT.format(base_url=self.server.base_url, more=more)
        for old, new in replaced.items():
            assert old in text, old
            text = text.replace(old, new)
        self.write("bioforge.toml", text)

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text("utf-8")
        assert old in text, f"{old!r} is not in {name}"
        self.write(name, text.replace(old, new))

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        # an untouched input is told by its clock, which must not be as young as the reading
        old = path.stat().st_mtime_ns - 10_000_000_000 + len(text)
        os.utime(path, ns=(old, old))
        return path

    def read(self, name: str) -> str:
        return (self.root / name).read_text("utf-8")

    def run(self, *arguments: str, env: Mapping[str, str] | None = None, stdin: str | None = None) -> Ran:
        """A command in this process, with this folder as the working folder."""
        with chdir(self.root):
            return invoke(*arguments, env=env, stdin=stdin)

    def begin(self, *arguments: str) -> Child:
        """A command in a process of its own, which goes on by itself."""
        return Child(self.root, program, arguments)

    def command(self, *arguments: str) -> Ran:
        """A command in a process of its own, to its end."""
        return self.begin(*arguments).end()

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """A command in an interpreter of its own, as a shell begins it."""
        return subprocess.Popen(
            [sys.executable, "-m", "bioforge", *arguments],
            cwd=self.root,
            env={**os.environ, **ENVIRONMENT},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def process(self, *arguments: str, **options: Any) -> Ran:
        with self.start(*arguments, **options) as started:
            out, err = started.communicate(timeout=100)
        return Ran(started.returncode, out, err)

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.root / "bioforge.db")) as connection:
            return connection.execute(sql, values).fetchall()

    def value(self, sql: str, *values: object) -> Any:
        return self.rows(sql, *values)[0][0]

    def plan(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("plan", "--format", "json", *arguments).ok().out)
        return found

    def reasons(self) -> dict[str, int]:
        """Stale targets by reason, as `plan` has them."""
        found: dict[str, int] = {}
        for group in self.plan()["groups"]:
            found[group["reason"]] = found.get(group["reason"], 0) + group["targets"]
        return found

    def charged(self) -> int:
        """Answers the server has charged for so far."""
        return len(self.server.ledger)

    def assert_ledger_equals_state(self) -> None:
        """Every charge is an answer that is kept, or an attempt the state calls maybe paid; and nothing else is."""
        charges = {charge.client_request_id for charge in self.server.ledger.entries()}
        paid = {row[0] for row in self.rows("SELECT client_request_id FROM attempts WHERE paid = 'yes'")}
        maybe = {row[0] for row in self.rows("SELECT client_request_id FROM attempts WHERE paid = 'maybe'")}
        assert paid <= charges, "the state says paid for what was never charged"
        assert charges - paid <= maybe, "charged, and the state does not know"
        lost = self.value(
            "SELECT count(*) FROM attempts x WHERE paid = 'yes' AND NOT EXISTS"
            " (SELECT 1 FROM responses r WHERE r.attempt = x.id)"
        )
        assert lost == 0
        assert self.value("PRAGMA integrity_check") == "ok"

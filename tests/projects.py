"""A project folder to run commands in: in this process for most tests, in one of its own where it may die or be
signalled, and in an interpreter of its own where that is what a test is about."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from processes import ENVIRONMENT, Child, Ran, program

from bioforge import testing
from bioforge.simulator import Simulator
from bioforge.testing import ARTISTS
from bioforge.testing.processes import command_line, invoke

__all__ = ["ARTISTS", "ProjectFolder", "command_line", "invoke"]

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


class ProjectFolder(testing.ProjectFolder):
    """The kit's project folder, with a project file of our own, and processes that find everything imported."""

    def __init__(self, root: Path, server: Simulator) -> None:
        super().__init__(root, server, toml="")
        self.configure()

    @property
    def server(self) -> Simulator:
        """Beside the project; its ledger outlives every run."""
        assert isinstance(self.simulator, Simulator)
        return self.simulator

    @server.setter
    def server(self, server: Simulator) -> None:
        self.simulator = server

    def configure(self, more: str = "", **replaced: str) -> None:
        """Write bioforge.toml anew: `replaced` exchanges texts of it, `more` stands at its end."""
        text = PROJECT.format(base_url=self.server.base_url, more=more)
        for old, new in replaced.items():
            assert old in text, old
            text = text.replace(old, new)
        self.write("bioforge.toml", text)

    def begin(self, *arguments: str) -> Child:
        """A command in a process of its own, which goes on by itself."""
        return Child(self.root, program, arguments)

    def command(self, *arguments: str) -> Ran:
        """A command in a process of its own, to its end."""
        return self.begin(*arguments).end()

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:  # type: ignore[override]
        """A command in an interpreter of its own, as a shell begins it, with its streams in pipes."""
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
        """The same, to its end."""
        with self.start(*arguments, **options) as started:
            out, err = started.communicate(timeout=100)
        return Ran(started.returncode, out, err)

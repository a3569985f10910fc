"""Open batches that this project cannot go on with as it is: the plan says which, and what to do about each."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from projects import ProjectFolder


def submitted(project: ProjectFolder) -> None:
    assert project.run("run", "--backend", "batch", "--no-wait").code == 75


def left_open(project: ProjectFolder, change: str) -> None:
    with closing(sqlite3.connect(project.root / "bioforge.db")) as state, state:
        state.execute("UPDATE batches SET state = 'in progress'")
        state.execute(f"UPDATE batches SET {change}")


def test_at_another_address(project: ProjectFolder) -> None:
    submitted(project)
    left_open(project, "provider = 'https://elsewhere.example/v1'")
    assert (
        "warning: 1 open batch of the backend 'batch' at https://elsewhere.example/v1: set base_url back to collect the"
        " results, or give up with `bioforge batch abandon`\n"
    ) in project.run("plan").out


def test_of_a_backend_that_is_gone(project: ProjectFolder) -> None:
    submitted(project)
    left_open(project, "backend = 'echo-batch', provider = 'https://elsewhere.example/v1'")
    shown = project.run("plan").out
    assert (
        "warning: 1 open batch of the backend 'echo-batch', which is not installed: install its plugin to collect the"
        " results, or give up with `bioforge batch abandon`\n"
    ) in shown
    assert "base_url" not in shown, "that comes next, once it is installed"

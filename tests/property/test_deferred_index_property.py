"""A first plan that is killed, with an index put off meanwhile: at any moment, and it comes to what it would have been."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from projects import ProjectFolder

from bioforge.store import planned

from .killing import killed_after

SCHEMA = "SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2"
TARGETS = "SELECT id, artist, recipe, request_hash, own_hash, row_hash, reason, input_tokens FROM targets ORDER BY id"


def state(project: ProjectFolder, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(project.root / "bioforge.db")) as connection:
        return connection.execute(sql).fetchall()


def test_killed_after_any_transaction_it_comes_to_the_same_plan(
    project: ProjectFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = project.run("plan").out
    expected = state(project, SCHEMA), state(project, TARGETS)
    monkeypatch.setattr(planned, "_MANY", 0)
    number, was_put_off = 0, False
    while True:
        number += 1
        for path in project.root.glob("bioforge.db*"):
            path.unlink()
        with killed_after(project.root, number) as death:
            project.run("plan")
        if not death.came:
            break
        was_put_off |= bool(state(project, "SELECT 1 FROM facts WHERE name GLOB 'index put off *'"))
        again = project.run("plan").out
        assert again.splitlines()[-1] == plain.splitlines()[-1]
        assert (state(project, SCHEMA), state(project, TARGETS)) == expected
    assert was_put_off
    assert (state(project, SCHEMA), state(project, TARGETS)) == expected

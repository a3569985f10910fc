"""Damaged pages of the state: every command names the file and does not end with 0, and nothing is sent."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from projects import ProjectFolder

from bioforge.simulator import Simulator
from bioforge.store import database

PAGE = 4096
COMMANDS = [
    "status", "why 5", "audit", "export", "compare bio", "plan", "run -B", "resume", "gc --yes", "forget --yes 5", "accept --yes",
    "batch abandon x",
]  # fmt: skip


def _damage(path: Path, number: int) -> bytes:
    """Overwrite a page behind the first, as a failing disk does. Return the damaged content."""
    content = bytearray(path.read_bytes())
    start = PAGE * (1 + number % (len(content) // PAGE - 1))
    content[start : start + PAGE] = random.Random(number).randbytes(PAGE)
    path.write_bytes(content)
    return bytes(content)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a state with answers."""
    with Simulator() as server:
        project = _project(tmp_path_factory.mktemp("built"), server)
        project.run("run").ok()
        return (project.root / "bioforge.db").read_bytes()


def _project(root: Path, server: Simulator) -> ProjectFolder:
    project = ProjectFolder(root, server)
    rows = "".join(f"{number},Artist {number},\n" for number in range(60))
    project.write("artists.csv", "artist_id,artist_name,artist_data\n" + rows)
    return project


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_the_file(tmp_path: Path, built: bytes, command: str) -> None:
    with Simulator() as server:
        project = _project(tmp_path, server)
        state = tmp_path / "bioforge.db"
        for number in range(0, len(built) // PAGE - 1, 5):
            state.write_bytes(built)
            damaged = _damage(state, number)
            ran = project.run(*command.split())
            assert ran.code == 2, (number, ran.out, ran.err)
            assert f"{state}: the state is damaged" in " ".join(ran.err.split()), (number, ran.err)
            assert "restore it from a backup" in ran.err
            assert state.read_bytes() == damaged
        assert project.charged() == 0


@pytest.mark.parametrize("command", ["run -B", "audit"])
def test_a_large_state_is_checked_before_anything_is_sent(
    tmp_path: Path, built: bytes, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_QUICKLY_CHECKED", 0)
    with Simulator() as server:
        project = _project(tmp_path, server)
        state = tmp_path / "bioforge.db"
        for number in range(0, len(built) // PAGE - 1, 5):
            state.write_bytes(built)
            _damage(state, number)
            for name in ("bioforge.db-wal", "bioforge.db-shm"):
                (tmp_path / name).unlink(missing_ok=True)
            ran = project.run(*command.split())
            assert ran.code == 2, (number, ran.err)
            assert str(state) in " ".join(ran.err.split()), (number, ran.err)
        assert project.charged() == 0

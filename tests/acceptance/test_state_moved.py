"""The state is moved, deleted or replaced during a run: the run stops, keeps every answer and names the file."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from processes import PATIENCE, Child, script, wait_until
from projects import ProjectFolder

from bioforge.simulator import Simulator, SimulatorOptions

ROWS = 60
BACKENDS = ["threads", "async", "batch", "auto"]


@pytest.fixture
def server() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(latency=0.2, batch_seconds=3.0)) as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, server: Simulator) -> ProjectFolder:
    folder = ProjectFolder(tmp_path / "project", server)
    rows = "".join(f"{number},Artist {number},\n" for number in range(ROWS))
    folder.write("artists.csv", "artist_id,artist_name,artist_data\n" + rows)
    folder.configure(more="[backend.batch]\npoll_seconds = 0.1\n")
    return folder


def _state(project: ProjectFolder) -> Path:
    return project.root / "bioforge.db"


def _begun(project: ProjectFolder, backend: str) -> Child:
    """Begin a run, and return when it has answers or an open batch."""
    process = project.begin("run", "--backend", backend)
    if backend != "batch":
        wait_until(lambda: project.charged() >= 8, "the first answers")
    else:
        wait_until(lambda: bool(_batches(_state(project))), "an open batch")
    return process


def _batches(state: Path) -> int:
    try:
        with closing(sqlite3.connect(f"{state.as_uri()}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM batches WHERE batch_id IS NOT NULL").fetchone()[0])
    except sqlite3.Error:
        return 0


def _answers(state: Path) -> int:
    with closing(sqlite3.connect(state)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert (
            connection.execute("SELECT count(*) FROM attempts WHERE paid = 'maybe' AND batch IS NULL").fetchone()[0]
            == 0
        )
        return int(connection.execute("SELECT count(*) FROM responses").fetchone()[0])


def _move(project: ProjectFolder) -> Path:
    state = _state(project)
    return state.rename(state.with_name("elsewhere.db"))


def _delete(project: ProjectFolder) -> Path:
    _state(project).unlink()
    return _state(project).with_name("bioforge.db-rescued")


def _delete_everything(project: ProjectFolder) -> Path:
    for path in project.root.glob("bioforge.db*"):
        if path.is_file():
            path.unlink()
    return _state(project).with_name("bioforge.db-rescued")


def _replace(project: ProjectFolder) -> Path:
    shutil.copy(_state(project), project.root / "copy.db")
    os.replace(project.root / "copy.db", _state(project))
    return _state(project).with_name("bioforge.db-rescued")


def _delete_the_log(project: ProjectFolder) -> Path:
    _state(project).with_name("bioforge.db-wal").unlink()
    return _state(project)


Change = Callable[[ProjectFolder], Path]


CHANGES = [_move, _delete, _delete_everything, _replace, _delete_the_log]
QUICK = {("async", _move), ("threads", _delete), ("batch", _replace), ("auto", _delete_the_log)}


@pytest.mark.parametrize(
    ("backend", "change"),
    [
        pytest.param(backend, change, marks=() if (backend, change) in QUICK else pytest.mark.slow)
        for backend in BACKENDS
        for change in CHANGES
    ],
)
def test_the_run_stops_and_the_named_file_has_every_answer(
    project: ProjectFolder, backend: str, change: Change
) -> None:
    process = _begun(project, backend)
    found = change(project)
    ran = process.end()
    assert ran.code == 75, ran.err
    assert "nothing more was sent" in ran.err
    assert str(found) in " ".join(ran.err.split())
    if backend != "batch":
        assert 8 <= _answers(found) == project.charged() < ROWS
    if found.name.endswith("-rescued"):
        second = project.run("run")
        assert second.code == 2
        assert "a run saved its answers here" in second.err
    if found != _state(project):
        os.replace(found, _state(project))
        for name in ("bioforge.db-wal", "bioforge.db-shm"):
            (project.root / name).unlink(missing_ok=True)
    assert project.command("run", "--backend", backend).code == 0
    project.assert_nothing_paid_twice()
    assert project.charged() == ROWS


def test_a_moved_folder_is_named(project: ProjectFolder, tmp_path: Path) -> None:
    process = _begun(project, "async")
    place = project.root.rename(tmp_path / "moved")
    wait_until(process.gone, "the end of the run")
    place.rename(project.root)
    ran = process.end()
    assert ran.code == 75, ran.err
    assert str(place / "bioforge.db") in " ".join(ran.err.split())
    assert _answers(_state(project)) == project.charged()


def test_a_deleted_folder_leaves_the_answers_in_a_temporary_file(project: ProjectFolder, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TMPDIR", str(tmp_path))
        process = project.start("run")
    wait_until(lambda: project.charged() >= 8, "the first answers")
    shutil.rmtree(project.root)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 75, said
    (found,) = tmp_path.glob("bioforge-*-rescued")
    assert str(found) in " ".join(said.split())
    assert 8 <= _answers(found) == project.charged() < ROWS


def test_a_removed_lock_lets_no_second_run_in(project: ProjectFolder) -> None:
    process = _begun(project, "async")
    (project.root / "bioforge.db.lock").unlink()
    second = project.command("run")
    assert second.code == 2
    assert "in use by `bioforge run --backend async`" in second.err
    assert process.end().code == 0
    assert project.charged() == ROWS
    project.assert_nothing_paid_twice()


def test_another_name_of_the_state_lets_no_second_run_in(
    project: ProjectFolder, tmp_path: Path, server: Simulator
) -> None:
    other = ProjectFolder(tmp_path / "other", server)
    other.write("artists.csv", project.read("artists.csv"))
    process = _begun(project, "async")
    os.link(_state(project), _state(other))
    second = other.command("run")
    assert second.code == 2
    assert "hard links" in second.err
    assert process.end().code == 0
    assert project.charged() == ROWS
    assert other.command("run").code == 2, "and after it: answers would be stored beside the wrong name"
    _state(other).unlink()
    assert project.command("run").code == 0
    assert project.charged() == ROWS


def test_calls_of_a_program_end_with_the_name_of_the_file(project: ProjectFolder) -> None:
    code = f"""
import asyncio, os
from bioforge.api import Client, Config, ProviderConfig, StateError

config = Config(provider=ProviderConfig(base_url={project.server.base_url!r}), limits={{"concurrency": 4}})

folder = os.getcwd()

async def main():
    async with Client(config, state="bioforge.db") as client:
        number = 0
        async for _ in client.generate_many([f"artist {{n}}" for n in range(60)], model="gpt-6-luna"):
            number += 1
            if number == 4:
                os.chdir("/")
            if number == 8:
                os.rename(folder + "/bioforge.db", folder + "/elsewhere.db")
try:
    asyncio.run(main())
except StateError as problem:
    print(problem.message, problem.hint)
"""
    ran = Child(project.root, script, (code,)).end()
    assert ran.code == 0, ran.err
    assert "elsewhere.db" in ran.out
    assert _answers(project.root / "elsewhere.db") == project.charged() < 60

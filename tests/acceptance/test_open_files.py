"""More calls in flight than files may be open: the limit is raised, or fewer calls are sent, and every answer is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Child, Ran, program_with_few_files, script
from projects import ProjectFolder

from bioforge.simulator import Simulator, SimulatorOptions

ROWS = 500


@pytest.fixture
def project(tmp_path: Path) -> Iterator[ProjectFolder]:
    with Simulator(SimulatorOptions(latency=0.05, latency_sigma=0.0)) as server:
        folder = ProjectFolder(tmp_path, server)
        rows = "".join(f"{number},Artist {number},painter\n" for number in range(ROWS))
        folder.write("artists.csv", "artist_id,artist_name,artist_data\n" + rows)
        yield folder


def run(project: ProjectFolder, soft: int, hard: int, *arguments: str) -> Ran:
    return Child(project.root, program_with_few_files, (soft, hard, "run", "-j", "400", *arguments)).end()


@pytest.mark.parametrize("backend", ["async", "threads"])
@pytest.mark.parametrize("files", [48, 256])
def test_fewer_calls_are_sent_where_the_limit_cannot_be_raised(
    project: ProjectFolder, backend: str, files: int
) -> None:
    ran = run(project, files, files, "--backend", backend)
    assert ran.code == 0, ran.err
    assert f"this process may have {files} open files: concurrency 400 -> " in ran.err
    assert project.charged() == ROWS
    assert project.value("SELECT count(*) FROM attempts") == ROWS
    project.assert_ledger_equals_state()


def test_the_soft_limit_is_raised(project: ProjectFolder) -> None:
    ran = run(project, 128, 2_000)
    assert ran.code == 0, ran.err
    assert "open files" not in ran.err
    assert project.charged() == ROWS


@pytest.mark.parametrize("way", ["open", "read"])
def test_a_state_that_cannot_be_opened_for_lack_of_files_names_the_limit(tmp_path: Path, way: str) -> None:
    code = f"""
import os, resource
from pathlib import Path
from bioforge.core.errors import StateError
from bioforge.store import Store
Store.open(Path("bioforge.db")).close()
Store.read(Path("bioforge.db")).close()
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
held = []
try:
    while True:
        held.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
try:
    Store.{way}(Path("bioforge.db"))
except StateError as error:
    print(error.message, error.hint)
"""
    ran = Child(tmp_path, script, (code,)).end()
    assert "bioforge.db" in ran.out, ran.err
    assert "too many open files (EMFILE): raise `ulimit -n`" in ran.out

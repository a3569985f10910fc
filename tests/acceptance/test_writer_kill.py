"""A plugin's writer that hangs or takes the process with it loses no answer: the next run sends nothing and writes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from plugin_maker import HEAD, Install
from processes import Child, program, wait_until
from projects import ProjectFolder

from bioforge.simulator import Simulator, SimulatorOptions

WRITERS = (
    HEAD
    + """
import os
from pathlib import Path
from threading import Event

def fail():
    if Path("crash").exists():
        os._exit(70)
    if Path("hang").exists():
        Path("hangs").touch()
        Event().wait()

def to_stream(records, stream, options):
    for record in records:
        stream.write(record["artist_id"].encode() + b"\\n")
        fail()

@folder_writer
def to_folder(records, options):
    for record in records:
        yield record["artist_id"], b"done"
        fail()

@path_writer
def to_path(records, path, options):
    with path.open("w") as file:
        for record in records:
            file.write(record["artist_id"] + "\\n")
            fail()

@hookimpl
def bioforge_writers():
    return {"to-stream": to_stream, "to-folder": to_folder, "to-path": to_path}
"""
)
OUTPUT = '[[output]]\npath = "out"\nwriter = "{writer}"\n'


def _with_plugins(folder: Path, *arguments: str) -> None:
    """Run the program with the plugins of this folder."""
    sys.path.insert(0, str(folder))
    program(*arguments)


@pytest.fixture
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugins")
    Install(folder)("bioforge-slow", WRITERS)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Iterator[ProjectFolder]:
    with Simulator(SimulatorOptions(seed=7, batch_seconds=0)) as server:
        folder = ProjectFolder(tmp_path, server)
        folder.write("artists.csv", "artist_id,artist_name,artist_data\n1,A,x\n2,B,x\n3,C,x\n")
        yield folder


@pytest.mark.parametrize("writer", ["to-stream", "to-folder", "to-path"])
@pytest.mark.parametrize("end", ["kill", "SIGTERM", "crash"])
def test_the_next_run_sends_nothing_and_writes(project: ProjectFolder, plugins: Path, writer: str, end: str) -> None:
    project.configure(OUTPUT.format(writer=writer))
    cause = "crash" if end == "crash" else "hang"
    project.write(cause, "")
    process = Child(project.root, _with_plugins, (plugins, "run"))
    wait_until(lambda: (project.root / "hangs").exists() or process.gone(), "a writer that hangs")
    assert process.gone() == (end == "crash")
    if end == "kill":
        process.kill()
    elif end == "SIGTERM":
        process.signal(signal.SIGTERM)
    ran = process.end()
    assert ran.code == {"kill": -signal.SIGKILL, "SIGTERM": 130, "crash": 70}[end], ran.err
    assert project.value("SELECT count(*) FROM responses WHERE usable") == project.charged() == 3
    (project.root / cause).unlink()
    again = Child(project.root, _with_plugins, (plugins, "run")).end()
    assert again.code == 0, again.err
    assert project.charged() == 3
    out = project.root / "out"
    written = sorted(path.name for path in out.iterdir()) if out.is_dir() else out.read_text().split()
    assert written == ["1", "2", "3"]

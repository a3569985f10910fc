"""A process killed while its schema validates an answer has stored that answer, and no later run requests it again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import wait_until
from projects import ProjectFolder

from bioforge.simulator import Simulator, SimulatorOptions

MODELS = """
from pathlib import Path
from threading import Event

from pydantic import BaseModel, field_validator

class Bio(BaseModel):
    note: str

    @field_validator("note")
    @classmethod
    def check(cls, note: str) -> str:
        folder = Path(__file__).parent
        if (folder / "hang").exists():
            (folder / "hangs").touch()
            Event().wait()
        return note
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[ProjectFolder]:
    with Simulator(SimulatorOptions(latency=0.01, seed=7)) as server:
        folder = ProjectFolder(tmp_path, server)
        folder.write("artists.csv", "artist_id,artist_name,artist_data\n1,A,x\n2,B,x\n3,C,x\n")
        folder.write("models.py", MODELS)
        folder.configure()
        text = (tmp_path / "bioforge.toml").read_text()
        folder.write("bioforge.toml", text.replace("[recipe.bio]\n", "[recipe.bio]\nschema = 'models:Bio'\n"))
        yield folder


@pytest.mark.parametrize(
    "backend", ["async", pytest.param("threads", marks=pytest.mark.slow), pytest.param("batch", marks=pytest.mark.slow)]
)
def test_an_answer_is_stored_before_its_schema_validates_it(project: ProjectFolder, backend: str) -> None:
    project.write("hang", "")
    process = project.begin("run", "--backend", backend)
    wait_until(lambda: (project.root / "hangs").exists() or process.gone(), "a validator that hangs")
    assert not process.gone(), process.end().err
    process.kill()
    process.end()
    stored = project.value("SELECT count(*) FROM responses")
    assert stored >= 1
    assert project.value("SELECT count(*) FROM requests WHERE state = 'unusable' AND error_class = 'schema'") == stored
    (project.root / "hang").unlink()
    resumed = project.command("resume", "--backend", backend)
    assert resumed.code == 0, resumed.err + resumed.out
    assert project.value("SELECT count(*) FROM responses WHERE usable AND parsed IS NOT NULL") == 3
    assert project.charged() == 3
    assert project.value("SELECT value FROM facts WHERE name = 'unvalidated'") == 0

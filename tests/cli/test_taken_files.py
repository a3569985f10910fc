"""No output, export, ledger or log overwrites a file of the project, directly or through a link."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import ProjectFolder

from bioforge.simulator import Simulator

OUTPUT = '[[output]]\npath = "out.csv"\n'
RECIPE = {
    'instructions = "Write a biography."': 'instructions = "prompt.md"\nschema = "schema.json"\nscore = "scores:length"',
    'path = "artists.csv"': 'path = "data/*.csv"',
}
FILES = [
    "bioforge.toml", ".env", "prompt.md", "schema.json", "scores.py", "data/artists.csv", "bioforge.db", "bioforge.db-wal",
    "bioforge.db-shm", "bioforge.db-journal", "bioforge.db.lock", "bioforge.db-room",
]  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Iterator[ProjectFolder]:
    with Simulator() as server:
        folder = ProjectFolder(tmp_path, server)
        folder.write("data/artists.csv", "artist_id,artist_name,artist_data\n1,Björk,\n")
        folder.write("prompt.md", "Write a biography.")
        folder.write("schema.json", '{"type": "object", "properties": {"a": {"type": "string"}}}')
        folder.write("scores.py", "def length(row):\n    return 1\n")
        folder.write(".env", "OPENAI_API_KEY=any\n")
        folder.configure(**RECIPE)
        folder.run("run").ok()
        folder.configure(more=OUTPUT, **RECIPE)
        yield folder


def _contents(project: ProjectFolder) -> dict[str, bytes]:
    names = [name for name in FILES if (project.root / name).exists() and name != "bioforge.db"]
    return {name: (project.root / name).read_bytes() for name in names}


@pytest.mark.parametrize("name", FILES)
def test_an_output_that_leads_to_a_file_of_the_project_is_refused(project: ProjectFolder, name: str) -> None:
    before, output = _contents(project), project.root / "out.csv"
    output.symlink_to(name)
    refused = project.run("run", "-B")
    assert refused.code == 2, refused.err
    assert f"output {output}: this is" in " ".join(refused.err.split())
    if (project.root / name).exists() and not name.startswith("bioforge.db"):
        output.unlink()
        os.link(project.root / name, output)
        assert project.run("run", "-B").code == 2, "a hard link"
    assert _contents(project) == before
    assert project.charged() == 1


def test_an_output_that_the_input_would_read_is_refused(project: ProjectFolder) -> None:
    project.configure(more=OUTPUT.replace("out.csv", "data/out.csv"), **RECIPE)
    refused = project.run("run", "-B")
    assert refused.code == 2
    assert "this is the input" in refused.err
    assert not (project.root / "data" / "out.csv").exists()


def test_a_file_of_an_output_folder_is_not_written_through_a_link(project: ProjectFolder) -> None:
    project.configure(more='[[output]]\npath = "pages/"\n', **RECIPE)
    (project.root / "pages").mkdir()
    project.run("run").ok()
    (page,) = (project.root / "pages").iterdir()
    page.unlink()
    page.symlink_to("../prompt.md")
    refused = project.run("run", "-B")
    assert refused.code == 1, refused.err
    assert "this is a template or schema of recipe bio" in " ".join(refused.err.split())
    assert project.read("prompt.md") == "Write a biography."


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "command", ["export -o", "plan --out", "run -B --log-file", "batch jsonl -o", "batch list --log-file"]
)
def test_a_flag_that_names_a_file_of_the_project_is_refused(project: ProjectFolder, command: str, name: str) -> None:
    before = _contents(project)
    refused = project.run(*command.split(), name)
    assert refused.code == 2, refused.err
    assert "name another file; nothing was written" in refused.err
    assert _contents(project) == before


def test_a_ledger_over_another_file_is_refused(project: ProjectFolder) -> None:
    refused = project.run("simulate", "--port", "0", "--ledger", "data/artists.csv")
    assert refused.code == 2
    assert "data/artists.csv: exists and is not a ledger of the simulator" in refused.err
    project.configure(
        more='[simulator]\nledger = "prompt.md"\n',
        **RECIPE,
        **{f'base_url = "{project.server.base_url}"': 'base_url = "simulator"'},
    )
    refused = project.run("run", "-B")
    assert refused.code == 2
    assert "is a template or schema of recipe bio" in refused.err
    assert project.read("prompt.md") == "Write a biography."

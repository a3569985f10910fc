"""The script of the README runs as it stands there, and the page about the library names what there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from processes import Child, script
from projects import ProjectFolder
from pydantic import BaseModel

from bioforge import api
from bioforge.api import evaluation
from bioforge.api.bulk import AHEAD
from bioforge.core import errors

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text("utf-8")
PAGE = (ROOT / "docs" / "library.md").read_text("utf-8")
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}


def scripts(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def forked(code: str, folder: Path) -> list[str]:
    """What a program says that finds everything imported."""
    ran = Child(folder, script, (code,)).end().ok()
    assert ran.err == ""
    return ran.out.splitlines()


def run(script: str, folder: Path) -> list[str]:
    """What it says in an interpreter of its own."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=folder,
        env=CLEAN,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return ran.stdout.splitlines()


def test_the_script_of_the_readme_runs_and_pays_once(tmp_path: Path) -> None:
    (script,) = scripts(README)
    assert len([line for line in script.splitlines() if line.strip()]) <= 15
    first, second = run(script, tmp_path), forked(script, tmp_path)
    assert first[0].startswith("Simulated summary")
    assert first[0] == second[0]
    born, cached = first[1].split()
    assert int(born)
    assert (cached, second[1].split()[1]) == ("False", "True")


def test_the_scripts_of_the_page_run(project: ProjectFolder) -> None:
    one, provider, many, of_project = scripts(PAGE)
    assert forked(one, project.root)[0].startswith("Simulated answer")
    assert forked(provider, project.root) == [], "nothing is opened before the first call"
    assert len(forked(many.replace("1000", "30"), project.root)) == 30
    lines = forked(of_project.replace('"bioforge.toml"', f"{str(project.root / 'bioforge.toml')!r}"), project.root)
    assert lines[0].startswith("4 ")
    assert len(lines) >= 6


def words(heading: str) -> set[str]:
    """The code in the first cells of the tables of a section."""
    section = re.split(r"\n#{1,3} ", PAGE.partition(f"\n{heading}\n")[2])[0]
    cells = re.findall(r"^\| (`[^|]*?) \|", section, re.MULTILINE)
    return {word for cell in cells for word in re.findall(r"`(\w+)`", cell)}


def test_every_option_and_every_part_of_an_answer_is_described() -> None:
    of_answer = set(api.Answer.__dataclass_fields__)
    assert words("## One answer") == {*api.RequestOptions.__annotations__, "schema"} | of_answer


@pytest.mark.parametrize(
    "kind", [api.Config, api.ProviderConfig, api.LimitsConfig, api.RetryConfig, api.BatchConfig, api.SimulatorConfig]
)
def test_every_field_of_the_configuration_is_named(kind: type[BaseModel]) -> None:
    (row,) = re.findall(rf"^\| `{kind.__name__}` \| (.*) \|$", PAGE, re.MULTILINE)
    if kind is not api.SimulatorConfig:
        assert set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", row))) == set(kind.model_fields)


def test_every_error_is_drawn_with_what_it_has() -> None:
    (drawing,) = re.findall(r"^```text\n(BioforgeError.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    named = set(re.findall(r"\b[A-Z]\w+(?:Error|Argument)\b", drawing))
    assert named == {name for name in api.__all__ if hasattr(errors, name)} | {"ValueError"}
    for name, own in (
        ("GenerationError", "error_class code request_hash request_id attempts"),
        ("TransportError", "status_code retry_after maybe_paid"),
        ("UnusableError", "raw_output cost_usd"),
        ("SchemaValidationError", "schema_name errors repaired"),
    ):
        (line,) = [line for line in drawing.splitlines() if re.search(rf"─ {name}\b", line)]
        error = getattr(api, name)("x")
        for attribute in own.split():
            assert attribute in line
            assert hasattr(error, attribute)


def test_the_names_in_the_text_exist() -> None:
    known = {*dir(api), *dir(evaluation), *dir(api.Client), *dir(api.Project), *dir(evaluation.Evaluation)}
    for called in re.findall(r"`(?:await )?(\w+)\((?:…|[\w\"]|\))", PAGE):
        assert called in known, called


def test_numbers_are_those_of_the_code() -> None:
    assert AHEAD == 4
    assert "at most four times as many as may wait for answers at once" in " ".join(PAGE.split())

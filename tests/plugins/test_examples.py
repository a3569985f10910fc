"""The plugins in examples/plugins/, which the page about plugins is made of: installed, their own tests pass."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from .environments import Environment, wheel_of

EXAMPLES = Path(__file__).parents[2] / "examples" / "plugins"
PLUGINS = sorted(path.parent for path in EXAMPLES.glob("*/pyproject.toml"))


def installed(environment: Environment, folder: Path) -> Path:
    """A copy of an example's folder, installed. Returns the copy."""
    copy = environment.folder / folder.name
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "*.db*", "out", "build"))
    environment.add(wheel_of(copy, environment.folder))
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("folder", PLUGINS, ids=lambda path: path.name)
def test_its_own_tests_pass(environment: Environment, folder: Path) -> None:
    ran = environment.pytest(installed(environment, folder))
    assert ran.code == 0, ran.out
    assert " passed" in ran.out


def test_the_example_of_discogs_runs_as_it_is(environment: Environment) -> None:
    project = installed(environment, EXAMPLES / "bioforge-discogs") / "example"
    environment.bioforge("run", cwd=project).ok()
    records = [json.loads(line) for line in (project / "out" / "bios.jsonl").read_text("utf-8").splitlines()]
    assert [record["artist_name"] for record in records] == ["The Paper Lanterns", "Nora Field", "Ōtsuki Trio"]
    assert all(record["error"] is None for record in records)
    assert "everything is up to date" in environment.bioforge("run", cwd=project).ok().err


def test_the_backend_echo_answers_a_project(environment: Environment, tmp_path: Path) -> None:
    installed(environment, EXAMPLES / "bioforge-echo")
    project = tmp_path / "project"
    environment.bioforge("init", str(project)).ok()
    refused = environment.bioforge("run", "--backend", "echo", cwd=project)
    assert (refused.code, refused.err.splitlines()[0]) == (
        2,
        "error: backend 'echo' cannot use the embedded server, which speaks like OpenAI's API",
    )
    ran = environment.bioforge("run", "--backend", "echo", cwd=project, env={"OPENAI_BASE_URL": "http://127.0.0.1"})
    assert "5 of 5 in " in ran.ok().err
    record = json.loads((project / "out" / "bios.jsonl").read_text("utf-8").splitlines()[0])
    assert record["response_text"].startswith("Hilma af Klint\nSwedish painter")
    audit = environment.bioforge("audit", cwd=project).ok().out
    assert "paid twice" in audit

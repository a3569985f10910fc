"""What comparing.md shows is what its project prints, and what it promises holds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from projects import ProjectFolder

from bioforge.simulator import Simulator, SimulatorOptions

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs/comparing.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


BY_FUNCTION, JUDGED = blocks("toml")
HEAD, _, _ = BY_FUNCTION.partition("[recipe.bio]")


def folder(root: Path, server: Simulator, written: str) -> ProjectFolder:
    """The project that the page writes, with the artists of the examples."""
    project = ProjectFolder(root, server)
    project.write("bioforge.toml", written)
    for path in ("artists.csv", "prompts/bio.md"):
        project.write(path, (ROOT / "examples" / path).read_bytes())
    project.write("metrics.py", blocks("python")[0])
    project.write("schemas/score.json", blocks("json")[0])
    return project


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProjectFolder]:
    with Simulator(SimulatorOptions()) as server:
        project = folder(tmp_path_factory.mktemp("comparing"), server, BY_FUNCTION)
        project.run("run").ok()
        yield project


def form(text: str) -> str:
    """A table without its numbers and its spaces: what stands where."""
    return re.sub(r"[+-]?\d[\d.,]*", "#", re.sub(r"[ ]+", " ", text))


def test_the_table_is_what_is_printed(built: ProjectFolder) -> None:
    (shown,) = (block for block in blocks("console") if block.startswith("$ bioforge compare bio\n"))
    assert form(shown.partition("\n")[2]) == form(built.run("compare", "bio").ok().out)


def test_every_column_is_explained_with_its_name_in_json(built: ProjectFolder) -> None:
    heads = built.run("compare").ok().out.splitlines()[1]
    (variant, *_) = json.loads(built.run("compare", "--format", "json").ok().out)["variants"]
    explained = re.findall(r"^\| ((?:`[\w Δ]+` ?)+) \| ((?:`\w+`(?:, )?)+) \|", PAGE, re.MULTILINE)
    in_text = [name for cell, _ in explained for name in re.findall(r"`([^`]+)`", cell)]
    assert ["variant", *in_text] == re.split(r"\s{2,}", heads)
    assert {name for _, cell in explained for name in re.findall(r"`(\w+)`", cell)} <= set(variant)


def test_another_function_costs_nothing(built: ProjectFolder) -> None:
    before = built.value("SELECT count(*) FROM attempts")
    (name,) = re.findall(r"--score\s(metrics:\w+)`", PAGE)
    found: dict[str, Any] = json.loads(built.run("compare", "bio", "--score", name, "--format", "json").ok().out)
    assert [variant["score"]["artists"] for variant in found["variants"]] == [50, 50]
    assert found["problems"] == 0
    assert built.value("SELECT count(*) FROM attempts") == before


def requests_to_send(project: ProjectFolder) -> int:
    found: int = project.plan()["requests"]
    return found


def test_only_what_is_added_is_asked_and_what_is_decided_is_there_already(tmp_path: Path, server: Simulator) -> None:
    project = folder(tmp_path, server, BY_FUNCTION)
    project.run("run").ok()
    assert requests_to_send(project) == 0

    project.write("bioforge.toml", BY_FUNCTION.replace('"gpt-6.1-terra"]', '"gpt-6.1-terra", "gpt-6-sol"]'))
    assert requests_to_send(project) == 50 * 3, "another model asks only for that model"
    project.write("bioforge.toml", BY_FUNCTION.replace("samples = 3", "samples = 4"))
    assert requests_to_send(project) == 50 * 2, "another sample asks only for that sample"

    decided = re.sub(r"^(matrix|samples|score) = .*\n", "", BY_FUNCTION, flags=re.MULTILINE)
    project.write("bioforge.toml", decided.replace("[recipe.bio]", '[recipe.bio]\nmodel = "gpt-6.1-terra"'))
    assert requests_to_send(project) == 0
    assert project.run("plan", "-q").code == 0


def test_the_judging_recipe_judges_every_answer(tmp_path: Path, server: Simulator) -> None:
    project = folder(tmp_path, server, HEAD + JUDGED)
    project.run("run", "--select", "b*").ok()
    artists = project.value("SELECT count(*) FROM artists WHERE artist_id GLOB 'b*'")
    found: dict[str, Any] = json.loads(project.run("compare", "--select", "b*", "--format", "json").ok().out)
    assert (found["recipe"], found["problems"]) == ("bio", 0)
    for variant in found["variants"]:
        assert (variant["answers"], variant["unscored"]) == (artists * 3, 0)
        assert variant["score"]["artists"] == artists > 1

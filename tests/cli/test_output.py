"""Outputs: written from the state after a run, as a whole or not at all, and left alone when nothing changed."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from projects import ARTISTS, ProjectFolder

from bioforge.simulator import Simulator, SimulatorOptions

OUTPUTS = """
[[output]]
path = "out/bios.jsonl"
[[output]]
path = "out/bios.csv"
[[output]]
path = "out/bios.md"
[[output]]
path = "out/pages/"
"""
HAIKU = '[recipe.haiku]\nmodel = "gpt-6-luna"\ninput = "A haiku about {{ artist_name }}"\n'


@pytest.fixture
def project(tmp_path: Path, server: Simulator) -> ProjectFolder:
    folder = ProjectFolder(tmp_path, server)
    folder.configure(more=OUTPUTS)
    return folder


def records(project: ProjectFolder, name: str = "out/bios.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in project.read(name).splitlines()]


def pages(project: ProjectFolder) -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in (project.root / "out/pages").iterdir()}


def stamps(project: ProjectFolder) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every output: a file that is replaced gets another inode."""
    return {
        str(path): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in (project.root / "out").rglob("*")
        if path.is_file()
    }


def test_every_format_has_every_artist(project: ProjectFolder) -> None:
    ran = project.run("run").ok()
    assert [line for line in ran.err.splitlines() if line.startswith("wrote")] == [
        "wrote out/bios.jsonl (4 records)",
        "wrote out/bios.csv (4 records)",
        "wrote out/bios.md (4 records)",
        "wrote out/pages/ (4 records)",
    ]
    texts = {record["artist_id"]: record["response_text"] for record in records(project)}
    assert texts == dict(project.rows("SELECT artist_id, text FROM results"))
    assert all(record["error"] is None for record in records(project))

    rows = list(csv.DictReader(io.StringIO(project.read("out/bios.csv"), newline="")))
    assert {row["artist_id"]: row["response_text"] for row in rows} == texts

    sections = project.read("out/bios.md").split("# ")[1:]
    assert [section.splitlines()[0] for section in sections] == [
        "Björk", "Abakanowicz, Magdalena", "Absalon", "Abbey, Edwin Austin"
    ]  # fmt: skip

    found = pages(project)
    assert sorted(found) == ["abakanowicz-magdalena_2.md", "abbey-edwin-austin_0.md", "absalon_3.md", "bjork_1.md"]
    assert found["bjork_1.md"].startswith('---\nartist_id: "1"\nartist_name: "Björk"\nrecipe: "bio"\n')
    assert texts["1"] in found["bjork_1.md"]


def test_export_and_output_are_the_same(project: ProjectFolder) -> None:
    project.run("run").ok()
    assert project.run("export").ok().out == project.read("out/bios.jsonl")
    assert project.run("export", "--format", "markdown").ok().out == project.read("out/bios.md")


def test_nothing_is_touched_when_nothing_changed(project: ProjectFolder) -> None:
    project.run("run").ok()
    before = stamps(project)
    ran = project.run("run").ok()
    assert "wrote" not in ran.err
    assert stamps(project) == before
    project.run("plan").ok()
    project.edit("artists.csv", "1965", "1966")
    project.run("status").ok()
    assert stamps(project) == before


def test_only_what_is_missing_or_was_changed_is_written_again(project: ProjectFolder) -> None:
    project.run("run").ok()
    before = stamps(project)
    (project.root / "out/bios.csv").unlink()
    project.write("out/bios.md", "edited by hand")
    ran = project.run("run").ok()
    assert [line for line in ran.err.splitlines() if line.startswith("wrote")] == [
        "wrote out/bios.csv (4 records)",
        "wrote out/bios.md (4 records)",
    ]
    after = stamps(project)
    assert {Path(name).name for name in after if after[name] != before[name]} == {"bios.csv", "bios.md"}


def test_another_option_writes_the_output_again(project: ProjectFolder) -> None:
    project.run("run").ok()
    project.edit("bioforge.toml", '"out/bios.csv"', '"out/bios.csv"\ncolumns = ["artist_id", "error_class"]')
    ran = project.run("run").ok()
    assert "wrote out/bios.csv (4 records)" in ran.err
    assert "wrote out/bios.md" not in ran.err
    assert project.read("out/bios.csv").splitlines() == ["artist_id,error_class", "1,", "2,", "3,", "0,"]
    assert project.charged() == 4


def test_outputs_are_replaced_and_never_rewritten_in_place(project: ProjectFolder) -> None:
    """A reader that has the old file open keeps reading the old content, whole."""
    project.run("run").ok()
    old = project.read("out/bios.jsonl")
    with (project.root / "out/bios.jsonl").open(encoding="utf-8") as reader:
        first = reader.readline()
        project.edit("artists.csv", "Polish sculptor", "Polish artist")
        project.run("run").ok()
        assert first + reader.read() == old
    assert project.read("out/bios.jsonl") != old
    assert not [path for path in (project.root / "out").rglob("*") if path.name.endswith(".tmp")]


def test_failures_carry_their_error(tmp_path: Path) -> None:
    script = {"Absalon": ["incomplete"], "Björk": ["bad_request"], "Abbey": ["refusal"]}
    with Simulator(SimulatorOptions(script=script)) as server:
        project = ProjectFolder(tmp_path, server)
        project.configure(more=OUTPUTS)
        assert project.run("run").code == 1
    errors = {record["artist_id"]: record["error"] for record in records(project)}
    assert errors["2"] is None
    assert [errors[artist]["class"] for artist in ("1", "3", "0")] == ["bad_request", "truncated", "refusal"]
    rows = csv.DictReader(io.StringIO(project.read("out/bios.csv"), newline=""))
    assert [row["error_class"] for row in rows] == ["bad_request", "", "truncated", "refusal"]
    assert "> No text: truncated, " in pages(project)["absalon_3.md"]


def test_an_artist_that_fails_later_keeps_its_older_answer_beside_the_error(project: ProjectFolder) -> None:
    project.run("run").ok()
    old = {record["artist_id"]: record["response_text"] for record in records(project)}
    project.edit("artists.csv", "Icelandic singer", "Icelandic composer")
    with Simulator(SimulatorOptions(faults={"bad_request": 1.0})) as refusing:
        assert project.run("run", env={"OPENAI_BASE_URL": refusing.base_url}).code == 1
    first = records(project)[0]
    assert first["error"]["class"] == "bad_request"
    assert first["response_text"] == old["1"]


def test_a_changed_artist_that_was_not_asked_yet_keeps_its_older_answer(project: ProjectFolder) -> None:
    project.run("run").ok()
    old = records(project)
    project.edit("artists.csv", "Icelandic singer", "Icelandic composer")
    project.run("run", "--select", "2").ok()
    first = records(project)[0]
    assert first["response_text"] == old[0]["response_text"]
    assert first["artist_data"] == "Icelandic composer", "the record shows the input as it is now"


def test_removed_artists_leave_every_output(project: ProjectFolder) -> None:
    project.run("run").ok()
    project.write("artists.csv", ARTISTS.replace("3,Absalon,,1964\n", ""))
    project.run("run").ok()
    assert [record["artist_id"] for record in records(project)] == ["1", "2", "0"]
    assert "Absalon" not in project.read("out/bios.csv") + project.read("out/bios.md")
    assert "absalon_3.md" not in pages(project)


def test_files_of_others_stay_in_a_folder_of_pages(project: ProjectFolder) -> None:
    project.write("out/pages/notes.md", "by hand")
    project.run("run").ok()
    project.write("artists.csv", ARTISTS.replace("3,Absalon,,1964\n", ""))
    project.run("run").ok()
    assert pages(project)["notes.md"] == "by hand"
    assert len(pages(project)) == 4


def test_two_recipes_and_an_output_of_one(project: ProjectFolder) -> None:
    project.configure(
        more=HAIKU
        + '[[output]]\npath = "all.jsonl"\n[[output]]\npath = "haiku.jsonl"\nrecipe = "haiku"\n'
        + '[[output]]\npath = "all.md"\n'
    )
    project.run("run").ok()
    assert [record["recipe"] for record in records(project, "all.jsonl")] == ["bio", "haiku"] * 4
    assert {record["recipe"] for record in records(project, "haiku.jsonl")} == {"haiku"}
    headings = [line for line in project.read("all.md").splitlines() if line.startswith("#")]
    assert headings[:3] == ["# Björk", "## bio", "## haiku"]


def test_a_run_of_one_recipe_writes_all_outputs(project: ProjectFolder) -> None:
    project.configure(more=HAIKU + '[[output]]\npath = "all.jsonl"')
    project.run("run", "haiku").ok()
    assert {record["recipe"] for record in records(project, "all.jsonl")} == {"haiku"}
    project.run("run", "bio").ok()
    assert [record["recipe"] for record in records(project, "all.jsonl")] == ["bio", "haiku"] * 4


def test_an_interrupted_or_stopped_run_writes_what_it_has(project: ProjectFolder) -> None:
    ran = project.run("run", "-j", "1", "--max-cost", "0.0003")
    assert ran.code == 75
    assert 1 <= len(records(project)) == project.charged() < 4
    project.run("run").ok()
    assert len(records(project)) == 4


def test_outputs_may_be_links_and_keep_their_permissions(project: ProjectFolder) -> None:
    target = project.write("elsewhere/real.jsonl", "")
    target.chmod(0o640)
    (project.root / "out").mkdir()
    (project.root / "out/bios.jsonl").symlink_to(target)
    project.run("run").ok()
    assert (project.root / "out/bios.jsonl").is_symlink()
    assert len(target.read_text("utf-8").splitlines()) == 4
    assert target.stat().st_mode & 0o777 == 0o640

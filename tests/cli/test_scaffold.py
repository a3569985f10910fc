"""The project that `init` writes loads as it is, and so does every option it shows."""

from __future__ import annotations

import csv
import re
import tomllib
from pathlib import Path

import pytest

from bioforge.cli import scaffold
from bioforge.config.loader import load
from bioforge.core.errors import UsageError

OPTION = re.compile(r"#(\w+) = ")


def options():
    lines = scaffold.files("x")["bioforge.toml"].splitlines()
    return [number for number, line in enumerate(lines) if OPTION.match(line)]


def test_it_is_written_and_loads(tmp_path):
    folder = tmp_path / "new" / "artists"
    written = scaffold.write(folder)
    assert [path.relative_to(folder).as_posix() for path in written] == [
        "bioforge.toml",
        "artists.csv",
        "prompts/bio.md",
        ".gitignore",
    ]
    config = load(folder, {})
    assert config.project.name == "artists"
    assert config.simulated
    assert config.recipes["bio"].instructions.path == folder / "prompts/bio.md"
    assert config.recipes["bio"].input.text == "{{ artist_name }}\n{{ artist_data }}"
    assert [output.path for output in config.outputs] == ["out/bios.jsonl", "out/bios.csv"]
    assert (config.overrides, config.notes) == ((), ())


def test_its_artists_are_rows(tmp_path):
    scaffold.write(tmp_path)
    with (tmp_path / "artists.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 5
    assert {tuple(row) for row in rows} == {("artist_id", "artist_name", "artist_data")}
    assert all(all(row.values()) for row in rows)


@pytest.mark.parametrize("number", options())
def test_every_option_it_shows_can_be_switched_on(tmp_path, number):
    scaffold.write(tmp_path)
    path = tmp_path / "bioforge.toml"
    lines = path.read_text("utf-8").splitlines()
    key = OPTION.match(lines[number])[1]
    lines[number] = lines[number][1:]
    # An example of a key that is set stands below it, and takes its place.
    if lines[number - 1].startswith(f"{key} = "):
        del lines[number - 1]
    if key == "endpoint":
        assert "/v1/chat/completions" in lines[number]
    path.write_text("\n".join(lines), encoding="utf-8")
    load(path, {})


@pytest.mark.parametrize("name", ["plain", 'with "quotes" \\ and\nlines', "Kunst­ler 🎨", "\x7f{name}"])
def test_any_name(name):
    assert tomllib.loads(scaffold.files(name)["bioforge.toml"])["project"]["name"] == name


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "artists.csv").write_text("mine")
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts/bio.md").write_text("mine")
    with pytest.raises(UsageError) as caught:
        scaffold.write(tmp_path)
    assert caught.value.message == f"{tmp_path} already has artists.csv, prompts/bio.md; nothing was written"
    assert not (tmp_path / "bioforge.toml").exists()
    assert (tmp_path / "artists.csv").read_text() == "mine"


def test_a_gitignore_of_ones_own_stays(tmp_path):
    (tmp_path / ".gitignore").write_text("mine\n")
    assert len(scaffold.write(tmp_path)) == 3
    assert (tmp_path / ".gitignore").read_text() == "mine\n"


def test_the_repositorys_own_project():
    root = Path(__file__).parents[2]
    config = load(root / "bioforge.toml", {})
    assert config.simulated
    assert (root / config.input.path).is_file()
    assert [output.path for output in config.outputs] == ["out/bios.jsonl", "out/bios.csv", "out/bios/"]

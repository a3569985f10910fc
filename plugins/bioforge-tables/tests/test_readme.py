"""Check that the README's projects run and that it lists every option."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from bioforge_tables import bioforge_readers, bioforge_writers
from bioforge_tables.records import COLUMNS

from bioforge.testing import MakeProject

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
FIRST, SECOND = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
PROVIDER = '[provider]\nbase_url = "{base_url}"\n'


def test_the_project_files_work(make_project: MakeProject) -> None:
    stream = io.BytesIO()
    pq.write_table(pa.table({"artist_id": [1], "artist_name": ["Björk"], "artist_data": ["Icelandic singer"]}), stream)
    files: dict[str, str | bytes] = {
        "artists.parquet": stream.getvalue(),
        "artists.csv": "id,name,dates,gender\n1,Björk,Icelandic singer,Female\n2,Abbey,American painter,Male\n",
    }
    project = make_project(files, toml=PROVIDER + FIRST)
    project.run("run").ok()
    assert pq.read_table(project.root / "out" / "bios.parquet").num_rows == 1
    recipe = FIRST[FIRST.index("[recipe.bio]") :]
    project.write("bioforge.toml", PROVIDER.replace("{base_url}", project.simulator.base_url) + SECOND + recipe)
    assert project.reasons() == {}, "the same artist, read from another format, is asked for again"


def test_every_name_option_and_column_is_in_it() -> None:
    plugins: dict[str, Any] = {**bioforge_readers(), **bioforge_writers()}
    for name, plugin in plugins.items():
        assert f"`{name}`" in README, name
        for option in plugin.Options.model_fields:
            assert f"`{option}`" in README, f"{name}: {option}"
    listed = re.search(r"have this order: `([^`]+)`", README)
    assert listed
    assert listed[1].replace("\n", " ").split(", ") == list(COLUMNS)

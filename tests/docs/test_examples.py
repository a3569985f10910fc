"""The projects in `examples/` run as they are, and do what their first lines say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from projects import ProjectFolder

from bioforge.simulator import Simulator

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.fixture
def chain(tmp_path: Path, server: Simulator) -> ProjectFolder:
    """A copy of the chain, which asks a server whose ledger can be read."""
    project = ProjectFolder(tmp_path / "examples" / "chain", server)
    shutil.copytree(EXAMPLES / "chain", project.root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.db*", "out"))
    shutil.copy(EXAMPLES / "artists.csv", project.root.parent)
    project.edit("bioforge.toml", "[input]", f'[provider]\nbase_url = "{server.base_url}"\n\n[input]')
    return project


def test_the_chain_is_built_once(chain: ProjectFolder) -> None:
    shown = chain.run("plan", "--graph").ok().out
    assert [line.split()[0] for line in shown.splitlines()] == ["recipe", "facts", "├─", "│", "└─"]
    chain.run("run").ok()
    assert chain.rows("SELECT recipe, count(*) FROM results WHERE state = 'fresh' GROUP BY 1") == [
        ("bio", 50), ("facts", 50), ("overview", 1), ("translation", 50)
    ]  # fmt: skip
    charged = chain.charged()
    assert "everything is up to date" in chain.run("run").ok().err
    assert chain.charged() == charged == 151
    page = next((chain.root / "out/artists").glob("bjork*")).read_text("utf-8")
    assert [line for line in page.splitlines() if line.startswith("## ")] == ["## bio", "## facts", "## translation"]


def test_one_changed_fact_rebuilds_one_chain(chain: ProjectFolder) -> None:
    chain.run("run").ok()
    charged = chain.charged()
    chain.edit("../artists.csv", "Singer, songwriter and producer", "Singer and producer")
    chain.run("run").ok()
    asked = chain.rows(
        "SELECT t.recipe, a.artist_id FROM attempts x JOIN targets t ON t.id = x.target JOIN artists a ON a.id = t.artist"
        " WHERE x.run = 2 ORDER BY x.id"
    )
    assert [recipe for recipe, artist in asked if artist == "bjork"] == ["facts", "bio", "translation"]
    assert {artist for _, artist in asked} <= {"bjork", "*"}
    assert chain.charged() == charged + len(asked)


def test_facts_that_come_back_the_same_rebuild_nothing(chain: ProjectFolder) -> None:
    chain.run("run").ok()
    charged = chain.charged()
    chain.run("run", "-B", "facts").ok()
    assert chain.charged() == charged + 50, "the facts, on purpose"
    assert "everything is up to date" in chain.run("run").ok().err
    assert chain.charged() == charged + 50

"""Each contract fails for a plugin that is wrong: run as an author runs it, in a process of its own."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bioforge.testing import BackendContract, ReaderContract, WriterContract

HERE = Path(__file__).parent
CONTRACTS = [(ReaderContract, "wrong_readers"), (WriterContract, "wrong_writers"), (BackendContract, "wrong_backends")]


def wrong_plugins(module: str) -> list[tuple[str, dict[str, str]]]:
    """Test classes of wrong plugins, each with the stories that have to fail, and what they say."""
    found = inspect.getmembers(importlib.import_module(module), inspect.isclass)
    return [(name, one.caught_by) for name, one in found if name.startswith("Test")]


def run_stories(folder: Path, module: str, stories: list[str]) -> dict[str, str]:
    """What each of the stories (`class::story`) failed with; one that passed has no text."""
    folder.joinpath("conftest.py").write_text('pytest_plugins = ["bioforge.testing"]\n')
    folder.joinpath("pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    folder.joinpath("test_wrong.py").write_text(f"from {module} import *\n")
    options = ["-q", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist", "--junitxml=found.xml"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *(f"test_wrong.py::{name}" for name in stories)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = {}
    for case in ElementTree.parse(folder / "found.xml").iter("testcase"):
        texts = [f"{one.get('message')}\n{one.text}" for kind in ("failure", "error") for one in case.findall(kind)]
        assert case.find("skipped") is None, f"{case.attrib} was skipped"
        story = f"{case.get('classname', '').removeprefix('test_wrong.')}::{case.get('name')}"
        # what comes to light when it is cleaned up stands there as a case of its own
        found[story] = "\n".join([*filter(None, [found.get(story)]), *texts])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("module", [module for _, module in CONTRACTS])
def test_each_wrong_plugin_is_caught(tmp_path: Path, module: str) -> None:
    wrong = {f"{name}::{story}": text for name, told in wrong_plugins(module) for story, text in told.items()}
    found = run_stories(tmp_path, module, list(wrong))
    assert found.keys() == wrong.keys()
    unnoticed = [story for story, text in found.items() if not text]
    assert not unnoticed, f"these stories passed with a plugin that is wrong: {unnoticed}"
    for story, text in wrong.items():
        assert text in found[story], f"{story} fails with another message:\n{found[story]}"


@pytest.mark.parametrize(("contract", "module"), CONTRACTS)
def test_each_story_has_a_plugin_that_it_catches(contract: type, module: str) -> None:
    stories = {name for name, _ in inspect.getmembers(contract) if name.startswith("test_")}
    told = {story.split("[")[0] for _, caught_by in wrong_plugins(module) for story in caught_by}
    assert told == stories

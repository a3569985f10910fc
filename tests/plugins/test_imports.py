"""Plugins, worked examples and skeletons import nothing of bioforge but its contract and its test kit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [
    *ROOT.glob("plugins/*/bioforge_*/**/*.py"),
    *ROOT.glob("plugins/*/tests/*.py"),
    *ROOT.glob("examples/plugins/*/**/*.py"),
    *ROOT.glob("bioforge/cli/templates/plugin/**/*.tmpl"),
]
IMPORT = re.compile(r"^\s*(?:from|import) (bioforge(?:\.[\w.]+)?)\b", re.MULTILINE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_only_the_contract_and_the_kit(path: Path) -> None:
    allowed = {"bioforge.plugin", "bioforge.testing"} | ({"bioforge.simulator"} if "tests" in path.parts else set())
    assert set(IMPORT.findall(path.read_text("utf-8"))) <= allowed

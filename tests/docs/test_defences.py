"""The page about defences names tests that exist, one for each claim."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "defences.md").read_text("utf-8")


def test_every_claim_names_a_test_that_exists() -> None:
    claims = [line for line in PAGE.splitlines() if line.startswith("| ") and line != "| claim | test |"]
    named = [re.findall(r"\| `(tests/[\w/]+\.py)::(test_\w+)` \|$", line) for line in claims]
    assert len(named) > 20
    assert [line for line, found in zip(claims, named, strict=True) if len(found) != 1] == []
    for ((path, name),) in named:
        tree = ast.parse((ROOT / path).read_text("utf-8"))
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, f"{path}::{name}"

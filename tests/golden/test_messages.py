"""Every text that people see stands in messages.txt, so that wording changes only on purpose."""

from __future__ import annotations

import importlib.util
from pathlib import Path

HERE = Path(__file__).parent


def test_no_text_changed_by_accident() -> None:
    spec = importlib.util.spec_from_file_location("collect_messages", HERE / "collect.py")
    assert spec is not None
    assert spec.loader is not None
    collect = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(collect)
    current, golden = collect.collect(), (HERE / "messages.txt").read_text("utf-8")
    assert current == golden, "after a deliberate change: python tests/golden/collect.py"

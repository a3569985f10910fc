"""An environment of its own for each test that installs something."""

from __future__ import annotations

from pathlib import Path

import pytest

from .environments import Environment


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "environment")

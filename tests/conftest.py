"""Fixtures for all tests: a simulator of one's own, and a project beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import ISOLATION
from projects import ProjectFolder

from bioforge.simulator import Simulator, SimulatorOptions

os.environ.update(ISOLATION)


def pytest_configure(config: pytest.Config) -> None:
    # aiohttp warns about itself where a form arrives in pieces of a few bytes
    config.addinivalue_line("filterwarnings", r"ignore:unread_data\(\) is deprecated:DeprecationWarning")


@pytest.fixture
def server() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions()) as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, server: Simulator) -> ProjectFolder:
    return ProjectFolder(tmp_path, server)

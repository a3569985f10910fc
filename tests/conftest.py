"""Fixtures for all tests: a simulator of one's own, and a project beside it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis_profile  # noqa: F401 - loads the profile
import pytest
from processes import ISOLATION
from projects import ProjectFolder

from bioforge.simulator import Simulator, SimulatorOptions

pytest_plugins = ["bioforge.testing"]

os.environ.update(ISOLATION)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell begins what is to run beside it so, and each process of a test would be as deaf.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def server() -> Iterator[Simulator]:
    """It answers at once, batches too."""
    with Simulator(SimulatorOptions(batch_seconds=0)) as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, server: Simulator) -> ProjectFolder:
    return ProjectFolder(tmp_path, server)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is slow is run by `-m slow`, which CI does."""
    if "slow" in config.option.markexpr:
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow; -m slow runs it"))

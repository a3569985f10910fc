"""The fixtures of the kit: simulators and projects that are closed when a test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bioforge.simulator import Simulator, SimulatorOptions
from bioforge.testing.folders import ProjectFolder, Server, Tables

MakeSimulator = Callable[..., Simulator]
"""`make_simulator(**options)`; the options are those of `bioforge.simulator.SimulatorOptions`."""

MakeProject = Callable[..., ProjectFolder]
"""`make_project(files, toml=…, simulator=…)`; see `ProjectFolder`."""


@pytest.fixture
def make_simulator() -> Iterator[MakeSimulator]:
    """Provide `make_simulator(latency=0.1, faults={"rate_limit": 0.05})`: an OpenAI-compatible server on loopback.

    `base_url` is its address, `ledger` its charges.
    """
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Simulator(SimulatorOptions(**options)))


@pytest.fixture
def simulator(make_simulator: MakeSimulator) -> Simulator:
    """Provide a simulator without latency, limits or faults. Override it for another one."""
    return make_simulator()


@pytest.fixture
def make_project(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MakeProject]:
    """Provide `make_project({"artists.xml": text}, toml={"input": {"path": "artists.xml"}})`.

    A project in its own folder.

    The first one is `tmp_path` itself, the others are inside it. `simulator` is the fixture's unless it is given.
    """
    made: list[ProjectFolder] = []

    def make(
        files: Mapping[str, str | bytes] | None = None,
        toml: str | Tables | None = None,
        simulator: Simulator | Server | None = None,
    ) -> ProjectFolder:
        root = tmp_path / f"project-{len(made) + 1}" if made else tmp_path
        root.mkdir(exist_ok=True)
        server: Any = simulator or request.getfixturevalue("simulator")
        made.append(ProjectFolder(root, server, files, toml))
        return made[-1]

    # The simulator is begun first, so that it ends after what is sending to it.
    request.getfixturevalue("simulator")
    yield make
    for project in made:
        project.close()


@pytest.fixture
def project(make_project: MakeProject) -> ProjectFolder:
    """Provide a project with the kit's input and project file: `project.run("run").ok()`."""
    return make_project()

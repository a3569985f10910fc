"""Every test here runs over every backend, with simulators that are closed when it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from bioforge.openai.plugin import bioforge_backends

from .bench import Bench


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(params=["threads", "async"])
def bench(request: pytest.FixtureRequest, stack: ExitStack) -> Bench:
    return Bench(bioforge_backends()[request.param], stack)

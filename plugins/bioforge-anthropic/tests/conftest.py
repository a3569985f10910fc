"""Fixtures: servers, and projects that use them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from server import AnthropicServer
from world import World

pytest_plugins = ["bioforge.testing"]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def make_server(stack: ExitStack) -> Callable[..., AnthropicServer]:
    """Start a server until the end of the test, as in `make_server(latency=0.1)`."""
    return lambda **settings: stack.enter_context(AnthropicServer(**settings))


@pytest.fixture
def make_world(tmp_path: Path, stack: ExitStack, make_server: Callable[..., AnthropicServer]) -> Callable[..., World]:
    """Make a project and its server, as in `make_world({"max_requests": 2}, batch_seconds=1)`."""

    def make(options: dict[str, object] | None = None, **settings: object) -> World:
        world = World(tmp_path / "project", make_server(**settings), options or {})
        stack.callback(world.close)
        return world

    return make

"""Simulators and clients that are closed when a test ends."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
from openai import OpenAI

from bioforge.simulator import Simulator, SimulatorOptions

Start = Callable[..., Simulator]
Connect = Callable[..., OpenAI]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def start(stack: ExitStack) -> Start:
    """`start(faults={...})`: a running simulator with these options."""
    return lambda **options: stack.enter_context(Simulator(SimulatorOptions(**options)))


@pytest.fixture
def connect(stack: ExitStack) -> Connect:
    """`connect(server)`: the real SDK, without retries of its own."""

    def open_client(server: Simulator, **arguments: Any) -> OpenAI:
        arguments = {"api_key": "key", "max_retries": 0, "timeout": 10, **arguments}
        return stack.enter_context(OpenAI(base_url=server.base_url, **arguments))

    return open_client


@pytest.fixture
def server(start: Start) -> Simulator:
    """A simulator without latency, limits or faults."""
    return start()


@pytest.fixture
def client(server: Simulator, connect: Connect) -> OpenAI:
    return connect(server)


@pytest.fixture
def raw(server: Simulator) -> Callable[..., tuple[int, Mapping[str, str], Any]]:
    """`raw("POST", "/v1/responses", {...})`: status, headers (lower case) and JSON, by plain HTTP."""

    def ask(
        method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], Any]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        try:
            payload = body if isinstance(body, bytes | None) else json.dumps(body)
            sent = {"Authorization": "Bearer key"} if headers is None else dict(headers)
            connection.request(method, path, payload, sent)
            response = connection.getresponse()
            received = {name.lower(): value for name, value in response.getheaders()}
            return response.status, received, json.loads(response.read())
        finally:
            connection.close()

    return ask

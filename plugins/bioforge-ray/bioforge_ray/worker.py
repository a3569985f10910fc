"""The Ray actor, which sends calls with the sender of the backend `async`.

Attempts arrive and outcomes leave in chunks. `collect` returns all outcomes that are ready, so slow answers delay no
others. A chunk is pickled once and small enough for Ray's messages: it does not use the object store, whose node could
be lost. A worker has no retries and no limits: it sends each attempt once.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import platform
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bioforge.plugin import AsyncBackend, AsyncSender, BackendContext, Outcome, Request, __version__, internal_failure
from bioforge_ray.servers import Servers

CHUNK_BYTES = 64_000
"""Limit of the bodies in one chunk: Ray's messages hold up to 100 kB. A larger body goes alone, by the object store."""

AttemptMessage = tuple[Request, str]
"""A request and its `client_request_id`."""

Ended = tuple[str, Outcome]


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a worker, including the key.

    Sent by a method call, since Ray stores constructor arguments in the control store. `environment`: variables for
    the OpenAI SDK.
    """

    context: BackendContext
    base_urls: tuple[str, ...]
    number: int
    key_from_environment: bool = False
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hello:
    """A worker's answer at its start: its node, process and problem (empty if there is none)."""

    node: str
    process: int
    problem: str = ""
    hint: str = ""


class Worker:
    """The actor; it runs on one event loop."""

    def __init__(self) -> None:
        self._senders: list[AsyncSender] = []
        self._servers = Servers(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: deque[Ended] = deque()
        self._has_outcomes = asyncio.Event()
        self._fault: Exception | None = None

    async def hello(self, settings: bytes, version: str) -> Hello:
        node = platform.node()
        if version != __version__:
            return Hello(
                node,
                os.getpid(),
                f"{node} has bioforge {__version__}, this machine has {version}",
                "install the same version on every node of the cluster",
            )
        loaded: Settings = pickle.loads(settings)
        context = loaded.context
        if loaded.key_from_environment:
            key = os.environ.get(context.api_key_env)
            if not key:
                return Hello(
                    node,
                    os.getpid(),
                    f"{context.api_key_env} is not set for the workers on {node}",
                    'set it for `ray start` on each node, or use key_from = "driver"',
                )
            context = replace(context, api_key=key)
        os.environ.update(loaded.environment)
        self._open(context, loaded)
        return Hello(node, os.getpid())

    def _open(self, context: BackendContext, settings: Settings) -> None:
        # Import now: the first call would otherwise block the loop for seconds.
        import aiohttp  # noqa: F401
        import openai  # noqa: F401

        self._senders = [AsyncBackend(replace(context, base_url=url)).open_sender() for url in settings.base_urls]
        self._servers = Servers(len(settings.base_urls), settings.number)

    async def send(self, chunk: bytes) -> None:
        """Start sending these attempts and return."""
        try:
            attempts: list[AttemptMessage] = pickle.loads(chunk)
        except Exception as error:
            # The driver does not await this call: `collect` raises the error, which ends the worker.
            self._fault = error
            self._has_outcomes.set()
            return
        for request, name in attempts:
            task = asyncio.create_task(self._send(request, name))
            # the loop holds only weak references to tasks
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def collect(self) -> bytes:
        """Wait for outcomes and return a chunk of those not yet collected."""
        await self._has_outcomes.wait()
        if self._fault is not None:
            raise self._fault
        chunk: list[Ended] = []
        size = 0
        while self._ended and (not chunk or size + _size(self._ended[0]) <= CHUNK_BYTES):
            size += _size(self._ended[0])
            chunk.append(self._ended.popleft())
        if not self._ended:
            self._has_outcomes.clear()
        return packed(chunk)

    async def _send(self, request: Request, name: str) -> None:
        server = self._servers.choose(time.monotonic())
        try:
            outcome = await self._senders[server].send(request, name)
        except Exception as error:
            outcome = internal_failure(error)
        self._servers.ended(server, outcome.outage, time.monotonic())
        self._ended.append((name, outcome))
        self._has_outcomes.set()


def packed(chunk: Sequence[AttemptMessage] | Sequence[Ended]) -> bytes:
    return pickle.dumps(chunk, protocol=pickle.HIGHEST_PROTOCOL)


def _size(ended: Ended) -> int:
    """Estimate the bytes of an outcome in a chunk; an answer contains its text twice."""
    outcome = ended[1]
    if outcome.answer is not None:
        return len(outcome.answer.body) + 2 * len(outcome.answer.text or "") + 400
    return len(outcome.body or b"") + 600

"""What runs on a worker: the sender of the backend `async`, on the event loop of a Ray actor.

Launches come in parcels and outcomes go out in parcels, as soon as there is one: whoever asks gets everything that has
ended by then, so a slow answer holds nobody back, and parcels grow exactly as large as the other side is slow. A
parcel is pickled once and small enough to travel inside Ray's messages, past the object store: nothing of it is on a
node that can be lost before it has arrived.

A worker decides nothing: no retries, no limits. It sends each attempt once.
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

PARCEL_BYTES = 64_000
"""Of bodies in one parcel; Ray sends up to 100 kB inside its messages. A larger body goes alone, by the object store."""

Sending = tuple[Request, str]
"""A request and the name of the attempt (`client_request_id`)."""

Ended = tuple[str, Outcome]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a worker is told when it begins: by a call of its own.

    Since the arguments of a constructor are kept in the cluster's control store, and this has the key.
    `environment`: variables that the vendor's client reads.
    """

    context: BackendContext
    base_urls: tuple[str, ...]
    number: int
    key_from_environment: bool = False
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hello:
    """What a worker answers when it begins: where it is, and what is wrong with it, if anything is."""

    node: str
    process: int
    problem: str = ""
    hint: str = ""


class Worker:
    """One actor. All of it runs on one event loop."""

    def __init__(self) -> None:
        self._senders: list[AsyncSender] = []
        self._servers = Servers(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: deque[Ended] = deque()
        self._any = asyncio.Event()
        self._fault: Exception | None = None

    async def hello(self, settings: bytes, version: str) -> Hello:
        node = platform.node()
        if version != __version__:
            return Hello(
                node,
                os.getpid(),
                f"{node} has bioforge {__version__}, and this machine {version}",
                "install the same version on every node of the cluster",
            )
        told: Settings = pickle.loads(settings)
        context = told.context
        if told.key_from_environment:
            key = os.environ.get(context.api_key_env)
            if not key:
                return Hello(
                    node,
                    os.getpid(),
                    f"{context.api_key_env} is not set for the workers on {node}",
                    'set it where `ray start` is called on each node, or use key_from = "driver"',
                )
            context = replace(context, api_key=key)
        os.environ.update(told.environment)
        self._open(context, told)
        return Hello(node, os.getpid())

    def _open(self, context: BackendContext, told: Settings) -> None:
        # What the first call would import, for seconds, while others wait: a worker is there when it can send.
        import aiohttp  # noqa: F401
        import openai  # noqa: F401

        self._senders = [AsyncBackend(replace(context, base_url=url)).open_sender() for url in told.base_urls]
        self._servers = Servers(len(told.base_urls), told.number)

    async def send(self, parcel: bytes) -> None:
        """Sends these attempts; returns at once."""
        try:
            attempts: list[Sending] = pickle.loads(parcel)
        except Exception as error:
            # Nobody awaits what this returns. A worker that does not understand its parcels is none.
            self._fault = error
            self._any.set()
            return
        for request, name in attempts:
            task = asyncio.create_task(self._send(request, name))
            # The loop itself holds tasks only weakly.
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def collect(self) -> bytes:
        """What has ended and was not yet collected, when there is something."""
        await self._any.wait()
        if self._fault is not None:
            raise self._fault
        parcel: list[Ended] = []
        size = 0
        while self._ended and (not parcel or size + _size(self._ended[0]) <= PARCEL_BYTES):
            size += _size(self._ended[0])
            parcel.append(self._ended.popleft())
        if not self._ended:
            self._any.clear()
        return packed(parcel)

    async def _send(self, request: Request, name: str) -> None:
        server = self._servers.choose(time.monotonic())
        try:
            outcome = await self._senders[server].send(request, name)
        except Exception as error:
            outcome = internal_failure(error)
        self._servers.ended(server, outcome.outage, time.monotonic())
        self._ended.append((name, outcome))
        self._any.set()


def packed(parcel: Sequence[Sending] | Sequence[Ended]) -> bytes:
    return pickle.dumps(parcel, protocol=pickle.HIGHEST_PROTOCOL)


def _size(ended: Ended) -> int:
    """About how many bytes an outcome has in a parcel: an answer's text stands in its body as well."""
    outcome = ended[1]
    if outcome.answer is not None:
        return len(outcome.answer.body) + 2 * len(outcome.answer.text or "") + 400
    return len(outcome.body or b"") + 600

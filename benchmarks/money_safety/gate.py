"""The gate: an HTTP proxy between a tool and the server that sees everything, and strikes at a chosen moment.

What it noted (which body was asked for when, which answer was handed over whole) is the evidence by which `counting`
tells what a tool could have known from what nobody could know.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import aiohttp
from aiohttp import web

from bioforge.simulator.request_bodies import canonical, digest_of

Moment = Literal["before", "after", "delivered"]
"""Before the server gets the request; after it has processed it, and before its answer is passed on; after the answer was
handed over whole."""

MOMENTS: tuple[Moment, ...] = ("before", "after", "delivered")

GENERATING = ("/v1/responses", "/v1/chat/completions")
_OF_THE_CONNECTION = frozenset({"connection", "host", "keep-alive", "transfer-encoding", "date", "server"})
PATIENCE = 30.0
_NAMELESS = b'filename="upload"'


@dataclass(slots=True)
class Seen:
    """One request of a tool, and what became of it."""

    run: int
    """In which run of the tool it was made, from 0."""
    began: float
    method: str
    path: str
    digests: list[str] = field(default_factory=list)
    """Bodies it asks for: one, or in an upload all of its lines."""
    status: int = 0
    request_id: str = ""
    answer: bytes = b""
    delivered: float | None = None
    """When the whole answer was handed to a client that was still there."""
    unclear: bool = False
    """Whether the answer handed over cannot tell if the call was charged."""


@dataclass(frozen=True, slots=True)
class Instead:
    """An answer of a gateway in place of the server's."""

    status: int
    body: bytes
    content_type: str = "application/json"
    charged: bool = False
    """Whether the server gets the request, and charges it."""
    unclear: bool = False
    """Whether the answer cannot tell if the call was charged."""


@dataclass(slots=True)
class Strike:
    """Do something at the n-th request of a kind, from 1."""

    at: int
    moment: Moment
    action: Callable[[], object]
    method: str = "POST"
    path: str = r"^/v1/(responses|chat/completions)$"
    delay: float = 0.0
    """Seconds from the moment to the action: a kill at any point in what the tool does next."""
    count: int = 0
    struck: bool = False

    def hits(self, method: str, path: str) -> bool:
        if self.struck or method != self.method or not re.search(self.path, path):
            return False
        self.count += 1
        return self.count == self.at


class Gate:
    """Serves in a thread of its own while the `with` block lasts."""

    def __init__(self) -> None:
        self.port = 0
        self.upstream = ""
        self.run = 0
        self.seen: list[Seen] = []
        self.bodies: dict[str, dict[str, Any]] = {}
        """Every body that was ever asked for, by its SHA-256 as in the ledger."""
        self.strike: Strike | None = None
        self.down: Callable[[int], bool] = lambda number: False
        """Whether the request to generate with this number, from 1, is answered 503."""
        self.instead: Callable[[int], Instead | None] = lambda number: None
        """The answer to hand over in place of the server's to the request to generate with this number, from 1."""
        self.watch: Callable[[Seen], object] = lambda seen: None
        """Called for each request when it comes in."""
        self._asked = 0
        self._pending = 0
        self._quiet = threading.Event()
        self._quiet.set()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="gate", daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def aim(self, strike: Strike) -> Strike:
        self.strike = strike
        return strike

    def wait_until_quiet(self) -> None:
        """Until the server has dealt with all that was sent, whether or not anybody waits for it."""
        self._quiet.wait(PATIENCE)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(PATIENCE):
            raise RuntimeError("the gate did not open")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._end is not None
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(PATIENCE)

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        timeout = aiohttp.ClientTimeout(total=120)
        async with aiohttp.ClientSession(auto_decompress=False, connector=connector, timeout=timeout) as session:
            protocols = web.Server(lambda request: self._handle(request, session), access_log=None)
            server = await self._loop.create_server(protocols, "127.0.0.1", 0, backlog=1024)
            self.port = server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._end.wait()
            server.close()
            await protocols.shutdown(0.25)

    async def _handle(self, request: web.BaseRequest, session: aiohttp.ClientSession) -> web.StreamResponse:
        try:
            content = await request.read()
        except (ConnectionError, web.RequestPayloadError):
            return _hang_up(request)
        self._pending += 1
        self._quiet.clear()
        try:
            return await self._pass(request, content, session)
        finally:
            self._pending -= 1
            if not self._pending:
                self._quiet.set()

    async def _pass(
        self, request: web.BaseRequest, content: bytes, session: aiohttp.ClientSession
    ) -> web.StreamResponse:
        seen = Seen(self.run, time.time(), request.method, request.path)
        self._note(seen, content)
        self.seen.append(seen)
        self.watch(seen)
        strike = self.strike
        hit = strike if strike is not None and strike.hits(request.method, request.path) else None
        if hit and hit.moment == "before":
            await self._act(hit)
            return _hang_up(request)
        if request.method == "POST" and request.path in GENERATING:
            self._asked += 1
            instead = self.instead(self._asked)
            if instead is not None:
                return await self._replace(request, content, session, seen, instead)
            if self.down(self._asked):
                seen.status = 503
                return web.json_response({"error": {"message": "The server is overloaded.", "type": "server_error",
                                                    "code": None, "param": None}}, status=503)  # fmt: skip
        headers = {name: text for name, text in request.headers.items() if name.lower() not in _OF_THE_CONNECTION}
        if request.method == "POST" and request.path == "/v1/files" and _NAMELESS in content:
            # What the SDK calls bytes without a name. The API takes them; the embedded server insists on `.jsonl`.
            content = content.replace(_NAMELESS, b'filename="upload.jsonl"', 1)
            headers = {name: text for name, text in headers.items() if name.lower() != "content-length"}
        body, whole = b"", False
        url = self.upstream + request.raw_path
        try:
            async with session.request(request.method, url, data=content, headers=headers) as answer:
                seen.status, seen.request_id = answer.status, answer.headers.get("x-request-id", "")
                passed = {n: text for n, text in answer.headers.items() if n.lower() not in _OF_THE_CONNECTION}
                try:
                    async for piece in answer.content.iter_any():
                        body += piece
                    whole = True
                except aiohttp.ClientError:
                    pass  # an answer that is cut off is passed on cut off
        except (aiohttp.ClientError, TimeoutError):
            if hit:
                await self._act(hit)
            return _hang_up(request)
        seen.answer = body
        if hit and hit.moment == "after":
            await self._act(hit)
            return _hang_up(request)
        response = await self._hand_over(request, seen, passed, body, whole)
        if hit:
            await self._act(hit)
        return response

    async def _replace(
        self, request: web.BaseRequest, content: bytes, session: aiohttp.ClientSession, seen: Seen, instead: Instead
    ) -> web.StreamResponse:
        if instead.charged:
            headers = {name: text for name, text in request.headers.items() if name.lower() not in _OF_THE_CONNECTION}
            async with session.post(self.upstream + request.raw_path, data=content, headers=headers) as answer:
                await answer.read()
        seen.status, seen.answer, seen.unclear = instead.status, instead.body, instead.unclear
        headers = {"Content-Type": instead.content_type}
        return await self._hand_over(request, seen, headers, instead.body, whole=True)

    async def _hand_over(
        self, request: web.BaseRequest, seen: Seen, headers: dict[str, str], body: bytes, whole: bool
    ) -> web.StreamResponse:
        if request.transport is None or request.transport.is_closing():
            return web.Response()
        response = web.StreamResponse(status=seen.status, headers=headers)
        if whole:
            response.content_length = len(body)
        try:
            await response.prepare(request)
            await response.write(body)
            if not whole:
                return _hang_up(request)
            await response.write_eof()
        except ConnectionError:
            return response
        seen.delivered = time.time()
        return response

    async def _act(self, strike: Strike) -> None:
        if strike.delay:
            await asyncio.sleep(strike.delay)
        strike.struck = True
        await asyncio.to_thread(strike.action)

    def _note(self, seen: Seen, content: bytes) -> None:
        """The bodies in a request or in the lines of an upload."""
        if seen.method != "POST":
            return
        if seen.path in GENERATING:
            pieces = [content]
        elif seen.path == "/v1/files":
            pieces = [line for line in content.splitlines() if line.startswith(b"{")]
        else:
            return
        for piece in pieces:
            try:
                body = json.loads(piece)
            except ValueError:
                continue
            body = body.get("body", body)
            digest = digest_of(canonical(body)).hex()
            self.bodies[digest] = body
            seen.digests.append(digest)


def _hang_up(request: web.BaseRequest) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()

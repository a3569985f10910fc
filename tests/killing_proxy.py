"""An HTTP proxy between a client and a server that strikes at one request of all, before or after it was processed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Literal, Self

import aiohttp
from aiohttp import web

Moment = Literal["before", "after"]
"""Before the request is passed on to the server; or after the server has processed it, and before its answer is."""

_WATCHED = ("/v1/files", "/v1/batches")
_OF_THE_CONNECTION = frozenset({"connection", "host", "keep-alive", "transfer-encoding", "date", "server"})


class KillingProxy:
    """Serves in a thread of its own while the `with` block lasts.

    `strike` is called in a thread, at the n-th request under `/v1/files` or `/v1/batches` since it was aimed; whatever
    it does, that request gets no answer.
    """

    def __init__(self) -> None:
        self.port = 0
        self.seen: list[str] = []
        """Method and path of each request since it was aimed."""
        self.strikes = 0
        """How often it struck, ever."""
        self.blind = 0
        """So many of the next lists of batches are empty: a list may be behind what was created."""
        self._down = False
        self._upstream = ""
        self._at = 0
        self._moment: Moment = "before"
        self._strike: Callable[[], object] = int
        self._failed: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="killing-proxy", daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def aim(self, upstream: str, at: int = 0, moment: Moment = "before", strike: Callable[[], object] = int) -> None:
        """Strike at this request, from 1; 0 is never. `upstream` is a server's URL."""
        self._upstream, self._at, self._moment, self._strike = upstream, at, moment, strike
        self.seen, self._down = [], False

    def go_down(self) -> None:
        """From now on, until it is aimed again, nothing is answered any more."""
        self._down = True

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._end is not None
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        assert self._failed is None, "the strike itself failed"

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            protocols = web.Server(lambda request: self._handle(request, session), access_log=None)
            server = await self._loop.create_server(protocols, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._end.wait()
            server.close()
            await protocols.shutdown(0.25)

    async def _handle(self, request: web.BaseRequest, session: aiohttp.ClientSession) -> web.StreamResponse:
        content = await request.read()
        if self._down:
            return _hang_up(request)
        hit = False
        if request.path.startswith(_WATCHED):
            self.seen.append(f"{request.method} {request.path}")
            hit = len(self.seen) == self._at
        if hit and self._moment == "before":
            return await self._struck(request)
        if self.blind and (request.method, request.path) == ("GET", "/v1/batches"):
            self.blind -= 1
            return web.json_response({"object": "list", "data": [], "has_more": False})
        headers = {name: text for name, text in request.headers.items() if name.lower() not in _OF_THE_CONNECTION}
        try:
            async with session.request(
                request.method, self._upstream + request.raw_path, data=content, headers=headers
            ) as answer:
                body = await answer.read()
        except aiohttp.ClientError:
            return await self._struck(request) if hit else _hang_up(request)
        if hit:
            return await self._struck(request)
        passed = {name: text for name, text in answer.headers.items() if name.lower() not in _OF_THE_CONNECTION}
        return web.Response(body=body, status=answer.status, headers=passed)

    async def _struck(self, request: web.BaseRequest) -> web.StreamResponse:
        self.strikes += 1
        try:
            await asyncio.to_thread(self._strike)
        except Exception as error:
            self._failed = error
        return _hang_up(request)


def _hang_up(request: web.BaseRequest) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()

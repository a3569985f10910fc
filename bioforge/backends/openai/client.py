"""Two clients that send a request byte for byte, once, and report an `Outcome`.

The SDK provides key, organization, project and headers, from arguments and environment. The bytes then go through
`httpx2` (threads) and `aiohttp` (async) without it: the SDK's calls retry, parse and raise after an answer was paid
for, and cost four times as much as the transport.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from bioforge.backends.connection import check_connection, client_options, is_loopback, proxy, tls_verification
from bioforge.backends.openai.outcomes import FAILURES, interpret
from bioforge.backends.openai.wire import Price, sent
from bioforge.backends.transport import (
    CONNECT_SECONDS,
    KEEP_ALIVE_SECONDS,
    PLACEHOLDER_KEY,
    BodyPieces,
    client_timeout,
    lower_headers,
    mask_key,
    remove_key,
    sdk_headers,
    total_timeout,
)
from bioforge.core.errors import UsageError
from bioforge.core.interfaces import BackendContext, Outcome
from bioforge.core.types import Request

if TYPE_CHECKING:
    import socket

    import aiohttp
    import httpx2


def check_context(context: BackendContext, *, socks: bool) -> None:
    """Raise `UsageError` if a key is needed and missing, or if no call could leave; see `check_connection`."""
    if context.api_key is None and not is_loopback(context.base_url):
        name = context.api_key_env
        raise UsageError(
            f"no API key for {context.base_url}: {name} is not set",
            f'export {name}=…, or write it into .env, or set base_url = "simulator" to try without one',
        )
    check_connection(context, call_headers, socks=socks)


MAX_HEAD = 100_000
"""Bytes of a header."""


@lru_cache(maxsize=16)
def endpoint_url(base_url: str, endpoint: str) -> str:
    """Return the URL of an endpoint, also for a base URL that does not end in `/v1`."""
    return base_url.rstrip("/") + endpoint.removeprefix("/v1")


def call_headers(context: BackendContext) -> dict[str, str]:
    """Return the headers that the SDK sends with each call."""
    from openai import OpenAI

    key = context.api_key or PLACEHOLDER_KEY
    return sdk_headers(lambda silent: OpenAI(api_key=key, base_url=context.base_url, max_retries=0, http_client=silent))


def _note_written(written: list[bool], event: str, info: Mapping[str, Any]) -> None:
    """Note that a request is being written; CONNECT is for a proxy."""
    if event.endswith(".send_request_headers.started") and info["request"].method != b"CONNECT":
        written.append(True)


class OpenAISender:
    """One `httpx2` client for all threads."""

    def __init__(self, context: BackendContext, concurrency: int, price: Price) -> None:
        import httpx2

        self._context = context
        self._price = price
        # A connection for each call and none to wait for: how many there are is the scheduler's business.
        limits = httpx2.Limits(
            max_connections=None,
            max_keepalive_connections=max(1, concurrency),
            keepalive_expiry=KEEP_ALIVE_SECONDS,
        )
        self._client = httpx2.Client(
            headers=call_headers(context),
            limits=limits,
            timeout=client_timeout(context.timeout),
            **client_options(context.base_url),
            event_hooks=total_timeout(self._keep),
        )
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()

    def send(self, request: Request, client_request_id: str) -> Outcome:
        started = time.perf_counter()
        received = BodyPieces()
        response: httpx2.Response | None = None
        written: list[bool] = []
        try:
            url = endpoint_url(self._context.base_url, request.endpoint)
            outgoing = self._client.build_request(
                "POST",
                url,
                content=sent(request),
                headers={"X-Client-Request-Id": client_request_id},
                extensions={"trace": partial(_note_written, written)},
            )
            response = self._client.send(outgoing, stream=True)
            try:
                # Read in pieces: those that arrived before a connection broke are kept.
                for piece in response.iter_bytes():
                    received.append(piece)
            finally:
                response.close()
            outcome = interpret(
                request,
                response.status_code,
                lower_headers(response.headers),
                remove_key(received, self._context),
                time.perf_counter() - started,
                self._price,
            )
        except Exception as error:
            outcome = FAILURES.from_exception(
                error,
                time.perf_counter() - started,
                None if response is None else response.status_code,
                {} if response is None else response.headers,
                remove_key(received, self._context),
                written=bool(written),
            )
        return mask_key(outcome, self._context)

    def close(self) -> None:
        """Close every connection; a call that waits for its answer in another thread ends at once."""
        import socket

        with self._lock:
            sockets = tuple(self._sockets)
        for connection in sockets:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                # Closed already, by either side.
                continue
        self._client.close()

    def _keep(self, stream: Any) -> None:
        """Keep the sockets that are opened: only a shutdown wakes a thread that reads one."""
        with self._lock:
            self._sockets = {known for known in self._sockets if known.fileno() >= 0}
            self._sockets.add(stream.get_extra_info("socket"))


def _connected() -> aiohttp.TraceConfig:
    """Return a trace that notes the moment from which on a request is written, after the proxy's CONNECT."""
    import aiohttp

    async def note(session: aiohttp.ClientSession, context: Any, params: object) -> None:
        context.trace_request_ctx.append(True)

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(note)
    trace.on_connection_reuseconn.append(note)
    return trace


class OpenAIAsyncSender:
    """One `aiohttp` session, created and used on one event loop."""

    def __init__(self, context: BackendContext, price: Price) -> None:
        self._context = context
        self._price = price
        self._proxy = proxy(context.base_url)
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request, client_request_id: str) -> Outcome:
        started = time.perf_counter()
        received = BodyPieces()
        response: aiohttp.ClientResponse | None = None
        written: list[bool] = []
        try:
            if self._session is None:
                self._session = self._open()
            url = endpoint_url(self._context.base_url, request.endpoint)
            content = sent(request)
            if self._proxy is None:  # from here on, the class of an exception tells; with a proxy, a trace does
                written.append(True)
            async with self._session.post(
                url,
                data=content,
                headers={"X-Client-Request-Id": client_request_id},
                trace_request_ctx=written,
                allow_redirects=False,
            ) as response:
                while piece := await response.content.readany():
                    received.append(piece)
            outcome = interpret(
                request,
                response.status,
                response.headers,
                remove_key(received, self._context),
                time.perf_counter() - started,
                self._price,
            )
        except Exception as error:
            outcome = FAILURES.from_exception(
                error,
                time.perf_counter() - started,
                None if response is None else response.status,
                {} if response is None else response.headers,
                remove_key(received, self._context),
                written=bool(written),
            )
        return mask_key(outcome, self._context)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        context = self._context
        connector = aiohttp.TCPConnector(
            limit=0,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            ttl_dns_cache=60,
            ssl=tls_verification(context.base_url),
        )
        timeout = aiohttp.ClientTimeout(total=context.timeout, sock_connect=min(CONNECT_SECONDS, context.timeout))
        return aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            headers=call_headers(context),
            proxy=self._proxy,
            trace_configs=[] if self._proxy is None else [_connected()],
            cookie_jar=aiohttp.DummyCookieJar(),  # each call stands alone
            # as httpx2 does: a gateway may send long headers, and many
            max_line_size=MAX_HEAD,
            max_field_size=MAX_HEAD,
            max_headers=1_000,
        )

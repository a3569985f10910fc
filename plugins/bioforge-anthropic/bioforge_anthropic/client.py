"""Send a message once, byte for byte, and return an `Outcome`.

The SDK provides key, API version and headers from arguments and environment. The bytes are sent with the SDK's HTTP
client, without the SDK's calls: those retry, can raise after an answer was paid, and drop partial answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bioforge.plugin import (
    KEEP_ALIVE_SECONDS,
    PLACEHOLDER_KEY,
    BackendContext,
    BodyPieces,
    Outcome,
    Request,
    UsageError,
    check_connection,
    client_options,
    client_timeout,
    is_loopback,
    lower_headers,
    mask_key,
    remove_key,
    sdk_headers,
)
from bioforge_anthropic.outcomes import FAILURES, interpret
from bioforge_anthropic.wire import sent

if TYPE_CHECKING:
    import httpx2

KEY = "ANTHROPIC_API_KEY"


def check_context(context: BackendContext) -> None:
    """Raise `UsageError` if nothing can be sent, or if the key would go to another provider."""
    host = (urlsplit(context.base_url).hostname or "").lower()
    if host == "openai.com" or host.endswith(".openai.com"):
        raise UsageError(
            f"the backend anthropic cannot talk to {context.base_url}",
            'write base_url = "https://api.anthropic.com" under [provider]',
        )
    local = is_loopback(context.base_url)
    if not local and context.api_key_env == "OPENAI_API_KEY":
        raise UsageError(
            f"no API key for {context.base_url}: api_key_env is OPENAI_API_KEY, whose key is for OpenAI",
            f'write api_key_env = "{KEY}" under [provider], and put the key into that variable or into .env',
        )
    if not local and context.api_key is None:
        name = context.api_key_env
        raise UsageError(
            f"no API key for {context.base_url}: {name} is not set",
            f'export {name}=…, or write it into .env; [provider] api_key_env = "{KEY}" is the usual name',
        )
    check_connection(context, call_headers)


def endpoint_url(base_url: str, endpoint: str) -> str:
    """Return an endpoint's URL for a base URL with or without `/v1` at its end."""
    return base_url.rstrip("/").removesuffix("/v1") + endpoint


def sdk_url(base_url: str) -> str:
    """Return the base URL in the SDK's form."""
    return base_url.rstrip("/").removesuffix("/v1")


def call_headers(context: BackendContext) -> dict[str, str]:
    """Return the headers of the SDK for each call."""
    from anthropic import Anthropic

    return sdk_headers(
        lambda silent: Anthropic(
            api_key=context.api_key or PLACEHOLDER_KEY,
            base_url=sdk_url(context.base_url),
            max_retries=0,
            http_client=silent,
        )
    )


class MessagesSender:
    """A sender with one `httpx2` client; create and use it on one event loop."""

    def __init__(self, context: BackendContext) -> None:
        self._context = context
        self._client: httpx2.AsyncClient | None = None

    async def send(self, request: Request, client_request_id: str) -> Outcome:
        started = time.perf_counter()
        received = BodyPieces()
        response: httpx2.Response | None = None
        written: list[bool] = []

        async def note(event: str, info: Mapping[str, Any]) -> None:
            if event.endswith(".send_request_headers.started") and info["request"].method != b"CONNECT":
                written.append(True)

        try:
            if self._client is None:
                self._client = self._open()
            outgoing = self._client.build_request(
                "POST",
                endpoint_url(self._context.base_url, request.endpoint),
                content=sent(request),
                headers={"X-Client-Request-Id": client_request_id},
                extensions={"trace": note},
            )
            async with asyncio.timeout(self._context.timeout):
                response = await self._client.send(outgoing, stream=True)
                try:
                    # read in pieces, to keep a partial answer
                    async for piece in response.aiter_bytes():
                        received.append(piece)
                finally:
                    await response.aclose()
            outcome = interpret(
                request,
                response.status_code,
                lower_headers(response.headers),
                remove_key(received, self._context),
                time.perf_counter() - started,
            )
        except Exception as error:
            status, headers = _of(response)
            content = remove_key(received, self._context)
            seconds = time.perf_counter() - started
            outcome = FAILURES.from_exception(error, seconds, status, headers, content, written=bool(written))
        return mask_key(outcome, self._context)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    def _open(self) -> httpx2.AsyncClient:
        import httpx2

        context = self._context
        # no connection limit: the scheduler limits calls in flight
        limits = httpx2.Limits(
            max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEEP_ALIVE_SECONDS
        )
        return httpx2.AsyncClient(
            headers=call_headers(context),
            limits=limits,
            timeout=client_timeout(context.timeout),
            **client_options(context.base_url),
        )


def _of(response: httpx2.Response | None) -> tuple[int | None, Mapping[str, str]]:
    return (None, {}) if response is None else (response.status_code, lower_headers(response.headers))

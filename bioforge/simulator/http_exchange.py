"""One HTTP request under `/v1/` and the ways to answer it; each counts it in the ledger."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from bioforge.simulator import errors
from bioforge.simulator.errors import ApiError
from bioforge.simulator.ledger import NO_ANSWER, Ledger

JSON = "application/json"


class HttpExchange:
    """A request and the headers of its answer."""

    __slots__ = ("headers", "ledger", "number", "request", "started")

    def __init__(self, request: web.BaseRequest, ledger: Ledger) -> None:
        self.request = request
        self.ledger = ledger
        self.number = ledger.next_number()
        self.started = time.perf_counter()
        self.headers: dict[str, str] = {}

    def send(self, status: int, payload: bytes, *, content_type: str = JSON, fault: str | None = None) -> web.Response:
        self.ledger.count(status, fault)
        return self.respond(status, payload, content_type)

    def send_json(self, body: Mapping[str, Any], fault: str | None = None) -> web.Response:
        """Answer 200 with JSON."""
        return self.send(200, dump(body), fault=fault)

    def respond(self, status: int, payload: bytes, content_type: str) -> web.Response:
        """Answer like `send`, without counting."""
        return web.Response(body=payload, status=status, headers=self._headers(content_type))

    def refuse(self, failure: ApiError, fault: str | None = None) -> web.Response:
        self.headers.update(failure.headers)
        return self.send(failure.status, dump(failure.body()), fault=fault)

    def drop(self, fault: str | None) -> web.Response:
        """Close the connection without an answer."""
        self.ledger.count(NO_ANSWER, fault)
        if self.request.transport is not None:
            self.request.transport.abort()
        # aiohttp requires a response; it is discarded, as the connection is closed
        return web.Response()

    async def begin(self, size: int, content_type: str = JSON, fault: str | None = None) -> web.StreamResponse:
        """Start an answer of `size` bytes, which the caller writes."""
        self.ledger.count(200, fault)
        response = web.StreamResponse(headers=self._headers(content_type))
        response.content_length = size
        await response.prepare(self.request)
        return response

    async def truncate(self, payload: bytes) -> web.StreamResponse:
        """Announce the complete body, send half of it and close the connection."""
        response = await self.begin(len(payload), fault="truncated")
        await response.write(payload[: len(payload) // 2])
        self.close()
        return response

    def close(self) -> None:
        """Close the connection after the written bytes."""
        if self.request.transport is not None:
            self.request.transport.close()

    def require(self, method: str) -> None:
        """Raise `ApiError` unless the request has this method and a key."""
        if self.request.method != method:
            raise errors.wrong_method(self.request.method, self.request.path, method)
        scheme, _, key = self.request.headers.get("authorization", "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            raise errors.bad_key(
                "You didn't provide an API key. You need to provide your API key in an Authorization header "
                "using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
            )
        if key.startswith("sk-invalid"):
            raise errors.bad_key(f"Incorrect API key provided: {key[:10]}***.")

    def _headers(self, content_type: str) -> dict[str, str]:
        elapsed = time.perf_counter() - self.started
        self.headers["content-type"] = content_type
        self.headers["x-request-id"] = self.ledger.request_id(self.number)
        self.headers["openai-processing-ms"] = str(int(elapsed * 1000))
        return self.headers


def json_response(status: int, body: Any, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an answer outside `/v1/`, which is not counted."""
    return web.Response(body=dump(body), status=status, headers={**(headers or {}), "content-type": JSON})


def dump(body: Any) -> bytes:
    """Return compact JSON in UTF-8."""
    return _encode(body).encode()


# shared: `json.dumps` with separators creates an encoder for each call
_encode = json.JSONEncoder(separators=(",", ":")).encode

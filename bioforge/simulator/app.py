"""The HTTP edge: requests to answers, with everything that can happen to an answer on its way.

One coroutine, `App.handle`, serves every path. It is given to aiohttp's low-level server: a router and
middlewares would cost as much as the answers themselves.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from bioforge.simulator import problems, shapes
from bioforge.simulator.answers import ENDPOINTS, Reply, answer, output_limit
from bioforge.simulator.bodies import RESPONSES, canonical, check, digest_of, parse
from bioforge.simulator.faults import delay, malformed
from bioforge.simulator.ledger import NO_ANSWER, Delivered, Ledger
from bioforge.simulator.limits import Limits
from bioforge.simulator.options import SimulatorOptions
from bioforge.simulator.problems import Problem
from bioforge.simulator.texts import input_tokens

MAX_BODY = 10 * 1024 * 1024
"""Bytes of the largest request body that is read."""

KEPT = 1000
"""Answers that `GET /v1/responses/{id}` still finds; older ones are gone."""

_JSON = "application/json"
_DELIVERED: dict[str | None, Delivered] = {
    "drop_after": "dropped",
    "truncated": "truncated",
    "malformed": "malformed",
    "hang": "hang",
}


class App:
    """The state of one running server: what was asked, stored and charged."""

    def __init__(self, options: SimulatorOptions, ledger: Ledger) -> None:
        self.options = options
        self.ledger = ledger
        self._limits = Limits(options.requests_per_minute, options.tokens_per_minute, time.monotonic)
        self._requests = 0
        self._asked = 0
        self._billed = 0
        self._occurrences: dict[bytes, int] = {}
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._pausing: set[asyncio.Task[Any]] = set()

    def request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        """aiohttp's request factory; sets the limit for bodies, which it has no other option for."""
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY)

    def cancel_pauses(self) -> None:
        """Ends the requests that only wait for their latency or hang."""
        for task in self._pausing:
            task.cancel()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path.startswith("/simulator/"):
            return await self._inspect(request, path)
        exchange = _Exchange(self, request)
        try:
            if path in ENDPOINTS:
                _require_method(request, "POST")
                _require_key(request)
                return await self._generate(exchange, path)
            return self._look_up(exchange, path)
        except Problem as problem:
            return exchange.refuse(problem)
        except web.HTTPRequestEntityTooLarge:
            return exchange.refuse(problems.too_large(MAX_BODY))
        except (ConnectionError, web.RequestPayloadError):
            # The client left while it was still sending.
            return exchange.drop(None)
        except Exception as error:
            # A script passed as a function may raise anything: the test that wrote it should see what.
            return exchange.refuse(Problem(500, f"The simulator failed: {error!r}", type="server_error"))

    async def _generate(self, exchange: _Exchange, endpoint: str) -> web.StreamResponse:
        options, request = self.options, exchange.request
        self._asked += 1
        number = self._asked
        if (request.content_length or 0) > MAX_BODY:
            raise problems.too_large(MAX_BODY)
        body = parse(await request.read())
        if refused := self._admit(exchange, endpoint, body, number):
            return refused
        text = canonical(body)
        digest = digest_of(text)
        occurrence = self._occurrences.get(digest, 0) + 1
        self._occurrences[digest] = occurrence
        reply = answer(endpoint, body, options, occurrence, created=int(time.time()), text=text, digest=digest)
        if reply.fault == "drop_before":
            return exchange.drop(reply.fault)
        if reply.bill is None:
            exchange.headers.update(reply.headers)
            return exchange.send(reply.status, _dump(reply.body), fault=reply.fault)
        # Counted before the first wait: with many in flight, exactly as many are charged as the quota allows.
        self._billed += 1
        if options.latency:
            await self._pause(delay(options.seed, options.latency, options.latency_sigma, digest, occurrence))
        payload = _dump(reply.body)
        self._settle(exchange, reply, payload)
        return await self._deliver(exchange, reply.fault, payload, digest)

    def _admit(self, exchange: _Exchange, endpoint: str, body: Mapping[str, Any], number: int) -> web.Response | None:
        """The refusal of a request that is not worked on, or None; `number` is its place, from 1."""
        options = self.options
        if options.outage is not None and options.outage.covers(number):
            return exchange.refuse(problems.overloaded(), "outage")
        if options.quota_after is not None and self._billed >= options.quota_after:
            return exchange.refuse(problems.quota(), "quota")
        if not self._limits:
            return None
        # Checked first: a wrong body takes nothing from the limits.
        check(endpoint, body)
        refused = self._limits.admit(max(input_tokens(body), output_limit(body) or 0))
        exchange.headers.update(self._limits.headers())
        return exchange.refuse(refused, "limit") if refused else None

    async def _deliver(
        self, exchange: _Exchange, fault: str | None, payload: bytes, digest: bytes
    ) -> web.StreamResponse:
        """Sends a charged answer the way its fault says."""
        match fault:
            case "drop_after":
                return exchange.drop(fault)
            case "truncated":
                return await exchange.truncate(payload)
            case "malformed":
                content_type, nonsense = malformed(digest)
                return exchange.send(200, nonsense, content_type=content_type, fault=fault)
            case "hang":
                self.ledger.count(200, fault)
                await self._pause(self.options.hang_seconds)
                return exchange.respond(200, payload, _JSON)
            case _:
                return exchange.send(200, payload, fault=fault)

    async def _pause(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pausing.add(task)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._pausing.discard(task)

    def _settle(self, exchange: _Exchange, reply: Reply, payload: bytes) -> None:
        """Charges an answer and keeps it, before anything of it is sent."""
        bill = reply.bill
        assert bill is not None
        gone = exchange.request.transport is None
        self.ledger.charge(
            time.time(),
            exchange.number,
            exchange.request.headers.get("x-client-request-id"),
            bill,
            "dropped" if gone else _DELIVERED.get(reply.fault, "yes"),
        )
        if bill.endpoint == RESPONSES and reply.body["store"]:
            self._kept[bill.response_id] = payload
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)

    def _look_up(self, exchange: _Exchange, path: str) -> web.StreamResponse:
        """The reading endpoints: models and stored responses."""
        request = exchange.request
        collection, _, name = path.removeprefix("/v1/").partition("/")
        if path.startswith("/v1/") and collection == "models" and (name or path == "/v1/models"):
            _require_method(request, "GET")
            _require_key(request)
            if name.startswith("missing-"):
                raise problems.no_model(name)
            if name:
                return exchange.send(200, _dump(shapes.model(name)))
            names = [name for model in shapes.MODELS for name in (model, shapes.snapshot(model))]
            return exchange.send(200, _dump({"object": "list", "data": [*map(shapes.model, names)]}))
        if path.startswith("/v1/") and collection == "responses" and name and "/" not in name:
            _require_method(request, "GET")
            _require_key(request)
            if (payload := self._kept.get(name)) is None:
                raise Problem(404, f"Response with id '{name}' not found.", param="id")
            return exchange.send(200, payload)
        raise problems.no_such_path(request.method, path)

    async def _inspect(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """The simulator's own pages: no key needed, not counted."""
        if path not in ("/simulator/ledger", "/simulator/ledger/entries", "/simulator/health"):
            return _json(404, problems.no_such_path(request.method, path).body())
        if request.method != "GET":
            problem = problems.wrong_method(request.method, path, "GET")
            return _json(405, problem.body(), problem.headers)
        if path == "/simulator/health":
            return _json(200, {"status": "ok"})
        if path == "/simulator/ledger":
            return _json(200, self.ledger.summary())
        response = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        await response.prepare(request)
        for line in self.ledger.lines():
            await response.write(line.encode())
        return response


class _Exchange:
    """One request under `/v1/` and the ways to answer it, each of which counts it."""

    __slots__ = ("app", "headers", "number", "request", "started")

    def __init__(self, app: App, request: web.BaseRequest) -> None:
        app._requests += 1
        self.app = app
        self.request = request
        self.number = app._requests
        self.started = time.perf_counter()
        self.headers: dict[str, str] = {}

    def send(self, status: int, payload: bytes, *, content_type: str = _JSON, fault: str | None = None) -> web.Response:
        self.app.ledger.count(status, fault)
        return self.respond(status, payload, content_type)

    def respond(self, status: int, payload: bytes, content_type: str) -> web.Response:
        """As `send`, for an answer that was counted before."""
        return web.Response(body=payload, status=status, headers=self._headers(content_type))

    def refuse(self, problem: Problem, fault: str | None = None) -> web.Response:
        self.headers.update(problem.headers)
        return self.send(problem.status, _dump(problem.body()), fault=fault)

    def drop(self, fault: str | None) -> web.Response:
        """Closes the connection without an answer."""
        self.app.ledger.count(NO_ANSWER, fault)
        if self.request.transport is not None:
            self.request.transport.abort()
        # aiohttp wants a response from every handler; with the connection closed it goes nowhere.
        return web.Response()

    async def truncate(self, payload: bytes) -> web.StreamResponse:
        """Announces the whole body, sends half of it and closes the connection."""
        self.app.ledger.count(200, "truncated")
        response = web.StreamResponse(headers=self._headers(_JSON))
        response.content_length = len(payload)
        await response.prepare(self.request)
        await response.write(payload[: len(payload) // 2])
        if self.request.transport is not None:
            self.request.transport.close()
        return response

    def _headers(self, content_type: str) -> dict[str, str]:
        elapsed = time.perf_counter() - self.started
        self.headers["content-type"] = content_type
        self.headers["x-request-id"] = self.app.ledger.request_id(self.number)
        self.headers["openai-processing-ms"] = str(int(elapsed * 1000))
        return self.headers


def _require_key(request: web.BaseRequest) -> None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise problems.bad_key(
            "You didn't provide an API key. You need to provide your API key in an Authorization header "
            "using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
        )
    if key.startswith("sk-invalid"):
        raise problems.bad_key(f"Incorrect API key provided: {key[:10]}***.")


def _require_method(request: web.BaseRequest, method: str) -> None:
    if request.method != method:
        raise problems.wrong_method(request.method, request.path, method)


def _json(status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=_dump(body), status=status, headers={**(headers or {}), "content-type": _JSON})


def _dump(body: Mapping[str, Any]) -> bytes:
    return _encode(body).encode()


# One encoder for all: `json.dumps` with separators would make one for each answer.
_encode = json.JSONEncoder(separators=(",", ":")).encode

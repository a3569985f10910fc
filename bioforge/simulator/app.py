"""The HTTP application: routes requests, applies latency, limits and faults, and charges answers.

One coroutine, `App.handle`, serves every path on aiohttp's low-level server: a router and middlewares would double the
cost of an answer.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from bioforge.simulator import errors, response_bodies
from bioforge.simulator.answers import ENDPOINTS, Reply, answer, output_limit
from bioforge.simulator.blob_store import BlobStore
from bioforge.simulator.errors import ApiError
from bioforge.simulator.faults import delay, malformed
from bioforge.simulator.http_exchange import JSON, HttpExchange, dump, json_response
from bioforge.simulator.ledger import Delivered, Ledger
from bioforge.simulator.limits import Quota, ServerLimits
from bioforge.simulator.options import SimulatorOptions
from bioforge.simulator.request_bodies import RESPONSES, canonical, check, digest_of, parse
from bioforge.simulator.text import input_tokens

MAX_BODY = 10 * 1024 * 1024
"""The largest accepted request body, in bytes."""

MAX_STORED = 1000
"""Number of latest answers that `GET /v1/responses/{id}` finds."""

_PAGES = ("/simulator/ledger", "/simulator/ledger/entries", "/simulator/batches", "/simulator/health")
_DELIVERED: dict[str | None, Delivered] = {
    "drop_after": "dropped",
    "truncated": "truncated",
    "malformed": "malformed",
    "hang": "hang",
}


class App:
    """The state of one running server: limits, quota, stored answers and charges."""

    def __init__(self, options: SimulatorOptions, ledger: Ledger, host: str = "") -> None:
        self.options = options
        self._host = host
        self.ledger = ledger
        self._limits = ServerLimits(options.requests_per_minute, options.tokens_per_minute, time.monotonic)
        self._received = 0
        self._quota = Quota(options.quota_after)
        self._occurrences: dict[bytes, int] = {}
        self._stored: OrderedDict[str, bytes] = OrderedDict()
        self._pausing: set[asyncio.Task[Any]] = set()
        self._blob_store = BlobStore(options, ledger, self._quota, self._occurrences)

    def start(self) -> None:
        """Start the background work on batches."""
        self._blob_store.start()

    async def stop(self) -> None:
        await self._blob_store.stop()

    def request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        """Create aiohttp requests with a body limit, which aiohttp's low-level server has no option for."""
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY)

    def cancel_pauses(self) -> None:
        """Cancel the requests that wait for their latency or hang."""
        for task in self._pausing:
            task.cancel()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if not _is_address(request.headers.get("host", ""), self._host):
            # a web page whose name resolves to this machine must not read prompts
            return json_response(403, errors.foreign_host(request.headers["host"]).body())
        if path.startswith("/simulator/"):
            return await self._inspect(request, path)
        exchange = HttpExchange(request, self.ledger)
        try:
            if path in ENDPOINTS:
                exchange.require("POST")
                return await self._generate(exchange, path)
            if answered := await self._blob_store.handle(exchange, path):
                return answered
            return self._look_up(exchange, path)
        except ApiError as failure:
            return exchange.refuse(failure)
        except web.HTTPRequestEntityTooLarge:
            return exchange.refuse(errors.too_large(MAX_BODY))
        except (ConnectionError, web.RequestPayloadError):
            # the client disconnected while sending
            return exchange.drop(None)
        except Exception as error:
            # a script given as a function may raise anything: show it to the test
            return exchange.refuse(ApiError(500, f"The simulator failed: {error!r}", type="server_error"))

    async def _generate(self, exchange: HttpExchange, endpoint: str) -> web.StreamResponse:
        options, request = self.options, exchange.request
        self._received += 1
        number = self._received
        if (request.content_length or 0) > MAX_BODY:
            raise errors.too_large(MAX_BODY)
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
            return exchange.send(reply.status, dump(reply.body), fault=reply.fault)
        # counted before the first wait, so that the quota is exact with many requests in flight
        self._quota.take()
        if options.latency:
            await self._pause(delay(options.seed, options.latency, options.latency_sigma, digest, occurrence))
        payload = dump(reply.body)
        self._charge(exchange, reply, payload)
        return await self._deliver(exchange, reply.fault, payload, digest)

    def _admit(
        self, exchange: HttpExchange, endpoint: str, body: Mapping[str, Any], number: int
    ) -> web.Response | None:
        """Return the refusal by outage, quota or limit, else None. `number` counts requests from 1."""
        options = self.options
        if options.outage is not None and options.outage.covers(number):
            return exchange.refuse(errors.overloaded(), "outage")
        if spent := self._quota.refusal():
            return exchange.refuse(spent, "quota")
        if not self._limits:
            return None
        # checked first: an invalid body takes nothing from the limits
        check(endpoint, body)
        refused = self._limits.admit(max(input_tokens(body), output_limit(body) or 0))
        exchange.headers.update(self._limits.headers())
        return exchange.refuse(refused, "limit") if refused else None

    async def _deliver(
        self, exchange: HttpExchange, fault: str | None, payload: bytes, digest: bytes
    ) -> web.StreamResponse:
        """Send a charged answer, with its fault."""
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
                return exchange.respond(200, payload, JSON)
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

    def _charge(self, exchange: HttpExchange, reply: Reply, payload: bytes) -> None:
        """Charge and store an answer before anything of it is sent."""
        bill = reply.bill
        assert bill is not None
        disconnected = exchange.request.transport is None
        self.ledger.charge(
            time.time(),
            exchange.number,
            exchange.request.headers.get("x-client-request-id"),
            bill,
            "dropped" if disconnected else _DELIVERED.get(reply.fault, "yes"),
        )
        if bill.endpoint == RESPONSES and reply.body["store"]:
            self._stored[bill.response_id] = payload
            if len(self._stored) > MAX_STORED:
                self._stored.popitem(last=False)

    def _look_up(self, exchange: HttpExchange, path: str) -> web.StreamResponse:
        """Answer a request for models or a stored response."""
        request = exchange.request
        collection, _, name = path.removeprefix("/v1/").partition("/")
        if path.startswith("/v1/") and collection == "models" and (name or path == "/v1/models"):
            exchange.require("GET")
            if name.startswith("missing-"):
                raise errors.no_model(name)
            if name:
                return exchange.send(200, dump(response_bodies.model(name)))
            names = [name for model in response_bodies.MODELS for name in (model, response_bodies.snapshot(model))]
            return exchange.send(200, dump({"object": "list", "data": [*map(response_bodies.model, names)]}))
        if path.startswith("/v1/") and collection == "responses" and name and "/" not in name:
            exchange.require("GET")
            if (payload := self._stored.get(name)) is None:
                raise ApiError(404, f"Response with id '{name}' not found.", param="id")
            return exchange.send(200, payload)
        raise errors.no_such_path(request.method, path)

    async def _inspect(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """Answer a request for the simulator's own pages: no key, not counted."""
        if path not in _PAGES:
            return json_response(404, errors.no_such_path(request.method, path).body())
        if request.method != "GET":
            failure = errors.wrong_method(request.method, path, "GET")
            return json_response(405, failure.body(), failure.headers)
        if path == "/simulator/health":
            return json_response(200, {"status": "ok"})
        if path == "/simulator/ledger":
            return json_response(200, self.ledger.summary())
        if path == "/simulator/batches":
            return json_response(200, await self._blob_store.describe())
        response = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        await response.prepare(request)
        for line in self.ledger.lines():
            await response.write(line.encode())
        return response


def _is_address(header: str, listening: str) -> bool:
    """Return True if a Host header is missing, or has an address, `localhost` or the name that the server listens on."""
    try:
        name = (urlsplit(f"//{header}").hostname or "").rstrip(".")
        if not header or name in ("localhost", listening):
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

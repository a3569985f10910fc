"""A loopback server like Anthropic's API, with a ledger of charges.

`with AnthropicServer(...) as server:` serves in a thread; `python server.py --port 8000 --data FOLDER` in a process. With a
folder, ledger and batches survive a kill, and the next server continues with them.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from aiohttp import web
from server_batches import Batches, Job
from server_rules import REFUSALS, UNUSABLE, example, wrong_batch, wrong_params
from server_settings import Charge, Settings

MAX_BODY = 260_000_000


class AnthropicServer:
    """A server that runs during its `with` block."""

    def __init__(self, port: int = 0, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self.port = port
        self.arrived: list[str] = []
        """Method and path of every request."""
        self.statuses: Counter[int] = Counter()
        self.charges: list[Charge] = []
        self.batches = Batches(self)
        self._random = random.Random(self.settings.seed)
        self._tries: Counter[str] = Counter()
        self._journal: Any = None
        self._number = 0
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="anthropic-server", daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def charged(self) -> list[str | None]:
        """Return the clients' names of charged attempts."""
        with self._lock:
            self.batches.proceed()
            return [charge.name for charge in self.charges]

    # ------------------------------------------------------------------------------------------------------ its life

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._loop is not None and self._end is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()

    async def _serve(self, announce: bool = False) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self._load()
        app = web.Application(client_max_size=MAX_BODY, middlewares=[_left_alone])
        routes = {
            ("POST", "/v1/messages"): self._messages,
            ("POST", "/v1/messages/batches"): self._create,
            ("GET", "/v1/messages/batches"): self._list,
            ("GET", "/v1/messages/batches/{id}"): self._retrieve,
            ("GET", "/v1/messages/batches/{id}/results"): self._results,
            ("POST", "/v1/messages/batches/{id}/cancel"): self._cancel,
            ("DELETE", "/v1/messages/batches/{id}"): self._delete,
            ("GET", "/ledger"): self._ledger,
        }
        for (method, path), handler in routes.items():
            app.router.add_route(method, path, handler)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, backlog=1024)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self._ready.set()
        if announce:
            print(self.base_url, flush=True)
            for number in (signal.SIGINT, signal.SIGTERM):
                self._loop.add_signal_handler(number, self._end.set)
        await self._end.wait()
        await runner.cleanup()
        if self._journal is not None:
            self._journal.close()

    def _load(self) -> None:
        folder = self.settings.data
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "charges.jsonl"
        if path.exists():
            self.charges = [Charge(**json.loads(line)) for line in path.read_text().splitlines()]
        self._journal = path.open("a")
        self.batches.load(folder)

    def charge(self, charge: Charge) -> None:
        """Write the charge before the answer is sent, so that it survives a kill of the process."""
        with self._lock:
            self.charges.append(charge)
            if self._journal is not None:
                self._journal.write(json.dumps(asdict(charge)) + "\n")
                self._journal.flush()

    # ------------------------------------------------------------------------------------------------------ messages

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        content = await request.read()
        refused = self._refused(request)
        if refused is not None:
            return refused
        try:
            params = json.loads(content)
        except ValueError:
            return self._error("bad_request", "the body is not JSON")
        if (wrong := wrong_params(params)) is not None:
            return self._error("bad_request", wrong)
        text = content.decode()
        with self._lock:
            fault = self._fault(text, hashlib.sha256(content).hexdigest())
        if fault in REFUSALS:
            return self._error(fault)
        if fault == "drop_before":
            return self._hang_up(request)
        if self.settings.latency:
            await asyncio.sleep(self.settings.latency)
        message, charge = self.answer(params, content, request.headers.get("X-Client-Request-Id"), fault=fault)
        self.charge(charge)
        return await self._deliver(request, json.dumps(message, ensure_ascii=False).encode(), fault)

    async def _deliver(self, request: web.Request, body: bytes, fault: str | None) -> web.StreamResponse:
        if fault == "drop_after":
            return self._hang_up(request)
        if fault == "hang":
            await asyncio.sleep(self.settings.hang_seconds)
        if fault == "malformed":
            body = b"<html>200 and no message</html>"
        headers = self._headers()
        if fault == "truncated":
            response = web.StreamResponse(headers={**headers, "Content-Length": str(len(body))})
            await response.prepare(request)
            await response.write(body[: len(body) // 2])
            # send written bytes before closing the connection
            await asyncio.sleep(0.01)
            return self._hang_up(request, response)
        self.statuses[200] += 1
        return web.Response(body=body, content_type="application/json", headers=headers)

    def answer(
        self,
        params: Mapping[str, Any],
        content: bytes,
        name: str | None,
        tier: str = "standard",
        batch_id: str | None = None,
        fault: str | None = None,
    ) -> tuple[dict[str, Any], Charge]:
        """Return a message and its cost. Equal params give equal text."""
        digest = hashlib.sha256(json.dumps(params, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
        schema = ((params.get("output_config") or {}).get("format") or {}).get("schema")
        text = f"Simulated answer {digest[:8]}." if schema is None else json.dumps(example(schema))
        given = len(content) // 4 + 1
        used = min(20 + int(digest[:2], 16) % 30, int(params["max_tokens"]))
        cached, written = (given // 2, given // 4) if self.settings.cached else (0, 0)
        with self._lock:
            self._number += 1
            response_id = f"msg_{digest[:12]}{self._number:08d}{len(self.charges):06d}"
        message = {
            "id": response_id,
            "type": "message",
            "role": "assistant",
            "model": params["model"],
            "content": [] if fault == "refusal" else [{"type": "text", "text": text, "citations": None}],
            "stop_reason": UNUSABLE.get(fault or "", "end_turn"),
            "stop_sequence": None,
            "stop_details": {"type": "refusal", "category": "bio", "explanation": "No."}
            if fault == "refusal"
            else None,
            "usage": {
                "input_tokens": given - cached - written,
                "cache_creation_input_tokens": written,
                "cache_read_input_tokens": cached,
                "output_tokens": used,
                "output_tokens_details": {"thinking_tokens": 0},
                "service_tier": tier,
            },
        }
        charge = Charge(name, digest, response_id, params["model"], tier, given, used, batch_id)
        return message, charge

    def _fault(self, text: str, digest: str) -> str | None:
        settings = self.settings
        number = self._tries[digest]
        self._tries[digest] += 1
        if settings.outage is not None and sum(self._tries.values()) > settings.outage[0]:
            answered, refused = settings.outage
            settings.outage = (answered + 1, refused - 1) if refused > 1 else None
            return "overloaded"
        if settings.quota_after is not None and len(self.charges) >= settings.quota_after:
            return "credit"
        for word, faults in settings.script.items():
            if word in text and number < len(faults):
                return faults[number]
        point = self._random.random()
        for name, probability in settings.faults.items():
            point -= probability
            if point < 0:
                return name
        return None

    # ------------------------------------------------------------------------------------------------------- batches

    async def _create(self, request: web.Request) -> web.StreamResponse:
        content = await request.read()
        if (refused := self._refused(request)) is not None:
            return refused
        if (wrong := wrong_batch(content)) is not None:
            return self._error("bad_request", wrong)
        entries = json.loads(content)["requests"]
        with self._lock:
            if self.settings.quota_after is not None and len(self.charges) >= self.settings.quota_after:
                return self._error("credit")
            fate = self.batches.next_fate()
            if "refused" in fate:
                return self._error("bad_request", "batches are not for this model")
            if "overloaded" in fate:
                return self._error("overloaded")
            if "unsent" in fate:
                return self._hang_up(request)
            job = self.batches.create(entries, fate)
        if seconds := self.settings.create_latency:
            self.settings.create_latency = 0.0
            await asyncio.sleep(seconds)
        return self._hang_up(request) if "lost" in fate else self._json(job.shown(self.base_url))

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if (refused := self._refused(request)) is not None:
            return refused
        limit = int(request.query.get("limit", "20"))
        if not 1 <= limit <= 1000:
            return self._error("bad_request", "limit: from 1 to 1000")
        with self._lock:
            self.batches.proceed()
            jobs = self.batches.listed()
            after = request.query.get("after_id")
            if after is not None:
                jobs = jobs[next((n + 1 for n, job in enumerate(jobs) if job.id == after), len(jobs)) :]
            page = [job.shown(self.base_url) for job in jobs[:limit]]
        ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
        return self._json({"data": page, "has_more": len(jobs) > limit, **ends})

    async def _retrieve(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        return job if isinstance(job, web.StreamResponse) else self._json(job.shown(self.base_url))

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        if isinstance(job, web.StreamResponse):
            return job
        with self._lock:
            self.batches.cancel(job)
        return self._json(job.shown(self.base_url))

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        if isinstance(job, web.StreamResponse):
            return job
        if job.status != "ended":
            return self._error("bad_request", "the batch has not ended")
        with self._lock:
            self.batches.delete(job)
        return self._json({"id": job.id, "type": "message_batch_deleted"})

    async def _results(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        if isinstance(job, web.StreamResponse):
            return job
        if job.status != "ended" or job.archived:
            return self._error("not_found", "there are no results")
        response = web.StreamResponse(headers={**self._headers(), "Content-Type": "application/x-jsonl"})
        await response.prepare(request)
        lines = job.lines()
        cut = len(lines) // 2 if job.take("download_cut") else None
        try:
            for number, line in enumerate(lines):
                if number == cut:
                    return self._hang_up(request, response)
                await response.write(line)
            await response.write_eof()
        except ConnectionError:  # a search reads only the first result
            pass
        self.statuses[200] += 1
        return response

    def _job(self, request: web.Request) -> Job | web.Response:
        if (refused := self._refused(request)) is not None:
            return refused
        with self._lock:
            self.batches.proceed()
            job = self.batches.by_id.get(request.match_info["id"])
        return self._error("not_found", "there is no such batch") if job is None else job

    async def _ledger(self, request: web.Request) -> web.StreamResponse:
        with self._lock:
            self.batches.proceed()
            return web.json_response([asdict(charge) for charge in self.charges])

    # ------------------------------------------------------------------------------------------------------- answers

    def _refused(self, request: web.Request) -> web.Response | None:
        self.arrived.append(f"{request.method} {request.path}")
        if "anthropic-version" not in request.headers:
            return self._error("bad_request", "anthropic-version: header is required")
        key = request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
        if key and "invalid" not in key:
            return None
        return self._error("authentication", f"invalid x-api-key: {key}" if self.settings.echo_key else None)

    def _json(self, body: object) -> web.Response:
        self.statuses[200] += 1
        return web.json_response(body, headers=self._headers())

    def _error(self, fault: str, message: str | None = None) -> web.Response:
        status, kind, words = REFUSALS[fault]
        self.statuses[status] += 1
        error: dict[str, Any] = {"type": kind, "message": message or words}
        if fault == "spend_limit":
            error["details"] = {"error_code": "enforced_spend_limit_reached"}
        headers = self._headers()
        if fault in ("rate_limit", "overloaded"):
            headers["retry-after"] = f"{self.settings.retry_after:g}"
        body = {"type": "error", "error": error, "request_id": headers["request-id"]}
        return web.json_response(body, status=status, headers=headers)

    def _headers(self) -> dict[str, str]:
        with self._lock:
            self._number += 1
            number = self._number
        soon = datetime.fromtimestamp(time.time() + 1, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "request-id": f"req_{number:012d}",
            "anthropic-ratelimit-requests-limit": str(self.settings.requests_per_minute),
            "anthropic-ratelimit-requests-remaining": str(self.settings.requests_per_minute),
            "anthropic-ratelimit-requests-reset": soon,
            "anthropic-ratelimit-tokens-limit": str(self.settings.tokens_per_minute),
            "anthropic-ratelimit-tokens-remaining": str(self.settings.tokens_per_minute),
            "anthropic-ratelimit-tokens-reset": soon,
        }

    def _hang_up(self, request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
        self.statuses[0] += 1
        if request.transport is not None:
            request.transport.abort()
        return web.Response() if response is None else response


@web.middleware
async def _left_alone(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Ignore errors of clients that die during a request."""
    try:
        return await handler(request)
    except ConnectionError:
        return web.Response(status=499)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--batch-seconds", type=float, default=0.0)
    parser.add_argument("--faults", type=float, default=0.0, help="share of requests that go wrong")
    given = parser.parse_args()
    kinds = ("rate_limit", "overloaded", "server_error", "drop_before", "drop_after", "truncated", "malformed")
    server = AnthropicServer(
        given.port,
        data=given.data,
        latency=given.latency,
        batch_seconds=given.batch_seconds,
        faults=dict.fromkeys(kinds, given.faults / len(kinds)),
    )
    asyncio.run(server._serve(announce=True))


if __name__ == "__main__":
    main()

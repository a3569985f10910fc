"""Test that `timeout` limits the whole call against a server that sends single bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest
from bioforge_anthropic.batch_service import AnthropicBatches
from bioforge_anthropic.client import MessagesSender

from bioforge.plugin import BackendContext, Batch, CallError, Outcome, Paid, Request


@pytest.fixture
def context() -> Iterator[BackendContext]:
    over = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            try:
                while not over.wait(0.02):
                    self.wfile.write(b" ")
            except OSError:
                return

        do_GET = do_POST  # noqa: N815

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield BackendContext(f"http://127.0.0.1:{server.server_port}", "key", timeout=0.4)
        over.set()
        server.shutdown()
        thread.join()


def assert_timed_out(outcome: Outcome) -> None:
    assert outcome.failure is not None
    assert (outcome.failure.error_class, outcome.paid) == ("timeout", Paid.MAYBE)


def test_a_call(context: BackendContext) -> None:
    async def send() -> Outcome:
        sender = MessagesSender(context)
        try:
            return await sender.send(Request("v1:0", "/v1/messages", "m", b"{}", "a", "bio"), "one")
        finally:
            await sender.close()

    assert_timed_out(asyncio.run(send()))


def test_a_look_at_a_batch(context: BackendContext) -> None:
    service = AnthropicBatches(context)
    with pytest.raises(CallError) as raised:
        service.look(Batch("k", "/v1/messages", "m", batch_id="batch_1"))
    assert_timed_out(raised.value.outcome)
    service.close()

"""A server that sends a byte now and then: `timeout` limits the whole call, in every client."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from threading import Event, Thread

import pytest

from bioforge.backends.batch.service import CallError
from bioforge.backends.openai.batch import OpenAIBatches
from bioforge.backends.openai.client import OpenAIAsyncSender, OpenAISender
from bioforge.core.interfaces import BackendContext, Outcome
from bioforge.core.types import Batch, Paid, Request

REQUEST = Request("v1:0", "/v1/responses", "m", b"{}", "a", "bio")
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n"
PARTS = {"headers": (HEAD, b"x-more: 1\r\n"), "body": (HEAD + b"\r\n", b"1\r\n \r\n")}


@pytest.fixture(params=list(PARTS))
def context(request: pytest.FixtureRequest) -> Iterator[BackendContext]:
    """The server begins an answer and goes on with it until the test ends."""
    first, again = PARTS[request.param]
    over = Event()

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.recv(65_536)
            try:
                connection.sendall(first)
                while not over.wait(0.02):
                    connection.sendall(again)
            except OSError:
                return

    def accept() -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=accept, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        yield BackendContext(f"http://127.0.0.1:{port}/v1", "key", timeout=0.4)
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def assert_timed_out(outcome: Outcome) -> None:
    assert outcome.failure is not None
    assert (outcome.failure.error_class, outcome.paid) == ("timeout", Paid.MAYBE)
    assert "(setting: timeout)" in outcome.failure.message


def test_threads(context: BackendContext) -> None:
    sender = OpenAISender(context, 1, lambda *_: None)
    assert_timed_out(sender.send(REQUEST, "one"))
    assert_timed_out(sender.send(REQUEST, "two"))
    sender.close()


def test_async(context: BackendContext) -> None:
    async def send() -> Outcome:
        sender = OpenAIAsyncSender(context, lambda *_: None)
        try:
            return await sender.send(REQUEST, "one")
        finally:
            await sender.close()

    assert_timed_out(asyncio.run(send()))


def test_batch(context: BackendContext) -> None:
    service = OpenAIBatches(context, lambda *_: None)
    with pytest.raises(CallError) as raised:
        service.look(Batch("k", "/v1/responses", "m", batch_id="batch_1"))
    assert_timed_out(raised.value.outcome)
    service.close()

"""Errors of gateways and other vendors: the same outcome in threads and asyncio, at both endpoints."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from odd_server import Answer, OddServer
from test_wrong_setups import ANSWER, error, project

from bioforge.backends.openai.client import OpenAIAsyncSender, OpenAISender
from bioforge.core.interfaces import BackendContext, Outcome
from bioforge.core.types import Paid, Request

CHAT = "/v1/chat/completions"
BACKENDS = pytest.mark.parametrize("backend", ["async", "threads"])


def embedded(code: object, message: str) -> Answer:
    return 200, {}, json.dumps({"error": {"code": code, "message": message}}).encode()


def choice(finish_reason: str, text: str, **more: object) -> Answer:
    body = {"id": "c", "choices": [{"finish_reason": finish_reason, "message": {"content": text}, **more}]}
    return 200, {}, json.dumps(body).encode()


@BACKENDS
@pytest.mark.parametrize("endpoint", ["/v1/responses", CHAT])
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (embedded(402, "Insufficient credits"), "Insufficient credits"),
        (error(402, "Insufficient Balance", code="invalid_request_error"), "Insufficient Balance"),
        (error(400, "Budget has been exceeded! Current cost: 3", type="budget_exceeded"), "Budget has been exceeded"),
    ],
)
def test_used_up_credit_stops_the_run_with_the_provider_s_words(
    tmp_path: Path, answer: Answer, words: str, endpoint: str, backend: str
) -> None:
    with OddServer(answer) as server:
        folder = project(tmp_path, server, endpoint, rows=5)
        ran = folder.run("run", "--backend", backend)
        assert ran.code == 75, ran.err
        assert words in ran.err
        assert folder.value("SELECT count(*) FROM attempts WHERE paid <> 'no'") == 0
        assert folder.value("SELECT count(*) FROM requests WHERE state = 'failed'") == 0


@BACKENDS
def test_an_answer_that_ends_with_an_error_is_retried_and_not_used(tmp_path: Path, backend: str) -> None:
    broken = choice("error", "Half a", error={"code": 502, "message": "Provider disconnected"})
    with OddServer(
        broken, choice("error", "", error={"code": 429, "message": "Slow"}), choice("stop", "A life.")
    ) as server:
        folder = project(tmp_path, server, CHAT, rows=1)
        ran = folder.run("run", "--backend", backend)
        assert ran.code == 0, ran.err
        rows = folder.rows("SELECT error_class, error_message, paid, http_status FROM attempts ORDER BY id")
        assert rows == [
            ("server_error", "Provider disconnected", "maybe", 502),
            ("rate_limit", "Slow", "no", 429),
            (None, None, "yes", 200),
        ]


@BACKENDS
def test_an_answer_with_an_unknown_end_is_kept_and_held_back(tmp_path: Path, backend: str) -> None:
    with OddServer(choice("abort", "Half a")) as server:
        folder = project(tmp_path, server, CHAT, rows=1)
        assert folder.run("run", "--backend", backend).code == 1
        assert folder.value("SELECT detail FROM targets WHERE held").startswith("incomplete: ")
        assert folder.value("SELECT text FROM responses") == "Half a"


@BACKENDS
@pytest.mark.parametrize("status", [408, 499, 502, 504, 520, 524])
def test_a_gateway_that_gave_up_leaves_the_call_maybe_paid(tmp_path: Path, status: int, backend: str) -> None:
    with OddServer((status, {"content-type": "text/html"}, b"<title>Gateway gave up</title>")) as server:
        folder = project(tmp_path, server, rows=1)
        toml = folder.root / "bioforge.toml"
        toml.write_text(toml.read_text().replace("[retry]", "[retry]\nmaybe_paid = false"))
        for _ in range(2):
            assert folder.run("run", "--backend", backend).code == 1
        assert len(server.asked) == 1
        assert folder.rows("SELECT state, error_message FROM requests") == [("maybe paid", "Gateway gave up")]


@BACKENDS
@pytest.mark.parametrize(
    ("answer", "paid"),
    [
        (error(400, "Filtered.", code="content_filter", innererror={"code": "ResponsibleAIPolicyViolation"}), "maybe"),
        (error(403, "Not allowed", metadata={"reasons": ["violence"], "flagged_input": "x"}), "no"),
    ],
    ids=["azure", "openrouter"],
)
def test_a_filtered_row_is_held_back_and_stops_nothing(tmp_path: Path, answer: Answer, paid: str, backend: str) -> None:
    with OddServer(answer, ANSWER) as server:
        folder = project(tmp_path, server, rows=30)
        for _ in range(2):
            ran = folder.run("run", "--backend", backend)
            assert ran.code == 1, ran.err
        assert len(server.asked) == 30
        assert folder.rows("SELECT error_class, paid FROM attempts WHERE error_class IS NOT NULL") == [
            ("content_filter", paid)
        ]
        assert folder.rows("SELECT reason, held FROM targets WHERE reason IS NOT NULL") == [("failed", 1)]
        assert "rows paid twice: 0, paid answers lost: 0" in folder.run("audit").out


@BACKENDS
def test_a_filtered_row_goes_to_the_fallback_model_once(tmp_path: Path, backend: str) -> None:
    filtered = error(400, "Filtered.", code="content_policy_violation")
    with OddServer(filtered) as server:
        folder = project(tmp_path, server, rows=1)
        toml = folder.root / "bioforge.toml"
        toml.write_text(toml.read_text().replace('model = "m"', 'model = "m"\nfallback = ["m2"]'))
        for _ in range(2):
            assert folder.run("run", "--backend", backend).code == 1
        assert len(server.asked) == 2
        assert folder.rows("SELECT model, state, error_class FROM requests ORDER BY rowid") == [
            ("m", "failed", "content_filter"),
            ("m2", "failed", "content_filter"),
        ]


@BACKENDS
@pytest.mark.parametrize(
    "answer",
    [
        (400, {}, b'[{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.", "status":'
         b' "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}}]'),
        (403, {}, b'{"detail": "Invalid API key"}'),
        (401, {}, b"<html><title>Sign in</title></html>"),
    ],
    ids=["gemini", "fastapi", "page"],
)  # fmt: skip
def test_an_invalid_key_stops_the_run_in_any_format(tmp_path: Path, answer: Answer, backend: str) -> None:
    with OddServer(answer) as server:
        ran = project(tmp_path, server, rows=5).run("run", "--backend", backend)
        assert ran.code == 2, ran.err
        assert "set a valid key" in ran.err
        assert "{" not in ran.err


@contextmanager
def broken_proxy() -> Iterator[str]:
    """A proxy that reads CONNECT and closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)

        thread = Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join(10)


def send(backend: str, context: BackendContext) -> Outcome:
    request = Request("v1:1", "/v1/responses", "m", b"{}", "1", "bio")
    if backend == "threads":
        sender = OpenAISender(context, 1, lambda *_: None)
        try:
            return sender.send(request, "name")
        finally:
            sender.close()

    async def call() -> Outcome:
        sender = OpenAIAsyncSender(context, lambda *_: None)
        try:
            return await sender.send(request, "name")
        finally:
            await sender.close()

    return asyncio.run(call())


@BACKENDS
def test_a_call_of_which_no_byte_was_written_is_not_paid(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with broken_proxy() as address:
        monkeypatch.setenv("HTTPS_PROXY", address)
        outcome = send(backend, BackendContext("https://api.example.org/v1", "sk-1234567890"))
    assert outcome.failure is not None
    assert (outcome.failure.error_class, outcome.paid, outcome.retryable) == ("connection", Paid.NO, True)


@BACKENDS
def test_a_call_that_was_written_is_maybe_paid(backend: str) -> None:
    with OddServer(None) as server:
        outcome = send(backend, BackendContext(server.base_url, "sk-1234567890"))
    assert outcome.failure is not None
    assert (outcome.failure.error_class, outcome.paid) == ("connection", Paid.MAYBE)

"""Setup of a connection: checked before anything is recorded or sent, by one rule for every backend."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import ssl
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from odd_server import OddServer
from projects import ProjectFolder

from bioforge.backends import transport
from bioforge.backends.connection import client_options, is_loopback, proxy, setup_fault
from bioforge.backends.openai.client import OpenAIAsyncSender, OpenAISender
from bioforge.backends.openai.outcomes import FAILURES
from bioforge.core.interfaces import BackendContext, Outcome
from bioforge.core.types import Paid, Request

BACKENDS = ["async", "threads", "batch", "auto"]
KEY = "sk-secret/0123456789"
VARIABLES = (
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
)
REQUEST = Request("v1:0", "/v1/responses", "gpt-6-luna", b"{}", "1", "bio")
ANSWER = json.dumps(
    {"id": "resp_1", "model": "gpt-6-luna", "status": "completed", "output": [
        {"type": "message", "content": [{"type": "output_text", "text": "Hello."}]}
    ]}
).encode()  # fmt: skip


def send(backend: str, base_url: str, timeout: float = 20.0) -> Outcome:
    context = BackendContext(base_url=base_url, api_key=KEY, timeout=timeout)
    if backend == "threads":
        sender = OpenAISender(context, 1, lambda *_: None)
        try:
            return sender.send(REQUEST, "one")
        finally:
            sender.close()

    async def once() -> Outcome:
        opened = OpenAIAsyncSender(context, lambda *_: None)
        try:
            return await opened.send(REQUEST, "one")
        finally:
            await opened.close()

    return asyncio.run(once())


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, *map(str.lower, VARIABLES)):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"SSL_CERT_FILE": "/nonexistent.pem"}, "SSL_CERT_FILE"),
        ({"REQUESTS_CA_BUNDLE": "/nonexistent.pem"}, "REQUESTS_CA_BUNDLE"),
        ({"ALL_PROXY": "socks5://127.0.0.1:9"}, "ALL_PROXY"),
        ({"HTTPS_PROXY": "gopher://127.0.0.1:9"}, "HTTPS_PROXY"),
        ({"OPENAI_API_KEY": "sk-0123\n456789"}, "OPENAI_API_KEY"),
        ({"OPENAI_API_KEY": "sk-0123456789ü"}, "OPENAI_API_KEY"),
        ({"OPENAI_ORG_ID": "org\r\nx"}, "OpenAI-Organization"),
    ],
)
def test_a_wrong_setup_is_named_before_anything_is_sent(
    project: ProjectFolder, backend: str, variables: dict[str, str], named: str
) -> None:
    project.configure(**{project.server.base_url: "https://192.0.2.1/v1"})
    ran = project.run("run", "--backend", backend, env={"OPENAI_API_KEY": KEY, **variables})
    assert (ran.code, named in ran.err, "Traceback" in ran.err) == (2, True, False), ran.err
    assert "456789" not in ran.err
    assert "maybe paid" not in project.run("status").ok().out


@pytest.mark.parametrize("backend", ["async", "threads"])
def test_an_unknown_host_is_named_before_anything_is_sent(
    project: ProjectFolder, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    project.configure(**{project.server.base_url: "https://provider.invalid/v1"})
    ran = project.run("run", "--backend", backend, env={"OPENAI_API_KEY": KEY})
    assert (ran.code, "provider.invalid" in ran.err) == (2, True), ran.err


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_proxy_stands_between_this_machine_and_itself(project: ProjectFolder, backend: str) -> None:
    project.configure("[backend.batch]\npoll_seconds = 0.01\npoll_max_seconds = 0.01")
    broken = {"HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"}
    project.run("run", "--backend", backend, env=broken).ok()
    assert project.charged() == 4


def test_addresses_that_no_proxy_names_are_reached_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "near.example, 10.0.0.0/8")
    assert proxy("https://provider.example/v1") == "http://proxy.example:3128"
    assert proxy("https://near.example/v1") is None
    assert proxy("https://10.1.2.3/v1") is None
    assert client_options("https://near.example/v1")["trust_env"] is False


@pytest.mark.parametrize("backend", ["async", "threads"])
def test_a_proxy_that_wants_a_password_stops_the_run(
    project: ProjectFolder, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def refuse(self) -> None:
            self.send_response(407)
            self.send_header("content-length", "0")
            self.end_headers()

        do_CONNECT = do_POST = refuse  # noqa: N815

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    way = f"http://127.0.0.1:{server.server_port}"
    try:
        for scheme in ("http", "https"):
            monkeypatch.setenv(f"{scheme.upper()}_PROXY", way)
            outcome = send(backend, f"{scheme}://192.0.2.1/v1")
            assert outcome.failure is not None
            assert (outcome.failure.error_class, outcome.stops_run, outcome.paid) == ("proxy", True, Paid.NO)
            assert "HTTPS_PROXY" in outcome.hint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("backend", ["async", "threads"])
def test_a_certificate_that_is_not_trusted_stops_the_run(backend: str, tmp_path: Path) -> None:
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"],
        capture_output=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    with OddServer((200, {}, ANSWER)) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
        server._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
        outcome = send(backend, f"https://localhost:{server._server.server_port}/v1")
    assert outcome.failure is not None
    assert (outcome.failure.error_class, outcome.stops_run, outcome.outage) == ("certificate", True, False)
    assert (outcome.paid, "SSL_CERT_FILE" in outcome.hint) == (Paid.NO, True)


@pytest.mark.parametrize("backend", ["async", "threads"])
@pytest.mark.parametrize("headers", [{"x-long": "x" * 9_000}, {f"x-{n}": "x" for n in range(200)}])
def test_large_and_many_headers_lose_no_answer(backend: str, headers: dict[str, str]) -> None:
    with OddServer((200, headers, ANSWER)) as server:
        outcome = send(backend, server.base_url)
    assert outcome.answer is not None
    assert outcome.answer.text == "Hello."


@pytest.mark.parametrize("backend", ["async", "threads"])
def test_a_body_without_end_is_cut_and_its_start_kept(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_BODY", 4 << 20)
    bomb = gzip.compress(b" " * (64 << 20))
    with OddServer((200, {"content-encoding": "gzip"}, bomb)) as server:
        outcome = send(backend, server.base_url)
    assert outcome.failure is not None
    assert (outcome.failure.error_class, outcome.paid, outcome.retryable) == ("too_large", Paid.MAYBE, False)
    assert outcome.body == b" " * transport.HEAD


@pytest.mark.parametrize("backend", ["async", "threads"])
@pytest.mark.parametrize("shown", [KEY, KEY.replace("/", r"\/"), KEY.replace("/", "%2F")])
def test_a_key_that_the_provider_repeats_is_masked(backend: str, shown: str) -> None:
    refused = f'{{"error": {{"message": "bad key {shown}", "code": "{shown}"}}}}'.encode()
    with OddServer((200, {"x-request-id": shown}, ANSWER), (400, {"x-request-id": shown}, refused)) as server:
        answered, failed = send(backend, server.base_url), send(backend, server.base_url)
    assert answered.request_id == "[key]"
    assert "0123456789" not in f"{answered} {failed}"


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "127.9.9.9", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]"])
def test_loopback_is_an_address(name: str) -> None:
    assert is_loopback(f"http://{name}:8000/v1")


@pytest.mark.parametrize("name", ["127.evil.com", "localhost.evil.com", "10.0.0.1", "evil.com"])
def test_a_name_that_looks_like_loopback_is_not(name: str) -> None:
    assert not is_loopback(f"http://{name}/v1")


def test_what_fails_before_it_is_sent_is_not_paid() -> None:
    assert FAILURES.from_exception(ValueError("x"), 0.1, None, {}, b"", written=False).paid is Paid.NO
    assert FAILURES.from_exception(ValueError("x"), 0.1, None, {}, b"").paid is Paid.MAYBE
    assert setup_fault(ConnectionRefusedError()) == ""

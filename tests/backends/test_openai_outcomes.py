"""Every exception that a transport can raise has a meaning, and it is the right one for the money."""

from __future__ import annotations

import inspect
import json

import aiohttp
import httpx2
import pytest
from openai import InternalServerError, OpenAI

from bioforge.backends.openai.client import call_headers
from bioforge.backends.openai.errors import TABLE, Next, read_failure, rule_of_exception
from bioforge.backends.openai.outcomes import FAILURES
from bioforge.core.interfaces import BackendContext
from bioforge.core.reasons import HELD_CLASSES, ROW_REFUSED
from bioforge.core.types import Paid


def errors_of(module: object, root: type[Exception]) -> list[type[Exception]]:
    found = inspect.getmembers(module, lambda value: inspect.isclass(value) and issubclass(value, root))
    return [value for name, value in found if not name.startswith("WS")]


RAISED = [*errors_of(httpx2, Exception), *errors_of(aiohttp, aiohttp.ClientError)]


def bare(kind: type[BaseException]) -> BaseException:
    return kind.__new__(kind)


@pytest.mark.parametrize("kind", RAISED, ids=lambda kind: kind.__name__)
def test_every_exception_is_mapped(kind: type[BaseException]) -> None:
    assert rule_of_exception(bare(kind)).error_class != "internal"


@pytest.mark.parametrize(
    ("kind", "error_class", "paid", "outage"),
    [
        (httpx2.ConnectError, "connection", Paid.NO, True),
        (httpx2.ConnectTimeout, "connection", Paid.NO, True),
        (httpx2.PoolTimeout, "connection", Paid.NO, False),
        (httpx2.ReadTimeout, "timeout", Paid.MAYBE, False),
        (httpx2.WriteTimeout, "timeout", Paid.MAYBE, False),
        (httpx2.ReadError, "connection", Paid.MAYBE, False),
        (httpx2.WriteError, "connection", Paid.MAYBE, False),
        (httpx2.RemoteProtocolError, "connection", Paid.MAYBE, False),
        (httpx2.UnsupportedProtocol, "invalid_request", Paid.NO, False),
        (httpx2.InvalidURL, "invalid_request", Paid.NO, False),
        (aiohttp.ClientConnectorDNSError, "connection", Paid.NO, True),
        (aiohttp.ClientConnectorCertificateError, "certificate", Paid.NO, False),
        (aiohttp.ConnectionTimeoutError, "connection", Paid.NO, True),
        (aiohttp.SocketTimeoutError, "timeout", Paid.MAYBE, False),
        (aiohttp.ServerDisconnectedError, "connection", Paid.MAYBE, False),
        (aiohttp.ClientPayloadError, "truncated_body", Paid.MAYBE, False),
        (aiohttp.InvalidURL, "invalid_request", Paid.NO, False),
        (TimeoutError, "timeout", Paid.MAYBE, False),
        (ConnectionResetError, "connection", Paid.MAYBE, False),
        (AttributeError, "internal", Paid.MAYBE, False),
    ],
)
def test_what_became_of_the_money(kind: type[Exception], error_class: str, paid: Paid, outage: bool) -> None:
    found = rule_of_exception(bare(kind))
    assert (found.error_class, found.paid, found.outage) == (error_class, paid, outage)


def test_a_broken_body_of_a_refusal_is_still_a_refusal() -> None:
    outcome = FAILURES.from_exception(httpx2.ReadError("reset"), 0.1, 429, {"retry-after": "3"}, b'{"err')
    assert outcome.failure is not None
    assert (outcome.failure.error_class, outcome.paid, outcome.retry_after) == ("rate_limit", Paid.NO, 3.0)


def test_a_broken_body_of_an_answer_may_have_been_paid_for() -> None:
    outcome = FAILURES.from_exception(httpx2.RemoteProtocolError("short"), 0.1, 200, {}, b'{"id"')
    assert outcome.failure is not None
    assert (outcome.failure.error_class, outcome.paid, outcome.body) == ("truncated_body", Paid.MAYBE, b'{"id"')


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"error": {"code": 400, "message": "Bad value", "status": "INVALID_ARGUMENT"}}]', "Bad value"),
        (b'{"detail": [{"type": "missing", "loc": ["body", "model"], "msg": "Field required"}]}',
         "body.model: Field required"),
        (b'{"object": "error", "message": {"detail": [{"loc": ["body", "n"], "msg": "Too many"}]}, "type": "x"}',
         "body.n: Too many"),
        (b'{"detail": "Not found"}', "Not found"),
        (b'{"success": false, "errors": [{"code": 7003, "message": "No route"}]}', "No route"),
        (b'{"error": {"message": "Provider returned error", "metadata": {"raw": "too long"}}}',
         "Provider returned error: too long"),
        (b"<!DOCTYPE html><html><head><title>502 &amp; down</title></head></html>", "502 & down"),
        (b'{"error": "Unauthorized"}', "Unauthorized"),
        (b"[]", "[]"),
        (b"", "HTTP 400"),
    ],
)  # fmt: skip
def test_the_message_is_found_in_every_format(content: bytes, message: str) -> None:
    failure = read_failure(400, {}, content).failure
    assert failure is not None
    assert failure.message == message


def test_a_long_message_that_quotes_a_row_does_not_stop_the_run() -> None:
    message = "Validation failed for the input that follows. " * 3 + "insufficient balance, invalid api key"
    outcome = read_failure(400, {}, json.dumps({"error": {"message": message}}).encode())
    assert not outcome.stops_run


def test_every_class_that_is_held_back_is_known_to_the_state() -> None:
    rules = [rule for name in ("errors", "exceptions", "batches") for rule in TABLE[name]]
    assert {rule.error_class for rule in rules if rule.then is Next.HELD} == HELD_CLASSES - {ROW_REFUSED}
    assert all(rule.received and (rule.hint or rule.then is not Next.STOPS) for rule in rules)


def test_the_headers_are_those_of_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(500, json={})

    transport = httpx2.Client(transport=httpx2.MockTransport(answer))
    client = OpenAI(api_key="k", base_url="http://h/v1", max_retries=0, http_client=transport)
    with client, pytest.raises(InternalServerError):
        client.responses.create(model="m", input="x")
    ours = {name.lower(): value for name, value in call_headers(BackendContext("http://h/v1", "k")).items()}
    for name in ("authorization", "openai-organization", "openai-project", "user-agent", "content-type"):
        assert ours[name] == seen[0].headers[name]

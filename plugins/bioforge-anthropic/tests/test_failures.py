"""Test outcomes of refusals and their headers."""

from __future__ import annotations

import json

import httpx2
import pytest
from bioforge_anthropic.failures import read_failure, read_moment, read_rate_limits, read_retry_after
from bioforge_anthropic.outcomes import FAILURES, interpret

from bioforge.plugin import Paid, RateLimits, Request

NOW = 1_700_000_000.0
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
"""The same moment."""


def refusal(kind: str, message: str = "No.", code: str | None = None) -> bytes:
    error: dict[str, object] = {"type": kind, "message": message}
    if code:
        error["details"] = {"error_code": code}
    return json.dumps({"type": "error", "error": error, "request_id": "req_1"}).encode()


CREDIT = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."


@pytest.mark.parametrize(
    ("status", "content", "error_class", "then"),
    [
        (400, refusal("invalid_request_error"), "bad_request", "final"),
        (400, refusal("invalid_request_error", CREDIT), "quota", "stops"),
        (400, refusal("invalid_request_error", "You have reached your specified API usage limits."), "quota", "stops"),
        (400, refusal("invalid_request_error", "Disabled.", "organization_on_hold"), "permission", "stops"),
        (401, refusal("authentication_error"), "authentication", "stops"),
        (402, refusal("billing_error"), "quota", "stops"),
        (403, refusal("permission_error"), "permission", "stops"),
        (404, refusal("not_found_error"), "not_found", "final"),
        (409, refusal("conflict_error"), "conflict", "again"),
        (413, refusal("request_too_large"), "too_large", "final"),
        (422, b"", "unprocessable", "final"),
        (429, refusal("rate_limit_error"), "rate_limit", "again"),
        (429, refusal("rate_limit_error", "Slower.", "ramp_limit_exceeded"), "rate_limit", "again"),
        (429, refusal("rate_limit_error", "Enough.", "enforced_spend_limit_reached"), "quota", "stops"),
        (429, refusal("rate_limit_error", "Enough.", "contract_spend_limit_reached"), "quota", "stops"),
        (500, refusal("api_error"), "server_error", "again"),
        (503, b"", "overloaded", "again"),
        (529, refusal("overloaded_error"), "overloaded", "again"),
        (302, b"", "redirect", "final"),
        (418, b"{}", "bad_request", "final"),
    ],
)
def test_every_status_has_its_meaning(status: int, content: bytes, error_class: str, then: str) -> None:
    outcome = read_failure(status, {}, content)
    assert outcome.failure is not None
    assert (outcome.failure.error_class, outcome.failure.http_status) == (error_class, status)
    assert (outcome.retryable, outcome.stops_run) == (then == "again", then == "stops")
    assert bool(outcome.hint) == outcome.stops_run
    assert outcome.paid is Paid.NO
    assert outcome.body == content
    assert outcome.outage == (status >= 500)


@pytest.mark.parametrize("status", [408, 499, 502, 504, 520, 524])
def test_a_gateway_that_got_no_answer_knows_nothing_of_the_money(status: int) -> None:
    outcome = read_failure(status, {}, b"")
    assert (outcome.paid, outcome.retryable) == (Paid.MAYBE, True)


def test_words_codes_and_ids_are_kept() -> None:
    outcome = read_failure(429, {"request-id": "req_2"}, refusal("rate_limit_error", "Slower.", "ramp_limit_exceeded"))
    assert outcome.failure is not None
    assert (outcome.failure.message, outcome.failure.code) == ("Slower.", "ramp_limit_exceeded")
    assert outcome.request_id == "req_2"
    assert read_failure(400, {}, refusal("invalid_request_error")).request_id == "req_1"
    page = read_failure(502, {}, b"<html>\n Bad   gateway</html>").failure
    assert page is not None
    assert page.message == "<html> Bad gateway</html>"


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"error": 7}', b'{"error": {"message": 7}}', b"\xff", b"[" * 100_000]
)
def test_any_body_can_be_read(content: bytes) -> None:
    failure = read_failure(500, {}, content).failure
    assert failure is not None
    assert failure.message


def test_the_server_s_word_on_trying_again_counts_but_not_against_money() -> None:
    assert not read_failure(500, {"x-should-retry": "false"}, b"").retryable
    assert read_failure(404, {"x-should-retry": "true"}, b"").retryable
    assert not read_failure(400, {"x-should-retry": "true"}, refusal("invalid_request_error", CREDIT)).retryable


def test_only_who_is_asked_for_less_sends_less() -> None:
    assert read_failure(429, {}, b"").overloaded
    assert read_failure(529, {}, b"").overloaded
    assert not read_failure(500, {}, b"").overloaded


def test_an_error_in_a_200_is_read_like_an_http_error() -> None:
    request = Request("v1:1", "/v1/messages", "claude", b"{}", "1", "bio")
    outcome = interpret(request, 200, {"request-id": "req_3"}, refusal("overloaded_error", "Busy."), 0.5)
    assert outcome.answer is None
    assert outcome.failure is not None
    assert (outcome.failure.error_class, outcome.failure.message) == ("overloaded", "Busy.")
    assert (outcome.paid, outcome.retryable, outcome.request_id) == (Paid.NO, True, "req_3")
    spent = interpret(request, 200, {}, refusal("invalid_request_error", CREDIT), 0.5)
    assert spent.stops_run
    page = interpret(request, 200, {"content-type": "text/html"}, b"<title>Log in</title>", 0.5)
    assert page.failure is not None
    assert page.failure.error_class == "malformed"
    assert "text/html: Log in" in page.failure.message
    assert page.paid is Paid.MAYBE


def test_rate_limits_are_read_by_the_server_s_own_clock() -> None:
    headers = {
        "date": DATE,
        "anthropic-ratelimit-requests-limit": "1000",
        "anthropic-ratelimit-requests-remaining": "999",
        "anthropic-ratelimit-requests-reset": "2023-11-14T22:13:21Z",
        "anthropic-ratelimit-tokens-limit": "96000",
        "anthropic-ratelimit-tokens-remaining": "95000",
        "anthropic-ratelimit-tokens-reset": "2023-11-14T22:14:20.500Z",
        "anthropic-ratelimit-input-tokens-remaining": "1",
    }
    assert read_rate_limits(headers, lambda: NOW + 5_000) == RateLimits(1000, 999, 1.0, 96_000, 95_000, 60.5)
    del headers["date"]
    assert read_rate_limits(headers, lambda: NOW + 30) == RateLimits(1000, 999, 0.0, 96_000, 95_000, 30.5)


def test_without_a_sum_the_input_counts() -> None:
    headers = {"anthropic-ratelimit-input-tokens-limit": "80", "anthropic-ratelimit-input-tokens-remaining": "8"}
    assert read_rate_limits(headers) == RateLimits(limit_tokens=80, remaining_tokens=8)
    assert read_rate_limits({"date": DATE}) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0.05", 0.05),
        ("Tue, 14 Nov 2023 22:13:30 GMT", 10.0),
        ("1e9", 86_400.0),
        ("soon", None),
        ("-1", None),
    ],
)
def test_how_long_to_wait(value: str, seconds: float | None) -> None:
    assert read_retry_after({"retry-after": value}, lambda: NOW) == seconds


def test_moments() -> None:
    assert read_moment("2023-11-14T22:13:20.25Z") == NOW + 0.25
    assert read_moment("2023-11-14T23:13:20+01:00") == NOW
    assert [read_moment(value) for value in (None, 7, "", "2023-11-14T22:13:20", "yesterday")] == [None] * 5


@pytest.mark.parametrize(
    ("error", "status", "error_class", "paid", "retryable"),
    [
        (httpx2.ConnectError("refused"), None, "connection", Paid.NO, True),
        (httpx2.ConnectTimeout("slow"), None, "connection", Paid.NO, True),
        (httpx2.ReadTimeout("slow"), None, "timeout", Paid.MAYBE, True),
        (httpx2.WriteError("broken"), None, "connection", Paid.MAYBE, True),
        (httpx2.RemoteProtocolError("left"), None, "connection", Paid.MAYBE, True),
        (httpx2.RemoteProtocolError("left"), 200, "truncated_body", Paid.MAYBE, True),
        (httpx2.ReadError("left"), 529, "overloaded", Paid.NO, True),
        (httpx2.LocalProtocolError("header"), None, "invalid_request", Paid.NO, False),
        (httpx2.UnsupportedProtocol("ftp"), None, "invalid_request", Paid.NO, False),
        (OSError("disk"), None, "connection", Paid.MAYBE, True),
        (KeyError("mistake"), None, "internal", Paid.MAYBE, False),
    ],
)
def test_every_exception_has_its_meaning(
    error: Exception, status: int | None, error_class: str, paid: Paid, retryable: bool
) -> None:
    outcome = FAILURES.from_exception(error, 1.0, status, {}, b"half")
    assert outcome.failure is not None
    assert (outcome.failure.error_class, outcome.paid, outcome.retryable) == (error_class, paid, retryable)
    assert outcome.body == b"half"

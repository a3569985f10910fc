"""Send one message and check retries, results and error texts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import requests
import responses
from bioforge_webhook.messages import Message, make_content, make_delivery, make_message
from bioforge_webhook.options import WebhookOptions
from bioforge_webhook.sender import Outcome, Result, Sender, retry_after
from conftest import SECRET, bios
from standardwebhooks import Webhook

URL = "https://example.org/hooks/bios"


@pytest.fixture
def endpoint() -> Iterator[responses.RequestsMock]:
    """Mock answers in the order they were added; every one must be used."""
    with responses.RequestsMock(registry=responses.registries.OrderedRegistry) as mock:
        yield mock


def bio() -> Message:
    return make_message([make_delivery(make_content(URL, bios(1)[0]), 0)], array=False)


def send(stop: threading.Event | None = None, **options: object) -> Outcome:
    given = {"url": URL, "first_delay": 0, **options}
    sender = Sender(WebhookOptions.model_validate(given), stop or threading.Event())
    try:
        return sender.send(bio())
    finally:
        sender.close()


def test_a_record_is_posted_with_the_headers_of_standard_webhooks(endpoint: responses.RequestsMock) -> None:
    endpoint.post(URL, status=204)
    assert send(secret_env="WEBHOOK_SECRET", headers={"X-Source": "bios"}) == Outcome(Result.DELIVERED, "", 204)
    request = endpoint.calls[0].request
    assert request.headers["webhook-id"] == request.headers["Idempotency-Key"] == bio().id
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-source"] == "bios"
    assert request.headers["user-agent"].startswith("bioforge-webhook/")
    assert isinstance(request.body, bytes)
    assert Webhook(SECRET).verify(request.body, dict(request.headers))["response_text"] == "A painter."


def test_without_a_secret_nothing_is_signed(endpoint: responses.RequestsMock) -> None:
    endpoint.post(URL)
    send()
    assert "webhook-signature" not in endpoint.calls[0].request.headers


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_transient_errors_are_retried_with_the_same_id(endpoint: responses.RequestsMock, status: int) -> None:
    endpoint.post(URL, status=status)
    endpoint.post(URL, status=200)
    assert send() == Outcome(Result.DELIVERED, "", 200, attempts=2)
    assert len({call.request.headers["webhook-id"] for call in endpoint.calls}) == 1


def test_each_attempt_is_signed_with_its_own_time(endpoint: responses.RequestsMock) -> None:
    endpoint.post(URL, status=500)
    endpoint.post(URL, status=200)
    clock = count(1_700_000_000)
    options = WebhookOptions.model_validate({"url": URL, "first_delay": 0, "secret_env": "WEBHOOK_SECRET"})
    sender = Sender(options, threading.Event(), clock=lambda: next(clock))
    sender.send(bio())
    sender.close()
    first, second = (call.request.headers for call in endpoint.calls)
    assert int(first["webhook-timestamp"]) < int(second["webhook-timestamp"])
    assert first["webhook-signature"] != second["webhook-signature"]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (requests.ConnectionError(ConnectionRefusedError(111, "Connection refused")), "no connection"),
        (requests.ReadTimeout("…url: /hooks/bios"), "no answer within 20 s"),
        (requests.ConnectTimeout("…url: /hooks/bios"), "no answer within 20 s"),
    ],
)
def test_a_missing_answer_is_retried_up_to_the_last_attempt(
    endpoint: responses.RequestsMock, broken: Exception, said: str
) -> None:
    for _ in range(3):
        endpoint.post(URL, body=broken)
    found = send(max_attempts=3)
    assert (found.result, found.attempts, found.error) == (Result.FAILED, 3, said)


@pytest.mark.parametrize("status", [400, 409, 413, 422])
def test_rejected_content_is_not_retried(endpoint: responses.RequestsMock, status: int) -> None:
    endpoint.post(URL, status=status, body="unknown\nartist")
    found = send()
    assert (found.result, found.attempts, found.status) == (Result.REFUSED, 1, status)
    assert found.error.endswith(": unknown artist")


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_other_client_errors_are_not_retried(endpoint: responses.RequestsMock, status: int) -> None:
    endpoint.post(URL, status=status)
    assert send().result is Result.FAILED


def test_gone_stops_the_delivery(endpoint: responses.RequestsMock) -> None:
    endpoint.post(URL, status=410)
    found = send()
    assert (found.result, found.attempts) == (Result.HALT, 1)
    assert found.error == "the endpoint is gone (410 Gone)"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(endpoint: responses.RequestsMock, status: int) -> None:
    endpoint.post(URL, status=status, headers={"Location": "https://other.example.org/"})
    found = send()
    assert found.result is Result.FAILED
    assert "redirects are not followed" in found.error


def test_an_untrusted_certificate_is_not_retried(endpoint: responses.RequestsMock) -> None:
    endpoint.post(URL, body=requests.exceptions.SSLError("…url: /hooks/bios"))
    found = send()
    assert (found.result, found.attempts) == (Result.FAILED, 1)
    assert found.error.startswith("its certificate is not trusted")


def test_a_short_retry_after_is_kept(endpoint: responses.RequestsMock) -> None:
    endpoint.post(URL, status=429, headers={"Retry-After": "1"})
    endpoint.post(URL, status=200)
    began = time.monotonic()
    assert send().attempts == 2
    assert time.monotonic() - began >= 1


def test_a_long_retry_after_ends_the_run_instead_of_waiting(endpoint: responses.RequestsMock) -> None:
    endpoint.post(URL, status=503, headers={"Retry-After": "3600"})
    found = send(max_delay=60)
    assert (found.result, found.retry_after, found.attempts) == (Result.HALT, 3600.0, 1)
    assert found.error == "503 Service Unavailable (Retry-After is 3,600 s, longer than max_delay)"


def test_both_forms_of_retry_after() -> None:
    now, date = 1_700_000_000.0, "Tue, 14 Nov 2023 22:13:20 GMT"  # the same moment
    assert retry_after("120", None, now) == 120
    assert retry_after("Tue, 14 Nov 2023 22:14:20 GMT", None, now) == 60
    assert retry_after("Tue, 14 Nov 2023 22:14:20 GMT", date, now + 9_999) == 60, "by the clock that made the date"
    assert retry_after("Tue, 14 Nov 2023 22:00:00 GMT", None, now) == 0
    for nothing in (None, "", "soon", "-5", "1.5", "²"):
        assert retry_after(nothing, None, now) is None, nothing


def test_nothing_is_posted_after_a_stop() -> None:
    stop = threading.Event()
    stop.set()
    with responses.RequestsMock():
        found = send(stop)
    assert (found.result, found.attempts) == (Result.FAILED, 0)


def test_a_stop_ends_the_wait_for_the_next_attempt(endpoint: responses.RequestsMock) -> None:
    stop = threading.Event()

    def stop_and_fail(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        stop.set()
        return 500, {}, ""

    endpoint.add_callback("POST", URL, stop_and_fail)
    assert send(stop, first_delay=3600, max_delay=3600).attempts == 1


def test_errors_contain_no_secret(endpoint: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", f"{URL}/s3cret")
    monkeypatch.setenv("AUTHORIZATION", "Bearer pa55word")
    endpoint.post(
        f"{URL}/s3cret", status=403, body=f"no pa55word at {URL}/s3cret, /hooks/bios/s3cret \x1b[2Jtoday" + "!" * 300
    )
    endpoint.post(f"{URL}/s3cret", body=requests.ConnectionError(f"Max retries exceeded with url: {URL}/s3cret"))
    for _ in range(2):
        found = send(url=None, url_env="HOOK", headers_env={"Authorization": "AUTHORIZATION"}, max_attempts=1)
        assert "s3cret" not in found.error
        assert "pa55" not in found.error
        assert found.error.isprintable()
        assert len(found.error) < 250
    assert endpoint.calls[0].request.headers["Authorization"] == "Bearer pa55word"


def test_netrc_is_ignored(endpoint: responses.RequestsMock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine example.org login me password pa55\n")
    monkeypatch.setenv("NETRC", str(netrc))
    endpoint.post(URL)
    send()
    assert "Authorization" not in endpoint.calls[0].request.headers

"""One message: when it is tried again, when not, and what is said of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import requests
import responses
from bioforge_webhook.messages import Message, content, delivery, message
from bioforge_webhook.options import WebhookOptions
from bioforge_webhook.sending import Outcome, Sender, Verdict, retry_after
from conftest import SECRET, bios
from standardwebhooks import Webhook

URL = "https://example.org/hooks/bios"


@pytest.fixture
def endpoint() -> Iterator[responses.RequestsMock]:
    """Answers in the order in which they were added; all of them have to be asked for."""
    with responses.RequestsMock(registry=responses.registries.OrderedRegistry) as mock:
        yield mock


def bio() -> Message:
    return message([delivery(content(URL, bios(1)[0]), 0)], array=False)


def send(stop: threading.Event | None = None, **options: object) -> Outcome:
    given = {"url": URL, "first_delay": 0, **options}
    sender = Sender(WebhookOptions.model_validate(given), stop or threading.Event())
    try:
        return sender.send(bio())
    finally:
        sender.close()


def test_a_record_is_posted_with_the_headers_of_standard_webhooks(endpoint: responses.RequestsMock) -> None:
    endpoint.post(URL, status=204)
    assert send(secret_env="WEBHOOK_SECRET", headers={"X-Source": "bios"}) == Outcome(Verdict.DELIVERED, "", 204)
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
def test_what_may_pass_is_tried_again_with_the_same_id(endpoint: responses.RequestsMock, status: int) -> None:
    endpoint.post(URL, status=status)
    endpoint.post(URL, status=200)
    assert send() == Outcome(Verdict.DELIVERED, "", 200, attempts=2)
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
def test_no_answer_is_tried_again_to_the_last_attempt(
    endpoint: responses.RequestsMock, broken: Exception, said: str
) -> None:
    for _ in range(3):
        endpoint.post(URL, body=broken)
    found = send(max_attempts=3)
    assert (found.verdict, found.attempts, found.error) == (Verdict.FAILED, 3, said)


@pytest.mark.parametrize("status", [400, 409, 413, 422])
def test_what_is_refused_for_its_content_is_not_tried_again(endpoint: responses.RequestsMock, status: int) -> None:
    endpoint.post(URL, status=status, body="unknown\nartist")
    found = send()
    assert (found.verdict, found.attempts, found.status) == (Verdict.REFUSED, 1, status)
    assert found.error.endswith(": unknown artist")


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_other_refusals_are_not_tried_again_either(endpoint: responses.RequestsMock, status: int) -> None:
    endpoint.post(URL, status=status)
    assert send().verdict is Verdict.FAILED


def test_gone_ends_everything(endpoint: responses.RequestsMock) -> None:
    endpoint.post(URL, status=410)
    found = send()
    assert (found.verdict, found.attempts) == (Verdict.HALT, 1)
    assert found.error == "the endpoint wants nothing more (410 Gone)"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(endpoint: responses.RequestsMock, status: int) -> None:
    endpoint.post(URL, status=status, headers={"Location": "https://other.example.org/"})
    found = send()
    assert found.verdict is Verdict.FAILED
    assert "redirects are not followed" in found.error


def test_a_certificate_without_trust_is_not_tried_again(endpoint: responses.RequestsMock) -> None:
    endpoint.post(URL, body=requests.exceptions.SSLError("…url: /hooks/bios"))
    found = send()
    assert (found.verdict, found.attempts) == (Verdict.FAILED, 1)
    assert found.error.startswith("no trust in its certificate")


def test_a_short_retry_after_is_kept(endpoint: responses.RequestsMock) -> None:
    endpoint.post(URL, status=429, headers={"Retry-After": "1"})
    endpoint.post(URL, status=200)
    began = time.monotonic()
    assert send().attempts == 2
    assert time.monotonic() - began >= 1


def test_a_long_retry_after_ends_the_run_instead_of_waiting(endpoint: responses.RequestsMock) -> None:
    endpoint.post(URL, status=503, headers={"Retry-After": "3600"})
    found = send(max_delay=60)
    assert (found.verdict, found.retry_after, found.attempts) == (Verdict.HALT, 3600.0, 1)
    assert found.error == "503 Service Unavailable (it asks to come back in 3,600 s, longer than max_delay)"


def test_both_forms_of_retry_after() -> None:
    now, date = 1_700_000_000.0, "Tue, 14 Nov 2023 22:13:20 GMT"  # the same moment
    assert retry_after("120", None, now) == 120
    assert retry_after("Tue, 14 Nov 2023 22:14:20 GMT", None, now) == 60
    assert retry_after("Tue, 14 Nov 2023 22:14:20 GMT", date, now + 9_999) == 60, "by the clock that made the date"
    assert retry_after("Tue, 14 Nov 2023 22:00:00 GMT", None, now) == 0
    for nothing in (None, "", "soon", "-5", "1.5", "²"):
        assert retry_after(nothing, None, now) is None, nothing


def test_once_stopped_nothing_is_posted() -> None:
    stop = threading.Event()
    stop.set()
    with responses.RequestsMock():
        found = send(stop)
    assert (found.verdict, found.attempts) == (Verdict.FAILED, 0)


def test_who_waits_for_the_next_attempt_is_woken_by_the_stop(endpoint: responses.RequestsMock) -> None:
    stop = threading.Event()

    def stopped_meanwhile(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        stop.set()
        return 500, {}, ""

    endpoint.add_callback("POST", URL, stopped_meanwhile)
    assert send(stop, first_delay=3600, max_delay=3600).attempts == 1


def test_no_secret_is_said_back(endpoint: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_nothing_out_of_netrc(
    endpoint: responses.RequestsMock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine example.org login me password pa55\n")
    monkeypatch.setenv("NETRC", str(netrc))
    endpoint.post(URL)
    send()
    assert "Authorization" not in endpoint.calls[0].request.headers

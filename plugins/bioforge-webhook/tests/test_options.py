"""Check options: mistakes are reported before anything is sent, and secrets are never shown."""

from __future__ import annotations

import pytest
from bioforge_webhook.options import WebhookOptions
from conftest import SECRET
from pydantic import ValidationError

URL = "https://example.org/hooks/bios"


def mistake(**options: object) -> str:
    with pytest.raises(ValidationError) as caught:
        WebhookOptions.model_validate(options)
    (found,) = caught.value.errors(include_url=False, include_input=False)
    return str(found["msg"])


def test_url_is_the_only_required_option() -> None:
    options = WebhookOptions.model_validate({"url": URL})
    assert (options.address, options.host, options.identity) == (URL, "example.org", URL)
    assert (options.batch, options.concurrency, options.keys, options.all_headers) == (1, 4, [], {})


def test_a_secret_url_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "https://example.org/services/T0/s3cret")
    options = WebhookOptions.model_validate({"url_env": "HOOK"})
    assert options.address == "https://example.org/services/T0/s3cret"
    assert "s3cret" not in repr(options)
    assert options.secrets == ["https://example.org/services/T0/s3cret", "/services/T0/s3cret"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "expected one of url and url_env"),
        ({"url": URL, "url_env": "WEBHOOK_SECRET"}, "url_env|expected a url"),
        ({"url": "example.org/hooks"}, "expected a url like"),
        ({"url": "ftp://example.org/"}, "expected a url like"),
        ({"url": "https://example.org:port/"}, "expected a url like"),
        ({"url": "https://example.org/a b"}, "expected a url like"),
        ({"url": "https://example..org/"}, "expected a url like"),
        ({"url": f"https://{'a' * 64}.org/"}, "expected a url like"),
        ({"url": f"{URL}#top"}, "fragment"),
        ({"url": "https://me:pa55@example.org/"}, "headers_env"),
        ({"url": f"{URL}?token=pa55"}, "url_env"),
        ({"url_env": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE is not set"),
        ({"url": URL, "secret_env": "NOT_A_SECRET"}, "expected whsec_"),
        ({"url": URL, "secret_env": "SHORT_SECRET"}, "the secret has 3 bytes"),
        ({"url": URL, "secret_env": "ODD_SECRET"}, "not base64"),
        ({"url": URL, "headers": {"Authorization": "Bearer pa55"}}, "headers_env"),
        ({"url": URL, "headers": {"X-Api-Key": "pa55"}}, "headers_env"),
        ({"url": URL, "headers": {"Webhook-Id": "1"}}, "the writer sets"),
        ({"url": URL, "headers": {"Content-Type": "text/plain"}}, "the writer sets"),
        ({"url": URL, "headers": {"X Source": "a"}}, "not a valid header name"),
        ({"url": URL, "headers": {"X-Source": "a\r\nX-Other: b"}}, "not allowed in a header"),
        ({"url": URL, "headers_env": {"X-Key": "ODD_HEADER"}}, "not allowed in a header"),
        ({"url": URL, "batch": 0}, "greater than or equal to 1"),
        ({"url": URL, "concurrency": 1000}, "less than or equal to 32"),
        ({"url": URL, "timeout": "20"}, "number"),
        ({"url": URL, "timeout": True}, "number"),
        ({"url": URL, "retries": 3}, "Extra inputs"),
    ],
)
def test_mistakes(options: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOT_A_SECRET", "pa55word of a receiver, as it came")
    monkeypatch.setenv("SHORT_SECRET", "whsec_cGE1")
    monkeypatch.setenv("ODD_SECRET", "whsec_pa55word-of-a-receiver!")
    monkeypatch.setenv("ODD_HEADER", "pa55\nword")
    found = mistake(**options)
    assert any(one in found for one in said.split("|")), found
    assert "pa55" not in found


def test_headers_from_the_file_and_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHORIZATION", "Bearer abc")
    options = WebhookOptions.model_validate(
        {
            "url": URL,
            "secret_env": "WEBHOOK_SECRET",
            "headers": {"X-Source": "bios"},
            "headers_env": {"Authorization": "AUTHORIZATION"},
        }
    )
    assert options.all_headers == {"X-Source": "bios", "Authorization": "Bearer abc"}
    assert options.secrets == ["Bearer abc", SECRET]
    assert len(options.keys) == 1


def test_whole_numbers_of_seconds_are_seconds() -> None:
    options = WebhookOptions.model_validate({"url": URL, "timeout": 5, "first_delay": 2, "max_delay": 30.5})
    assert (options.timeout, options.first_delay, options.max_delay) == (5.0, 2.0, 30.5)

"""Token buckets by an injected clock, and their headers over the socket."""

from __future__ import annotations

import math

import openai
import pytest
import requests

from bioforge.simulator.limits import MinuteBucket, ServerLimits, duration


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.041, "41ms"),
        (0.0001, "1ms"),
        (0.9999, "1s"),
        (1, "1s"),
        (1.2, "1.2s"),
        (59.9991, "1m0s"),
        (60, "1m0s"),
        (62.5, "1m2.5s"),
        (360, "6m0s"),
        (3603.5, "1h0m3.5s"),
    ],
)
def test_durations_are_written_as_the_api_writes_them(seconds, text):
    assert duration(seconds) == text


def test_a_bucket_starts_full_and_refills_evenly(clock):
    bucket = MinuteBucket(60, clock)
    assert (bucket.remaining, bucket.reset) == (60, 0)
    for _ in range(60):
        assert bucket.wait(1) == 0
        bucket.take(1)
    assert bucket.remaining == 0
    assert bucket.reset == 60
    assert bucket.wait(1) == 1
    assert bucket.wait(5) == 5
    clock.now += 2.5
    assert bucket.remaining == 2
    assert bucket.wait(3) == 0.5
    clock.now += 1000
    assert (bucket.remaining, bucket.reset) == (60, 0)
    assert bucket.wait(61) == math.inf


@pytest.mark.parametrize("limit", [7, 60, 500, 5000, 150_000])
def test_waiting_as_long_as_told_is_enough(clock, limit):
    bucket = MinuteBucket(limit, clock)
    bucket.take(limit)
    for amount in (1, 3, limit // 2, limit):
        clock.now += bucket.wait(amount)
        assert bucket.wait(amount) == 0
        bucket.take(amount)


def test_requests_over_the_limit_are_told_when_to_come_back(clock):
    limits = ServerLimits(60, None, clock)
    for _ in range(60):
        assert limits.admit(10) is None
    assert limits.headers() == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m0s",
    }
    clock.now += 0.25
    refused = limits.admit(10)
    assert refused.status == 429
    assert (refused.code, refused.type) == ("rate_limit_exceeded", "requests")
    assert "Limit 60, Used 60, Requested 1. Please try again in 750ms." in refused.message
    assert refused.headers == {"retry-after": "1", "retry-after-ms": "750"}
    clock.now += 0.75
    assert limits.admit(10) is None
    assert limits.admit(10) is not None


def test_a_refused_request_takes_nothing(clock):
    limits = ServerLimits(100, 1000, clock)
    assert limits.admit(900) is None
    refused = limits.admit(200)
    assert refused.type == "tokens"
    assert refused.headers == {"retry-after": "6"}
    assert limits.headers()["x-ratelimit-remaining-requests"] == "99"
    assert limits.headers()["x-ratelimit-remaining-tokens"] == "100"
    assert limits.admit(100) is None


def test_a_request_larger_than_the_limit_is_never_admitted(clock):
    refused = ServerLimits(None, 1000, clock).admit(1001)
    assert "Request too large" in refused.message
    assert refused.headers == {"x-should-retry": "false"}


def test_six_headers_describe_both_limits(start):
    server = start(requests_per_minute=60, tokens_per_minute=150_000)
    body = {"model": "m", "input": "x" * 40, "max_output_tokens": 100}
    headers = requests.post(f"{server.base_url}/responses", json=body, headers={"Authorization": "Bearer key"}).headers
    assert {name: headers[name] for name in headers if name.startswith("x-ratelimit")} == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-remaining-tokens": "149900",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-reset-tokens": "40ms",
    }


def test_the_sdk_sees_the_limit_as_a_rate_limit_error(start, connect):
    server = start(requests_per_minute=2)
    client = connect(server)
    for _ in range(2):
        client.responses.create(model="m", input="Kobro")
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="m", input=7)
    with pytest.raises(openai.RateLimitError) as caught:
        client.responses.create(model="m", input="Kobro")
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.response.headers["retry-after"] == "30"
    assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    assert server.ledger.counts.faults == {"limit": 1}

"""Every fault as a client meets it, and the promise that the same seed meets the same ones."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections import Counter

import openai
import pytest

from bioforge.simulator import FAULTS, Outage, SimulatorOptions
from bioforge.simulator.answers import answer
from bioforge.simulator.faults import delay, draw

ASK = {"model": "m", "input": "Absalon"}


def charged(server):
    return [charge.delivered for charge in server.ledger.entries()]


@pytest.mark.parametrize(
    ("fault", "error", "status", "code"),
    [
        ("bad_request", openai.BadRequestError, 400, "invalid_prompt"),
        ("rate_limit", openai.RateLimitError, 429, "rate_limit_exceeded"),
        ("rate_limit_bare", openai.RateLimitError, 429, "rate_limit_exceeded"),
        ("slow_down", openai.RateLimitError, 429, "slow_down"),
        ("server_error", openai.InternalServerError, 500, "server_error"),
        ("unavailable", openai.InternalServerError, 503, "server_is_overloaded"),
    ],
)
def test_refusals_are_not_charged(start, connect, fault, error, status, code):
    server = start(faults={fault: 1.0}, retry_after=7)
    with pytest.raises(error) as caught:
        connect(server).responses.create(**ASK)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.response.headers.get("retry-after") == ("7" if fault == "rate_limit" else None)
    assert charged(server) == []
    assert server.ledger.counts.faults == {fault: 1}
    assert server.ledger.counts.statuses == {status: 1}


def test_retry_after_can_be_shorter_than_a_second(start, connect):
    with pytest.raises(openai.RateLimitError) as caught:
        connect(start(faults={"rate_limit": 1.0}, retry_after=0.05)).responses.create(**ASK)
    headers = caught.value.response.headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("1", "50")


@pytest.mark.parametrize(("fault", "deliveries"), [("drop_before", []), ("drop_after", ["dropped"])])
def test_a_dropped_connection_may_or_may_not_have_cost_something(start, connect, fault, deliveries):
    server = start(faults={fault: 1.0})
    with pytest.raises(openai.APIConnectionError):
        connect(server).responses.create(**ASK)
    assert charged(server) == deliveries
    assert server.ledger.counts.statuses == {0: 1}


def test_a_truncated_answer_announces_more_than_it_sends(start):
    server = start(faults={"truncated": 1.0})
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("POST", "/v1/responses", json.dumps(ASK), {"Authorization": "Bearer key"})
    response = connection.getresponse()
    assert response.status == 200
    announced = int(response.headers["content-length"])
    with pytest.raises(http.client.IncompleteRead) as caught:
        response.read()
    connection.close()
    assert len(caught.value.partial) == announced // 2
    assert charged(server) == ["truncated"]


def test_the_sdk_calls_a_truncated_answer_a_connection_error(start, connect):
    server = start(faults={"truncated": 1.0})
    with pytest.raises(openai.APIConnectionError):
        connect(server).responses.create(**ASK)
    assert charged(server) == ["truncated"]


def test_malformed_answers_are_complete_charged_and_of_four_kinds(start, connect):
    server = start(faults={"malformed": 1.0})
    client = connect(server)
    bodies = set()
    for number in range(30):
        answer = client.responses.with_raw_response.create(model="m", input=f"Artist {number}")
        assert answer.http_response.status_code == 200
        bodies.add(answer.http_response.content)
    assert {body for body in bodies if not body.startswith(b"<html>")} == {
        b'{"output": null}',
        b"[]",
        b'"text"',
    }
    assert len(bodies) == 4
    assert charged(server) == ["malformed"] * 30


def test_a_hanging_answer_outlasts_the_client_and_is_charged(start, connect):
    server = start(faults={"hang": 1.0})
    with pytest.raises(openai.APITimeoutError):
        connect(server, timeout=0.2).responses.create(**ASK)
    assert charged(server) == ["hang"]
    assert server.ledger.counts.faults == {"hang": 1}


def test_a_hanging_answer_comes_in_the_end(start, connect):
    response = connect(start(faults={"hang": 1.0}, hang_seconds=0.01)).responses.create(**ASK)
    assert response.status == "completed"


@pytest.mark.parametrize(
    ("fault", "reason", "finish"),
    [("incomplete", "max_output_tokens", "length"), ("content_filter", "content_filter", "content_filter")],
)
def test_incomplete_answers_are_charged(start, connect, fault, reason, finish):
    server = start(faults={fault: 1.0})
    client = connect(server)
    response = client.responses.create(**ASK)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == reason
    assert response.output_text
    completion = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Absalon"}])
    assert completion.choices[0].finish_reason == finish
    assert charged(server) == ["yes", "yes"]


def test_a_refusal_is_charged_and_has_no_text(start, connect):
    server = start(faults={"refusal": 1.0}, several_parts=False)
    client = connect(server)
    response = client.responses.create(**ASK)
    assert response.status == "completed"
    assert response.output_text == ""
    assert [part.type for part in response.output[0].content] == ["refusal"]
    message = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "A"}]).choices[0].message
    assert message.content is None
    assert message.refusal
    assert charged(server) == ["yes", "yes"]


def test_a_script_names_the_faults_of_one_request_in_order(start, connect):
    server = start(script={"Absalon": ["rate_limit", "drop_before", "ok", "server_error"]}, faults={"slow_down": 1})
    client = connect(server)
    for error in (openai.RateLimitError, openai.APIConnectionError):
        with pytest.raises(error):
            client.responses.create(**ASK)
    assert client.responses.create(**ASK).status == "completed"
    with pytest.raises(openai.InternalServerError):
        client.responses.create(**ASK)
    with pytest.raises(openai.RateLimitError, match="slow down"):
        client.responses.create(**ASK)
    with pytest.raises(openai.RateLimitError, match="slow down"):
        client.responses.create(model="m", input="Kobro")


def test_each_body_that_matches_a_script_starts_at_its_beginning():
    options = SimulatorOptions(script={"Müller": ["rate_limit"]})
    for text in ("Müller, Anna", "Müller, Berta"):
        statuses = [answer("/v1/responses", {"model": "m", "input": text}, options, n).status for n in (1, 2)]
        assert statuses == [429, 200]


def test_a_script_can_be_a_function(start, connect):
    seen = []

    def script(body, occurrence):
        seen.append((body["input"], occurrence))
        return "unavailable" if occurrence == 1 else None

    client = connect(start(script=script))
    with pytest.raises(openai.InternalServerError):
        client.responses.create(**ASK)
    assert client.responses.create(**ASK).status == "completed"
    assert seen == [("Absalon", 1), ("Absalon", 2)]


def test_a_function_that_names_no_fault_is_told_so(start, connect):
    client = connect(start(script=lambda body, occurrence: "drop_befor"))
    with pytest.raises(openai.InternalServerError, match="did you mean 'drop_before'"):
        client.responses.create(**ASK)


def test_an_outage_refuses_a_stretch_of_requests(start, connect):
    server = start(outage=Outage(start_after_requests=2, number_of_requests=3))
    client = connect(server)
    statuses = []
    for _ in range(7):
        try:
            client.responses.create(**ASK)
            statuses.append(200)
        except openai.InternalServerError as error:
            statuses.append(error.status_code)
    assert statuses == [200, 200, 503, 503, 503, 200, 200]
    assert server.ledger.counts.faults == {"outage": 3}


def test_a_quota_is_spent_exactly_even_with_many_in_flight(start):
    server = start(quota_after=10, latency=0.02)

    async def ask(client, number):
        try:
            await client.responses.create(model="m", input=f"Artist {number}")
        except openai.RateLimitError as error:
            return error.code, error.type
        return "answered"

    async def ask_all():
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=0) as client:
            return await asyncio.gather(*[ask(client, number) for number in range(30)])

    outcomes = Counter(asyncio.run(ask_all()))
    assert outcomes == {"answered": 10, ("insufficient_quota", "insufficient_quota"): 20}
    assert len(server.ledger) == 10
    assert server.ledger.counts.faults == {"quota": 20}


def test_draws_depend_on_seed_body_and_try_alone():
    faults = {"rate_limit": 0.3, "hang": 0.3}
    digests = [bytes([number]) * 32 for number in range(200)]

    def outcome(seed, occurrence):
        return [draw(seed, faults, digest, occurrence) for digest in digests]

    assert outcome(1, 1) == outcome(1, 1)
    assert outcome(1, 1) != outcome(1, 2)
    assert outcome(1, 1) != outcome(2, 1)


def test_draws_come_as_often_as_their_probability():
    faults = {"bad_request": 0.1, "rate_limit": 0.05, "hang": 0.2, "refusal": 0.15}
    drawn = Counter(draw(3, faults, number.to_bytes(32, "big"), 1) for number in range(10_000))
    for name, probability in faults.items():
        assert drawn[name] == pytest.approx(10_000 * probability, rel=0.15)
    assert drawn[None] == pytest.approx(5_000, rel=0.05)


def test_all_faults_together_leave_no_gap():
    faults = dict.fromkeys(FAULTS, 1 / len(FAULTS))
    drawn = Counter(draw(3, faults, number.to_bytes(32, "big"), 1) for number in range(2_000))
    assert set(drawn) == set(FAULTS)


def test_a_bad_request_stays_bad():
    faults = {"bad_request": 0.2, "server_error": 0.3}
    for number in range(300):
        digest = number.to_bytes(32, "big")
        bad = {draw(0, faults, digest, occurrence) == "bad_request" for occurrence in range(1, 6)}
        assert len(bad) == 1


def test_latency_is_reproducible_and_log_normal():
    delays = sorted(delay(1, 2.0, 0.7, number.to_bytes(32, "big"), 1) for number in range(4_001))
    assert delays == sorted(delay(1, 2.0, 0.7, number.to_bytes(32, "big"), 1) for number in range(4_001))
    assert delays[2_000] == pytest.approx(2.0, rel=0.05)
    assert sum(delays) / len(delays) == pytest.approx(2.0 * 2.718281828 ** (0.7**2 / 2), rel=0.05)
    assert delay(1, 2.0, 0, b"", 1) == 2.0

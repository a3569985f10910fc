"""The ledger says the same as the clients: in Python, over HTTP and in its file."""

from __future__ import annotations

import json
from dataclasses import asdict
from hashlib import sha256

import openai
import requests

from bioforge.simulator import Charge, Simulator, SimulatorOptions


def test_every_answer_is_one_entry_with_what_it_cost(server, client):
    body = {"input": "Müller, Änne", "model": "gpt-6-luna", "service_tier": "flex"}
    response = client.responses.create(**body, extra_headers={"X-Client-Request-Id": "attempt-1"})
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    (charge,) = server.ledger.entries()
    assert charge == Charge(
        sequence=1,
        time=charge.time,
        request_id=response._request_id,
        client_request_id="attempt-1",
        endpoint="/v1/responses",
        model="gpt-6-luna-2026-05-01",
        body_sha256=sha256(canonical.encode()).hexdigest(),
        input_tokens=response.usage.input_tokens,
        output_tokens=response.usage.output_tokens,
        response_id=response.id,
        delivered="yes",
        service_tier="flex",
        batch_id=None,
        custom_id=None,
    )
    assert abs(charge.time - response.created_at) < 5


def test_chat_is_charged_too(server, client):
    completion = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Kobro"}])
    (charge,) = server.ledger.entries()
    assert charge.endpoint == "/v1/chat/completions"
    assert charge.response_id == completion.id
    assert (charge.input_tokens, charge.output_tokens) == (
        completion.usage.prompt_tokens,
        completion.usage.completion_tokens,
    )


def test_totals_tell_what_was_paid_more_than_once(server, client):
    answers = [client.responses.create(model="m", input=name) for name in ("A", "B", "A")]
    totals = server.ledger.totals()
    assert (totals.charges, totals.bodies) == (3, 2)
    assert totals.input_tokens == sum(reply.usage.input_tokens for reply in answers)
    assert totals.output_tokens == sum(reply.usage.output_tokens for reply in answers)
    assert totals.delivered == {"yes": 3}
    assert len({charge.response_id for charge in server.ledger.entries()}) == 3


def test_python_http_and_file_agree(start, connect, tmp_path):
    path = tmp_path / "ledger.jsonl"
    server = start(ledger=path, faults={"refusal": 0.3, "server_error": 0.2, "drop_after": 0.2}, seed=4)
    client = connect(server)
    errors = 0
    for number in range(40):
        try:
            client.responses.create(model="m", input=f"Artist {number}")
        except openai.APIError:
            errors += 1
    entries = [asdict(charge) for charge in server.ledger.entries()]
    counts, totals = server.ledger.counts, server.ledger.totals()
    assert counts.requests == 40
    assert errors == counts.faults["server_error"] + counts.faults["drop_after"]
    assert totals.charges == 40 - counts.faults["server_error"]
    assert totals.delivered["dropped"] == counts.faults["drop_after"]

    lines = path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == entries
    streamed = requests.get(f"{server.url}/simulator/ledger/entries")
    assert streamed.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in streamed.text.splitlines()] == entries
    assert requests.get(f"{server.url}/simulator/ledger").json() == {
        "counts": {
            "requests": 40,
            "statuses": {str(status): number for status, number in counts.statuses.items()},
            "faults": dict(counts.faults),
        },
        "totals": asdict(totals),
        "batches": {"created": 0, "uploads": 0},
    }


def test_a_charge_is_in_the_file_before_its_answer_arrives(start, connect, tmp_path):
    path = tmp_path / "ledger.jsonl"
    client = connect(start(ledger=path))
    for number in range(1, 6):
        client.responses.create(model="m", input=f"Artist {number}")
        assert len(path.read_text().splitlines()) == number


def test_a_second_server_adds_to_the_file_of_the_first(start, connect, tmp_path):
    path = tmp_path / "ledger.jsonl"
    for _ in range(2):
        with Simulator(SimulatorOptions(ledger=path)) as server:
            connect(server).responses.create(model="m", input="Kobro")
    first, second = map(json.loads, path.read_text().splitlines())
    assert first["body_sha256"] == second["body_sha256"]
    assert first["request_id"] != second["request_id"]


def test_the_ledger_outlives_its_server(connect):
    with Simulator() as server:
        connect(server).responses.create(model="m", input="Kobro")
    assert server.ledger.totals().charges == 1


def test_the_pages_of_the_simulator_need_no_key_and_are_not_counted(server):
    assert requests.get(f"{server.url}/simulator/health").json() == {"status": "ok"}
    assert server.ledger.counts.requests == 0


def test_requests_are_counted_by_status(server, client, raw):
    client.models.list()
    raw("GET", "/v1/nothing")
    raw("POST", "/v1/responses", {"model": "m"})
    client.responses.create(model="m", input="Kobro")
    assert server.ledger.counts.statuses == {200: 2, 404: 1, 400: 1}
    assert server.ledger.counts.requests == 4

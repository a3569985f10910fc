"""Test the test server: it refuses what the API refuses, and its ledger survives it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from anthropic import Anthropic, APIStatusError
from server import AnthropicServer
from server_rules import example, wrong_batch, wrong_params

MakeServer = Callable[..., AnthropicServer]
PARAMS: dict[str, Any] = {
    "model": "claude-haiku-4-5",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "Hello"}],
}


@pytest.fixture
def ask(make_server: MakeServer) -> Callable[..., Anthropic]:
    def client(**settings: Any) -> Anthropic:
        return Anthropic(api_key="sk-ant-test", base_url=make_server(**settings).base_url, max_retries=0)

    return client


def test_the_official_sdk_understands_it(ask: Callable[..., Anthropic]) -> None:
    with ask(cached=True) as client:
        message = client.messages.create(**PARAMS)
        assert (message.stop_reason, message.model, message.role) == ("end_turn", "claude-haiku-4-5", "assistant")
        assert message.usage.cache_read_input_tokens
        batch = client.messages.batches.create(requests=[{"custom_id": "a", "params": PARAMS}])
        assert batch.processing_status == "in_progress"
        assert batch.request_counts.processing == 1
        seen = client.messages.batches.retrieve(batch.id)
        assert (seen.processing_status, seen.request_counts.succeeded) == ("ended", 1)
        (result,) = client.messages.batches.results(batch.id)
        assert (result.custom_id, result.result.type) == ("a", "succeeded")
        assert [one.id for one in client.messages.batches.list()] == [batch.id]
        assert client.messages.batches.delete(batch.id).id == batch.id
        assert [one.id for one in client.messages.batches.list()] == []


@pytest.mark.parametrize("fault", ["rate_limit", "overloaded", "server_error", "credit", "spend_limit", "not_found"])
def test_its_refusals_have_the_form_of_the_api_s(ask: Callable[..., Anthropic], fault: str) -> None:
    with ask(script={"Hello": [fault]}) as client, pytest.raises(APIStatusError) as error:
        client.messages.create(**PARAMS)
    assert error.value.type
    assert error.value.request_id
    assert error.value.api_message


def test_what_the_api_does_not_take() -> None:
    assert wrong_params(PARAMS) is None
    assert wrong_params([]) is not None
    assert wrong_params({**PARAMS, "input": "x"}) == "input: Extra inputs are not permitted"
    for name in PARAMS:
        assert wrong_params({key: value for key, value in PARAMS.items() if key != name}) == f"{name}: Field required"
    entry = {"custom_id": "a", "params": PARAMS}
    assert wrong_batch(json.dumps({"requests": [entry]}).encode()) is None
    for requests in (
        [],
        [entry, entry],
        [{**entry, "custom_id": "a.b"}],
        [{**entry, "custom_id": "a" * 65}],
        [{"custom_id": "a"}],
    ):
        assert wrong_batch(json.dumps({"requests": requests}).encode()) is not None
    assert wrong_batch(b"[]") is not None


def test_an_example_holds_by_its_schema() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": ["string", "null"]}, "b": {"type": "array", "items": {"enum": [3]}}},
    }
    assert example(schema) == {"a": "A word.", "b": [3]}


def test_its_ledger_and_its_batches_outlive_it(make_server: MakeServer, tmp_path: Path) -> None:
    first = make_server(data=tmp_path, batch_seconds=3600)
    with Anthropic(api_key="sk-ant-test", base_url=first.base_url, max_retries=0) as client:
        client.messages.create(**PARAMS, extra_headers={"X-Client-Request-Id": "one"})
        client.messages.batches.create(requests=[{"custom_id": "two", "params": PARAMS}])
    assert first.charged() == ["one"]
    first.stop()
    second = make_server(data=tmp_path, batch_seconds=0)
    assert second.charged() == ["one", "two"]
    assert [charge.tier for charge in second.charges] == ["standard", "batch"]

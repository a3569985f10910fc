"""Test mistakes in the project file, prices in the plan, schemas, repairs and keys."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from world import REQUESTS, World

MakeWorld = Callable[..., World]

SCHEMA = {
    "type": "object",
    "properties": {"born": {"type": "integer"}, "art": {"type": "string"}},
    "required": ["born", "art"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("max_output_tokens = 400\n", "", "Anthropic needs max_output_tokens"),
        ("max_output_tokens = 400\n", 'max_output_tokens = 400\nservice_tier = "flex"\n', "found 'flex'"),
        ("max_requests = 2", "max_requests = 100001", "a whole number from 1 to 100,000, found 100001"),
        (
            "max_requests = 2",
            "max_request = 2",
            "backend.anthropic-batch.max_request: unknown key; did you mean 'max_requests'",
        ),
        (
            "max_requests = 2",
            "max_requests = 2\n[backend.anthropic]\nspeed = 1",
            "backend.anthropic.speed: unknown key",
        ),
        (
            'model = "claude',
            'endpoint = "/v1/responses"\nmodel = "claude',
            "recipe.bio.endpoint: expected '/v1/messages'",
        ),
    ],
)
def test_a_mistake_is_one_message_and_nothing_is_sent(make_world: MakeWorld, old: str, new: str, words: str) -> None:
    world = make_world()
    world.edit("bioforge.toml", old, new)
    ran = world.run("run")
    assert ran.code == 2, ran.err
    assert words in ran.err
    assert world.server.arrived == []


def test_the_embedded_server_is_refused_with_the_way_out(make_world: MakeWorld) -> None:
    world = make_world()
    world.edit("bioforge.toml", world.server.base_url, "simulator")
    ran = world.run("run").failed(2)
    assert "backend 'anthropic-batch' cannot use the embedded server" in ran.err
    assert 'base_url = "https://api.anthropic.com"' in ran.err


@pytest.mark.parametrize(
    ("url", "variable", "words"),
    [
        ("https://api.anthropic.com", "ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY is not set"),
        ("https://api.anthropic.com", "OPENAI_API_KEY", 'write api_key_env = "ANTHROPIC_API_KEY"'),
        ("https://api.openai.com/v1", "ANTHROPIC_API_KEY", 'write base_url = "https://api.anthropic.com"'),
    ],
)
@pytest.mark.parametrize("backend", ["anthropic", "anthropic-batch"])
def test_no_key_goes_to_whom_it_is_not_for(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, backend: str, url: str, variable: str, words: str
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    world = make_world()
    world.edit("bioforge.toml", world.server.base_url, url)
    world.edit("bioforge.toml", 'api_key_env = "ANTHROPIC_API_KEY"', f'api_key_env = "{variable}"')
    assert words in world.run("run", "--backend", backend).failed(2).err


@pytest.mark.parametrize("backend", ["anthropic", "anthropic-batch"])
def test_no_key_goes_out_by_plain_http(make_world: MakeWorld, backend: str) -> None:
    world = make_world()
    world.edit("bioforge.toml", world.server.base_url, "http://192.0.2.1")
    ran = world.run("run", "--backend", backend, env={"ANTHROPIC_API_KEY": "sk-ant-secret"}).failed(2)
    assert "the key from ANTHROPIC_API_KEY would go to 192.0.2.1 unencrypted" in ran.err


def test_the_plan_has_the_price_of_the_backend(make_world: MakeWorld) -> None:
    world = make_world()
    half = world.plan()["cost_usd"]
    world.edit("bioforge.toml", 'name = "anthropic-batch"', 'name = "anthropic"')
    assert world.plan()["cost_usd"] == pytest.approx(2 * half)


@pytest.mark.parametrize("backend", ["anthropic", "anthropic-batch"])
def test_a_schema_is_asked_for_and_checked(make_world: MakeWorld, backend: str) -> None:
    world = make_world()
    world.write("life.json", json.dumps(SCHEMA))
    world.edit("bioforge.toml", "max_output_tokens", 'schema = "life.json"\nmax_output_tokens')
    world.run("run", "--backend", backend).ok()
    assert [record["parsed"] for record in world.records()] == [{"born": 7, "art": "A word."}] * 4
    world.assert_books_agree()


def test_the_export_has_the_tokens_and_the_price(make_world: MakeWorld) -> None:
    world = make_world(cached=True)
    world.run("run", "--backend", "anthropic").ok()
    record = world.records()[0]
    charge = next(charge for charge in world.server.charges if charge.response_id == record["response_id"])
    assert record["usage"]["input_tokens"] == charge.input_tokens
    assert record["usage"]["cached_tokens"] == charge.input_tokens // 2
    assert 0 < record["cost_usd"] < charge.input_tokens * 1.0 / 1e6 + charge.output_tokens * 5.0 / 1e6


def test_no_credit_stops_a_realtime_run_and_blames_nobody(make_world: MakeWorld) -> None:
    world = make_world(quota_after=1)
    ran = world.run("run", "--backend", "anthropic", "-j", "1").failed(75)
    assert "Your credit balance is too low" in ran.err
    assert "add credit or raise the spend limit" in ran.err
    assert world.value("SELECT count(*) FROM results WHERE state = 'failed'") == 0
    world.server.settings.quota_after = None
    world.run("resume", "--backend", "anthropic").ok()
    assert world.charged() == REQUESTS


@pytest.mark.parametrize("backend", ["anthropic", "anthropic-batch"])
def test_the_key_stands_nowhere(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    key = "sk-ant-invalid-0123456789"
    monkeypatch.setenv("ANTHROPIC_API_KEY", key)
    world = make_world(echo_key=True)
    ran = world.run("run", "--backend", backend).failed(2)
    assert "[key]" in ran.err
    assert key not in ran.err + ran.out
    for path in world.root.rglob("*"):
        assert not path.is_file() or key.encode() not in path.read_bytes(), path


def test_the_backends_are_listed(make_world: MakeWorld) -> None:
    listed = make_world().run("plugins").ok().out
    assert "bioforge-anthropic" in listed
    assert "anthropic-batch" in listed

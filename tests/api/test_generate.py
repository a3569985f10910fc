"""One call: its request, its answer, and simultaneous identical calls."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import create_model

from bioforge.api import Client, Config, SchemaValidationError, TransportError, Usage
from bioforge.backends.openai.prices import price
from bioforge.recipes.schema import from_model
from bioforge.simulator import Simulator, SimulatorOptions

from .clients import Bio, Bodies, Mended, Never, configured


def test_a_text_with_its_usage_cost_and_ids(server: Simulator) -> None:
    with Client(configured(server)) as client:
        answer = client.generate_sync("Björk")
    (charge,) = server.ledger.entries()
    assert answer.text == answer.value
    assert "for: Björk." in answer.text
    assert answer.parsed is None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (charge.input_tokens, charge.output_tokens)
    assert answer.cost_usd is not None
    assert answer.cost_usd > 0
    assert (answer.model, answer.response_id, answer.request_id) == (
        charge.model,
        charge.response_id,
        charge.request_id,
    )
    assert (answer.attempts, answer.cached, answer.repaired) == (1, False, False)
    assert answer.request_hash.startswith("v1:")
    assert answer.seconds > 0


def test_sync_and_async_calls_agree(server: Simulator) -> None:
    async def ask(client: Client) -> tuple[str, str]:
        async with client:
            return (await client.generate("Björk")).text, (await client.generate("Björk", schema=Bio)).text

    asynchronous = asyncio.run(ask(Client(configured(server))))
    with Client(configured(server)) as client:
        plain = client.generate_sync("Björk").text, client.generate_sync("Björk", schema=Bio).text
    assert plain == asynchronous


def test_a_typed_answer_is_an_instance_of_the_model(server: Simulator) -> None:
    with Client(configured(server)) as client:
        answer = client.generate_sync("Björk", schema=Bio)
    assert isinstance(answer.value, Bio)
    assert answer.parsed == json.loads(answer.text) == answer.value.model_dump()


@pytest.mark.parametrize("endpoint", ["/v1/responses", "/v1/chat/completions"])
def test_the_schema_may_come_in_any_form(tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document: dict[str, Any] = {
        "type": "object",
        "properties": {"born": {"type": "integer"}},
        "required": ["born"],
        "additionalProperties": False,
    }
    Path("born.json").write_text(json.dumps(document))
    Path("models_of_test.py").write_text("from pydantic import BaseModel\nclass Born(BaseModel):\n    born: int\n")
    with Simulator() as server, Client(configured(server, endpoint=endpoint)) as client:
        for schema in (document, "born.json", Path("born.json"), from_model(Bio)):
            value = client.generate_sync("Björk", schema=schema).value
            assert isinstance(value["born"] if isinstance(value, dict) else value.born, int)
        named = client.generate_sync("Björk", schema="models_of_test:Born").value
        assert type(named).__name__ == "Born"


def test_every_option_is_sent(server: Simulator) -> None:
    bodies = Bodies()
    with (
        Simulator(SimulatorOptions(script=bodies)) as listening,
        Client(configured(listening, model="from-the-config")) as client,
    ):
        client.generate_sync("plain")
        client.generate_sync(
            "full",
            instructions="Be brief.",
            model="gpt-6.1-terra",
            temperature=0.2,
            max_output_tokens=900,
            parameters={"top_p": 0.5, "metadata": {"for": "a test"}},
        )
    assert bodies.seen == [
        {"model": "from-the-config", "input": "plain"},
        {
            "model": "gpt-6.1-terra",
            "input": "full",
            "instructions": "Be brief.",
            "temperature": 0.2,
            "max_output_tokens": 900,
            "top_p": 0.5,
            "metadata": {"for": "a test"},
        },
    ]


def test_the_environment_names_model_and_server(server: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_MODEL", "gpt-6.1-terra")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
    with Client() as client:
        assert client.generate_sync("x").model == "gpt-6.1-terra-2026-05-01"
    assert len(server.ledger) == 1
    with Simulator() as other, Client(configured(other)) as client:
        assert client.generate_sync("x").model == "gpt-6-luna-2026-05-01"
        assert len(other.ledger) == 1
    assert len(server.ledger) == 1


def test_without_any_configuration_the_embedded_server_answers() -> None:
    with Client() as client:
        assert client.generate_sync("Björk", model="any-model").text.startswith("Simulated answer")


class TestAttempts:
    def test_a_failed_attempt_is_retried(self) -> None:
        with (
            Simulator(SimulatorOptions(script={"x": ["server_error", "rate_limit_bare"]})) as server,
            Client(configured(server)) as client,
        ):
            answer = client.generate_sync("x")
        assert answer.attempts == 3

    @pytest.mark.parametrize("fault", ["server_error", "rate_limit_bare", "drop_before"])
    def test_max_attempts_1_is_not_retried(self, fault: str) -> None:
        with (
            Simulator(SimulatorOptions(script={"x": [fault] * 9})) as server,
            Client(configured(server)) as client,
        ):
            with pytest.raises(TransportError) as caught:
                client.generate_sync("x", max_attempts=1)
            assert server.ledger.counts.requests == 1
        assert caught.value.attempts == 1

    def test_a_call_may_have_more_than_the_client(self) -> None:
        retry = {"retry": configured("simulator").retry.model_copy(update={"max_attempts": 1})}
        with (
            Simulator(SimulatorOptions(script={"x": ["rate_limit_bare"] * 2})) as server,
            Client(configured(server, **retry)) as client,
        ):
            assert client.generate_sync("x", max_attempts=3).attempts == 3


class TestRepair:
    def test_an_answer_that_does_not_fit_is_sent_back_once(self) -> None:
        bodies = Bodies()
        with Simulator(SimulatorOptions(script=bodies)) as server, Client(configured(server)) as client:
            answer = client.generate_sync("Björk", schema=Mended, repair=True)
            charges = server.ledger.entries()
        assert answer.repaired
        assert len(charges) == 2
        assert answer.usage.output_tokens == sum(charge.output_tokens for charge in charges)
        first, second = bodies.seen
        assert first["input"] == "Björk"
        roles = [(turn["role"], turn["content"]) for turn in second["input"]]
        assert roles[0] == ("user", "Björk")
        assert roles[1][0] == "assistant"
        assert "summary: " in roles[2][1]
        assert "too thin" in roles[2][1]

    def test_the_cost_includes_both_answers(self, server: Simulator) -> None:
        with Client(configured(server)) as client:
            both = client.generate_sync("Björk", schema=Mended, repair=True)
            charges = server.ledger.entries()
            with pytest.raises(SchemaValidationError) as caught:
                client.generate_sync("Björk", schema=Mended)
        costs = [price(charge.model, Usage(charge.input_tokens, charge.output_tokens)) for charge in charges]
        assert both.cost_usd == pytest.approx(sum(cost or 0.0 for cost in costs))
        assert caught.value.cost_usd == pytest.approx(costs[0])

    def test_it_is_sent_back_only_once(self, server: Simulator) -> None:
        with Client(configured(server)) as client, pytest.raises(SchemaValidationError) as caught:
            client.generate_sync("Björk", schema=Never, repair=True)
        assert caught.value.repaired
        assert len(server.ledger) == 2

    def test_an_answer_that_fits_is_not_sent_back(self, server: Simulator) -> None:
        with Client(configured(server)) as client:
            assert not client.generate_sync("Björk", schema=Bio, repair=True).repaired
        assert len(server.ledger) == 1


class TestAtOnce:
    def test_identical_calls_are_sent_and_paid_for_once(self) -> None:
        async def ask(client: Client) -> list[Any]:
            async with client:
                return await asyncio.gather(*(client.generate("Björk", schema=Bio) for _ in range(20)))

        with Simulator(SimulatorOptions(latency=0.05)) as server:
            answers = asyncio.run(ask(Client(configured(server))))
            (charge,) = server.ledger.entries()
        assert {answer.text for answer in answers} == {answers[0].text}
        assert [answer.cached for answer in answers] == [False] + [True] * 19
        assert sum(answer.cost_usd for answer in answers) == answers[0].cost_usd
        assert answers[0].usage == Usage(charge.input_tokens, charge.output_tokens)

    def test_each_caller_gets_its_own_model(self) -> None:
        async def ask(client: Client) -> tuple[Any, Any]:
            async with client:
                return await asyncio.gather(
                    client.generate("x", schema=lenient_model),
                    client.generate("x", schema=strict_model),
                    return_exceptions=True,
                )

        lenient_model = create_model("Same", summary=(str, ...))
        strict_model = create_model("Same", __base__=Never, __doc__=None)
        with Simulator(SimulatorOptions(latency=0.05)) as server:
            lenient, strict = asyncio.run(ask(Client(configured(server))))
            assert len(server.ledger) == 1
        assert type(lenient.value) is lenient_model
        assert isinstance(strict, SchemaValidationError)

    def test_threads_and_loops_share_a_client(self) -> None:
        def plain(client: Client, name: str) -> str:
            return client.generate_sync(name).text

        def looping(client: Client, name: str) -> str:
            return asyncio.run(client.generate(name)).text

        with (
            Simulator(SimulatorOptions(latency=0.02)) as server,
            Client(configured(server)) as client,
            ThreadPoolExecutor(16) as pool,
        ):
            names = [f"Artist {number}" for number in range(40)]
            futures = [pool.submit(looping if number % 2 else plain, client, name) for number, name in enumerate(names)]
            for name, future in zip(names, futures, strict=True):
                assert f"for: {name}." in future.result()
            assert len(server.ledger) == 40
            assert sum(thread.name == "bioforge-engine" for thread in threading.enumerate()) == 1

    def test_the_client_limits_requests_in_flight(self) -> None:
        async def ask(client: Client) -> None:
            async with client:
                await asyncio.gather(*(client.generate(f"Artist {number}") for number in range(12)))

        with Simulator(SimulatorOptions(latency=0.05)) as server:
            client = Client(configured(server, limits=Config().limits.model_copy(update={"concurrency": 3})))
            asyncio.run(ask(client))
            ends = sorted(charge.time for charge in server.ledger.entries())
        assert len(ends) == 12
        assert ends[-1] - ends[0] > 2.5 * 0.05, "four rounds of three"


class TestCancelling:
    def test_a_sent_request_goes_on(self) -> None:
        async def ask(server: Simulator) -> str:
            async with Client(configured(server)) as client:
                asked = asyncio.ensure_future(client.generate("given up"))
                while not server.ledger.entries():
                    await asyncio.sleep(0.001)
                asked.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asked
                return (await client.generate("wanted")).text

        with Simulator(SimulatorOptions(script={"given up": ["hang"]}, hang_seconds=0.3)) as server:
            assert "for: wanted." in asyncio.run(ask(server))
            assert len(server.ledger) == 2

    def test_an_unsent_request_is_taken_back(self) -> None:
        async def ask(server: Simulator) -> None:
            limits = Config().limits.model_copy(update={"concurrency": 1})
            async with Client(configured(server, limits=limits)) as client:
                first = asyncio.ensure_future(client.generate("first"))
                second = asyncio.ensure_future(client.generate("second"))
                while not server.ledger.entries():
                    await asyncio.sleep(0.001)
                second.cancel()
                await first
                await client.generate("third")

        with Simulator(SimulatorOptions(script={"first": ["hang"]}, hang_seconds=0.1)) as server:
            asyncio.run(ask(server))
            assert len(server.ledger) == 2

    def test_other_identical_calls_get_the_answer(self) -> None:
        async def ask(server: Simulator) -> Any:
            async with Client(configured(server)) as client:
                first, second = (asyncio.ensure_future(client.generate("x")) for _ in range(2))
                while not server.ledger.entries():
                    await asyncio.sleep(0.001)
                first.cancel()
                return await second

        with Simulator(SimulatorOptions(script={"x": ["hang"]}, hang_seconds=0.1)) as server:
            answer = asyncio.run(ask(server))
        assert not answer.cached
        assert answer.cost_usd > 0

"""The life of a client: configuration, budget, stops, closing and Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from odd_server import Answer, OddServer
from processes import PATIENCE, wait_until
from pydantic import SecretStr, ValidationError

from bioforge.api import (
    AuthenticationError,
    BatchConfig,
    BudgetError,
    Client,
    ClosedError,
    Config,
    ConfigError,
    HaltedError,
    LimitsConfig,
    OutageError,
    ProviderConfig,
    QuotaError,
    RetryConfig,
    SimulatorConfig,
    TransportError,
)
from bioforge.backends.batch.options import BatchOptions
from bioforge.simulator import Simulator, SimulatorOptions

from .clients import configured, gathered, rows


def engines() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("bioforge-")]


EXPENSIVE = (
    b'{"id": "resp_1", "status": "completed", "model": "gpt-6-luna", "output": [{"type": "message", "content":'
    b' [{"type": "output_text", "text": "fine"}]}], "usage": {"input_tokens": 1000, "output_tokens": 1500}}'
)


class TestConfiguration:
    @pytest.mark.parametrize(
        ("config", "message"),
        [
            (Config(backend="asink"), "no backend 'asink'; did you mean 'async'?"),
            (Config(endpoint="/v1/embeddings"), "endpoint: expected '/v1/responses' or '/v1/chat/completions'"),
            (Config(backend="auto"), "backend 'auto' chooses by the cost of a whole plan"),
            (Config(backend="batch"), "backend 'batch' needs a state"),
            (Config(simulator=SimulatorConfig(latency=-1.0)), "simulator: latency must be at least 0"),
            (Config(simulator=SimulatorConfig(faults={"rate": 1.0})), "simulator: unknown fault 'rate'"),
        ],
    )
    def test_invalid_configuration_is_refused_before_the_first_call(self, config: Config, message: str) -> None:
        with pytest.raises(Exception, match=message.replace("?", r"\?")) as caught:
            Client(config)
        assert caught.value.exit_code == 2  # type: ignore[attr-defined]

    def test_an_invalid_base_url_in_the_environment_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_BASE_URL", "localhost:8000")
        with pytest.raises(ConfigError, match="OPENAI_BASE_URL: expected 'simulator' or an http"):
            Client()

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: LimitsConfig(concurrency=0), "greater than or equal to 1"),
            (lambda: LimitsConfig(max_cost_usd=-1.0), "greater than 0"),
            (lambda: LimitsConfig(concurency=3), "Extra inputs are not permitted"),  # type: ignore[call-arg]
            (lambda: RetryConfig(max_attempts="6"), "valid integer"),  # type: ignore[arg-type]
            (lambda: RetryConfig(first_delay=9.0, max_delay=1.0), r"max_delay: expected at least first_delay \(9\)"),
            (lambda: ProviderConfig(base_url="http://key@host/v1"), "must not contain a name or password"),
            (lambda: BatchConfig(max_requests=60_000), "less than or equal to 50000"),
        ],
    )
    def test_values_are_checked_by_pydantic(self, make: Any, message: str) -> None:
        with pytest.raises(ValidationError, match=message) as caught:
            make()
        assert isinstance(caught.value, ValueError)

    def test_it_is_frozen_and_never_shows_the_key(self) -> None:
        config = configured("http://127.0.0.1:1/v1")
        assert "test-key" not in repr(config) + str(config) + config.model_dump_json()
        assert "test-key" not in repr(Client(config))
        with pytest.raises(ValidationError, match="frozen"):
            config.model = "other"

    def test_batches_have_the_defaults_of_the_project_file(self) -> None:
        assert BatchOptions(**BatchConfig().model_dump()) == BatchOptions()

    def test_a_client_requires_a_config(self) -> None:
        with pytest.raises(ValueError, match="config: expected a Config, found dict"):
            Client({"model": "x"})  # type: ignore[arg-type]

    def test_without_a_key_nothing_is_sent(self) -> None:
        config = Config(model="x", provider=ProviderConfig(base_url="http://api.invalid/v1", api_key_env="NO_SUCH_KEY"))
        with Client(config) as client, pytest.raises(ConfigError, match="NO_SUCH_KEY is not set") as caught:
            client.generate_sync("x")
        assert caught.value.hint == "set NO_SUCH_KEY, or pass ProviderConfig(api_key=…)"

    def test_the_key_is_read_from_api_key_env(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_KEY", "sk-from-a-variable")
        with OddServer((400, {}, b"{}")) as server:
            for key, expected in ((None, "sk-from-a-variable"), (SecretStr("sk-from-the-code"), "sk-from-the-code")):
                provider = ProviderConfig(base_url=server.base_url, api_key_env="MY_KEY", api_key=key)
                with Client(Config(model="x", provider=provider)) as client, pytest.raises(TransportError):
                    client.generate_sync("x")
                assert server.asked[-1][2]["authorization"] == f"Bearer {expected}"


class TestBudget:
    def test_a_used_up_budget_stays_used_up(self) -> None:
        limits = LimitsConfig(max_cost_usd=0.0002, concurrency=4)
        with Simulator() as server:
            client = Client(configured(server, limits=limits))
            outcomes: list[Any] = []
            with client:
                with pytest.raises(BudgetError, match="budget"):
                    outcomes += client.generate_many_sync((f"Artist {n}" for n in range(100)), max_output_tokens=100)
                with pytest.raises(BudgetError, match="budget") as caught:
                    client.generate_sync("one more", max_output_tokens=100)
                before = len(server.ledger)
                with pytest.raises(BudgetError):
                    client.generate_sync("and another", max_output_tokens=100)
            assert 0 < len(server.ledger) == before < 100
        assert "max_cost_usd" in caught.value.hint
        assert caught.value.exit_code == 75

    def test_one_request_over_the_budget_fails_alone(self, server: Simulator) -> None:
        with Client(configured(server, limits=LimitsConfig(max_cost_usd=0.001))) as client:
            with pytest.raises(BudgetError, match=r"the budget is \$0.0010: \$0.00 spent, and this request may cost"):
                client.generate_sync("long", max_output_tokens=100_000)
            assert client.generate_sync("short", max_output_tokens=100).text
        assert len(server.ledger) == 1

    def test_fees_of_web_searches_count(self) -> None:
        """Four searches cost far more than the tokens; the second request is not sent."""
        message = {"type": "message", "content": [{"type": "output_text", "text": "Found."}]}
        usage = {"input_tokens": 10, "output_tokens": 2}
        body = {"status": "completed", "model": "gpt-6-luna", "output": [{"type": "web_search_call"}] * 4 + [message]}
        tools = {"tools": [{"type": "web_search"}], "max_tool_calls": 4}
        with (
            OddServer((200, {}, json.dumps({**body, "usage": usage}).encode())) as server,
            Client(configured(server.base_url, limits=LimitsConfig(max_cost_usd=0.05))) as client,
        ):
            found = client.generate_sync("a", max_output_tokens=100, parameters=tools)
            assert found.cost_usd == pytest.approx(0.04, abs=0.001)
            with pytest.raises(BudgetError, match="budget"):
                client.generate_sync("b", max_output_tokens=100, parameters=tools)
        assert len(server.asked) == 1

    def test_calls_in_flight_that_use_up_the_budget_end_the_client(self) -> None:
        async def ask(client: Client) -> list[Any]:
            calls = (client.generate(name, max_output_tokens=1000) for name in ("b", "c"))
            return await asyncio.gather(*calls, return_exceptions=True)

        with (
            OddServer((200, {}, EXPENSIVE)) as server,
            Client(configured(server.base_url, limits=LimitsConfig(max_cost_usd=0.002))) as client,
        ):
            client.generate_sync("a", max_output_tokens=1000)
            answer, refused = asyncio.run(ask(client))
            with pytest.raises(BudgetError, match="is used up"):
                client.generate_sync("d", max_output_tokens=10)
            assert len(server.asked) == 2
        assert answer.text == "fine"
        assert isinstance(refused, BudgetError)

    def test_stored_answers_cost_nothing(self, server: Simulator, tmp_path: Path) -> None:
        limits = LimitsConfig(max_cost_usd=0.0002)
        with Client(configured(server, limits=limits), state=tmp_path / "answers.db") as client:
            client.generate_sync("known", max_output_tokens=100)
            with pytest.raises(BudgetError):
                list(client.generate_many_sync((str(number) for number in range(100)), max_output_tokens=100))
            assert client.generate_sync("known", max_output_tokens=100).cached

    def test_all_calls_share_the_budget(self, server: Simulator) -> None:
        costs: list[float] = []

        def spend(client: Client) -> None:
            for number in range(100):
                costs.append(client.generate_sync(f"Artist {number}", max_output_tokens=100).cost_usd or 0.0)

        with Client(configured(server, limits=LimitsConfig(max_cost_usd=0.0008))) as client, pytest.raises(BudgetError):
            spend(client)
        assert 0.0004 < sum(costs) <= 0.0008

    def test_a_new_session_does_not_renew_the_budget(self) -> None:
        refusal = b'{"error": {"message": "no credit", "code": "insufficient_quota"}}'
        limits = LimitsConfig(max_cost_usd=0.002)
        with OddServer((200, {}, EXPENSIVE), (429, {}, refusal), (200, {}, EXPENSIVE)) as server:
            with Client(configured(server.base_url, limits=limits)) as client:
                assert (client.generate_sync("a", max_output_tokens=100).cost_usd or 0.0) > 0.0005
                with pytest.raises(QuotaError):
                    client.generate_sync("b", max_output_tokens=100)
                with pytest.raises(BudgetError):
                    client.generate_sync("c", max_output_tokens=3000)
            assert len(server.asked) == 2

    def test_a_model_without_a_price_is_refused(self, server: Simulator) -> None:
        with (
            Client(configured(server, limits=LimitsConfig(max_cost_usd=1.0))) as client,
            pytest.raises(ConfigError, match="the price of model 'home-made' is unknown"),
        ):
            client.generate_sync("x", model="home-made")


class TestStopped:
    def test_a_refused_key_ends_every_call_with_its_status(self) -> None:
        body = b'{"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}'

        async def ask(client: Client) -> list[Any]:
            async with client:
                calls = (client.generate(f"Artist {number}") for number in range(20))
                return await asyncio.gather(*calls, return_exceptions=True)

        with OddServer((401, {}, body)) as server:
            found = asyncio.run(ask(Client(configured(server.base_url, limits=LimitsConfig(concurrency=2)))))
            assert len(server.asked) <= 4
        assert {type(error) for error in found} == {AuthenticationError}
        assert {error.status_code for error in found} == {401}
        assert len({id(error) for error in found}) == 20, "an error for each"

    def test_a_request_that_a_filter_rejected_is_sent_again_only_on_request(self, tmp_path: Path) -> None:
        rejected = b'{"error": {"message": "Filtered.", "code": "content_policy_violation"}}'
        with (
            OddServer((400, {}, rejected)) as server,
            Client(configured(server.base_url), state=tmp_path / "answers.db") as client,
        ):
            for again, asked in ((False, 1), (False, 1), (True, 2)):
                with pytest.raises(TransportError, match="Filtered") as caught:
                    client.generate_sync("x", again=again)
                assert (caught.value.error_class, len(server.asked)) == ("content_filter", asked)

    def test_later_calls_work_after_the_quota_is_raised(self) -> None:
        refusal = b'{"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}'
        with (
            OddServer((429, {}, refusal), (200, {}, EXPENSIVE)) as server,
            Client(configured(server.base_url)) as client,
        ):
            with pytest.raises(QuotaError, match="exceeded your current quota") as caught:
                client.generate_sync("x")
            assert client.generate_sync("x").text == "fine"
        assert caught.value.status_code == 429

    @pytest.mark.parametrize(
        ("answer", "asked", "words"),
        [
            ((404, {}, b'{"error": {"message": "no such model", "code": "model_not_found"}}'), 10, "no such model"),
            ((308, {"location": "https://new.example/v1/responses"}, b""), 10, "redirected to https://new.example"),
            ((200, {"content-type": "text/html"}, b"<title>Log in</title>"), 15, "unreadable answers in a row"),
        ],
    )
    @pytest.mark.parametrize("backend", ["async", "threads"])
    def test_a_wrong_setup_ends_every_call_after_few_requests(
        self, answer: Answer, asked: int, words: str, backend: str
    ) -> None:
        limits, retry = LimitsConfig(concurrency=16), RetryConfig(first_delay=0.0, max_delay=0.0)

        async def ask(client: Client) -> list[Any]:
            async with client:
                calls = (client.generate(f"Artist {number}") for number in range(100))
                return await asyncio.gather(*calls, return_exceptions=True)

        with OddServer(answer) as server:
            found = asyncio.run(ask(Client(configured(server.base_url, backend=backend, limits=limits, retry=retry))))
            assert asked <= len(server.asked) <= asked + 16
        assert all(isinstance(error, HaltedError | TransportError) for error in found)
        assert any(isinstance(error, HaltedError) and words in str(error) for error in found)

    def test_an_outage_ends_after_outage_seconds(self) -> None:
        retry = RetryConfig(first_delay=0.0, max_delay=0.0, outage_seconds=0.0)
        with (
            OddServer((503, {}, b"{}")) as server,
            Client(configured(server.base_url, retry=retry)) as client,
            pytest.raises(OutageError, match="the provider has been down"),
        ):
            client.generate_sync("x")


class TestClosing:
    @pytest.mark.parametrize("backend", ["async", "threads"])
    def test_no_thread_is_left(self, server: Simulator, tmp_path: Path, backend: str) -> None:
        with Client(configured(server, backend=backend), state=tmp_path / "answers.db") as client:
            client.generate_sync("x")
            assert "bioforge-engine" in engines()
        assert [name for name in engines() if name != "bioforge-simulator"] == []

    def test_later_calls_are_refused(self, server: Simulator) -> None:
        client = Client(configured(server))
        client.generate_sync("x")
        client.close()
        client.close()
        with pytest.raises(ClosedError, match="the client is closed"):
            client.generate_sync("y")
        with pytest.raises(ClosedError):
            list(client.generate_many_sync(["y"]))
        with pytest.raises(ClosedError):
            asyncio.run(gathered(client.generate_many(["y"])))
        assert len(server.ledger) == 1

    def test_a_client_that_was_never_used_closes_too(self) -> None:
        Client().close()
        asyncio.run(Client().aclose())
        with Client():
            pass

    def test_requests_in_flight_are_awaited_and_the_others_fail(self, tmp_path: Path) -> None:
        async def ask(server: Simulator) -> list[Any]:
            client = Client(configured(server, limits=LimitsConfig(concurrency=1)), state=tmp_path / "answers.db")
            calls = [asyncio.ensure_future(client.generate(name)) for name in ("first", "second")]
            while not server.ledger.entries():
                await asyncio.sleep(0.001)
            await client.aclose()
            return await asyncio.gather(*calls, return_exceptions=True)

        with Simulator(SimulatorOptions(script={"first": ["hang"]}, hang_seconds=0.1)) as server:
            first, second = asyncio.run(ask(server))
            assert len(server.ledger) == 1
        assert "for: first." in first.text
        assert isinstance(second, ClosedError)
        assert "before this was sent" in str(second)

    def test_abandoned_answers_are_awaited_if_a_state_keeps_them(self, tmp_path: Path) -> None:
        async def give_up(server: Simulator, state: Path | None) -> None:
            async with Client(configured(server), state=state) as client:
                asked = asyncio.ensure_future(client.generate("x"))
                charged = len(server.ledger)
                while len(server.ledger) == charged:
                    await asyncio.sleep(0.001)
                asked.cancel()

        state = tmp_path / "answers.db"
        with Simulator(SimulatorOptions(script={"x": ["hang"]}, hang_seconds=0.2)) as server:
            asyncio.run(give_up(server, state))
            with Client(configured(server), state=state) as client:
                assert client.generate_sync("x").cached
        with Simulator(SimulatorOptions(script={"x": ["hang"]}, hang_seconds=60.0)) as server:
            asyncio.run(give_up(server, None))
        wait_until(lambda: "bioforge-engine" not in engines(), "the end of its thread, which has said that it is over")

    def test_an_unclosed_client_warns_and_ends(self, server: Simulator) -> None:
        forgotten = [Client(configured(server))]
        forgotten[0].generate_sync("x")
        with pytest.warns(ResourceWarning, match="unclosed <Client of http"):
            forgotten.clear()
        for thread in threading.enumerate():
            if thread.name == "bioforge-engine":
                thread.join(5.0)
        assert "bioforge-engine" not in engines()


INTERRUPTED = """
import sys
from bioforge.api import Client, Config, ProviderConfig, generate_sync
config = Config(provider=ProviderConfig(base_url=sys.argv[1], api_key="test-key"), model="gpt-6-luna")
state = sys.argv[2] or None
if sys.argv[3] == "function":
    generate_sync("x", config=config, state=state)
elif sys.argv[3] == "many":
    with Client(config, state=state) as client:
        list(client.generate_many_sync(["x"]))
else:
    import asyncio
    async def main():
        async with Client(config, state=state) as client:
            await client.generate("x")
    asyncio.run(main())
"""


@pytest.mark.parametrize(("way", "presses"), [("many", 1), ("loop", 1), ("function", 2), ("loop", 2)])
def test_ctrl_c_does_not_hang(tmp_path: Path, way: str, presses: int) -> None:
    """Without a state, one Ctrl-C leaves; with one, the answer is awaited until the second Ctrl-C."""
    state = tmp_path / "answers.db" if presses == 2 else None
    with Simulator(SimulatorOptions(script={"x": ["hang"]}, hang_seconds=60.0)) as server:
        arguments = [sys.executable, "-c", INTERRUPTED, server.base_url, str(state or ""), way]
        with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            wait_until(lambda: bool(server.ledger.entries()) or process.poll() is not None, "the first charge")
            process.send_signal(signal.SIGINT)
            if presses == 2:
                try:
                    process.wait(0.2)
                    pytest.fail(f"it did not wait for what is in flight\n{process.stderr.read()}")
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode in (1, -signal.SIGINT), said
    assert "KeyboardInterrupt" in said
    if state is not None:
        assert rows(state, "SELECT outcome, paid FROM attempts") == [("maybe paid", "maybe")]

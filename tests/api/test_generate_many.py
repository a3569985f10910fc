"""Many items: each yields one result with its answer or its error, in input order or as completed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from bioforge.api import (
    BadArgument,
    BioforgeError,
    Client,
    Config,
    ConfigError,
    GenerationError,
    Item,
    ItemResult,
    LimitsConfig,
    Progress,
    QuotaError,
    RetryConfig,
    TransportError,
)
from bioforge.api.bulk import AHEAD
from bioforge.simulator import Simulator, SimulatorOptions

from .clients import Bio, Bodies, configured, gathered

FAULTS = {
    "rate_limit_bare": 0.05,
    "server_error": 0.05,
    "drop_before": 0.03,
    "drop_after": 0.03,
    "truncated": 0.03,
    "malformed": 0.03,
    "bad_request": 0.05,
    "incomplete": 0.03,
    "refusal": 0.03,
    "content_filter": 0.02,
}


def run(client: Client, items: Any, **options: Any) -> list[ItemResult[Any]]:
    async def ask() -> list[ItemResult[Any]]:
        async with client:
            return await gathered(client.generate_many(items, **options))

    return asyncio.run(ask())


class TestOrder:
    def test_results_come_in_input_order(self) -> None:
        with Simulator(SimulatorOptions(script={"slow": ["hang"]}, hang_seconds=0.1)) as server:
            outcomes = run(Client(configured(server)), ["slow", "b", "c", "d"])
        assert [outcome.item.prompt for outcome in outcomes] == ["slow", "b", "c", "d"]
        assert [outcome.index for outcome in outcomes] == [0, 1, 2, 3]
        for outcome in outcomes:
            assert f"for: {outcome.item.prompt}." in outcome.unwrap().text

    def test_results_come_as_they_complete(self) -> None:
        with Simulator(SimulatorOptions(script={"slow": ["hang"]}, hang_seconds=0.2)) as server:
            outcomes = run(Client(configured(server)), ["a", "slow", "c", "d"], order="completed")
        assert outcomes[-1].item.prompt == "slow"
        assert outcomes[-1].index == 1
        assert {outcome.index for outcome in outcomes} == {0, 1, 2, 3}

    @pytest.mark.parametrize("order", ["input", "completed"])
    def test_sync_code_gets_the_same(self, server: Simulator, order: Any) -> None:
        names = [f"Artist {number}" for number in range(50)]
        asynchronous = run(Client(configured(server)), names, order=order, schema=Bio)
        with Client(configured(server)) as client:
            plain = list(client.generate_many_sync(names, order=order, schema=Bio))
        assert {outcome.index: outcome.unwrap().value for outcome in plain} == {
            outcome.index: outcome.unwrap().value for outcome in asynchronous
        }
        assert isinstance(plain[0].unwrap().value, Bio)


class TestFailures:
    def test_a_thousand_with_a_faulty_server_end_with_answers_or_typed_errors(self) -> None:
        names = [f"Artist {number}" for number in range(1000)]
        retry = RetryConfig(max_attempts=3, first_delay=0.005, max_delay=0.02)
        with Simulator(SimulatorOptions(faults=FAULTS, seed=3)) as server:
            outcomes = run(Client(configured(server, retry=retry)), names, concurrency=1000, order="completed")
            charged = server.ledger.totals()
        assert sorted(outcome.index for outcome in outcomes) == list(range(1000))
        assert all((outcome.answer is None) != (outcome.error is None) for outcome in outcomes)
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        assert all(isinstance(error, GenerationError) for error in errors)
        kinds = {type(error).__name__ for error in errors}
        assert kinds == {"TransportError", "TruncatedError", "RefusedError"}
        assert {error.error_class for error in errors if isinstance(error, GenerationError)} >= {
            "bad_request",
            "truncated",
            "refusal",
            "content_filter",
        }
        answered = [outcome for outcome in outcomes if outcome.ok]
        assert 700 < len(answered) < 950
        assert charged.bodies >= len(answered)

    def test_a_failed_item_does_not_end_the_others(self) -> None:
        with Simulator(SimulatorOptions(script={"bad": ["bad_request"]})) as server:
            good, bad, also_good = run(Client(configured(server)), ["good", "bad", "also good"])
        assert good.ok
        assert also_good.ok
        assert isinstance(bad.error, TransportError)
        with pytest.raises(TransportError) as caught:
            bad.unwrap()
        assert caught.value is bad.error

    @pytest.mark.parametrize("bad", ["", "  \n", 7, None, Item("x", temperature=-1.0), Item("x", max_attempts=0)])
    def test_an_invalid_item_does_not_end_the_others(self, server: Simulator, bad: Any) -> None:
        outcomes = run(Client(configured(server)), ["a", bad, "b"])
        assert [outcome.ok for outcome in outcomes] == [True, False, True]
        assert isinstance(outcomes[1].error, ValueError)
        assert len(server.ledger) == 2

    def test_an_error_of_all_calls_is_raised_after_all_pulled_items(self) -> None:
        pulled: list[str] = []

        def items() -> Iterator[str]:
            for number in range(1000):
                pulled.append(f"Artist {number}")
                yield pulled[-1]

        outcomes: list[ItemResult[Any]] = []

        async def ask(client: Client) -> None:
            async with client:
                async for outcome in client.generate_many(items(), concurrency=8):
                    outcomes.append(outcome)

        with Simulator(SimulatorOptions(quota_after=20)) as server:
            with pytest.raises(QuotaError) as caught:
                asyncio.run(ask(Client(configured(server))))
            assert len(server.ledger) == 20
        assert caught.value.status_code == 429
        assert len(outcomes) == len(pulled) < 60
        assert sum(outcome.ok for outcome in outcomes) == 20
        assert all(isinstance(outcome.error, QuotaError) for outcome in outcomes if not outcome.ok)

    def test_sync_code_gets_the_error_too(self) -> None:
        with Simulator(SimulatorOptions(quota_after=3)) as server, Client(configured(server)) as client:
            outcomes: list[ItemResult[Any]] = []
            with pytest.raises(QuotaError):
                outcomes.extend(client.generate_many_sync((str(number) for number in range(100)), concurrency=2))
        assert len(server.ledger) == 3

    def test_an_error_of_the_iterable_is_raised_after_all_pulled_items(self, server: Simulator) -> None:
        def items() -> Iterator[str]:
            yield "a"
            yield "b"
            raise OSError("the file went away")

        async def asynchronous() -> AsyncIterator[str]:
            for item in items():
                yield item

        outcomes: list[ItemResult[Any]] = []

        async def ask(source: Any) -> None:
            async with Client(configured(server)) as client:
                async for outcome in client.generate_many(source):
                    outcomes.append(outcome)

        for source in (items(), asynchronous()):
            with pytest.raises(OSError, match="went away"):
                asyncio.run(ask(source))
        assert [outcome.ok for outcome in outcomes] == [True] * 4


class TestStreaming:
    @pytest.mark.parametrize("order", ["input", "completed"])
    def test_items_are_pulled_as_there_is_room(self, server: Simulator, order: Any) -> None:
        pulled = 0

        def items() -> Iterator[str]:
            nonlocal pulled
            for number in range(500):
                pulled += 1
                yield f"Artist {number}"

        with Client(configured(server)) as client:
            most = 0
            for handed_out, outcome in enumerate(client.generate_many_sync(items(), concurrency=5, order=order)):
                assert outcome.ok
                most = max(most, pulled - handed_out)
        assert pulled == 500
        assert most <= AHEAD * 5

    def test_a_slow_first_item_limits_the_others(self) -> None:
        pulled = 0

        def items() -> Iterator[str]:
            nonlocal pulled
            for number in range(500):
                pulled += 1
                yield f"Artist {number}" if number else "slow"

        with (
            Simulator(SimulatorOptions(script={"slow": ["hang"]}, hang_seconds=0.3)) as server,
            Client(configured(server)) as client,
        ):
            outcomes = client.generate_many_sync(items(), concurrency=5)
            assert next(outcomes).item.prompt == "slow"
            assert 5 < pulled <= AHEAD * 5
            outcomes.close()

    def test_an_asynchronous_source_is_pulled_while_answers_are_awaited(self, server: Simulator) -> None:
        async def ask() -> list[int]:
            handed_out: asyncio.Queue[int] = asyncio.Queue()

            async def items() -> AsyncIterator[str]:
                """Yield items that each depend on the result before."""
                yield "0"
                for number in range(1, 5):
                    assert await handed_out.get() == number - 1
                    yield str(number)

            async with Client(configured(server)) as client:
                seen = []
                async for outcome in client.generate_many(items()):
                    seen.append(outcome.index)
                    handed_out.put_nowait(outcome.index)
            return seen

        assert asyncio.run(ask()) == [0, 1, 2, 3, 4]

    def test_leaving_early_stops_pulling_and_takes_back_unsent_requests(self) -> None:
        pulled = 0

        def items() -> Iterator[str]:
            nonlocal pulled
            for number in range(500):
                pulled += 1
                yield f"Artist {number}"

        async def ask(server: Simulator) -> None:
            async with Client(configured(server, limits=LimitsConfig(concurrency=2))) as client:
                async with aclosing(client.generate_many(items(), concurrency=10)) as outcomes:
                    async for _ in outcomes:
                        break
                assert "still working" in (await client.generate("still working")).text

        with Simulator(SimulatorOptions(latency=0.02)) as server:
            asyncio.run(ask(server))
            assert len(server.ledger) <= 6
        assert pulled <= 2 * 10 + 1

    def test_sync_code_may_leave_early_too(self) -> None:
        with Simulator(SimulatorOptions(latency=0.02)) as server:
            with Client(configured(server, limits=LimitsConfig(concurrency=2))) as client:
                for _ in client.generate_many_sync((f"Artist {number}" for number in range(500)), concurrency=10):
                    break
                assert "still working" in client.generate_sync("still working").text
            assert len(server.ledger) <= 6

    def test_concurrency_limits_waiting_items(self) -> None:
        most = 0

        def watch(progress: Progress) -> None:
            nonlocal most
            most = max(most, progress.in_flight)

        with Simulator(SimulatorOptions(latency=0.01)) as server, Client(configured(server)) as client:
            list(client.generate_many_sync((str(n) for n in range(60)), concurrency=3, progress=watch))
            ends = sorted(charge.time for charge in server.ledger.entries())
        assert most <= 3
        assert ends[-1] - ends[0] > 15 * 0.01

    def test_no_items_yield_nothing(self, server: Simulator) -> None:
        assert run(Client(configured(server)), []) == []
        with Client(configured(server)) as client:
            assert list(client.generate_many_sync(iter(()))) == []


class TestOptions:
    def test_options_are_defaults_for_items(self) -> None:
        bodies = Bodies()
        items: list[Item | str] = [
            "plain",
            Item("own", model="gpt-6.1-terra", temperature=0.9, parameters={"top_p": 0.1}),
            Item("typed", schema=Bio),
        ]
        with Simulator(SimulatorOptions(script=bodies)) as server, Client(configured(server)) as client:
            outcomes = list(
                client.generate_many_sync(items, temperature=0.2, instructions="Be brief.", parameters={"seed": 1})
            )
        by_prompt = {body["input"]: body for body in bodies.seen}
        assert by_prompt["plain"]["temperature"] == by_prompt["typed"]["temperature"] == 0.2
        assert by_prompt["own"]["temperature"] == 0.9
        assert by_prompt["own"]["model"] == "gpt-6.1-terra"
        assert (by_prompt["own"]["top_p"], by_prompt["own"]["seed"]) == (0.1, 1)
        assert {body["instructions"] for body in bodies.seen} == {"Be brief."}
        assert [type(outcome.unwrap().value) for outcome in outcomes] == [str, str, Bio]

    def test_items_may_name_the_only_model(self, server: Simulator) -> None:
        outcomes = run(Client(configured(server, model=None)), [Item("a", model="gpt-6-luna"), "b"])
        assert [outcome.ok for outcome in outcomes] == [True, False]
        assert "model: expected the name of a model" in str(outcomes[1].error)

    def test_an_item_keeps_its_data(self, server: Simulator) -> None:
        (outcome,) = run(Client(configured(server)), [Item("a", id="artist-7", data={"line": 3})])
        assert (outcome.item.id, outcome.item.data) == ("artist-7", {"line": 3})

    def test_progress_counts_returned_results(self) -> None:
        seen: list[Progress] = []
        names = [f"Artist {number}" for number in range(10)]
        with Simulator(SimulatorOptions(script={"Artist 3": ["bad_request"]})) as server:
            outcomes = run(Client(configured(server)), [*names, names[0]], progress=seen.append)
        assert [progress.done for progress in seen] == list(range(1, 12))
        last = seen[-1]
        assert (last.total, last.failed, last.succeeded, last.in_flight) == (11, 1, 10, 0)
        assert last.failures == {"bad_request": 1}
        assert last.cost_usd == pytest.approx(sum(o.answer.cost_usd or 0.0 for o in outcomes if o.answer))
        assert last.output_tokens == server.ledger.totals().output_tokens
        assert last.cached <= 1

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"items": "one prompt"}, "items: expected an iterable of prompts or Items, found str"),
            ({"items": Item("x")}, "items: expected an iterable of prompts or Items, found Item"),
            ({"items": 7}, "items: expected an iterable of prompts or Items, found int"),
            ({"order": "complete"}, "order: expected 'input' or 'completed', found 'complete'"),
            ({"concurrency": 0}, "concurrency: expected a whole number from 1, found 0"),
            ({"concurrency": True}, "concurrency: expected a whole number from 1, found True"),
            ({"temperature": "hot"}, "temperature: expected a number from 0, found 'hot'"),
            ({"max_attempts": 0}, "max_attempts: expected a whole number from 1, found 0"),
            ({"schema": dict}, "schema: expected a pydantic model"),
        ],
    )
    def test_invalid_options_are_refused_at_once(self, options: Any, message: str) -> None:
        with Client(Config(model="gpt-6-luna")) as client, pytest.raises(ValueError, match=message) as caught:
            client.generate_many(**{"items": ["x"], **options})
        assert isinstance(caught.value, BadArgument)

    def test_sync_code_refuses_asynchronous_iterables(self) -> None:
        async def items() -> AsyncIterator[str]:
            yield "x"

        with Client() as client, pytest.raises(BadArgument, match="items: expected an iterable, found async_generator"):
            client.generate_many_sync(items())  # type: ignore[call-overload]

    def test_an_unreadable_schema_is_a_config_error(self) -> None:
        with Client() as client, pytest.raises(ConfigError, match="no such file"):
            client.generate_many(["x"], schema="missing.json")


def test_errors_of_items_are_bioforge_errors(server: Simulator) -> None:
    outcomes = run(Client(configured(server)), ["", Item("x", schema="missing.json")])
    assert all(isinstance(outcome.error, BioforgeError) for outcome in outcomes)

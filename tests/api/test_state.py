"""A client with a state: an answered request is never paid for again, not even after a crash."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from processes import KILLED, Child, wait_until
from projects import ProjectFolder
from pydantic import create_model

from bioforge.api import (
    BatchConfig,
    Client,
    ClosedError,
    Config,
    LimitsConfig,
    PendingError,
    RefusedError,
    RetryConfig,
    SchemaValidationError,
    StateError,
    TransportError,
    TruncatedError,
    generate,
    generate_sync,
)
from bioforge.simulator import Simulator, SimulatorOptions

from .children import ask_many
from .clients import QUICK, Bio, Mended, Never, configured, gathered, rows

PAINTING = """
from pydantic import BaseModel, field_validator
class Mended(BaseModel):
    summary: str
    @field_validator("summary")
    @classmethod
    def second_try(cls, summary: str) -> str:
        if "previous answer" not in summary:
            raise ValueError("too thin")
        return summary
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "answers.db"


class TestKept:
    def test_the_second_client_gets_what_the_first_one_paid_for(self, server: Simulator, state: Path) -> None:
        with Client(configured(server), state=state) as client:
            first = client.generate_sync("Björk", schema=Bio)
        with Client(configured(server), state=state) as client:
            second = client.generate_sync("Björk", schema=Bio)
        assert (first.cached, second.cached) == (False, True)
        assert (second.value, second.usage, second.response_id) == (first.value, first.usage, first.response_id)
        assert (second.request_id, second.attempts) == (first.request_id, first.attempts)
        assert second.seconds == pytest.approx(first.seconds)
        assert second.cost_usd == 0.0
        assert len(server.ledger) == 1

    def test_an_answer_is_reused_within_one_client(self, server: Simulator, state: Path) -> None:
        with Client(configured(server), state=state) as client:
            answers = [client.generate_sync("Björk") for _ in range(3)]
        assert [answer.cached for answer in answers] == [False, True, True]

    def test_without_a_state_nothing_is_stored(self, server: Simulator) -> None:
        with Client(configured(server)) as client:
            assert not any(client.generate_sync("Björk").cached for _ in range(3))
        assert len(server.ledger) == 3

    def test_many_are_looked_up_and_only_the_new_ones_are_sent(self, server: Simulator, state: Path) -> None:
        names = [f"Artist {number}" for number in range(100)]
        with Client(configured(server), state=state) as client:
            list(client.generate_many_sync(names[:60]))
        with Client(configured(server), state=state) as client:
            outcomes = list(client.generate_many_sync(names))
        assert [outcome.unwrap().cached for outcome in outcomes] == [True] * 60 + [False] * 40
        assert len(server.ledger) == 100

    def test_stored_answers_do_not_wait_for_a_hanging_provider(self, state: Path) -> None:
        async def ask(server: Simulator) -> None:
            async with Client(configured(server, limits=LimitsConfig(concurrency=1)), state=state) as client:
                await client.generate("known")
                hanging = asyncio.ensure_future(client.generate("hangs"))
                while len(server.ledger) < 2:
                    await asyncio.sleep(0.001)
                assert (await client.generate("known")).cached
                assert not hanging.done()
                await hanging

        with Simulator(SimulatorOptions(script={"hangs": ["hang"]}, hang_seconds=0.3)) as server:
            asyncio.run(ask(server))

    def test_again_sends_and_pays(self, server: Simulator, state: Path) -> None:
        with Client(configured(server), state=state) as client:
            first = client.generate_sync("Björk")
            second = client.generate_sync("Björk", again=True)
            third = client.generate_sync("Björk")
        assert (second.cached, third.cached) == (False, True)
        assert first.response_id != second.response_id == third.response_id
        assert second.attempts == 2
        assert rows(state, "SELECT reason FROM attempts ORDER BY id") == [("new",), ("forced",)]

    def test_real_and_simulated_answers_are_kept_apart(self, server: Simulator, state: Path) -> None:
        with Client(Config(model="gpt-6-luna"), state=state) as client:
            client.generate_sync("Björk")
        with Client(configured(server), state=state) as client:
            assert not client.generate_sync("Björk").cached


class TestUnusable:
    @pytest.mark.parametrize(
        ("fault", "error"),
        [("incomplete", TruncatedError), ("refusal", RefusedError), ("content_filter", RefusedError)],
    )
    def test_an_answer_that_cannot_be_used_is_not_paid_for_again(
        self, state: Path, fault: str, error: type[TruncatedError]
    ) -> None:
        with Simulator(SimulatorOptions(script={"x": [fault]})) as server:
            found = []
            for _ in range(2):
                with Client(configured(server), state=state) as client, pytest.raises(error) as caught:
                    client.generate_sync("x")
                found.append(caught.value)
            assert len(server.ledger) == 1
            with Client(configured(server), state=state) as client:
                assert client.generate_sync("x", again=True).text
        first, second = found
        assert (str(first), first.raw_output, first.request_id) == (str(second), second.raw_output, second.request_id)
        assert first.cost_usd
        assert second.cost_usd == 0.0

    def test_an_answer_that_does_not_fit_is_not_paid_for_again(self, server: Simulator, state: Path) -> None:
        for _ in range(2):
            with Client(configured(server), state=state) as client, pytest.raises(SchemaValidationError) as caught:
                client.generate_sync("Björk", schema=Never)
            assert caught.value.schema_name == "Never"
            assert "never good enough" in caught.value.errors[0].message
        assert len(server.ledger) == 1
        assert rows(state, "SELECT state, error_class FROM requests") == [("unusable", "schema")]

    def test_it_is_validated_by_the_current_schema(self, server: Simulator, state: Path) -> None:
        with Client(configured(server), state=state) as client:
            with pytest.raises(SchemaValidationError):
                client.generate_sync("Björk", schema=create_model("Same", __base__=Never, __doc__=None))
            answer = client.generate_sync("Björk", schema=create_model("Same", summary=(str, ...)))
            with pytest.raises(SchemaValidationError):
                client.generate_sync("Björk", schema=create_model("Same", __base__=Never, __doc__=None))
        assert answer.cached
        assert len(server.ledger) == 1

    def test_repaired_answers_are_stored(self, server: Simulator, state: Path) -> None:
        answers = []
        for _ in range(2):
            with Client(configured(server), state=state) as client:
                answers.append(client.generate_sync("Björk", schema=Mended, repair=True))
        assert [(answer.repaired, answer.cached) for answer in answers] == [(True, False), (True, True)]
        assert answers[1].cost_usd == 0.0
        assert len(server.ledger) == 2

    def test_an_answer_that_fits_is_stored_with_its_data(self, server: Simulator, state: Path) -> None:
        with Client(configured(server), state=state) as client:
            answer = client.generate_sync("Björk", schema=Bio)
        ((parsed,),) = rows(state, "SELECT parsed FROM responses")
        assert Bio.model_validate_json(parsed) == answer.value


class TestFailures:
    def test_a_failure_is_resent_and_its_attempts_are_counted_on(self, state: Path) -> None:
        with Simulator(SimulatorOptions(script={"x": ["bad_request"]})) as server:
            with Client(configured(server), state=state) as client, pytest.raises(TransportError):
                client.generate_sync("x")
            with Client(configured(server), state=state) as client:
                assert client.generate_sync("x").attempts == 2
        assert rows(state, "SELECT number, reason, outcome FROM attempts ORDER BY id") == [
            (1, "new", "failed"),
            (2, "failed", "succeeded"),
        ]

    def test_a_maybe_paid_request_is_resent(self, state: Path) -> None:
        with Simulator(SimulatorOptions(script={"x": ["drop_after"]})) as server:
            with Client(configured(server), state=state) as client, pytest.raises(TransportError) as caught:
                client.generate_sync("x", max_attempts=1)
            with Client(configured(server), state=state) as client:
                assert client.generate_sync("x").attempts == 2
            assert len(server.ledger) == 2
        assert caught.value.maybe_paid
        assert rows(state, "SELECT paid FROM attempts ORDER BY id") == [("maybe",), ("yes",)]

    def test_a_maybe_paid_request_is_held_back_if_configured(self, state: Path) -> None:
        config = {"retry": RetryConfig(first_delay=0.0, maybe_paid=False)}
        found = []
        with Simulator(SimulatorOptions(script={"x": ["drop_after"]})) as server:
            for _ in range(2):
                with Client(configured(server, **config), state=state) as client:
                    with pytest.raises(TransportError) as caught:
                        client.generate_sync("x")
                    found.append(caught.value)
            assert len(server.ledger) == 1
            with Client(configured(server, **config), state=state) as client:
                assert client.generate_sync("x", again=True).attempts == 2, "`again` sends it"
        assert [(error.maybe_paid, error.attempts) for error in found] == [(True, 1), (True, 1)]
        assert "may have been charged" in found[1].hint


class TestShared:
    def test_an_answer_of_a_project_is_an_answer_of_the_library(self, project: ProjectFolder) -> None:
        project.run("run").ok()
        before = project.charged()
        with Client(configured(project.server), state=project.root / "bioforge.db") as client:
            answer = client.generate_sync(
                "Björk: Icelandic singer", instructions="Write a biography.", max_output_tokens=400
            )
        assert answer.cached
        assert project.charged() == before

    def test_an_answer_of_the_library_is_an_answer_of_a_project(self, project: ProjectFolder) -> None:
        state = project.root / "bioforge.db"
        with Client(configured(project.server), state=state) as client:
            client.generate_sync("Björk: Icelandic singer", instructions="Write a biography.", max_output_tokens=400)
        assert project.plan()["requests"] == 3
        project.run("run").ok()
        assert project.charged() == 4
        project.assert_ledger_equals_state()

    def test_typed_and_repaired_answers_are_shared(
        self, project: ProjectFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        project.write("painting.py", PAINTING)
        schema = 'schema = "painting:Mended"\nrepair = true'
        project.configure(**{"max_output_tokens = 400": f"max_output_tokens = 400\n{schema}"})
        project.run("run").ok()
        before = project.charged()
        monkeypatch.chdir(project.root)
        with Client(configured(project.server), state=project.root / "bioforge.db") as client:
            answer = client.generate_sync(
                "Björk: Icelandic singer",
                schema="painting:Mended",
                repair=True,
                instructions="Write a biography.",
                max_output_tokens=400,
            )
        assert (answer.cached, answer.repaired) == (True, True)
        assert "previous answer" in answer.value.summary
        assert project.charged() == before == 8

    def test_an_answer_makes_the_targets_of_a_project_fresh(self, project: ProjectFolder) -> None:
        assert project.reasons() == {"new": 4}
        with Client(configured(project.server), state=project.root / "bioforge.db") as client:
            client.generate_sync("Björk: Icelandic singer", instructions="Write a biography.", max_output_tokens=400)
        assert project.reasons() == {"new": 3}

    def test_the_commands_show_the_library_run(self, project: ProjectFolder) -> None:
        with Client(configured(project.server), state=project.root / "bioforge.db") as client:
            list(client.generate_many_sync(["a", "b", "a"]))
        audit = project.run("audit").ok().out
        assert "library" in project.run("status").ok().out
        assert "paid twice" in audit
        assert rows(project.root / "bioforge.db", "SELECT command, state, succeeded FROM runs") == [
            ("library", "finished", 2)
        ]
        assert project.run("resume").ok().err.startswith("nothing to resume")

    def test_a_client_that_sent_nothing_leaves_no_run(self, server: Simulator, state: Path) -> None:
        with Client(configured(server), state=state) as client:
            client.generate_sync("x")
        with Client(configured(server), state=state) as client:
            client.generate_sync("x")
        assert len(rows(state, "SELECT id FROM runs")) == 1


class TestLock:
    def test_a_second_client_is_refused_and_the_first_goes_on(self, server: Simulator, state: Path) -> None:
        with Client(configured(server), state=state) as first, Client(configured(server), state=state) as second:
            first.generate_sync("a")
            with pytest.raises(StateError, match="in use by `bioforge library`"):
                second.generate_sync("b")
            assert first.generate_sync("b").text
            first.close()
            assert second.generate_sync("b").cached, "the next call looks again"

    def test_a_file_that_is_no_state_is_left_unchanged(self, server: Simulator, tmp_path: Path) -> None:
        path = tmp_path / "notes.db"
        path.write_bytes(b"these are notes, and no database at all; " * 20)
        before = path.read_bytes()
        with Client(configured(server), state=path) as client:
            assert list(client.generate_many_sync([])) == []
            with pytest.raises(StateError, match="not a database"):
                client.generate_sync("x")
        assert path.read_bytes() == before
        assert len(server.ledger) == 0

    def test_functions_share_a_client_on_the_same_state(self, server: Simulator, state: Path) -> None:
        async def ask() -> list[Any]:
            config = configured(server)
            return await asyncio.gather(*(generate(f"Artist {n % 5}", config=config, state=state) for n in range(20)))

        assert {answer.cached for answer in asyncio.run(ask())} == {True, False}
        assert generate_sync("Artist 0", config=configured(server), state=state).cached
        assert len(server.ledger) == 5
        with Client(configured(server), state=state) as client:
            assert client.generate_sync("Artist 1").cached, "the state is released"

    def test_the_next_call_waits_for_a_closing_client(self, state: Path) -> None:
        async def ask(server: Simulator) -> tuple[Any, Any]:
            config = configured(server)
            given_up = asyncio.ensure_future(generate("hangs", config=config, state=state))
            while not server.ledger.entries():
                await asyncio.sleep(0.001)
            given_up.cancel()
            await asyncio.sleep(0)
            answer = await generate("hangs", config=config, state=state)
            return answer, await asyncio.gather(given_up, return_exceptions=True)

        with Simulator(SimulatorOptions(script={"hangs": ["hang"]}, hang_seconds=0.2)) as server:
            answer, (cancelled,) = asyncio.run(ask(server))
            assert len(server.ledger) == 1
        assert answer.cached, "it was in flight, so it was kept"
        assert isinstance(cancelled, asyncio.CancelledError)

    def test_threads_share_a_client(self, server: Simulator, state: Path) -> None:
        def ask(thread: int) -> int:
            names = (f"Artist {number}" for number in range(6))
            return sum(generate_sync(name, config=configured(server), state=state).cached for name in names)

        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(ask, range(4))) == 18
        assert len(server.ledger) == 6


ROWS = 120


@pytest.mark.parametrize(("backend", "kills"), [("async", (30, 60)), ("threads", (30,))])
def test_recorded_answers_survive_kill_9(state: Path, backend: str, kills: tuple[int, ...]) -> None:
    with Simulator(SimulatorOptions(latency=0.01, latency_sigma=0.5)) as server:
        for answers in kills:
            process = Child(state.parent, ask_many, (server.base_url, state, backend, ROWS))
            wait_until(lambda enough=answers: len(server.ledger) >= enough, "answers")  # type: ignore[misc]
            process.kill()
            assert process.end().code == KILLED
        recorded = {row[0] for row in rows(state, "SELECT request_hash FROM responses")}
        with Client(configured(server, backend=backend), state=state) as client:
            outcomes = list(client.generate_many_sync(f"Artist {number}" for number in range(ROWS)))
        bodies = {charge.body_sha256 for charge in server.ledger.entries()}
        twice = len(server.ledger) - len(bodies)
    answers_now = [outcome.unwrap() for outcome in outcomes]
    assert kills[-1] - 8 * len(kills) <= len(recorded) < ROWS
    assert {answer.request_hash for answer in answers_now if answer.cached} == recorded
    asked = [row[0] for row in rows(state, "SELECT request_hash FROM attempts WHERE run = (SELECT max(id) FROM runs)")]
    assert len(asked) == ROWS - len(recorded)
    assert recorded.isdisjoint(asked)
    ((maybe,),) = rows(state, "SELECT count(*) FROM attempts WHERE paid = 'maybe'")
    assert twice <= maybe <= len(kills) * 8, "what was in flight is said to be unclear; nothing else was bought twice"
    assert {row[0] for row in rows(state, "SELECT state FROM runs")} == {"crashed", "finished"}
    assert rows(state, "SELECT count(*) FROM requests WHERE state <> 'answered'") == [(0,)]


class TestBatches:
    def config(self, server: Simulator, **more: Any) -> Config:
        batch = BatchConfig(poll_seconds=0.01, poll_max_seconds=0.05)
        return configured(server, **{"backend": "batch", "batch": batch, "retry": QUICK, **more})

    def test_many_go_in_one_batch(self, state: Path) -> None:
        names = [f"Artist {number}" for number in range(40)]
        with Simulator(SimulatorOptions(batch_seconds=0.0, script={"Artist 7": ["bad_request"]})) as server:
            with Client(self.config(server), state=state) as client:
                outcomes = asyncio.run(gathered(client.generate_many(names, schema=Bio)))
            assert server.ledger.batches.created == 1
            assert {charge.service_tier for charge in server.ledger.entries()} == {"batch"}
            assert [outcome.index for outcome in outcomes if not outcome.ok] == [7]
            assert all(isinstance(outcome.unwrap().value, Bio) for outcome in outcomes if outcome.ok)
            with Client(configured(server), state=state) as client:
                assert client.generate_sync("Artist 3", schema=Bio).cached, "batches and calls share answers"

    def test_a_repair_goes_into_the_next_batch(self, state: Path) -> None:
        with Simulator(SimulatorOptions(batch_seconds=0.0)) as server:
            with Client(self.config(server), state=state) as client:
                outcomes = list(client.generate_many_sync(["a", "b"], schema=Mended, repair=True))
            assert server.ledger.batches.created == 2
        assert all(outcome.unwrap().repaired for outcome in outcomes)

    def test_an_open_batch_is_collected_by_the_next_client(self, state: Path) -> None:
        async def leave(server: Simulator) -> None:
            client = Client(self.config(server), state=state)
            asked = asyncio.ensure_future(gathered(client.generate_many(["a", "b", "c"])))
            while not state.exists() or not rows(state, "SELECT 1 FROM batches WHERE batch_id IS NOT NULL"):
                await asyncio.sleep(0.005)
            await client.aclose()
            with pytest.raises(ClosedError):
                await asked

        state.parent.mkdir(exist_ok=True)
        with Simulator(SimulatorOptions(batch_seconds=0.5)) as server:
            asyncio.run(leave(server))
            with Client(configured(server), state=state) as client, pytest.raises(PendingError, match="in batch"):
                client.generate_sync("a")
            with (
                Simulator() as other,
                Client(self.config(other), state=state) as client,
                pytest.raises(PendingError, match="that this client cannot collect"),
            ):
                client.generate_sync("a")
            with Client(self.config(server), state=state) as client:
                outcomes = list(client.generate_many_sync(["a", "b", "c"]))
                assert server.ledger.batches.created == 1, "nothing is asked twice"
                outcomes += client.generate_many_sync(["c", "d"])
            assert all(outcome.ok for outcome in outcomes)
            assert server.ledger.batches.created == 2
            assert len(server.ledger) == 4

    def test_a_single_call_waits_for_its_batch(self, state: Path) -> None:
        with (
            Simulator(SimulatorOptions(batch_seconds=0.0)) as server,
            Client(self.config(server), state=state) as client,
        ):
            assert client.generate_sync("a").text
            assert client.generate_sync("b").text
            assert server.ledger.batches.created == 2

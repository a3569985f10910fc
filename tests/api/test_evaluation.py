"""Evaluations: means of scores, counts of failures, and answers as checkpoints."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from processes import KILLED, Child, wait_until

from bioforge.api import Answer, BadArgument, Client, Item, LimitsConfig, QuotaError
from bioforge.api.evaluation import Evaluation, Report, Scored
from bioforge.simulator import Simulator, SimulatorOptions

from .children import EXAMPLE, evaluate, evaluate_slowly
from .clients import Bio, configured, rows


class Lengths(Evaluation[str, str]):
    """Scores the length of names."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def items(self) -> list[str]:
        return self.names

    def request(self, name: str) -> Item:
        return Item(name)

    def score(self, name: str, answer: Answer[str]) -> float | None:
        assert f"for: {name}." in answer.text
        return float(len(name))


class TestReport:
    def test_scores_are_summed_up(self, server: Simulator) -> None:
        names = ["Goya", "Kahlo", "Turner", "Hokusai"]
        report = Lengths(names).evaluate_sync(configured(server))
        assert report.scores == [4.0, 5.0, 6.0, 7.0]
        assert (report.n, report.mean) == (4, 5.5)
        assert report.standard_error == pytest.approx(statistics.stdev(report.scores) / 2)
        assert report.cost_usd > 0
        assert [(row.id, row.sample) for row in report.rows] == [(str(n), name) for n, name in enumerate(names, 1)]
        assert str(report).startswith("Lengths: 5.500 ± 0.645, n = 4 of 4, $0.")

    def test_failures_are_counted_by_class_and_not_scored(self) -> None:
        script = {"Goya": ["refusal"], "Kahlo": ["bad_request"]}

        class Odd(Lengths):
            name = "odd"

            def score(self, name: str, answer: Answer[str]) -> float | None:
                scores: dict[str, Any] = {"Turner": 1.0, "Hokusai": None, "Klint": float("nan"), "Durer": "good"}
                return scores[name]  # type: ignore[no-any-return]

        names = ["Goya", "Kahlo", "Turner", "Hokusai", "Klint", "Durer", "Valadon"]
        with Simulator(SimulatorOptions(script=script)) as server:
            report = Odd(names).evaluate_sync(configured(server))
        assert (report.n, report.mean, report.standard_error) == (1, 1.0, None)
        assert report.failures == {"refusal": 1, "bad_request": 1, "score": 3}
        assert report.unscored == 1
        by_sample = {row.sample: row for row in report.rows}
        assert by_sample["Valadon"].message == "KeyError: 'Valadon'"
        assert by_sample["Durer"].message == "ValueError: expected a finite number or None as a score, found 'good'"
        assert by_sample["Klint"].text, "the answer is kept beside what went wrong with it"
        assert str(report).startswith("odd: 1.000, n = 1 of 7, 1 bad_request, 1 refusal, 3 score, $")

    def test_no_samples_have_no_mean(self, server: Simulator) -> None:
        report = Lengths([]).evaluate_sync(configured(server))
        assert (report.n, report.mean, report.standard_error, report.cost_usd) == (0, None, None, 0.0)
        assert str(report) == "Lengths: no scores, n = 0 of 0, $0.0000"

    def test_answers_without_a_price_are_counted(self) -> None:
        report: Report[str] = Report(
            "x", None, (Scored("1", "a", 1.0, cost_usd=None), Scored("2", "b", 0.0, cost_usd=0.5))
        )
        assert (report.cost_usd, report.unpriced, report.mean) == (0.5, 1, 0.5)

    def test_typed_answers_are_scored_by_their_values(self, server: Simulator) -> None:
        class Born(Evaluation[str, Bio]):
            def items(self) -> list[str]:
                return ["Björk", "Absalon"]

            def request(self, name: str) -> Item:
                return Item(name, id=name.lower(), schema=Bio)

            def score(self, name: str, answer: Answer[Bio]) -> float:
                return float(answer.value.born)

        report = Born().evaluate_sync(configured(server))
        assert [row.id for row in report.rows] == ["björk", "absalon"]
        assert all(score == int(score) for score in report.scores)

    def test_models_are_compared_by_evaluating_each(self, server: Simulator) -> None:
        async def compare() -> list[Report[str]]:
            async with Client(configured(server, model=None)) as client:
                models = ("gpt-6-luna", "gpt-6.1-terra")
                return [await Lengths(["Goya"]).evaluate(client, model=model) for model in models]

        reports = asyncio.run(compare())
        assert [str(report).partition(":")[0] for report in reports] == [
            "Lengths (gpt-6-luna)",
            "Lengths (gpt-6.1-terra)",
        ]
        assert {charge.model.rpartition("-2026")[0] for charge in server.ledger.entries()} == {
            "gpt-6-luna",
            "gpt-6.1-terra",
        }

    def test_progress_is_passed_on(self, server: Simulator) -> None:
        seen: list[int] = []
        Lengths(["a", "b"]).evaluate_sync(configured(server), progress=lambda progress: seen.append(progress.done))
        assert seen == [1, 2]


class TestCheckpoints:
    def test_a_stopped_evaluation_keeps_its_answers(self, tmp_path: Path) -> None:
        names = [f"Artist {number}" for number in range(40)]
        state = tmp_path / "answers.db"
        with Simulator(SimulatorOptions(quota_after=15)) as server:
            with pytest.raises(QuotaError):
                Lengths(names).evaluate_sync(configured(server), state=state)
            assert len(server.ledger) == 15
        with Simulator() as server:
            report = Lengths(names).evaluate_sync(configured(server), state=state)
            assert len(server.ledger) == 25
        assert report.n == 40
        assert sum(row.cached for row in report.rows) == 15

    def test_scoring_again_sends_nothing(self, server: Simulator, tmp_path: Path) -> None:
        class Doubled(Lengths):
            def score(self, name: str, answer: Answer[str]) -> float | None:
                return 2.0 * len(name)

        names, state = ["Goya", "Kahlo"], tmp_path / "answers.db"
        first = Lengths(names).evaluate_sync(configured(server), state=state)
        second = Doubled(names).evaluate_sync(configured(server), state=state)
        assert len(server.ledger) == 2
        assert second.scores == [2 * score for score in first.scores]
        assert (first.cost_usd > 0, second.cost_usd) == (True, 0.0)

    def test_a_given_client_stays_open(self, server: Simulator, tmp_path: Path) -> None:
        with Client(configured(server, limits=LimitsConfig(concurrency=2))) as client:
            Lengths(["Goya"]).evaluate_sync(client)
            assert client.generate_sync("still open").text
            with pytest.raises(BadArgument, match="state: the given client has its own"):
                Lengths(["Goya"]).evaluate_sync(client, state=tmp_path / "answers.db")

    def test_leaving_early_closes_the_client(self, server: Simulator, tmp_path: Path) -> None:
        class Leaving(Lengths):
            def items(self) -> Iterator[str]:  # type: ignore[override]
                yield from ["Goya", "Kahlo"]
                raise KeyboardInterrupt

        state = tmp_path / "answers.db"
        with pytest.raises(KeyboardInterrupt):
            Leaving([]).evaluate_sync(configured(server), state=state)
        with Client(configured(server), state=state) as client:
            assert client.generate_sync("Turner").text


class TestExample:
    def run(self, state: Path) -> str:
        ran = subprocess.run(
            [sys.executable, "-W", "error", str(EXAMPLE), str(state)], capture_output=True, text=True, timeout=60
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def test_after_a_kill_only_missing_answers_are_requested(self, tmp_path: Path) -> None:
        state = tmp_path / "answers.db"
        process = Child(tmp_path, evaluate_slowly, (state,))
        wait_until(lambda: recorded(state) >= 5, "five answers")
        process.kill()
        assert process.end().code == KILLED
        before = recorded(state)
        assert 5 <= before < 20

        *worst, line = self.run(state).splitlines()
        asked = "SELECT count(*) FROM attempts WHERE run = (SELECT max(id) FROM runs)"
        assert rows(state, asked) == [(20 - before,)]
        assert len(worst) == 3
        assert line.startswith("keeps-facts: 0.")
        assert "n = 20 of 20" in line

        again = Child(tmp_path, evaluate, (state,)).end().ok().out
        assert again.splitlines()[-1] == line.rpartition("$")[0] + "$0.0000"
        assert recorded(state) == 20


def recorded(state: Path) -> int:
    if not state.exists():
        return 0
    with closing(sqlite3.connect(f"{state.as_uri()}?mode=ro", uri=True)) as connection:
        try:
            return int(connection.execute("SELECT count(*) FROM responses").fetchone()[0])
        except sqlite3.OperationalError:
            return 0

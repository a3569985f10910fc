"""Leaving while batches go on: Ctrl-C, deadlines, budgets, other backends; and coming back without buying anything twice."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from batch_world import REQUESTS, BatchWorld, provider, world
from processes import KILLED, wait_until

from bioforge.backends.openai.prices import price
from bioforge.core.types import Usage
from bioforge.simulator import Simulator
from bioforge.simulator.ledger import Charge

A_DAY = 86_400.0


class Slow(BatchWorld):
    """A world whose batches take a day, until it has passed: then another server goes on with them at the same place."""

    def __init__(self, folder: Path, server: Simulator, **settings: Any) -> None:
        super().__init__(folder / "project", server, **settings)
        self._folder = folder
        self._before: list[Charge] = []

    @contextmanager
    def a_day_later(self, **options: Any) -> Iterator[None]:
        slow = self.server
        slow.stop()
        with provider(self._folder, port=slow.port, **options) as self.server:
            self._before += slow.ledger.entries()
            yield

    def charges(self) -> list[Charge]:
        return self._before + self.server.ledger.entries()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Slow]:
    with provider(tmp_path, batch_seconds=A_DAY) as server:
        yield Slow(tmp_path, server)


def submitted(project: BatchWorld) -> int:
    return int(project.value("SELECT count(*) FROM batches WHERE state = 'submitted'"))


def spent(charges: list[Charge]) -> float:
    """US dollars, by the server's own ledger."""
    return sum(
        price(charge.model, Usage(charge.input_tokens, charge.output_tokens), charge.service_tier) or 0.0
        for charge in charges
    )


# --------------------------------------------------------------------------------------------------- asked to stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_leaves_open_batches_to_the_provider(project: Slow, number: signal.Signals) -> None:
    project.run("plan").ok()
    child = project.begin("run")
    wait_until(lambda: submitted(project) == 2 or child.gone(), "two batches")
    child.signal(number)
    ran = child.end()
    assert ran.code == 130, ran.err
    assert "open batches continue at the provider" in ran.err
    assert "2 batches go on at the provider with 3 requests" in ran.err
    assert "`bioforge resume` or `bioforge run` collects them" in ran.err
    assert project.value("SELECT state FROM runs") == "interrupted"
    assert project.reasons() == {"in batch": 4}
    with project.a_day_later():
        project.command("resume").ok()
        project.assert_all_fresh()
        project.assert_bought_once()
        project.assert_no_member_in_two_batches()
        project.assert_nothing_orphaned()
        project.assert_clean_audit()


def test_a_deadline_leaves_them_too(project: Slow) -> None:
    ran = project.command("run", "--deadline", "0.7s")
    assert ran.code == 75, ran.err
    assert "the deadline has passed" in ran.err
    with project.a_day_later():
        project.command("resume").ok()
        project.assert_all_fresh()
        project.assert_bought_once()
        project.assert_clean_audit()


def test_after_the_first_failure_nothing_more_is_sent_or_lost(tmp_path: Path) -> None:
    with world(tmp_path, {"max_requests": 1}, batch_script=["ok", "errors_only"]) as project:
        ran = project.run("run", "--max-failures", "1")
        assert ran.code in (1, 75), ran.err
        assert "1 target failed, the limit of --max-failures 1" in ran.err
        open_batches = project.value("SELECT count(*) FROM batches WHERE state <> 'collected'")
        assert ran.code == (75 if open_batches else 1)
        project.run("run").ok()
        project.assert_all_fresh()
        project.assert_bought_once()
        project.assert_nothing_orphaned()
        project.assert_clean_audit()


# ------------------------------------------------------------------------------------------------------------- money


@pytest.mark.parametrize("budget", [0.00005, 0.00013])
def test_a_budget_is_never_exceeded(tmp_path: Path, budget: float) -> None:
    with world(tmp_path) as project:
        project.of_many(12)
        ran = project.run("run", "--max-cost", f"{budget:f}")
        assert ran.code == 75, ran.err
        assert "the budget of" in ran.err
        assert len(project.charges()) < 12
        assert spent(project.charges()) <= budget
        again = project.run("resume", "--max-cost", f"{budget:f}")
        assert again.code == 75
        assert spent(project.charges()) <= 2 * budget
        project.run("run").ok()
        project.assert_all_fresh()
        project.assert_bought_once()
        project.assert_nothing_orphaned()


@pytest.mark.parametrize(
    ("backend", "group", "of"), [("batch", 2, ""), ("batch", 6, ""), ("batch", 10, ""), ("async", 8, "Succeeded")]
)
def test_a_budget_outlives_the_process_that_was_given_it(tmp_path: Path, backend: str, group: int, of: str) -> None:
    budget = 0.0005
    one_at_a_time = {'name = "batch"': f'name = "{backend}"', "concurrency = 4": "concurrency = 1"}
    with world(tmp_path) as project:
        project.of_many(40)
        project.settle(f"[limits]\nmax_cost_usd = {budget:f}\n", one_at_a_time)
        assert project.until(group, of).code == KILLED
        for _ in range(2):
            assert project.run("resume").code in (2, 75)
        assert spent(project.charges()) <= budget


# -------------------------------------------------------------------------------------------- several ways of buying


def test_a_realtime_run_leaves_alone_what_is_in_a_batch_and_collects_it_when_it_is_ready(project: Slow) -> None:
    assert project.run("run", "--no-wait", "--limit", "2").code == 75
    assert submitted(project) == 1
    ran = project.run("run", "--backend", "async")
    assert ran.code == 75, ran.err
    assert [charge.service_tier for charge in project.charges()] == ["default"]
    assert project.reasons() == {"in batch": 3}, "two artists, and the twin of one of them"
    with project.a_day_later():
        ran = project.run("run", "--backend", "async").ok()
        assert "collected" in ran.err
        project.assert_all_fresh()
        project.assert_bought_once("default", "batch")
        assert Counter(charge.service_tier for charge in project.charges()) == {"default": 1, "batch": 2}
        project.assert_books_agree()
        project.assert_nothing_orphaned()
        project.assert_clean_audit()


@pytest.mark.parametrize("backend", ["async", "auto"])
@pytest.mark.parametrize("state", ["prepared", "uploaded", "submitted"])
def test_another_backend_after_a_kill_buys_the_rest_and_not_what_is_in_a_batch(
    tmp_path: Path, state: str, backend: str
) -> None:
    with world(tmp_path) as project:
        assert project.until(1, of=state).code == KILLED
        ran = project.run("run", "--backend", backend)
        assert Counter(charge.service_tier for charge in project.charges())["default"] == 1
        if ran.code == 75:  # it does not wait for batches, and collects what is ready
            ran = project.run("run", "--backend", backend)
        ran.ok()
        project.assert_all_fresh()
        project.assert_bought_once("default", "batch")
        project.assert_books_agree()
        project.assert_nothing_orphaned()
        project.assert_clean_audit()


def test_what_failed_in_an_earlier_batch_is_asked_by_the_realtime_run_that_collects_it(tmp_path: Path) -> None:
    with world(tmp_path, {"poll_seconds": 30.0}, batch_script=["row_errors=1", "row_errors=1"]) as project:
        assert project.run("run", "--no-wait").code == 75
        project.run("run", "--backend", "async").ok()
        project.assert_all_fresh()
        project.assert_bought_once("default")
        project.assert_nothing_orphaned()


def test_auto_drains_by_calls_what_a_batch_left_over(tmp_path: Path) -> None:
    with world(tmp_path, {"max_requests": 100}, batch_script=["expired=0.5+row_errors=0.5"]) as project:
        project.of_many(20)
        project.settle("[backend.auto]\nmin_saving_usd = 0\nflex_seconds = 0\n", max_requests=100)
        project.run("run", "--backend", "auto").ok()
        project.assert_all_fresh()
        bought = Counter(charge.service_tier for charge in project.charges())
        assert bought.keys() == {"batch", "flex"}
        assert bought.total() == 20
        project.assert_books_agree()
        project.assert_nothing_orphaned()
        project.assert_clean_audit()


# --------------------------------------------------------------------------------------------------- asked once more


@pytest.mark.parametrize("how", [("--no-wait",), ("--backend", "async")])
def test_always_make_does_not_buy_what_is_in_a_batch_a_second_time(project: Slow, how: tuple[str, ...]) -> None:
    assert project.run("run", "--no-wait").code == 75
    sent = project.server.ledger.batches
    for arguments in ((), ("--select", "2")):
        ran = project.run("run", "-B", *how, *arguments)
        assert ran.code == 75, ran.err
    assert project.server.ledger.batches == sent
    assert project.charges() == []
    with project.a_day_later():
        project.run("run").ok()
        project.assert_all_fresh()
        project.assert_bought_once()
        project.assert_clean_audit()


def test_a_prompt_that_is_changed_and_changed_back_meanwhile_costs_nothing(project: Slow) -> None:
    assert project.run("run", "--no-wait").code == 75
    project.edit("bioforge.toml", "Write a biography.", "Write a poem.")
    assert project.reasons() == {"new": 4}
    project.edit("bioforge.toml", "Write a poem.", "Write a biography.")
    assert project.reasons() == {"in batch": 4}
    with project.a_day_later():
        project.run("run").ok()
        project.assert_all_fresh()
        project.assert_bought_once()


def test_what_was_in_a_batch_for_another_prompt_is_kept_for_the_day_it_comes_back(project: Slow) -> None:
    assert project.run("run", "--no-wait").code == 75
    project.edit("bioforge.toml", "Write a biography.", "Write a poem.")
    with project.a_day_later():
        project.run("run").ok()
        assert len(project.charges()) == 2 * REQUESTS
        project.edit("bioforge.toml", "Write a poem.", "Write a biography.")
        project.run("run").ok()
        project.assert_all_fresh()
        project.assert_bought_once()
        project.assert_nothing_orphaned()
        project.assert_clean_audit()

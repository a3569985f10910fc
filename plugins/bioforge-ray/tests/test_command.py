"""Run the command with its own cluster: kill, interrupt and resume it."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from conftest import alive, raylets, workers_below

from bioforge.testing import KILLED, MakeProject, MakeSimulator, ProjectFolder, Running, wait_until

ROWS = 300
ENV = {"BIOFORGE_LOAD_PLUGINS": "bioforge-ray"}

pytestmark = pytest.mark.slow


@pytest.fixture
def project(make_project: MakeProject, make_simulator: MakeSimulator) -> ProjectFolder:
    return folder(make_project, make_simulator, latency=0.2)


def folder(make_project: MakeProject, make_simulator: MakeSimulator, **options: Any) -> ProjectFolder:
    rows = "".join(f"{number},Artist {number},data\n" for number in range(ROWS))
    return make_project(
        {"artists.csv": "artist_id,artist_name,artist_data\n" + rows},
        {"backend": {"concurrency": 16, "ray": {"workers": 2, "cpus_per_worker": 0.25}}},
        make_simulator(**options),
    )


def started(project: ProjectFolder, charges: int) -> Running:
    running = project.start("run", "--backend", "ray", env=ENV)
    wait_until(lambda: project.charged() >= charges or running.gone(), f"{charges} charges")
    assert not running.gone(), running.end()
    return running


def test_a_run_from_beginning_to_end_says_no_more_than_any_other(project: ProjectFolder) -> None:
    ran = project.process("run", "--backend", "ray", env=ENV).ok()
    assert "done" in ran.err + ran.out
    assert "ray::" not in ran.err
    assert "WARNING" not in ran.err
    assert not [line for line in ran.err.splitlines() if line.startswith("(")]
    assert project.charged() == ROWS
    project.assert_ledger_equals_state()
    again = project.process("run", "--backend", "async", env=ENV).ok()
    assert project.charged() == ROWS, f"answers are shared with async\n{again.err}"


def test_a_killed_driver_takes_its_workers_along_and_resume_goes_on(project: ProjectFolder) -> None:
    running = started(project, 60)
    workers = workers_below(running.pid)
    assert len(workers) == 2
    running.kill()
    assert running.end().code == KILLED
    wait_until(lambda: not any(map(alive, workers)), "the workers end with their driver")
    sent = project.charged()
    project.process("resume", env=ENV).ok()
    project.assert_ledger_equals_state()
    project.assert_nothing_paid_twice()
    maybe = project.value("SELECT count(*) FROM attempts WHERE paid = 'maybe'")
    assert 0 < maybe <= 16
    assert ROWS <= project.charged() <= ROWS + maybe
    assert sent >= 60
    assert f"maybe paid: {maybe} attempts" in project.run("audit").ok().out


def test_a_killed_driver_of_a_shared_cluster_takes_its_workers_along(project: ProjectFolder, cluster: Any) -> None:
    project.edit("bioforge.toml", "workers = 2", f'workers = 2\naddress = "{cluster.address}"')
    running = started(project, 60)
    workers = workers_below(*raylets(cluster))
    assert len(workers) == 2
    running.kill()
    wait_until(lambda: not any(map(alive, workers)), "the workers end with their driver")
    project.process("resume", env=ENV).ok()
    project.assert_ledger_equals_state()
    project.assert_nothing_paid_twice()
    assert not workers_below(*raylets(cluster))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_awaits_what_is_in_flight(project: ProjectFolder, number: signal.Signals) -> None:
    """Also with SIGTERM, whose handler Ray would replace."""
    running = started(project, 60)
    running.signal(number)
    ran = running.end()
    assert ran.code == 130, ran.err
    assert project.value("SELECT count(*) FROM attempts WHERE paid = 'maybe'") == 0
    project.assert_ledger_equals_state()
    assert project.charged() < ROWS
    project.process("resume", env=ENV).ok()
    assert project.charged() == ROWS


def test_ctrl_c_twice_leaves_at_once(make_project: MakeProject, make_simulator: MakeSimulator) -> None:
    project = folder(make_project, make_simulator, latency=0.01, script={"Artist 50": ["hang"]}, hang_seconds=300.0)
    running = started(project, 80)
    workers = workers_below(running.pid)
    running.interrupt()
    wait_until(lambda: "waiting for those in flight" in running.said() or running.gone(), "the first Ctrl-C was heard")
    running.interrupt()
    ran = running.end()
    assert ran.code == 130, ran.err
    wait_until(lambda: not any(map(alive, workers)), "the workers end")
    assert project.value("SELECT count(*) FROM attempts WHERE paid = 'maybe'") >= 1
    project.assert_ledger_equals_state()


def test_the_budget_holds(project: ProjectFolder) -> None:
    ran = project.process("run", "--backend", "ray", "--max-cost", "0.01", env=ENV)
    assert ran.code == 75, ran.err
    spent = project.value("SELECT sum(cost_usd) FROM responses")
    assert 0 < spent <= 0.01
    project.assert_ledger_equals_state()


def test_a_mistake_in_the_table_names_the_key(project: ProjectFolder) -> None:
    project.edit("bioforge.toml", "workers = 2", "workers = 0")
    assert "backend.ray.workers" in project.process("run", "--backend", "ray", env=ENV).failed(2).err
    project.edit("bioforge.toml", "workers = 0", 'workers = 2\naddress = "127.0.0.1:1"')
    shown = project.process("run", "--backend", "ray", env=ENV).failed(2).err
    assert "backend.ray.address: no cluster at '127.0.0.1:1'" in shown
    assert not project.charged()

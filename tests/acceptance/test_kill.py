"""kill -9 at any moment: what was committed is there, nothing committed is asked again, the rest is said to be unclear."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Child, wait_until
from projects import ProjectFolder

from bioforge.simulator import Simulator, SimulatorOptions

ROWS = 150


@pytest.fixture
def server() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(latency=0.03, latency_sigma=0.5, seed=7)) as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, server: Simulator) -> ProjectFolder:
    folder = ProjectFolder(tmp_path, server)
    rows = "".join(f"{number},Artist {number},painter\n" for number in range(ROWS))
    folder.write("artists.csv", "artist_id,artist_name,artist_data\n" + rows)
    folder.configure(more="[[output]]\npath = 'out.jsonl'\n")
    return folder


def _killed_run(project: ProjectFolder, backend: str, answers: int) -> None:
    """Kill a run once the server has charged for so many answers in all; also a run that has just ended is fine."""
    _kill_when_charged(project, project.begin("run", "--backend", backend), answers)


def _kill_when_charged(project: ProjectFolder, process: Child, answers: int) -> None:
    wait_until(lambda: project.charged() >= answers or process.gone(), f"{answers} answers")
    if not process.gone():
        process.kill()
    process.end()


@pytest.mark.parametrize("backend", ["async", "threads"])
def test_killed_at_random_moments_and_resumed(project: ProjectFolder, backend: str) -> None:
    draw = random.Random(backend)
    kept: dict[str, tuple[str, str]] = {}
    for _ in range(6):
        _killed_run(project, backend, project.charged() + draw.randrange(1, 25))
        answers = {row[0]: row[1:] for row in project.rows("SELECT request_hash, response_id, text FROM responses")}
        for digest, answer in kept.items():
            assert answers[digest] == answer, "a committed answer changed or went away"
        kept = answers
        assert project.value("PRAGMA integrity_check") == "ok"
    resumed = project.command("resume", "--backend", backend)
    assert resumed.code == 0, resumed.err

    project.assert_ledger_equals_state()
    asked_again = [
        digest
        for (digest,) in project.rows(
            "SELECT request_hash FROM attempts GROUP BY request_hash HAVING sum(paid = 'yes') > 1"
        )
    ]
    assert asked_again == [], "a committed answer was bought twice"
    by_resume = {
        row[0] for row in project.rows("SELECT request_hash FROM attempts WHERE run = (SELECT max(id) FROM runs)")
    }
    assert by_resume.isdisjoint(kept), "a committed answer was asked for again"
    assert project.value("SELECT count(*) FROM results WHERE state = 'fresh'") == ROWS
    audit = json.loads(project.run("audit", "--format", "json").ok().out)
    assert audit["paid_twice"] == 0
    assert audit["lost"] == 0
    # what was in flight when it was killed: at most the concurrency for each kill, and every double charge is among it
    twice = project.charged() - len({charge.body_sha256 for charge in project.server.ledger.entries()})
    assert twice <= audit["maybe_paid"] <= 6 * 4
    assert len(project.read("out.jsonl").splitlines()) == ROWS


def test_after_kill_an_unclear_request_is_not_asked_again_when_the_project_says_so(project: ProjectFolder) -> None:
    project.configure(**{"first_delay = 0.001": "first_delay = 0.001\nmaybe_paid = false"})
    _kill_when_charged(project, project.begin("run"), 20)
    resumed = project.command("resume")
    unclear = project.value("SELECT count(*) FROM results WHERE state = 'maybe paid'")
    assert unclear == project.value("SELECT count(*) FROM attempts WHERE paid = 'maybe'")
    assert resumed.code == (1 if unclear else 0), resumed.err
    bodies = {charge.body_sha256 for charge in project.server.ledger.entries()}
    assert project.charged() == len(bodies), "something was bought twice"


def test_resume_keeps_the_selection(project: ProjectFolder) -> None:
    _kill_when_charged(project, project.begin("run", "--select", "1*", "--limit", "40"), 5)
    ran = project.command("resume")
    assert ran.code == 0, ran.err
    fresh = {row[0] for row in project.rows("SELECT artist_id FROM results WHERE state = 'fresh'")}
    assert len(fresh) == 40
    assert all(artist.startswith("1") for artist in fresh)
    assert project.run("resume").ok().err.startswith("nothing to resume")


def test_a_second_run_is_refused_by_name_and_readers_go_on(project: ProjectFolder) -> None:
    process = project.begin("run", "-j", "1")
    wait_until(lambda: project.charged() >= 1, "the first answer")
    second = project.run("run")
    reading = project.run("status")
    process.signal(signal.SIGTERM)
    process.end()
    assert second.code == 2
    assert f"in use by `bioforge run -j 1`, process {process.pid}" in second.err
    assert reading.code == 0, reading.err
    assert "running" in reading.out

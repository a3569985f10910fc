"""Every kind of fault at once: the run ends, every artist has an answer or a class, and the ledger reconciles."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import ProjectFolder

from bioforge.simulator import FAULTS, Simulator, SimulatorOptions

ROWS = 400
SHARE = 0.2 / len(FAULTS)


@pytest.fixture
def server() -> Iterator[Simulator]:
    faults = dict.fromkeys(FAULTS, SHARE)
    with Simulator(SimulatorOptions(faults=faults, seed=3, retry_after=0.01, hang_seconds=30)) as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, server: Simulator) -> ProjectFolder:
    folder = ProjectFolder(tmp_path, server)
    rows = "".join(f"{number},Artist {number},painter\n" for number in range(ROWS))
    folder.write("artists.csv", "artist_id,artist_name,artist_data\n" + rows)
    folder.configure(**{"[provider]": "[provider]\ntimeout = 2.5", "concurrency = 4": "concurrency = 32"})
    return folder


@pytest.mark.parametrize("backend", ["async", "threads"])
def test_a_fifth_of_all_calls_goes_wrong(project: ProjectFolder, backend: str) -> None:
    ran = project.run("run", "--backend", backend)
    assert ran.code == 1, ran.err  # bad requests, refusals and truncated answers stay failed
    assert set(project.server.ledger.counts.faults) == set(FAULTS), "every kind of fault was met"

    project.assert_ledger_equals_state()
    states = Counter(dict(project.rows("SELECT artist_id, state FROM results")).values())
    assert set(states) <= {"fresh", "failed"}
    assert states.total() == ROWS
    classless = project.value("SELECT count(*) FROM results WHERE state = 'failed' AND coalesce(error, '') = ''")
    assert classless == 0

    audit = json.loads(project.run("audit", "--format", "json").ok().out)
    assert (audit["paid_twice"], audit["lost"], audit["in_flight"]) == (0, 0, 0)
    answered = project.value("SELECT count(*) FROM responses")
    unclear_and_charged = project.charged() - answered
    assert 0 < unclear_and_charged <= audit["maybe_paid"], "charged without an answer is exactly what is called unclear"

    summary = ran.err
    for word in ("refusal", "truncated", "content_filter", "bad_request", "maybe paid", "retries"):
        assert word in summary

    charged = project.charged()
    again = project.run("run", "--backend", backend)
    assert again.code == 1
    held = project.value("SELECT sum(held) FROM targets")
    assert held > 0
    assert project.charged() - charged <= states["failed"] - held, (
        "what was paid for and is unusable is not bought again"
    )

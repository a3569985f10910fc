"""Chains and matrices, killed or interrupted at random moments and resumed: they come to what a calm run comes to."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from chains import BIO, FACTS, OVERVIEW, TRANSLATION, ChainFolder, Script, Words, chain
from processes import KILLED, Child, wait_until

from bioforge.core.errors import EXIT_INTERRUPTED

ARTISTS = 8
KILLS = 4

SCHEMA = {
    "type": "object",
    "properties": {"born": {"type": "integer", "minimum": 1800, "maximum": 1999}, "note": {"type": "string"}},
    "required": ["born", "note"],
    "additionalProperties": False,
}
TYPED = FACTS + 'schema = "facts.json"\nrepair = true\nfallback = ["gpt-6.1-terra", "gpt-6-sol"]\n'
CHAIN = (TYPED, BIO.replace("facts.text", "facts.parsed.note"), TRANSLATION, OVERVIEW)
MATRIX = FACTS.replace(
    'model = "gpt-6-luna"\n',
    'matrix = { model = ["gpt-6-luna", "gpt-6.1-terra", "gpt-6-sol"], temperature = [0.2, 0.9] }\nsamples = 3\n',
)
QUICK = """
[backend.batch]
poll_seconds = 0.01
poll_max_seconds = 0.03
max_requests = 5
[[output]]
path = "out.jsonl"
all = true
"""

FAULTS: dict[Words, str] = {
    # repaired at once
    ("Collect", "Artist 1:", "previous answer"): "ok",
    ("Collect", "Artist 1:"): "misfit",
    # refused by one model, of the next one repaired
    ("Collect", "Artist 2:", "gpt-6.1-terra", "previous answer"): "ok",
    ("Collect", "Artist 2:", "gpt-6.1-terra"): "misfit",
    ("Collect", "Artist 2:"): "refusal",
    # answered by the last model of all
    ("Collect", "Artist 3:", "gpt-6-sol"): "ok",
    ("Collect", "Artist 3:"): "bad_request",
    # held back, with everything below it
    ("biography", "Artist 4,"): "incomplete",
}

Facts = list[tuple[Any, ...]]


@contextmanager
def world(root: Path, *tables: str, artists: int = ARTISTS, script: Script | None = None) -> Iterator[ChainFolder]:
    """A project of some artists whose server takes its time, so that there is something to kill."""
    tables = (*tables, QUICK)
    with chain(root, *tables, script=script, latency=0.005, latency_sigma=0.5, batch_seconds=0) as project:
        rows = "".join(f"{number},Artist {number},painter\n" for number in range(artists))
        project.write("artists.csv", f"artist_id,artist_name,artist_data\n{rows}")
        project.write("facts.json", json.dumps(SCHEMA))
        yield project


def chained(root: Path) -> AbstractContextManager[ChainFolder]:
    return world(root / "project", *CHAIN, script=Script(FAULTS))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    with chained(tmp_path_factory.mktemp("undisturbed")) as project:
        assert project.run("run").code == 1
        assert {row[3] for row in facts(project)} == {"fresh", "failed", "skipped"}
        return facts(project)


def facts(project: ChainFolder) -> Facts:
    """What became of each target, without ids and times."""
    return project.rows(
        "SELECT s.artist_id, s.recipe, s.variant, s.state, s.error, s.answered_by, s.text, s.parsed, t.held, t.detail"
        " FROM results s JOIN artists a ON a.artist_id = s.artist_id"
        " JOIN targets t ON t.artist = a.id AND t.recipe = s.recipe AND t.variant = s.variant ORDER BY 1, 2, 3"
    )


def requests(project: ChainFolder) -> int:
    """Whatever the server was asked so far, files and batches included."""
    return project.server.ledger.counts.requests


def wait_for(project: ChainFolder, process: Child, number: int) -> None:
    """Until the server was asked so often, or there is nobody left to ask it."""
    wait_until(lambda: requests(project) >= number or process.gone(), f"request {number}")


def kill_and_go_on(project: ChainFolder, backend: str, draw: random.Random, most: int) -> int:
    """Runs that are killed after some more requests each, then one to the end; its exit code."""
    kept: dict[int, tuple[str, str]] = {}
    killed = 0
    for number in range(KILLS):
        command = ("run", "resume")[number % 2]
        process, until = project.begin(command, "--backend", backend), requests(project) + draw.randint(1, most)
        wait_for(project, process, until)
        if not process.gone():
            process.signal(draw.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGINT)))
        killed += process.end().code in (KILLED, EXIT_INTERRUPTED)
        answers = {row[0]: row[1:] for row in project.rows("SELECT id, request_hash, text FROM responses")}
        assert kept.items() <= answers.items(), "a committed answer changed or went away"
        kept = answers
        assert project.value("PRAGMA integrity_check") == "ok"
    assert killed >= 2, "it was over before it could be killed"
    return project.command("run", "--backend", backend).code


def assert_paid_once(project: ChainFolder) -> None:
    project.assert_money_is_explained()
    twice = project.rows("SELECT request_hash FROM attempts GROUP BY 1 HAVING sum(paid = 'yes') > 1")
    assert twice == [], "a link of a chain was bought twice"
    found = project.audit()
    bodies = project.value("SELECT count(*) FROM requests WHERE state IN ('answered', 'unusable')")
    assert project.charged() - bodies <= found["maybe_paid"] <= KILLS * 4
    project.run("run")
    assert project.charged() - bodies <= found["maybe_paid"], "a further run had something to ask"


@pytest.mark.parametrize("backend", ["async", "threads", "batch"])
def test_a_chain_comes_to_the_same_end(tmp_path: Path, undisturbed: Facts, backend: str) -> None:
    with chained(tmp_path) as project:
        assert kill_and_go_on(project, backend, random.Random(backend), 14) == 1
        assert facts(project) == undisturbed
        assert_paid_once(project)
        written = {json.loads(line)["artist_id"] for line in project.read("out.jsonl").splitlines()}
        assert written == {"*", *map(str, range(ARTISTS))}


@pytest.mark.parametrize("backend", ["async", "threads", "batch"])
def test_a_matrix_comes_to_the_same_end(tmp_path: Path, backend: str) -> None:
    with world(tmp_path / "project", MATRIX, artists=3) as project:
        assert kill_and_go_on(project, backend, random.Random(backend), 14) == 0
        states = project.rows(
            "SELECT state, count(*), count(DISTINCT variant), count(DISTINCT request_hash) FROM results"
        )
        assert states == [("fresh", 54, 18, 54)]
        assert project.value("SELECT count(*) FROM results WHERE state <> 'fresh'") == 0
        assert_paid_once(project)
        assert len(project.read("out.jsonl").splitlines()) == 54


def test_what_was_chosen_is_what_is_resumed(tmp_path: Path) -> None:
    """A limit stays a limit: what a killed run was to build, and nothing else, also where that waits for others."""
    with chained(tmp_path) as project:
        process = project.begin("run", "bio", "--select", "[0-3]", "--limit", "6")
        wait_for(project, process, 3)
        process.kill()
        process.end()
        project.command("resume")
        assert project.rows("SELECT recipe, count(*) FROM results WHERE state = 'fresh' GROUP BY 1 ORDER BY 1") == [
            ("bio", 2),
            ("facts", 4),
        ]

"""Ctrl-C and other signals that end a process: the first drains, the second leaves; both keep what was paid for."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from processes import ENVIRONMENT, PATIENCE, Child, program_under_nohup, wait_until
from projects import ProjectFolder

from bioforge.simulator import Simulator, SimulatorOptions


@pytest.fixture
def server() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(latency=0.2)) as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, server: Simulator) -> ProjectFolder:
    folder = ProjectFolder(tmp_path, server)
    rows = "".join(f"{number},Artist {number},\n" for number in range(400))
    folder.write("artists.csv", "artist_id,artist_name,artist_data\n" + rows)
    return folder


def _running(project: ProjectFolder, backend: str) -> Child:
    """A run in the middle of its work."""
    process = project.begin("run", "--backend", backend)
    wait_until(lambda: project.charged() >= 8, "the first answers")
    return process


SIGNALS = [
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
]


@pytest.mark.parametrize("backend", ["async", "threads"])
@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_drains(project: ProjectFolder, backend: str, number: signal.Signals) -> None:
    process = _running(project, backend)
    process.signal(number)
    ran = process.end()
    assert ran.code == 130, ran.err
    assert "waiting for those in flight" in ran.err
    assert "bioforge resume" in ran.err
    project.assert_ledger_equals_state()
    assert project.value("SELECT count(*) FROM attempts WHERE paid = 'maybe'") == 0, "drained means nothing is unclear"
    assert project.value("SELECT count(*) FROM responses") == project.charged()
    assert project.value("SELECT state FROM runs") == "interrupted"


def test_an_ignored_hangup_stays_ignored(project: ProjectFolder) -> None:
    """As under nohup: the run goes on to its end."""
    project.configure(**{"concurrency = 4": "concurrency = 100"})
    process = Child(project.root, program_under_nohup, ("run",))
    wait_until(lambda: project.charged() >= 8, "the first answers")
    process.signal(signal.SIGHUP)
    ran = process.end()
    assert ran.code == 0, ran.err
    assert project.charged() == 400


def test_a_closed_terminal_drains(project: ProjectFolder) -> None:
    """Its hangup arrives, and nothing can be printed any more."""
    master, terminal = pty.openpty()

    def control() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    with subprocess.Popen(
        [sys.executable, "-m", "bioforge", "run"],
        cwd=project.root,
        env={**os.environ, **ENVIRONMENT},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=control,
    ) as process:
        os.close(terminal)
        os.set_blocking(master, False)

        def begun() -> bool:
            with suppress(BlockingIOError):
                os.read(master, 65536)  # a full terminal would hold up the run
            return project.charged() >= 8

        wait_until(begun, "the first answers")
        os.close(master)
        assert process.wait(PATIENCE) == 130
    project.assert_ledger_equals_state()
    assert project.value("SELECT count(*) FROM attempts WHERE paid = 'maybe'") == 0
    assert project.value("SELECT count(*) FROM responses") == project.charged() < 400


@pytest.mark.parametrize("backend", ["async", "threads"])
def test_the_second_signal_leaves_and_says_what_is_unclear(project: ProjectFolder, backend: str) -> None:
    project.configure(**{"[provider]": "[provider]\ntimeout = 60"})
    process = _running(project, backend)
    process.signal(signal.SIGINT)
    wait_until(lambda: "waiting for those in flight" in process.said(), "what the first signal does")
    process.signal(signal.SIGINT)
    assert process.end().code == 130
    project.assert_ledger_equals_state()
    assert project.value("SELECT count(*) FROM attempts WHERE outcome = 'started'") == 0


def test_a_deadline_drains_and_says_to_run_again(project: ProjectFolder) -> None:
    ran = project.command("run", "--deadline", "1.5s")
    assert ran.code == 75, ran.err
    assert "the deadline has passed" in ran.err
    project.assert_ledger_equals_state()
    assert project.value("SELECT count(*) FROM attempts WHERE paid = 'maybe'") == 0
    assert 0 < project.charged() < 400
    assert project.run("run", "--deadline", "soon").code == 2

"""The disk becomes full in the middle of a run: nothing more is sent, and what was in flight is awaited and kept."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from projects import ProjectFolder

from bioforge.backends.base import AsyncCallsBackend, ThreadCallsBackend
from bioforge.core.errors import NoSpaceError
from bioforge.core.events import Event
from bioforge.core.interfaces import Work
from bioforge.engine.followup import FollowUp
from bioforge.simulator import Simulator, SimulatorOptions
from bioforge.store import Store
from bioforge.store.recorder import Recorder

ROWS = 150
CALLS = 8


@pytest.fixture
def server() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(latency=0.05, latency_sigma=0.5, seed=5)) as running:
        yield running


def fill(project: ProjectFolder) -> None:
    rows = "".join(f"{number},Artist {number},painter\n" for number in range(ROWS))
    project.write("artists.csv", "artist_id,artist_name,artist_data\n" + rows)
    project.configure(**{"concurrency = 4": f"concurrency = {CALLS}"})


def nothing_was_lost(project: ProjectFolder) -> None:
    """Every charge is a paid attempt with its answer, and no attempt's fate is unknown."""
    assert project.rows("SELECT DISTINCT paid FROM attempts WHERE paid = 'maybe'") == []
    assert project.value("SELECT count(*) FROM attempts WHERE paid = 'yes'") == project.charged()
    project.assert_ledger_equals_state()
    project.assert_nothing_paid_twice()


# ---------------------------------------------------------------------------------------------- a disk that is small


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB; only root can have one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("backend", ["async", "threads"])
def test_a_real_one(small_disk: Path, server: Simulator, backend: str) -> None:
    project = ProjectFolder(small_disk, server)
    fill(project)
    project.run("plan").ok()
    filler = small_disk / "filler"
    disk = os.statvfs(small_disk)
    room = (1 << 20) + 400_000  # what a run keeps for its answers, and what some of them need
    filler.write_bytes(b"x" * (disk.f_bavail * disk.f_frsize - room))

    stopped = project.command("run", "--backend", backend)
    assert stopped.code == 75, stopped.err
    assert "calls in flight were awaited and kept" in stopped.err
    assert 0 < project.charged() < ROWS
    nothing_was_lost(project)

    filler.unlink()
    assert project.command("resume", "--backend", backend).code == 0
    assert project.charged() == ROWS
    nothing_was_lost(project)


def test_without_room_for_answers_nothing_is_sent(small_disk: Path, server: Simulator) -> None:
    project = ProjectFolder(small_disk, server)
    fill(project)
    project.run("plan").ok()
    disk = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(b"x" * (disk.f_bavail * disk.f_frsize - 600_000))
    stopped = project.run("run")
    assert stopped.code == 75
    assert "free some space" in stopped.err
    assert project.charged() == 0
    assert not list(small_disk.glob("*-room"))


# ------------------------------------------------------------------------------------------- the same, wherever this runs


@pytest.fixture
def project(tmp_path: Path, server: Simulator) -> ProjectFolder:
    folder = ProjectFolder(tmp_path, server)
    fill(folder)
    return folder


def full_until_room_is_freed(monkeypatch: pytest.MonkeyPatch, groups: int) -> list[bool]:
    """SQLite finds the disk full from a group on; says whether the room was there when it was freed."""
    freed: list[bool] = []
    record, free_reserved_space = Recorder.record, Store.free_reserved_space
    seen = 0

    def recorded(self: Recorder, events: Sequence[Event], *meanwhile: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == groups:
            (pages,) = self._store.connection.execute("PRAGMA page_count").fetchone()
            self._store.connection.execute(f"PRAGMA max_page_count = {pages}")
        record(self, events, *meanwhile)

    def given_back(self: Store) -> bool:
        freed.append(free_reserved_space(self))
        # the last time is when it is closed
        try:
            self.connection.execute(f"PRAGMA max_page_count = {1 << 30}")
        except sqlite3.ProgrammingError:
            freed.pop()
        return freed[-1] if freed else False

    monkeypatch.setattr(Recorder, "record", recorded)
    monkeypatch.setattr(Store, "free_reserved_space", given_back)
    return freed


@pytest.mark.parametrize("backend", ["async", "threads"])
@pytest.mark.parametrize("groups", [1, 2, 7])
def test_at_any_group(project: ProjectFolder, monkeypatch: pytest.MonkeyPatch, backend: str, groups: int) -> None:
    with monkeypatch.context() as patched:
        freed = full_until_room_is_freed(patched, groups)
        stopped = project.run("run", "--backend", backend)
    assert (stopped.code, freed) == (75, [True]), stopped.err
    assert project.charged() < ROWS
    nothing_was_lost(project)
    project.run("resume", "--backend", backend).ok()
    assert project.charged() == ROWS
    nothing_was_lost(project)
    assert not list(project.root.glob("*-room")), "what was kept is given back"


def test_it_is_full_for_what_answers_lead_to(project: ProjectFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    apply, seen = FollowUp.apply, iter(range(1000))

    def followed(self: FollowUp, events: Sequence[Event]) -> Sequence[Event]:
        if next(seen) == 4:
            raise NoSpaceError("the state: database or disk is full", "free some space")
        return apply(self, events)

    with monkeypatch.context() as patched:
        patched.setattr(FollowUp, "apply", followed)
        stopped = project.run("run")
    assert stopped.code == 75
    assert "calls in flight were awaited and kept" in stopped.err
    nothing_was_lost(project)
    project.run("resume").ok()
    assert project.charged() == ROWS
    nothing_was_lost(project)


def test_a_backend_that_would_send_what_it_has_announced_is_left_at_once(
    project: ProjectFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not look whether it was stopped meanwhile: what could not be recorded must not be sent."""

    def careless(of: Callable[..., Iterator[Sequence[Event]]]) -> Callable[..., Iterator[Sequence[Event]]]:
        def execute(self: Any, work: Work) -> Iterator[Sequence[Event]]:
            for group in of(self, work):
                work.control.cancels_unsent = False
                yield group

        return execute

    monkeypatch.setattr(AsyncCallsBackend, "execute", careless(AsyncCallsBackend.execute))
    monkeypatch.setattr(ThreadCallsBackend, "execute", careless(ThreadCallsBackend.execute))
    with monkeypatch.context() as patched:
        freed = full_until_room_is_freed(patched, 3)
        stopped = project.run("run")
    assert (stopped.code, freed) == (75, [])
    assert "awaited and kept" not in stopped.err
    project.run("resume").ok()
    project.assert_ledger_equals_state()

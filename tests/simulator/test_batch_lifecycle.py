"""The life of a batch by a clock that is moved by hand: what is due when, whatever happened between."""

from __future__ import annotations

import json

import pytest

from bioforge.simulator import Ledger, SimulatorOptions
from bioforge.simulator.batch_lifecycle import BatchContext, JobLifecycle
from bioforge.simulator.batch_state import JobState, JobStates
from bioforge.simulator.files import Files
from bioforge.simulator.folder import Folder
from bioforge.simulator.limits import Quota

from .batching import ENDPOINT, lines

DAWN = 1_000_000.0


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = DAWN

    def __call__(self) -> float:
        return self.now


class Bench:
    """One batch of a hundred lines at a time, and the seconds since it was created."""

    def __init__(self, root, **options):
        self.root = root
        self.options = {"batch_seconds": 100, **options}
        self.clock = Clock()
        self.folder = None

    def open(self, **options):
        """A server's things, as they are after a start."""
        self.close()
        self.folder = Folder(self.root)
        self.ledger = Ledger()
        self.context = BatchContext(
            SimulatorOptions(**{**self.options, **options}),
            self.folder,
            Files(self.folder, self.clock),
            JobStates(self.folder),
            self.ledger,
            Quota(None),
            {},
            self.clock,
        )
        for batch in self.context.batches:
            self.batch = batch
            self.begin()

    def close(self):
        if self.folder is not None:
            self.folder.close()

    def create(self, faults="", count=100):
        self.open()
        incoming = self.folder.incoming()
        incoming.write_bytes(lines(count))
        file = self.context.files.add(incoming, "batch", "a.jsonl")
        self.batch = JobState(
            id="batch_1",
            number=1,
            endpoint=ENDPOINT,
            input_file_id=file.id,
            input_digest="d",
            completion_window="24h",
            metadata=None,
            keep_results=None,
            faults_text=faults,
            created=self.clock.now,
            expires=self.clock.now + self.context.options.batch_window_seconds,
        )
        self.folder.keep_input(file.id, self.batch.id)
        self.context.batches.save(self.batch)
        self.begin()

    def begin(self):
        self.steps = iter(()) if self.batch.over else JobLifecycle(self.batch, self.context).steps()
        self.next = 0.0

    def at(self, seconds):
        """Status, lines answered and lines left over, so many seconds after the creation."""
        self.clock.now = DAWN + seconds
        while self.next <= self.clock.now:
            self.context.pace.begin()
            self.next = next(self.steps, float("inf"))
        return self.batch.status, self.batch.tally.completed, self.batch.tally.unfinished

    def moments(self):
        return {name: round(moment - DAWN) for name, moment in self.batch.moments.items()}

    def files(self):
        found = []
        for file_id in (self.batch.output_file_id, self.batch.error_file_id):
            path = self.folder.content(file_id or "none")
            found.append([json.loads(line) for line in path.read_text().splitlines()] if path.exists() else None)
        return found


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def test_a_tenth_for_validating_a_tenth_for_finalizing_and_an_even_pace_between(bench):
    bench.create()
    assert bench.at(0) == ("validating", 0, 0)
    assert bench.at(9.9) == ("validating", 0, 0)
    assert bench.at(10) == ("in_progress", 0, 0)
    assert bench.at(50) == ("in_progress", 50, 0)
    assert bench.at(89.9) == ("in_progress", 99, 0)
    assert bench.at(90) == ("finalizing", 100, 0)
    assert bench.at(99.9) == ("finalizing", 100, 0)
    assert bench.batch.view()["output_file_id"] is None
    assert bench.at(100) == ("completed", 100, 0)
    assert bench.moments() == {"in_progress": 10, "finalizing": 90, "completed": 100}
    assert len(bench.ledger) == 100


def test_between_two_lines_there_is_nothing_to_do(bench):
    bench.create()
    bench.at(50)
    assert bench.next - DAWN == pytest.approx(50.8)
    bench.at(90)
    assert bench.next - DAWN == 100
    bench.at(100)
    assert bench.next == float("inf")


def test_a_late_look_finds_what_would_have_been(bench):
    bench.create()
    assert bench.at(1000) == ("completed", 100, 0)


def test_no_time_at_all_is_enough_for_a_batch_of_no_seconds(bench):
    bench.options["batch_seconds"] = 0
    bench.create()
    assert bench.at(0) == ("completed", 100, 0)


def test_the_window_ends_where_it_ends(bench):
    bench.options["batch_window_seconds"] = 50.4
    bench.create()
    assert bench.at(50) == ("in_progress", 50, 0)
    assert bench.at(51) == ("expired", 50, 50)
    output, error = bench.files()
    assert [line["custom_id"] for line in output + error] == [f"r-{number}" for number in range(100)]
    assert len(bench.ledger) == 50


def test_a_window_that_ended_unseen_leaves_as_much(bench):
    bench.options["batch_window_seconds"] = 50.4
    bench.create()
    assert bench.at(5000) == ("expired", 50, 50)


def test_a_batch_may_expire_before_its_first_line(bench):
    bench.options["batch_window_seconds"] = 5
    bench.create()
    assert bench.at(20) == ("expired", 0, 100)
    assert bench.files()[0] is None


def test_expired_at_a_share_of_its_lines(bench):
    bench.create("expired=0.4")
    assert bench.at(41) == ("in_progress", 38, 0)
    assert bench.at(42) == ("expired", 40, 60)
    assert bench.batch.expires == DAWN + 42
    assert {line["error"]["code"] for line in bench.files()[1]} == {"batch_expired"}


@pytest.mark.parametrize(("share", "lines"), [("0", 0), ("1", 100)])
def test_expired_at_the_ends(bench, share, lines):
    bench.create(f"expired={share}")
    assert bench.at(95) == ("expired", lines, 100 - lines)


def test_cancelled_at_a_share_of_its_lines(bench):
    bench.options["batch_cancel_seconds"] = 10
    bench.create("cancelled=0.25")
    assert bench.at(10) == ("in_progress", 0, 0)
    assert bench.at(30) == ("cancelling", 25, 0)
    assert bench.at(39) == ("cancelling", 25, 0)
    assert bench.at(40) == ("cancelled", 25, 75)
    assert bench.moments() == {"in_progress": 10, "cancelling": 30, "cancelled": 40}


def test_stuck_until_the_window_ends(bench):
    bench.create("stuck")
    assert bench.at(100) == ("in_progress", 50, 0)
    assert bench.at(86_399) == ("in_progress", 50, 0)
    assert bench.at(86_400) == ("expired", 50, 50)


def test_failed_when_validating_would_have_ended(bench):
    bench.create("failed_validation=7")
    assert bench.at(9) == ("validating", 0, 0)
    assert bench.batch.view()["errors"] is None
    assert bench.at(10)[0] == "failed"
    (error,) = bench.batch.view()["errors"]["data"]
    assert (error["code"], error["line"]) == ("invalid_json_line", 7)


@pytest.mark.parametrize("stop", [0, 5, 30, 89.5, 95, 100])
def test_a_restart_changes_nothing(bench, stop):
    bench.create()
    bench.at(stop)
    charged = len(bench.ledger)
    bench.open()
    assert bench.at(max(stop, 62))[1] == (65 if stop < 62 else 99 if stop < 90 else 100)
    assert bench.at(100) == ("completed", 100, 0)
    assert charged + len(bench.ledger) == 100
    output, error = bench.files()
    assert [line["custom_id"] for line in output] == [f"r-{number}" for number in range(100)]
    assert error is None


@pytest.mark.parametrize("steps", range(1, 12))
def test_a_crash_while_a_batch_expires_changes_nothing(bench, steps):
    bench.create("expired=0.5+lines_duplicated=1")
    bench.clock.now += 60
    for _ in range(steps):
        # A step that is told at once to stop does one line.
        next(bench.steps, None)
    bench.open()
    assert bench.at(60) == ("expired", 50, 50)
    output, error = bench.files()
    assert len(output) == 100
    assert [line["custom_id"] for line in error] == [f"r-{number}" for number in range(50, 100)]


def test_a_batch_over_which_the_simulator_stumbles_fails(bench):
    bench.create()
    JobLifecycle(bench.batch, bench.context).fail(OSError("no space left"))
    view = bench.batch.view()
    assert (view["status"], view["errors"]["data"][0]["code"]) == ("failed", "server_error")

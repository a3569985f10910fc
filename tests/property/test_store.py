"""Groups of events in any order, over any number of processes: what the state says adds up, and nothing shown goes stale."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from projects import ProjectFolder

from bioforge.core.events import (
    Attempt,
    BatchChanged,
    BatchCollected,
    Event,
    Failed,
    LimitLearned,
    Notice,
    Started,
    Succeeded,
    UnmatchedLine,
    Unusable,
)
from bioforge.core.reasons import Decision
from bioforge.core.types import Artist, Batch, BatchState, Failure, Paid, Request, Response, Usage
from bioforge.store import Selection, Store, artists, batches, runs, stale_counts, targets
from bioforge.store.ledger import ledger, money_of
from bioforge.store.recorder import Recorder
from bioforge.store.recovery import recover
from bioforge.store.targets import Planned

from .effort import examples

TARGETS = (
    ("1", "bio", "a"),
    ("2", "bio", "b"),
    ("3", "bio", "a"),
    ("4", "bio", "c"),
    ("1", "poem", "d"),
    ("2", "poem", "a"),
)
"""Artist, recipe and request: some ask the same."""

HASHES = sorted({digest for _, _, digest in TARGETS})
ENDS = ("answered", "unusable", "failed", "maybe", "retried", "retried maybe")
USAGE = Usage(input_tokens=10, output_tokens=20)


@dataclass
class RecordedAttempt:
    """What must be known of an attempt. `outcome`: started, answered, unusable, failed or unclear."""

    attempt: Attempt
    outcome: str = "started"
    paid: str = "maybe"
    cost: float | None = None


class State(RuleBasedStateMachine):
    """A state file and what was recorded in it, beside a list of what must be in there."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="store-"))
        self.attempts: list[RecordedAttempt] = []
        self.states: dict[str, str] = {}
        self.batch: Batch | None = None
        self.strays: set[tuple[str, str]] = set()
        self.version = 0
        self.number = count(1)
        self.store = Store.open(self.folder / "state.db")
        artists.read_into(self.store, [Artist(str(number), f"Artist {number}") for number in range(1, 5)])
        numbers = dict(self.store.rows("SELECT artist_id, id FROM artists"))
        for recipe in ("bio", "poem"):
            definition = targets.definition_id(self.store, recipe, "", {"model": "m"})
            planned = [
                Planned(numbers[artist], f"v1:{digest}", "row", 5, Decision("new"))
                for artist, wanted, digest in TARGETS
                if wanted == recipe
            ]
            targets.save(self.store, recipe, "", definition, planned)
        self.recorder = self.new_recorder()
        self.shown = self.results()

    def new_recorder(self) -> Recorder:
        return Recorder(self.store, runs.begin(self.store, "run", "async", Selection()), "async", "http://here")

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    # ----------------------------------------------------------------------------------------------------------- groups

    def open(self, batch: bool) -> list[RecordedAttempt]:
        return [one for one in self.attempts if one.outcome == "started" and (one.attempt.batch is not None) == batch]

    @rule(
        ends=st.lists(st.tuples(st.integers(0, 9), st.sampled_from(ENDS)), max_size=4),
        starts=st.lists(st.sampled_from(HASHES), max_size=4, unique=True),
        noise=st.booleans(),
    )
    def record_a_group(self, ends: list[tuple[int, str]], starts: list[str], noise: bool) -> None:
        """Some attempts end and some begin, in one transaction."""
        events: list[Event] = [Notice("pause", "x"), LimitLearned("m", 1000)] if noise else []
        events += self.some_ends(ends, batch=False)
        events += [Started(self.new_attempt(digest, None)) for digest in starts if self.free(digest)]
        self.recorder.record(events)

    def free(self, digest: str) -> bool:
        return all(one.attempt.request.request_hash != f"v1:{digest}" for one in (*self.open(True), *self.open(False)))

    def new_attempt(self, digest: str, batch: str | None) -> Attempt:
        name = f"v1:{digest}"
        known = [one for one in self.attempts if one.attempt.request.request_hash == name]
        answered = any(one.outcome in ("answered", "unusable") for one in known)
        (target,) = self.store.row("SELECT min(id) FROM targets WHERE request_hash = ?", (name,))
        request = Request(
            name, "/v1/responses", "m", b'{"model":"m"}', "1", "bio", target=target,
            reason="forced" if answered else "new",
        )  # fmt: skip
        attempt = Attempt(request, len(known) + 1, "W01", f"{digest}-{len(known) + 1}", 1000.0, batch)
        self.attempts.append(RecordedAttempt(attempt))
        self.states[name] = "started" if batch is None else "in batch"
        return attempt

    def some_ends(self, ends: list[tuple[int, str]], *, batch: bool) -> list[Event]:
        events: list[Event] = []
        for place, kind in ends:
            if not (found := self.open(batch)):
                break
            events.append(self.end(found[place % len(found)], kind))
        return events

    def end(self, known: RecordedAttempt, kind: str) -> Event:
        attempt = known.attempt
        if attempt.batch is not None:
            members = batches.StoredMembers(self.store).find(attempt.batch, [attempt.client_request_id])
            member = members[attempt.client_request_id]
            assert member.open
            attempt = member.attempt
        name, cost = attempt.request.request_hash, None if next(self.number) % 5 == 0 else 0.25
        if kind in ("answered", "unusable"):
            known.outcome, known.paid, known.cost = kind, "yes", cost
            self.states[name] = kind
            problem = None if kind == "answered" else Failure("refusal", "no")
            answer = Response(b"{}", f"text {next(self.number)}", USAGE, cost_usd=cost, problem=problem)
            return (Succeeded if problem is None else Unusable)(attempt, answer, 1.0)
        unclear, final = "maybe" in kind, "retried" not in kind
        known.outcome, known.paid = "unclear" if unclear else "failed", "maybe" if unclear else "no"
        self.states[name] = ("maybe paid" if unclear else "failed") if final else "waiting"
        paid = Paid.MAYBE if unclear else Paid.NO
        return Failed(attempt, Failure("server_error", "no"), paid, 1.0, final=final, retry_in=None if final else 1.0)

    # ---------------------------------------------------------------------------------------------------------- batches

    @precondition(lambda self: self.batch is None)
    @rule(members=st.lists(st.sampled_from(HASHES), min_size=1, max_size=4, unique=True))
    def prepare_a_batch(self, members: list[str]) -> None:
        self.batch = Batch(f"bf-{next(self.number)}", "/v1/responses", "m", prepared_at=1000.0)
        started = [Started(self.new_attempt(digest, self.batch.key)) for digest in members if self.free(digest)]
        self.recorder.record([BatchChanged(self.batch), *started])

    @precondition(lambda self: self.batch is not None and self.batch.state is BatchState.PREPARING)
    @rule()
    def submit_it(self) -> None:
        assert self.batch is not None
        self.change(
            replace(self.batch, state=BatchState.SUBMITTED, file_id="f", batch_id="b", requests=len(self.open(True)))
        )

    @precondition(lambda self: self.batch is not None and self.batch.state is BatchState.SUBMITTED)
    @rule(ends=st.lists(st.tuples(st.integers(0, 9), st.sampled_from(ENDS)), max_size=4), stray=st.sampled_from("abc"))
    def collect_some_of_it(self, ends: list[tuple[int, str]], stray: str) -> None:
        assert self.batch is not None
        line = UnmatchedLine(self.batch.key, "unknown", None, stray.encode())
        self.strays.add((self.batch.key, stray))
        self.recorder.record([line, *self.some_ends(ends, batch=True)])

    @precondition(lambda self: self.batch is not None and self.batch.state is BatchState.SUBMITTED)
    @rule(kind=st.sampled_from(ENDS))
    def collect_the_rest(self, kind: str) -> None:
        assert self.batch is not None
        self.recorder.record([self.end(attempt, kind) for attempt in self.open(True)])
        closed = replace(self.batch, state=BatchState.COLLECTED)
        self.recorder.record([BatchChanged(closed), BatchCollected(closed, {"answered": 1}, USAGE)])
        self.batch = None

    @precondition(lambda self: self.batch is not None and self.batch.state is BatchState.SUBMITTED)
    @rule()
    def give_it_up(self) -> None:
        assert self.batch is not None
        batches.give_up(self.store, self.batch)
        for attempt in self.open(True):
            attempt.outcome = "unclear"
            self.states[attempt.attempt.request.request_hash] = "maybe paid"
        self.batch = None

    def change(self, batch: Batch) -> None:
        self.batch = batch
        self.recorder.record([BatchChanged(batch)])

    # --------------------------------------------------------------------------------------------------------- processes

    @rule()
    def open_it_again(self) -> None:
        """Another process on the same file, after one that ended without a word."""
        self.store.close()
        self.store = Store.open(self.folder / "state.db")
        runs.close_crashed(self.store)
        found = recover(self.store)
        unclear = self.open(False)
        assert found.maybe_paid == len(unclear)
        waiting = [name for name, state in self.states.items() if state == "waiting"]
        for attempt in unclear:
            attempt.outcome = "unclear"
            self.states[attempt.attempt.request.request_hash] = "maybe paid"
        if self.batch is not None and self.batch.state is BatchState.PREPARING:
            for attempt in self.open(True):
                attempt.outcome, attempt.paid = "failed", "no"
                waiting.append(attempt.attempt.request.request_hash)
            self.batch = None
        for name in waiting:
            known = [one for one in self.attempts if one.attempt.request.request_hash == name]
            places = [place for place, one in enumerate(known) if one.paid == "yes"]
            since = known[places[-1] + 1 if places else 0 :]
            unclear_since = any(one.paid == "maybe" for one in since)
            self.states[name] = "maybe paid" if unclear_since else "interrupted"
        assert recover(self.store) == type(found)(), "settled once"
        self.recorder = self.new_recorder()

    # --------------------------------------------------------------------------------------------------------- what holds

    @invariant()
    def the_file_is_whole(self) -> None:
        if hasattr(self, "store"):
            assert self.store.value("PRAGMA integrity_check") == "ok"
            with Store.read(self.folder / "state.db") as reader:
                assert reader.value("SELECT count(*) FROM attempts") == len(self.attempts), "not durable"

    @invariant()
    def every_attempt_is_as_it_was_told(self) -> None:
        if not hasattr(self, "store"):
            return
        words = {"answered": "succeeded", "unclear": "maybe paid", "unusable": "unusable", "failed": "failed"}
        known = {
            (request, name): (outcome, paid)
            for request, name, outcome, paid in self.store.rows(
                "SELECT request_hash, client_request_id, outcome, paid FROM attempts"
            )
        }
        assert known == {
            (one.attempt.request.request_hash, one.attempt.client_request_id): (
                words.get(one.outcome, one.outcome),
                one.paid,
            )
            for one in self.attempts
        }
        assert dict(self.store.rows("SELECT request_hash, state FROM requests")) == self.states
        tries = Counter(one.attempt.request.request_hash for one in self.attempts)
        assert dict(self.store.rows("SELECT request_hash, attempts FROM requests")) == tries
        assert self.store.value("SELECT count(*) FROM stray_lines") == len(self.strays)

    @invariant()
    def the_books_are_the_sums_of_the_attempts(self) -> None:
        if not hasattr(self, "store"):
            return
        books, paid = ledger(self.store), [one for one in self.attempts if one.paid == "yes"]
        assert sum(line.attempts for line in books.outcomes) == len(self.attempts)
        assert (books.paid, books.unpriced) == (len(paid), sum(one.cost is None for one in paid))
        assert books.cost_usd == pytest.approx(sum(one.cost or 0.0 for one in paid))
        assert sum(line.cost_usd or 0.0 for line in books.outcomes) == pytest.approx(books.cost_usd)
        assert books.maybe_paid == sum(one.outcome == "unclear" for one in self.attempts)
        assert (books.in_flight, books.in_batches) == (len(self.open(False)), len(self.open(True)))
        assert (books.lost, books.forgotten, books.imported, books.paid_twice) == (0, 0, 0, 0)
        again = Counter(one.attempt.request.request_hash for one in paid)
        assert books.forced_again == sum(again.values()) - len(again)
        money = money_of(self.store)
        assert (money.paid, money.cost_usd, money.maybe_paid) == (books.paid, books.cost_usd, books.maybe_paid)

    @invariant()
    def every_target_is_counted_and_is_what_its_request_is(self) -> None:
        if not hasattr(self, "store"):
            return
        rows = self.store.rows("SELECT recipe, request_hash, reason, held, built_response FROM targets")
        assert len(rows) == len(TARGETS) == stale_counts.total_artists(self.store) + 2
        told = stale_counts.counts(self.store, ["bio", "poem"])
        for recipe in ("bio", "poem"):
            assert told[recipe] == Counter(row[2] for row in rows if row[0] == recipe and row[2] is not None)
        newest = dict(
            self.store.rows("SELECT request_hash, max(id) FROM responses WHERE usable = 1 GROUP BY request_hash")
        )
        for _, digest, reason, held, built in rows:
            state = self.states.get(digest)
            if state == "answered":
                assert (reason, built) == (None, newest[digest])
            elif state == "in batch":
                assert reason in ("in batch", None)
            elif state is None:
                assert reason == "new"
            elif state not in ("started", "waiting"):  # with an answer from before it stays fresh
                assert reason in (None, "failed" if state == "unusable" else state)
            assert bool(held) <= (reason is not None), "held back, although it is fresh"
            assert reason is not None or built in newest.values(), "fresh without an answer"

    def results(self) -> dict[tuple[str, str], tuple[str | None, ...]]:
        rows = self.store.rows("SELECT artist_id, recipe, text, error, state FROM results")
        return {row[:2]: row[2:] for row in rows}

    @invariant()
    def what_is_shown_changes_only_with_its_version(self) -> None:
        """But for errors of what is in a batch: see `test_a_failure_that_went_into_a_batch_leaves_the_outputs`."""
        if not hasattr(self, "store"):
            return
        version, shown = self.store.fact("results_version"), self.results()
        assert version >= self.version, "the version went back"
        for place, (text, error, state) in shown.items():
            before = self.shown[place]
            same = text == before[0] and (error == before[1] or "in batch" in (state, before[2]))
            assert version > self.version or same, "outputs would not be written anew"
        self.version, self.shown = version, shown


Test = State.TestCase
Test.settings = examples(12, steps=15)


def test_a_failure_that_went_into_a_batch_leaves_the_outputs(project: ProjectFolder) -> None:
    project.server.options.script["Absalon"] = ["bad_request"]  # type: ignore[index]
    project.configure('[[output]]\npath = "out.jsonl"\n')
    project.run("run").failed(1)
    assert len(project.records()) == 4
    project.run("run", "--backend", "batch", "--no-wait").failed(75)
    exported = [record["artist_id"] for record in project.records()]
    assert exported == ["1", "2", "0"]
    assert [json.loads(line)["artist_id"] for line in project.read("out.jsonl").splitlines()] == exported

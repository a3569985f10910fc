"""Batches in the state: members that wait for days, reasons that come back, and money that is counted once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from backends.fake_service import DROPPED, LOST, OUTAGE, POLL, Clock, Course, FakeService, World
from filled_state import handed_out
from sqlite_utils import Database

from bioforge.core.errors import PlanMismatch, UsageError
from bioforge.core.events import (
    Attempt,
    BatchChanged,
    BatchCollected,
    Event,
    Failed,
    LimitLearned,
    Started,
    Succeeded,
    UnmatchedLine,
    Unusable,
)
from bioforge.core.interfaces import Member
from bioforge.core.reasons import Decision, KnownRequest, KnownTarget, Reason, RequestState
from bioforge.core.types import CLOSED, Artist, Batch, BatchProblem, BatchState, Failure, Paid, Request, Response, Usage
from bioforge.planner import plan_file
from bioforge.planner.decide import decide
from bioforge.store import Selection, Store, batches, maintenance, runs, stale_counts, targets
from bioforge.store import artists as artists_store
from bioforge.store.ledger import average_seconds, ledger
from bioforge.store.migrations import migrations
from bioforge.store.queue import RequestFilter
from bioforge.store.recorder import Recorder
from bioforge.store.recovery import IN_FLIGHT, UNSENT, recover
from bioforge.store.targets import Planned

ALL = Selection()
USAGE = Usage(input_tokens=10, output_tokens=20)
ANSWER = Response(b"{}", "text", USAGE, "m-2026", cost_usd=0.5)
BUSY = Failure("server_error", "try later")
PROVIDER = "https://api.example"

HASHES = {1: "v1:one", 2: "v1:two", 3: "v1:one", 4: "v1:four"}
"""Of four artists' requests; the third asks the same as the first."""

REASONS: Mapping[int, Decision] = {
    1: Decision("new"),
    2: Decision("changed", "column born"),
    3: Decision("changed", "instructions"),
    4: Decision("new"),
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "state.db") as opened:
        plan(opened, HASHES, REASONS)
        yield opened


def plan(store: Store, hashes: Mapping[int, str], reasons: Mapping[int, Decision], recipe: str = "bio") -> None:
    artists_store.read_into(store, [Artist(str(number), f"Artist {number}") for number in hashes])
    definition = targets.definition_id(store, recipe, "", {"model": "m"})
    planned = [Planned(number, digest, "row", 5, reasons[number]) for number, digest in hashes.items()]
    targets.save(store, recipe, "", definition, planned)
    targets.set_planned(store, recipe, "", definition, 1)


class Submitted:
    """A run that records, with batches made as the driver makes them."""

    def __init__(self, store: Store, backend: str = "batch") -> None:
        self.store = store
        self.run = runs.begin(store, "run", backend, ALL)
        self.recorder = Recorder(store, self.run, backend, PROVIDER)

    def record(self, *events: Event) -> None:
        self.recorder.record(events)

    def prepare(self, key: str, *artists: int, number: int = 1) -> list[Attempt]:
        """A batch whose members are being recorded."""
        batch = Batch(key, "/v1/responses", "m", prepared_at=1000.0)
        attempts = [attempt(key, artist, number) for artist in artists]
        self.record(BatchChanged(batch), *map(Started, attempts))
        return list(batches.StoredMembers(self.store).attempts_of(key))

    def submit(self, key: str, *artists: int, number: int = 1, **values: Any) -> list[Attempt]:
        """A batch that goes on at the provider."""
        members = self.prepare(key, *artists, number=number)
        self.record(BatchChanged(submitted(key, len(artists), **values)))
        return members

    def collect(self, key: str, counts: Mapping[str, int] | None = None, used: Usage = USAGE, **values: Any) -> None:
        batch = submitted(key, 1, **{"state": BatchState.COLLECTED, **values})
        self.record(BatchChanged(batch), BatchCollected(batch, counts or {"answered": 1}, used))


def attempt(key: str, artist: int, number: int = 1) -> Attempt:
    digest = HASHES.get(artist, f"v1:{artist:06d}")
    reason = REASONS[artist].reason if artist in REASONS else "new"
    request = Request(
        digest, "/v1/responses", "m", b'{"model":"m"}', str(artist), "bio", target=artist, reason=reason or ""
    )
    return Attempt(request, number, "batch", f"t{artist}-{number}", 1000.0, key)


def submitted(key: str, requests: int = 1, **values: Any) -> Batch:
    known = {
        "state": BatchState.SUBMITTED,
        "requests": requests,
        "prepared_at": 1000.0,
        "file_id": f"file-{key}",
        "batch_id": f"batch-{key}",
        "submitted_at": 1010.0,
    }
    return Batch(key, "/v1/responses", "m", **{**known, **values})


def stale_of(store: Store) -> dict[str, tuple[str | None, str | None]]:
    """Reason and detail of every artist's target."""
    return {
        row[0]: (row[1], row[2])
        for row in store.rows(
            "SELECT a.artist_id, t.reason, t.detail FROM targets t JOIN artists a ON a.id = t.artist ORDER BY t.id"
        )
    }


def request_of(store: Store, digest: str) -> tuple[Any, ...]:
    return tuple(store.row("SELECT state, batch, attempts FROM requests WHERE request_hash = ?", (digest,)))


def attempts_of(store: Store, column: str = "outcome || ' ' || paid") -> list[Any]:
    return [row[0] for row in store.rows(f"SELECT {column} FROM attempts ORDER BY id")]


# -------------------------------------------------------------------------------------------------------- migrations


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A state of the version before batches, with an answer that was paid for and one call in flight."""
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrations().apply(Database(connection), stop_before="0002_batches")
        connection.executescript("""
            INSERT INTO artists (id, artist_id, artist_name, row_hash, generation) VALUES (1, 'a', 'Absalon', 'r', 1),
                (2, 'b', 'Björk', 'r', 1);
            INSERT INTO definitions (id, recipe, variant, definition_hash, definition) VALUES (1, 'bio', '', 'd', '{}');
            INSERT INTO targets (artist, recipe, request_hash, definition, row_hash, reason, built_response) VALUES
                (1, 'bio', 'v1:one', 1, 'r', NULL, 1), (2, 'bio', 'v1:two', 1, 'r', 'changed', NULL);
            INSERT INTO requests (request_hash, endpoint, model, body, state, response, attempts, created_at) VALUES
                ('v1:one', '/v1/responses', 'm', '{}', 'answered', 1, 1, 1.0),
                ('v1:two', '/v1/responses', 'm', '{}', 'started', NULL, 1, 2.0);
            INSERT INTO runs (command, state, started_at, ended_at) VALUES ('run', 'crashed', 1.0, 2.0);
            INSERT INTO attempts (request_hash, target, run, number, started_at, outcome, paid, client_request_id) VALUES
                ('v1:one', 1, 1, 1, 1.0, 'succeeded', 'yes', 'c-1'), ('v1:two', 2, 1, 1, 2.0, 'started', 'maybe', 'c-2');
            INSERT INTO responses (request_hash, attempt, created_at, usable, text, cost_usd, body) VALUES
                ('v1:one', 1, 1.5, 1, 'A life.', 0.25, '{}');
        """)
    return path


class TestMigration:
    def test_a_state_without_batches_goes_on_as_it_was(self, old: Path) -> None:
        with Store.open(old) as store:
            assert store.row("SELECT text, cost_usd, imported FROM responses") == ("A life.", 0.25, 0)
            assert attempts_of(store) == ["succeeded yes", "started maybe"]
            assert attempts_of(store, "batch") == [None, None]
            assert store.rows("SELECT reason, reason_before, detail_before FROM targets ORDER BY id") == [
                (None, None, None),
                ("changed", None, None),
            ]
            assert batches.open_batches(store) == []
            assert recover(store).maybe_paid == 1
            found = ledger(store)
            assert (found.paid, found.cost_usd, found.in_batches, found.batches) == (1, 0.25, 0, [])

    def test_it_can_have_batches_from_then_on(self, old: Path) -> None:
        with Store.open(old) as store:
            recover(store)
            run = Submitted(store)
            (member,) = submit_hash(run, "k", 2, "v1:two", number=2)
            assert stale_of(store)["b"] == ("in batch", "k")
            run.record(Failed(member, BUSY, Paid.NO, 1.0, final=False))
            assert stale_of(store)["b"] == ("maybe paid", f"interrupted: {IN_FLIGHT}")

    def test_a_reader_migrates_too(self, old: Path) -> None:
        with Store.read(old) as store:
            assert store.value("SELECT count(*) FROM batches") == 0

    def test_it_looks_like_a_state_made_today(self, old: Path, tmp_path: Path) -> None:
        with Store.open(old) as migrated, Store.open(tmp_path / "new.db") as fresh:
            schema = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
            assert migrated.rows(schema) == fresh.rows(schema)
            pragma = "PRAGMA application_id"
            assert migrated.value(pragma) == fresh.value(pragma)

    def test_a_migration_that_fails_leaves_the_old_state(self, old: Path) -> None:
        with closing(sqlite3.connect(old)) as connection:
            connection.execute("CREATE TABLE enqueued_tokens (theirs)")
            connection.commit()
        with pytest.raises(sqlite3.OperationalError, match="already exists"):
            Store.open(old)
        with closing(sqlite3.connect(old)) as connection:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
            assert "batches" not in tables
            assert connection.execute("SELECT count(*) FROM responses").fetchone() == (1,)


# --------------------------------------------------------------------------------------------------------- recording


class TestMembers:
    def test_every_target_of_a_request_is_in_its_batch(self, store: Store) -> None:
        Submitted(store).prepare("k", 1, 2)
        assert stale_of(store) == {
            "1": ("in batch", "k"),
            "2": ("in batch", "k"),
            "3": ("in batch", "k"),
            "4": ("new", None),
        }
        assert request_of(store, "v1:one") == ("in batch", "k", 1)
        assert attempts_of(store) == ["started maybe"] * 2

    def test_they_are_read_back_in_their_order_with_all_that_a_line_needs(self, store: Store) -> None:
        first, second = Submitted(store).prepare("k", 2, 1)
        assert (first.client_request_id, second.client_request_id) == ("t2-1", "t1-1")
        assert (first.row, second.row) == (1, 2)
        assert (first.batch, first.number, first.worker, first.at) == ("k", 1, "batch", 1000.0)
        request = first.request
        assert (request.request_hash, request.endpoint, request.model, request.body) == (
            "v1:two",
            "/v1/responses",
            "m",
            b'{"model":"m"}',
        )
        assert (request.artist_id, request.recipe, request.target, request.reason) == ("2", "bio", 2, "changed")
        assert (request.input_tokens, request.attempts) == (5, 1)

    def test_given_back_they_are_stale_for_what_they_were_stale_for(self, store: Store) -> None:
        targets.force(store, 1, Selection(ids=("4",)))
        before = stale_of(store)
        run = Submitted(store)
        for member in run.prepare("k", 1, 2, 4):
            run.record(Failed(member, Failure("interrupted", "x"), Paid.NO, 0.0, final=False, counted=False))
        assert stale_of(store) == before
        assert before["4"] == ("forced", None)
        assert store.rows("SELECT reason_before, detail_before FROM targets") == [(None, None)] * 4
        assert attempts_of(store) == ["failed no"] * 3
        assert request_of(store, "v1:one") == ("waiting", None, 1)

    def test_an_answer_makes_all_of_them_fresh(self, store: Store) -> None:
        (member,) = Submitted(store).submit("k", 1)
        later = Submitted(store)
        later.record(Succeeded(member, ANSWER, 60.0, "req_1"))
        assert stale_of(store) == {
            "1": (None, None),
            "2": ("changed", "column born"),
            "3": (None, None),
            "4": ("new", None),
        }
        assert store.row("SELECT outcome, paid, seconds, request_id, run FROM attempts") == (
            "succeeded",
            "yes",
            60.0,
            "req_1",
            1,
        )
        assert request_of(store, "v1:one") == ("answered", None, 1)
        assert store.value("SELECT reason_before FROM targets WHERE id = 3") is None

    def test_a_failure_for_good_is_the_new_reason(self, store: Store) -> None:
        run = Submitted(store)
        one, two = run.submit("k", 1, 2)
        run.record(
            Failed(one, Failure("bad_request", "no"), Paid.NO, 1.0, final=True),
            Failed(two, Failure("missing", "no word"), Paid.MAYBE, 1.0, final=True),
        )
        assert stale_of(store)["1"] == stale_of(store)["3"] == ("failed", "bad_request: no")
        assert stale_of(store)["2"] == ("maybe paid", "missing: no word")
        assert store.rows("SELECT DISTINCT reason_before, detail_before FROM targets") == [(None, None)]

    def test_an_unusable_answer_is_held_back(self, store: Store) -> None:
        run = Submitted(store)
        (member,) = run.submit("k", 4)
        run.record(Unusable(member, replace(ANSWER, problem=Failure("truncated", "cut")), 1.0))
        assert store.row("SELECT reason, detail, held FROM targets WHERE id = 4") == ("failed", "truncated: cut", 1)

    def test_one_that_wants_something_else_by_now_is_left_alone(self, store: Store) -> None:
        run = Submitted(store)
        (member,) = run.submit("k", 1)
        plan(
            store,
            {**HASHES, 1: "v1:other"},
            {**REASONS, 1: Decision("changed", "column born"), 3: Decision(Reason.IN_BATCH)},
        )
        run.record(Succeeded(member, ANSWER, 1.0))
        assert stale_of(store)["1"] == ("changed", "column born")
        assert stale_of(store)["3"] == (None, None)

    def test_one_that_came_to_it_later_is_new_when_it_is_given_back(self, store: Store) -> None:
        run = Submitted(store)
        (member,) = run.submit("k", 4)
        plan(
            store,
            {**HASHES, 5: "v1:four"},
            {**REASONS, 4: Decision(Reason.IN_BATCH, "k"), 5: Decision(Reason.IN_BATCH, "k")},
        )
        run.record(Failed(member, BUSY, Paid.NO, 1.0, final=False))
        assert (stale_of(store)["4"], stale_of(store)["5"]) == (("new", None), ("new", None))

    def test_the_end_of_one_attempt_and_the_next_in_another_batch_may_share_a_group(self, store: Store) -> None:
        run = Submitted(store)
        (member,) = run.submit("k", 2)
        again = replace(attempt("n", 2, 2), batch="n")
        run.record(
            Failed(member, BUSY, Paid.NO, 1.0, final=False),
            BatchChanged(Batch("n", "/v1/responses", "m")),
            Started(again),
        )
        assert stale_of(store)["2"] == ("in batch", "n")
        assert request_of(store, "v1:two") == ("in batch", "n", 2)
        (second,) = batches.StoredMembers(store).attempts_of("n")
        run.record(Failed(second, BUSY, Paid.NO, 1.0, final=False))
        assert stale_of(store)["2"] == ("changed", "column born")

    def test_a_group_that_cannot_be_written_leaves_no_batch_behind(self, store: Store) -> None:
        run = Submitted(store)
        broken = replace(attempt("k", 1), batch=None, client_request_id="nobody's")
        with pytest.raises(KeyError):
            run.record(BatchChanged(Batch("k", "/v1/responses", "m")), Succeeded(broken, ANSWER, 1.0))
        assert batches.by_key(store, "k") is None


class TestBatchesThemselves:
    FULL = Batch(
        "k",
        "/v1/chat/completions",
        "m",
        BatchState.FAILED,
        requests=3,
        bytes=300,
        input_tokens=30,
        estimated_usd=0.3,
        prepared_at=1000.0,
        file_id="file-1",
        batch_id="batch-1",
        status="failed",
        output_file_id="file-2",
        error_file_id="file-3",
        completed=2,
        failed=1,
        submitted_at=1001.0,
        expires_at=87401.0,
        ended_at=2000.0,
        usage=Usage(1, 2, 3, 4, 5),
        problems=(BatchProblem("invalid_json_line", "no JSON – “x”", 2), BatchProblem("other", "why")),
    )

    def test_everything_about_one_comes_back(self, store: Store) -> None:
        run = Submitted(store)
        run.record(BatchChanged(Batch("k", "/v1/chat/completions", "m", prepared_at=1000.0)))
        run.record(BatchChanged(self.FULL))
        assert batches.by_key(store, "k") == batches.by_key(store, "batch-1") == self.FULL
        assert batches.by_key(store, "batch-2") is None
        (opened,) = batches.open_batches(store)
        assert (opened.batch, opened.run, opened.backend, opened.provider) == (self.FULL, run.run, "batch", PROVIDER)

    def test_who_prepared_it_stays_who_prepared_it(self, store: Store) -> None:
        first = Submitted(store, "auto")
        first.submit("k", 1)
        Submitted(store, "batch").record(BatchChanged(submitted("k", status="in_progress")))
        (opened,) = batches.open_batches(store)
        assert (opened.run, opened.backend, opened.batch.status) == (first.run, "auto", "in_progress")

    def test_the_open_ones_oldest_first_and_the_newest_first_for_people(self, store: Store) -> None:
        run = Submitted(store)
        for key, at in (("b", 2000.0), ("a", 1000.0), ("c", 3000.0)):
            run.record(BatchChanged(Batch(key, "/v1/responses", "m", prepared_at=at)))
        run.collect("c", prepared_at=3000.0)
        assert [item.batch.key for item in batches.open_batches(store)] == ["a", "b"]
        assert [shown.batch.key for shown in batches.newest(store)] == ["c", "b", "a"]
        assert [shown.batch.key for shown in batches.newest(store, 2)] == ["c", "b"]
        assert [shown.batch.key for shown in batches.newest(store, open_only=True)] == ["b", "a"]

    def test_what_was_collected(self, store: Store) -> None:
        run = Submitted(store)
        run.submit("k", 1)
        run.collect("k", {"answered": 1, "missing": 2}, Usage(7, 8), usage=Usage(7, 9))
        (shown,) = batches.newest(store)
        assert (shown.counts, shown.collected_usage, shown.batch.usage) == (
            {"answered": 1, "missing": 2},
            Usage(7, 8),
            Usage(7, 9),
        )
        assert shown.collected_at is not None
        assert batches.open_batches(store) == []

    def test_awaited_are_those_with_a_member_that_is_selected(self, store: Store) -> None:
        run = Submitted(store)
        run.submit("k", 1)
        run.submit("n", 2)

        def awaited(selection: Selection | None) -> list[bool]:
            return [item.batch.awaited for item in batches.open_batches(store, selection)]

        assert awaited(None) == awaited(ALL) == [True, True]
        assert awaited(Selection(ids=("3",))) == [True, False], "the third artist asks the same as the first"
        assert awaited(Selection(ids=("[24]",))) == [False, True]
        assert awaited(Selection(reasons=(Reason.IN_BATCH,))) == [True, True]
        assert awaited(Selection(reasons=("new",))) == [False, False]
        assert awaited(Selection(recipes=("bio",))) == [True, True]

    def test_those_of_a_recipe_that_was_not_asked_for_are_not_awaited(self, store: Store) -> None:
        """As in `bioforge run facts`, while a batch of `bio` is under way."""
        Submitted(store).submit("k", 1)
        definition = targets.definition_id(store, "facts", "", {"model": "m"})
        targets.save(store, "facts", "", definition, [Planned(1, "v1:fact", "row", 5, Decision("new"))])
        (opened,) = batches.open_batches(store, Selection(recipes=("facts",)))
        assert not opened.batch.awaited

    def test_what_a_run_has_spent_and_may_have(self, store: Store) -> None:
        first = Submitted(store)
        first.submit("a", 1, estimated_usd=0.25)
        (member,) = first.submit("b", 2, estimated_usd=0.5)
        assert runs.spent_usd(store, first.run) == 0.75
        first.record(Succeeded(member, ANSWER, 1.0))
        first.collect("b")
        assert runs.spent_usd(store, first.run) == 0.25 + 0.5
        second = Submitted(store)
        second.record(Started(replace(attempt("", 4), batch=None)))
        assert runs.spent_usd(store, second.run) == 0.5, "nobody knows its fate: it may have cost what others did"
        assert runs.spent_usd(store, 99) == 0.0

    def test_how_long_they_take(self, store: Store) -> None:
        assert batches.average_seconds(store) is None
        run = Submitted(store)
        for number, seconds in enumerate((100.0, 300.0)):
            run.submit(f"k{number}", number + 1)
            run.collect(f"k{number}", ended_at=1010.0 + seconds)
        run.submit("open", 4, ended_at=9999.0)
        assert batches.average_seconds(store) == 200.0

    def test_calls_in_batches_say_nothing_about_how_long_calls_take(self, store: Store) -> None:
        run = Submitted(store)
        (member,) = run.submit("k", 1)
        run.record(Succeeded(member, ANSWER, 86_400.0))
        assert average_seconds(store) == {}

    def test_limits_are_learned_by_provider_and_model(self, store: Store) -> None:
        run = Submitted(store)
        run.record(LimitLearned("m", 900), LimitLearned("n", 100))
        run.record(LimitLearned("m", 500))
        Recorder(store, run.run, "batch", "elsewhere").record([LimitLearned("m", 7)])
        assert batches.enqueued_tokens(store, PROVIDER) == {"m": 500, "n": 100}
        assert batches.enqueued_tokens(store, "elsewhere") == {"m": 7}

    def test_stray_lines_are_kept_once_each(self, store: Store) -> None:
        run = Submitted(store)
        lines = [
            UnmatchedLine("k", "unknown", "z-1", b'{"custom_id":"z-1"}'),
            UnmatchedLine("k", "unreadable", None, b"\xff<html>"),
            UnmatchedLine("k", "duplicated", "z-1", b'{"custom_id":"z-1"}'),
        ]
        run.record(*lines)
        run.record(*lines, UnmatchedLine("n", "unreadable", None, b"\xff<html>"))
        assert store.rows("SELECT batch, kind, custom_id, line FROM stray_lines ORDER BY rowid") == [
            ("k", "unknown", "z-1", b'{"custom_id":"z-1"}'),
            ("k", "unreadable", None, b"\xff<html>"),
            ("k", "duplicated", "z-1", b'{"custom_id":"z-1"}'),
            ("n", "unreadable", None, b"\xff<html>"),
        ]

    def test_one_that_was_given_up_leaves_its_requests_unclear(self, store: Store) -> None:
        run = Submitted(store)
        one, _ = run.submit("k", 1, 2)
        run.record(Succeeded(one, ANSWER, 1.0))
        batch = batches.by_key(store, "k")
        assert batch is not None
        assert batches.give_up(store, batch) == 1
        assert stale_of(store)["1"] == (None, None)
        assert stale_of(store)["2"][0] == "maybe paid"
        assert (ledger(store).maybe_paid, ledger(store).in_batches) == (1, 0)
        assert batches.open_batches(store) == []


class TestStoredMembers:
    SIZE = 2_300

    @pytest.fixture
    def many(self, store: Store) -> Submitted:
        run = Submitted(store)
        run.submit("other", 4)
        run.submit("k", *range(10, 10 + self.SIZE))
        return run

    def test_they_come_in_pages_and_in_order(self, many: Submitted) -> None:
        found = batches.StoredMembers(many.store).attempts_of("k")
        assert [attempt.client_request_id for attempt in found] == [f"t{n}-1" for n in range(10, 10 + self.SIZE)]

    def test_the_open_ones_while_they_are_being_closed(self, many: Submitted) -> None:
        members = batches.StoredMembers(many.store)
        seen: list[Attempt] = []
        for member in members.attempts_of("k", open_only=True):
            seen.append(member)
            if len(seen) % 100 == 0:
                many.record(*(Failed(one, BUSY, Paid.NO, 0.0, final=True) for one in seen[-100::2]))
        assert len(seen) == len({member.row for member in seen}) == self.SIZE
        assert len(list(members.attempts_of("k", open_only=True))) == self.SIZE // 2

    def test_they_are_found_by_name_within_their_batch(self, many: Submitted) -> None:
        members = batches.StoredMembers(many.store)
        first = next(members.attempts_of("k"))
        many.record(Succeeded(first, ANSWER, 1.0))
        found = members.find("k", ["t10-1", "t11-1", "t11-1", "t4-1", "nobody's", 'a "quoted" – name'])
        assert {name: member.open for name, member in found.items()} == {"t10-1": False, "t11-1": True}
        assert found["t10-1"].attempt.row == first.row
        assert found["t10-1"].attempt.request.body == b""
        assert members.find("k", []) == {}
        assert list(members.attempts_of("nobody's")) == []

    def test_a_member_outlives_its_target_and_its_artist(self, store: Store) -> None:
        run = Submitted(store)
        run.submit("k", 4)
        store.connection.execute("DELETE FROM targets WHERE id = 4")
        store.connection.execute("DELETE FROM artists WHERE id = 4")
        (member,) = batches.StoredMembers(store).attempts_of("k")
        assert (member.request.artist_id, member.request.recipe, member.request.target) == ("", "", 4)
        run.record(Succeeded(member, ANSWER, 1.0))
        assert ledger(store).paid == 1


# ---------------------------------------------------------------------------------------------------------- settling


class TestSettling:
    @pytest.mark.parametrize("state", [BatchState.PREPARING, BatchState.RELEASING])
    def test_what_was_never_sent_or_is_refused_is_given_back(self, store: Store, state: BatchState) -> None:
        Submitted(store).submit("k", 1, 2, state=state)
        settled = recover(store)
        assert (settled.maybe_paid, settled.interrupted) == (0, 2)
        assert {reason for reason, _ in stale_of(store).values()} == {"interrupted", "new"}
        assert stale_of(store)["3"] == ("interrupted", f"interrupted: {UNSENT}")
        assert attempts_of(store) == ["failed no"] * 2
        assert request_of(store, "v1:one") == ("interrupted", None, 1)
        batch = batches.by_key(store, "k")
        assert batch is not None
        assert batch.state is BatchState.RELEASED
        assert recover(store).interrupted == 0, "settled once"
        assert len(list(handed_out(store, ALL, resend_maybe_paid=False))) == 3

    @pytest.mark.parametrize(
        "state",
        [
            state
            for state in BatchState
            if state not in (BatchState.PREPARING, BatchState.RELEASING, BatchState.RELEASED)
        ],
    )
    def test_what_may_have_been_sent_is_left_alone(self, store: Store, state: BatchState) -> None:
        run = Submitted(store)
        run.submit("k", 1, 2, state=state)
        before = (stale_of(store), attempts_of(store), request_of(store, "v1:one"))
        settled = recover(store)
        assert (settled.maybe_paid, settled.interrupted) == (0, 0)
        assert (stale_of(store), attempts_of(store), request_of(store, "v1:one")) == before

    def test_at_another_address_only_what_was_never_asked_for_is_let_go_of(self, store: Store) -> None:
        states = [state for state in BatchState if state not in CLOSED]
        run = Submitted(store)
        for number, state in enumerate(states):
            run.submit(f"k-{number}", number + 10, state=state)
        assert batches.release_elsewhere(store, PROVIDER) == 0, "it is not elsewhere"
        assert batches.release_elsewhere(store, f"{PROVIDER}/v1") == 1
        now = {item.batch.key: item.batch.state for item in batches.open_batches(store)}
        expected = {f"k-{number}": state for number, state in enumerate(states)}
        expected[f"k-{states.index(BatchState.PREPARED)}"] = BatchState.RELEASING
        assert now == expected
        assert now[f"k-{states.index(BatchState.CREATING)}"] is BatchState.CREATING

    def test_members_of_a_batch_that_the_state_never_heard_of_are_freed_as_maybe_paid(self, store: Store) -> None:
        run = Submitted(store, "foreign")
        run.submit("k", 2)
        before = stale_of(store)
        run.record(Started(attempt("ghost", 1)), Started(attempt("other", 4)))
        (other,) = batches.StoredMembers(store).attempts_of("other")
        run.record(Failed(other, Failure("x", "?"), Paid.NO, 1.0, final=True))
        assert recover(store).maybe_paid == 1
        words = "interrupted: nothing is known of batch ghost"
        assert stale_of(store) == {
            **before,
            "1": ("maybe paid", words),
            "3": ("maybe paid", words),
            "4": ("failed", "x: ?"),
        }
        assert request_of(store, "v1:one") == ("maybe paid", None, 1)
        assert attempts_of(store) == ["started maybe", "maybe paid maybe", "failed no"]
        assert (ledger(store).in_batches, ledger(store).maybe_paid) == (1, 1)
        assert batches.free_orphans(store) == 0, "freed once"
        found = [item.artist.artist_id for item in handed_out(store, ALL, resend_maybe_paid=True)]
        assert found == ["1", "4"], "and may be asked again"

    def test_what_a_batch_gave_back_and_nobody_tried_again_is_interrupted(self, store: Store) -> None:
        run = Submitted(store)
        one, two = run.submit("k", 1, 2)
        run.record(
            Failed(one, BUSY, Paid.NO, 1.0, final=False), Failed(two, Failure("x", "?"), Paid.MAYBE, 1.0, final=False)
        )
        recover(store)
        assert stale_of(store)["1"] == stale_of(store)["3"] == ("interrupted", "server_error: try later")
        assert stale_of(store)["2"] == ("maybe paid", "x: ?")

    def test_a_batch_and_a_call_in_flight_are_kept_apart(self, store: Store) -> None:
        run = Submitted(store, "auto")
        run.submit("k", 1)
        run.record(Started(replace(attempt("k", 2), batch=None)))
        assert (ledger(store).in_flight, ledger(store).in_batches) == (1, 1)
        assert recover(store).maybe_paid == 1
        assert (stale_of(store)["1"][0], stale_of(store)["2"][0]) == ("in batch", "maybe paid")
        assert (ledger(store).in_flight, ledger(store).in_batches, ledger(store).maybe_paid) == (0, 1, 1)


# --------------------------------------------------------------------------------------------- what a run would ask


class TestWhatIsInBatchIsNotAsked:
    @pytest.fixture
    def under_way(self, store: Store) -> Submitted:
        """The first three artists are in a batch."""
        run = Submitted(store)
        run.submit("k", 1, 2)
        return run

    def test_it_is_not_handed_out(self, store: Store, under_way: Submitted) -> None:
        def names(which: RequestFilter = RequestFilter.STALE) -> list[str]:
            found = handed_out(store, ALL, which, resend_maybe_paid=True)
            return [item.artist.artist_id for item in found]

        assert names() == ["4"]
        assert names(RequestFilter.EVERYTHING) == ["4"]
        assert names(RequestFilter.WAITING) == []
        (member, _) = batches.StoredMembers(store).attempts_of("k")
        under_way.record(Failed(member, BUSY, Paid.NO, 1.0, final=False))
        assert names(RequestFilter.WAITING) == ["1"], "once, although two artists ask for it"
        assert names() == ["1", "4"]

    def test_it_is_counted_apart(self, store: Store, under_way: Submitted) -> None:
        assert stale_counts.requests_to_send(store, ALL, resend_maybe_paid=True) == 1
        assert stale_counts.requests_to_send(store, ALL, resend_maybe_paid=False) == 1
        assert stale_counts.sendable_targets(store, ALL) == 1
        groups = {group.reason: group for group in stale_counts.stale_groups(store, ALL)}
        waiting = groups[Reason.IN_BATCH]
        assert (waiting.targets, waiting.requests, waiting.held, waiting.input_tokens, waiting.detail) == (
            3,
            0,
            3,
            0,
            "k",
        )
        assert (groups["new"].targets, groups["new"].requests) == (1, 1)
        assert stale_counts.counts(store, ["bio"]) == {"bio": {"in batch": 3, "new": 1}}

    def test_each_batch_is_a_group_of_its_own(self, store: Store, under_way: Submitted) -> None:
        under_way.submit("n", 4)
        groups = stale_counts.stale_groups(store, ALL)
        assert [(group.reason, group.detail, group.targets) for group in groups] == [
            ("in batch", "k", 3),
            ("in batch", "n", 1),
        ]

    def test_it_is_listed_unless_only_what_can_be_sent_is_wanted(self, store: Store, under_way: Submitted) -> None:
        assert [target.artist_id for target in targets.listed(store, ALL)] == ["1", "2", "3", "4"]
        assert [target.artist_id for target in targets.listed(store, ALL, sendable=True)] == ["4"]
        assert [target.artist_id for target in targets.listed(store, ALL, stale=False, sendable=True)] == ["4"]

    def test_it_can_be_selected(self, store: Store, under_way: Submitted) -> None:
        selection = Selection.parse((), ("reason:in-batch",))
        assert selection.reasons == (Reason.IN_BATCH,)
        assert [target.artist_id for target in targets.listed(store, selection)] == ["1", "2", "3"]
        with pytest.raises(UsageError, match="no such reason") as caught:
            Selection.parse((), ("reason:in-batches",))
        assert "'in-batch'" in caught.value.hint

    def test_it_cannot_be_forced_as_it_is_being_asked(self, store: Store, under_way: Submitted) -> None:
        targets.force(store, under_way.run, ALL)
        assert {artist: reason for artist, (reason, _) in stale_of(store).items()} == {
            "1": "in batch",
            "2": "in batch",
            "3": "in batch",
            "4": "forced",
        }

    def test_nor_can_a_fresh_target_that_asks_the_same(self, store: Store) -> None:
        run = Submitted(store)
        build(store, run, 1)
        targets.force(store, run.run, Selection(ids=("1",)))
        submit_hash(run, "k", 1, "v1:one", number=2, reason="forced")
        third = Selection(ids=("3",))
        targets.force(store, run.run, third)
        assert list(handed_out(store, third, resend_maybe_paid=True)) == [], "it would be in two batches at once"

    def test_a_plan_leaves_it_out_and_notices_what_went_into_a_batch(
        self, store: Store, under_way: Submitted, tmp_path: Path
    ) -> None:
        path = tmp_path / "plan.jsonl"
        assert plan_file.write(path, store, "p", ALL, None) == 1
        assert list(plan_file.read(path, store, "p")) == [4]
        under_way.submit("n", 4)
        with pytest.raises(PlanMismatch, match="was new when it was planned and is now in batch"):
            list(plan_file.read(path, store, "p"))
        assert plan_file.write(path, store, "p", ALL, None) == 0

    def test_whatever_else_is_known_it_is_in_batch(self) -> None:
        request = KnownRequest(RequestState.IN_BATCH, 7, "k")
        known = KnownTarget("v1:a", "new", None, None, None, None)
        for target in (
            None,
            known,
            replace(known, reason="forced"),
            replace(known, built_response=7, built_definition=1, built_row="row"),
            replace(known, accepted_hash="v1:a", accepted_response=7),
        ):
            assert decide("v1:a", target, request, "column x") == Decision(Reason.IN_BATCH, "k")

    def test_planned_again_it_names_its_batch(self, store: Store, under_way: Submitted) -> None:
        assert targets.known_requests(store, ["v1:one"]) == {"v1:one": KnownRequest(RequestState.IN_BATCH, None, "k")}


class TestUpkeep:
    def test_an_older_answer_may_be_accepted_while_a_newer_one_is_under_way(self, store: Store) -> None:
        run = Submitted(store)
        old = build(store, run, 2)
        plan(store, {**HASHES, 2: "v1:newer"}, {**REASONS, 2: Decision("changed", "column born")})
        (member,) = submit_hash(run, "k", 2, "v1:newer")
        assert maintenance.acceptable(store, ALL) == 1
        assert maintenance.accept(store, ALL, run.run) == 1
        assert stale_of(store)["2"] == (None, None)
        assert store.row("SELECT reason, detail FROM accepted") == ("in batch", "k")
        run.record(Failed(member, BUSY, Paid.NO, 1.0, final=False))
        assert stale_of(store)["2"] == (None, None)
        assert store.value("SELECT built_response FROM targets WHERE id = 2") == old

    def test_and_is_replaced_when_the_newer_one_comes(self, store: Store) -> None:
        run = Submitted(store)
        old = build(store, run, 2)
        plan(store, {**HASHES, 2: "v1:newer"}, {**REASONS, 2: Decision("changed", "column born")})
        (member,) = submit_hash(run, "k", 2, "v1:newer")
        maintenance.accept(store, ALL, run.run)
        run.record(Succeeded(member, ANSWER, 1.0))
        assert store.value("SELECT built_response FROM targets WHERE id = 2") == old + 1

    def test_forgetting_an_answer_leaves_its_target_in_the_batch(self, store: Store) -> None:
        run = Submitted(store)
        build(store, run, 2)
        targets.force(store, run.run, Selection(ids=("2",)))
        (member,) = submit_hash(run, "k", 2, "v1:two", number=2, reason="forced")
        assert maintenance.forget(store, Selection(ids=("2",)), run.run).answers == 1
        assert stale_of(store)["2"] == ("in batch", "k")
        assert request_of(store, "v1:two") == ("in batch", "k", 2)
        assert store.value("SELECT built_response FROM targets WHERE id = 2") is None
        run.record(Succeeded(member, ANSWER, 1.0))
        assert stale_of(store)["2"] == (None, None)
        found = ledger(store)
        assert (found.paid, found.forgotten, found.paid_twice, found.forced_again, found.lost) == (2, 1, 0, 1, 0)

    def test_forgetting_the_answer_of_one_asks_nothing_that_is_being_asked_for_another(self, store: Store) -> None:
        run = Submitted(store)
        build(store, run, 1)
        targets.force(store, run.run, Selection(ids=("1",)))
        submit_hash(run, "k", 1, "v1:one", number=2, reason="forced")
        maintenance.forget(store, Selection(ids=("3",)), run.run)
        assert [item.artist.artist_id for item in handed_out(store, ALL, resend_maybe_paid=True)] == ["2", "4"]

    def test_collecting_garbage_loses_nothing_that_is_under_way(self, store: Store) -> None:
        run = Submitted(store)
        run.submit("k", 1, 2)
        maintenance.collect(store, "[]", run.run)
        assert store.value("SELECT count(*) FROM targets") == 0
        members = list(batches.StoredMembers(store).attempts_of("k", open_only=True))
        assert [member.request.body for member in members] == [b'{"model":"m"}'] * 2
        run.record(*(Succeeded(member, ANSWER, 1.0) for member in members))
        run.collect("k", {"answered": 2})
        found = ledger(store)
        assert (found.paid, found.lost, found.in_batches) == (2, 0, 0)


def build(store: Store, run: Submitted, artist: int) -> int:
    """An answer that was bought by a call; its number."""
    sent = replace(attempt("", artist), batch=None)
    run.record(Started(sent))
    run.record(Succeeded(sent, ANSWER, 1.0))
    return int(store.value("SELECT max(id) FROM responses"))


def submit_hash(
    run: Submitted, key: str, artist: int, digest: str, number: int = 1, reason: str = "changed"
) -> list[Attempt]:
    """A batch that asks one thing for an artist."""
    sent = attempt(key, artist, number)
    sent = replace(sent, request=replace(sent.request, request_hash=digest, reason=reason))
    run.record(BatchChanged(Batch(key, "/v1/responses", "m")), Started(sent))
    run.record(BatchChanged(submitted(key)))
    return list(batches.StoredMembers(run.store).attempts_of(key))


# ------------------------------------------------------------------------------------------------------------- money


class TestMoney:
    def test_members_of_open_batches_are_neither_in_flight_nor_unclear(self, store: Store) -> None:
        Submitted(store).submit("k", 1, 2)
        found = ledger(store)
        assert (found.in_batches, found.in_flight, found.maybe_paid, found.paid) == (2, 0, 0, 0)

    def test_one_answer_for_two_artists_is_paid_once(self, store: Store) -> None:
        run = Submitted(store)
        (member,) = run.submit("k", 1)
        run.record(Succeeded(member, ANSWER, 1.0))
        run.collect("k")
        found = ledger(store)
        assert (found.paid, found.cost_usd, found.paid_twice, found.lost) == (1, 0.5, 0, 0)

    def test_what_expired_and_was_asked_again_is_paid_once(self, store: Store) -> None:
        run = Submitted(store)
        (member,) = run.submit("k", 2)
        run.record(Failed(member, Failure("expired", "too late"), Paid.NO, 1.0, final=False, counted=False))
        run.collect("k", {"expired": 1}, Usage())
        (again,) = run.submit("n", 2, number=2)
        run.record(Succeeded(again, ANSWER, 1.0))
        run.collect("n")
        found = ledger(store)
        assert (found.paid, found.maybe_paid, found.paid_twice, found.lost) == (1, 0, 0, 0)

    def test_what_went_missing_and_was_asked_again_may_have_been_paid_twice_and_is_not_hidden(
        self, store: Store
    ) -> None:
        run = Submitted(store)
        (member,) = run.submit("k", 2)
        run.record(Failed(member, Failure("missing", "no word"), Paid.MAYBE, 1.0, final=False))
        (again,) = run.submit("n", 2, number=2)
        run.record(Succeeded(again, ANSWER, 1.0))
        found = ledger(store)
        assert (found.paid, found.maybe_paid, found.asked_again, found.paid_twice) == (1, 1, 1, 0)
        assert found.maybe_cost_usd == 0.5

    def test_the_bill_is_held_against_the_answers(self, store: Store) -> None:
        run = Submitted(store)
        for artist, (key, billed) in enumerate((("a", USAGE), ("b", Usage(10, 99)), ("c", None)), start=1):
            run.submit(key, artist)
            run.collect(key, used=USAGE, usage=billed)
        found = {usage.batch: usage for usage in ledger(store).batches}
        assert {name: usage.differs for name, usage in found.items()} == {
            "batch-a": False,
            "batch-b": True,
            "batch-c": False,
        }
        assert found["batch-c"].billed is None

    def test_a_batch_that_was_not_collected_has_no_bill_yet(self, store: Store) -> None:
        Submitted(store).submit("k", 1, usage=USAGE)
        assert ledger(store).batches == []

    def test_the_run_that_paid_shows_what_it_came_to_whoever_collected_it(self, store: Store) -> None:
        first = Submitted(store)
        first.submit("k", 1, 2)
        runs.end(store, first.run, "stopped", 75, "waiting")
        assert sums(store, first.run) == (0, 0, None)
        second = Submitted(store)
        one, two = batches.StoredMembers(store).attempts_of("k")
        second.record(Succeeded(one, ANSWER, 1.0), Failed(two, Failure("bad_request", "no"), Paid.NO, 1.0, final=True))
        second.collect("k", {"answered": 1, "failed": 1})
        second.recorder.close()
        runs.end(store, second.run, "finished", 0)
        assert sums(store, first.run) == (1, 1, 0.5)
        assert sums(store, second.run) == (0, 0, None)
        assert store.value("SELECT state FROM runs WHERE id = ?", (first.run,)) == "stopped"


def sums(store: Store, run: int) -> tuple[Any, ...]:
    return tuple(store.row("SELECT succeeded, failed, cost_usd FROM runs WHERE id = ?", (run,)))


# ---------------------------------------------------------------------------------------------- the driver on a state


class StoredBook:
    """A real state in the place of the driver's fake one: recorded and handed out as a run does it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.members = batches.StoredMembers(store)
        self.recorder = Submitted(store).recorder

    @property
    def limits(self) -> dict[str, int]:
        return batches.enqueued_tokens(self.store, PROVIDER)

    def record(self, events: Sequence[Event]) -> None:
        if events:
            self.recorder.record(events)

    def source(self, wanted: Iterable[Request]) -> Iterator[Request]:
        return self._asked(RequestFilter.STALE)

    def retries(self) -> Iterator[Request]:
        return self._asked(RequestFilter.WAITING)

    def _asked(self, which: RequestFilter) -> Iterator[Request]:
        for item in handed_out(self.store, ALL, which, resend_maybe_paid=True):
            yield Request(
                item.request_hash,
                "/v1/responses",
                "m",
                b"{}",
                item.artist.artist_id,
                item.recipe,
                target=item.target,
                reason=item.reason or "",
                input_tokens=10,
                attempts=item.attempts,
            )

    def attempts_of(self, batch: str, *, open_only: bool = False) -> Iterator[Attempt]:
        return self.members.attempts_of(batch, open_only=open_only)

    def find(self, batch: str, custom_ids: Sequence[str]) -> Mapping[str, Member]:
        return self.members.find(batch, custom_ids)

    def recover(self) -> None:
        recover(self.store)
        self.recorder = Submitted(self.store).recorder

    def open(self, *awaited: str) -> list[Batch]:
        return [item.batch for item in batches.open_batches(self.store)]


def world(store: Store, **values: Any) -> World:
    clock = Clock()
    book: Any = StoredBook(store)
    return World(clock=clock, service=FakeService(clock), book=book, **values)


def later(world: World, **values: Any) -> World:
    world.book.recover()
    shared = {"clock": world.clock, "service": world.service, "book": world.book, "learned": world.book.limits}
    return World(**{**shared, "batches": world.book.open(), **values})


class Dies(Exception):
    """A process dies."""


class TestTheDriverOnAState:
    def test_three_batches_for_four_artists_who_ask_three_things(self, store: Store) -> None:
        story = world(store, max_requests=1)
        story.service.fates = {"2": ["busy", "answered"]}
        story.run()
        assert story.sizes == [1, 1, 1, 1]
        assert {reason for reason, _ in stale_of(store).values()} == {None}
        found = ledger(store)
        assert (found.paid, found.paid_twice, found.lost, found.in_batches) == (3, 0, 0, 0)
        assert [shown.counts for shown in batches.newest(store)].count({"answered": 1}) == 3

    def test_what_a_batch_of_an_earlier_run_gives_back_is_bought_once(self, store: Store) -> None:
        first = world(store)
        first.look = lambda group: _die(first.story[-1:] == ["b1 uploaded"])
        with pytest.raises(Dies):
            first.run()
        first.service.limit = 20
        story = later(first)
        story.run()
        found = ledger(store)
        assert (found.paid, found.paid_twice) == (3, 0)
        assert {reason for reason, _ in stale_of(store).values()} == {None}

    @pytest.mark.parametrize("seed", range(10))
    def test_whatever_happens_nothing_is_paid_twice_and_nothing_lost(self, tmp_path: Path, seed: int) -> None:
        random = Random(seed)
        with Store.open(tmp_path / f"{seed}.db") as store:
            hashes = {n: f"v1:{random.choice([n, n, max(1, n - 1)])}" for n in range(1, 9)}
            plan(store, hashes, {n: REASONS.get(n, Decision("new")) for n in hashes})
            story = world(store, max_requests=random.choice([1, 3]))
            kinds = ["busy", "expired", "twice", "answered", "refused", "missing", "lost"]
            story.service.fates = {str(n): random.choices(kinds, k=random.randint(0, 3)) for n in hashes}
            story.service.courses = [Course(random.randint(1, 3), billed=random.random() < 0.8) for _ in range(6)]
            story.clock.step = POLL / 2 + 0.5
            for _ in range(3):
                for call in ("upload", "create", "look at", "download output of"):
                    story.service.trouble[call] = random.choices([None, None, LOST, DROPPED, OUTAGE], k=4)
                groups, end = iter(range(10_000)), random.randint(5, 40)
                story.look = lambda group, groups=groups, end=end: _die(next(groups) == end)  # type: ignore[misc]
                try:
                    story.run()
                except Dies:
                    story = later(story, max_requests=4)
                    continue
                break
            story.service.trouble = {}
            story.service.fates = {}
            last = later(later(story).run())  # one that collects what has failed by now, and one that asks it again
            assert last.run().stopped is None
            assert {reason for reason, _ in stale_of(store).values()} == {None}
            found = ledger(store)
            assert (found.paid_twice, found.lost, found.in_batches, found.in_flight) == (0, 0, 0, 0)
            assert found.paid == len(set(hashes.values())) == len(last.service.delivered())
            assert batches.open_batches(store) == []


def _die(now: bool) -> None:
    if now:
        raise Dies

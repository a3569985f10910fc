"""Groups of events become rows: durable together, and settled truthfully when a run ends without a word."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from filled_state import handed_out
from sqlite_utils import Database

from bioforge.core.errors import StateError
from bioforge.core.events import Attempt, Failed, Started, Succeeded, Unusable
from bioforge.core.reasons import Decision
from bioforge.core.types import Artist, BadRow, Failure, Paid, Request, Response, Usage
from bioforge.store import Selection, Store, artists, runs, targets
from bioforge.store.ledger import ledger
from bioforge.store.migrations import migrations
from bioforge.store.recorder import Recorder
from bioforge.store.recovery import recover
from bioforge.store.targets import Planned

USAGE = Usage(input_tokens=10, output_tokens=20)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "state.db") as opened:
        artists.read_into(opened, [Artist(str(number), f"Artist {number}") for number in range(1, 4)])
        definition = targets.definition_id(opened, "bio", "", {"model": "m"})
        hashes = {1: "v1:one", 2: "v1:two", 3: "v1:one"}  # the third asks the same as the first
        targets.save(
            opened,
            "bio",
            "",
            definition,
            [Planned(number, digest, "row", 5, Decision("new")) for number, digest in hashes.items()],
        )
        yield opened


def attempt(digest: str, number: int = 1, target: int = 1) -> Attempt:
    request = Request(digest, "/v1/responses", "m", b'{"model":"m"}', str(target), "bio", target=target)
    return Attempt(request, number, "W01", f"{digest}-{number}", 1000.0 + number)


def state_of(store: Store) -> dict[str, str | None]:
    return dict(store.rows("SELECT a.artist_id, t.reason FROM targets t JOIN artists a ON a.id = t.artist"))


def recorder(store: Store) -> Recorder:
    return Recorder(store, runs.begin(store, "run", "async", Selection()), "async")


def test_an_answer_makes_every_target_with_this_request_fresh(store: Store) -> None:
    record, sent = recorder(store), attempt("v1:one")
    record.record([Started(sent)])
    assert store.value("SELECT outcome || ' ' || paid FROM attempts") == "started maybe"
    record.record([Succeeded(sent, Response(b"{}", "text", USAGE, "m-2026", cost_usd=0.5), 1.5, "req_1")])
    assert state_of(store) == {"1": None, "2": "new", "3": None}
    assert store.row("SELECT outcome, paid, seconds, request_id FROM attempts") == ("succeeded", "yes", 1.5, "req_1")


def test_the_end_of_one_attempt_and_the_start_of_the_next_may_share_a_group(store: Store) -> None:
    record, first, second = recorder(store), attempt("v1:one", 1), attempt("v1:one", 2)
    record.record([Started(first)])
    failed = Failed(first, Failure("rate_limit", "slow down"), Paid.NO, 0.1, final=False, retry_in=0.0)
    record.record([failed, Started(second)])
    assert store.value("SELECT state FROM requests") == "started"
    record.record([Succeeded(second, Response(b"{}", "text"), 0.2)])
    assert store.row("SELECT state, attempts, error_class FROM requests") == ("answered", 2, None)


def test_an_unusable_answer_is_kept_whole_and_held_back(store: Store) -> None:
    record, sent = recorder(store), attempt("v1:two", target=2)
    record.record([Started(sent)])
    answer = Response(b'{"cut', "half a te", USAGE, problem=Failure("truncated", "max_output_tokens"))
    record.record([Unusable(sent, answer, 1.0)])
    assert store.row("SELECT body, text, usable, error_class FROM responses") == ('{"cut', "half a te", 0, "truncated")
    assert store.row("SELECT reason, detail, held FROM targets WHERE artist = 2") == (
        "failed",
        "truncated: max_output_tokens",
        1,
    )
    assert list(handed_out(store, Selection(ids=("2",)), resend_maybe_paid=True)) == []


def test_bytes_that_are_no_text_are_kept_as_they_came(store: Store) -> None:
    record, sent = recorder(store), attempt("v1:one")
    record.record([Started(sent)])
    failure = Failure("malformed", "no JSON")
    record.record([Failed(sent, failure, Paid.MAYBE, 1.0, final=False, retry_in=1.0, body=b"\xff\x00")])
    assert store.value("SELECT body FROM attempts") == b"\xff\x00"


def test_what_was_in_flight_becomes_maybe_paid_and_what_waited_interrupted(store: Store) -> None:
    record, flying, waiting = recorder(store), attempt("v1:one"), attempt("v1:two", target=2)
    record.record([Started(flying), Started(waiting)])
    record.record([Failed(waiting, Failure("rate_limit", "x"), Paid.NO, 0.1, final=False, retry_in=9.0)])
    settled = recover(store)
    assert (settled.maybe_paid, settled.interrupted) == (1, 1)
    assert state_of(store) == {"1": "maybe paid", "2": "interrupted", "3": "maybe paid"}
    assert ledger(store).maybe_paid == 1
    assert recover(store).maybe_paid == 0, "settled once"


def test_a_wait_after_an_unclear_attempt_stays_unclear(store: Store) -> None:
    record, sent = recorder(store), attempt("v1:two", target=2)
    record.record([Started(sent)])
    record.record([Failed(sent, Failure("timeout", "x"), Paid.MAYBE, 9.0, final=False, retry_in=1.0)])
    recover(store)
    assert state_of(store)["2"] == "maybe paid"


def test_a_group_that_cannot_be_written_leaves_nothing_behind(store: Store) -> None:
    record, sent = recorder(store), attempt("v1:one")
    with pytest.raises(KeyError):
        record.record([Started(sent), Succeeded(attempt("v1:two"), Response(b""), 1.0)])
    assert store.value("SELECT count(*) FROM attempts") == 0


def test_dead_runs_are_closed_by_the_next_writer(store: Store) -> None:
    runs.begin(store, "run", "async", Selection())
    (dead,) = runs.close_crashed(store)
    assert store.row("SELECT state FROM runs WHERE id = ?", (dead.id,)) == ("crashed",)
    assert runs.close_crashed(store) == []


def test_pending_hands_each_request_out_once(store: Store) -> None:
    found = list(handed_out(store, Selection(), resend_maybe_paid=True))
    assert [(item.artist.artist_id, item.request_hash) for item in found] == [("1", "v1:one"), ("2", "v1:two")]
    only_third = list(handed_out(store, Selection(ids=("3",)), resend_maybe_paid=True))
    assert [item.artist.artist_id for item in only_third] == ["3"], "a twin outside the selection does not stand for it"


def test_duplicate_ids_are_kept_out_and_named(store: Store) -> None:
    rows: list[Artist | BadRow] = [Artist("9", "A", source="a.csv", line=2), Artist("9", "B", source="a.csv", line=3)]
    reading = artists.read_into(store, rows)
    assert (reading.artists, reading.new, reading.removed, reading.bad) == (1, 1, 3, 1)
    assert reading.examples == [BadRow("a.csv", 3, "artist_id '9' is already taken")]


def test_a_second_writer_is_refused_and_a_reader_is_not(store: Store) -> None:
    runs.begin(store, "run --limit 3", "async", Selection())
    with pytest.raises(StateError, match=r"in use by `bioforge run --limit 3`, process \d+, since"):
        Store.open(store.path)
    with Store.read(store.path) as reader:
        assert reader.value("SELECT count(*) FROM artists") == 3


def test_the_file_says_whose_it_is_and_how_safe(store: Store) -> None:
    assert store.value("PRAGMA application_id") == 0x62696F66
    assert store.value("PRAGMA journal_mode") == "wal"
    assert store.value("PRAGMA synchronous") == 2, "FULL"


def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE theirs (id)")
    with pytest.raises(StateError, match="was not made by bioforge"):
        Store.open(tmp_path / "other.db")
    with pytest.raises(StateError, match="was not made by bioforge"):
        Store.read(tmp_path / "other.db")


def test_a_file_whose_making_was_cut_off_is_made_to_its_end(tmp_path: Path) -> None:
    """sqlite-utils makes its table of migrations, and then the disk is full or the process dies."""
    with closing(sqlite3.connect(tmp_path / "half.db")) as half:
        migrations().ensure_migrations_table(Database(half))
    Store.open(tmp_path / "half.db").close()
    with Store.read(tmp_path / "half.db") as store:
        assert store.value("SELECT count(*) FROM artists") == 0
        assert store.value("PRAGMA application_id") == 0x62696F66
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        migrations().ensure_migrations_table(Database(other))
        other.execute("INSERT INTO _sqlite_migrations (migration_set, name) VALUES ('theirs', '0001')")
        other.commit()
    with pytest.raises(StateError, match="was not made by bioforge"):
        Store.open(tmp_path / "other.db")


def test_a_folder_is_no_state(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="is a folder"):
        Store.open(tmp_path)

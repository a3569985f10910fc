"""Finding the requests that answers from elsewhere belong to, and keeping them all together or not at all."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from bioforge.core.events import Attempt, Started, Succeeded, Unusable
from bioforge.core.reasons import Decision
from bioforge.core.types import Artist, Failure, Request, Response, Usage
from bioforge.store import Selection, Store, artists, imports, runs, targets
from bioforge.store.imports import ImportTarget, KnownImport, StoredImport
from bioforge.store.ledger import ledger
from bioforge.store.recorder import Recorder
from bioforge.store.targets import Planned

ONE, TWO = f"v1:{'1' * 64}", f"v1:{'2' * 64}"
REFUSED = Failure("refusal", "I would rather not")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "state.db") as opened:
        artists.read_into(opened, [Artist(str(number), f"Artist {number}", "x", {"born": 1}) for number in (1, 2, 3)])
        definition = targets.definition_id(opened, "bio", "", {"model": "m"})
        hashes = {1: ONE, 2: TWO, 3: ONE}  # the third asks the same as the first
        planned = [Planned(number, digest, "row", 5, Decision("new")) for number, digest in hashes.items()]
        targets.save(opened, "bio", "", definition, planned)
        yield opened


@pytest.fixture
def run(store: Store) -> int:
    return runs.begin(store, "import a.jsonl", None, Selection())


def answer(
    digest: str, problem: Failure | None = None, custom_id: str = "t1-1", body: str | None = "{}"
) -> StoredImport:
    wanted = ImportTarget(digest, "/v1/responses", "m", body)
    return StoredImport(
        wanted, Response(b"{}", "text", Usage(1, 2), "m-1", "resp_1", None, 0.5, problem), 1000.0, custom_id
    )


def attempt(digest: str, batch: str | None = None, number: int = 1) -> Attempt:
    request = Request(digest, "/v1/responses", "m", b"{}", "1", "bio", target=1)
    return Attempt(request, number, "W01", f"t1-{number}", 1000.0, batch)


def reasons(store: Store) -> list[tuple[str | None, int]]:
    return store.rows("SELECT reason, held FROM targets ORDER BY id")


def test_an_adopted_answer_makes_every_target_with_its_request_fresh(store: Store, run: int) -> None:
    version = store.fact("results_version")
    assert imports.stale_targets(store, [ONE]) == 2
    imports.adopt(store, run, [answer(ONE)], imports.targets_of(store, [ONE]))
    assert reasons(store) == [(None, 0), ("new", 0), (None, 0)]
    assert imports.stale_targets(store, [ONE]) == 0
    assert store.fact("results_version") == version + 1
    assert store.row("SELECT target, number, outcome, paid FROM attempts") == (1, 1, "imported", "no")
    assert store.row("SELECT state, body, attempts, response FROM requests") == ("answered", "{}", 1, 1)


def test_an_answer_that_cannot_be_used_is_held(store: Store, run: int) -> None:
    imports.adopt(store, run, [answer(TWO, REFUSED)], {})
    assert reasons(store)[1] == ("failed", 1)
    assert imports.known(store, [TWO])[TWO] == KnownImport("unusable", "/v1/responses", "m", False, run, "t1-1")
    imports.adopt(store, run, [answer(TWO, custom_id="t1-2", body=None)], {})
    assert reasons(store)[1] == (None, 0)
    assert imports.known(store, [TWO])[TWO] == KnownImport("answered", "/v1/responses", "m", True, run, "t1-2")


def test_several_answers_to_one_request_are_numbered(store: Store, run: int) -> None:
    imports.adopt(store, run, [answer(ONE, REFUSED), answer(ONE)], {})
    assert store.rows("SELECT number FROM attempts") == [(1,), (2,)]
    assert reasons(store)[0] == (None, 0)


def test_of_answers_that_cannot_be_kept_together_none_is(store: Store, run: int) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        imports.adopt(store, run, [answer(ONE), answer(TWO, body=None), answer(None)], {})  # type: ignore[arg-type]
    assert store.value("SELECT count(*) FROM responses") == 0
    assert store.value("SELECT count(*) FROM attempts") == 0
    assert reasons(store)[0] == ("new", 0)


def test_adopted_answers_stand_apart_in_the_ledger(store: Store, run: int) -> None:
    imports.adopt(store, run, [answer(ONE)], {})
    forced = attempt(ONE, number=2)
    recorder = Recorder(store, runs.begin(store, "run -B", "async", Selection()), "async")
    recorder.record([Started(forced)])
    recorder.record([Succeeded(forced, Response(b"{}", "again", cost_usd=1.0), 0.1)])
    found = ledger(store)
    assert (found.paid, found.cost_usd, found.imported, found.imported_cost_usd) == (1, 1.0, 1, 0.5)
    assert (found.paid_twice, found.forced_again, found.lost) == (0, 0, 0)


def test_a_run_that_adopted_spent_nothing(store: Store, run: int) -> None:
    imports.adopt(store, run, [answer(ONE), answer(TWO, REFUSED)], {})
    runs.end(store, run, "finished", 0)
    imports.end_run(store, run)
    assert store.row("SELECT succeeded, failed, cost_usd FROM runs") == (1, 1, None)


def test_what_is_rehearsed_is_undone(store: Store) -> None:
    before = list(store.connection.iterdump())
    with imports.import_dry_run(store) as place:
        number = runs.begin(place, "import", None, Selection())
        imports.prepare(place)
        imports.add_asked(place, [("a", ONE, "/v1/responses", "m", "{}")])
        imports.adopt(place, number, [answer(ONE)], {})
        assert imports.stale_targets(place, [ONE]) == 0
    assert list(store.connection.iterdump()) == before
    runs.begin(store, "run", "async", Selection())
    assert store.value("SELECT count(*) FROM runs") == 1, "and what comes afterwards is not"


def test_a_rehearsal_that_breaks_off_is_undone(store: Store) -> None:
    def break_off(place: Store) -> None:
        runs.begin(place, "import", None, Selection())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), imports.import_dry_run(store) as place:
        break_off(place)
    assert store.value("SELECT count(*) FROM runs") == 0


def test_lines_of_input_files_are_found_by_their_name(store: Store) -> None:
    for _ in range(2):
        imports.prepare(store)
        imports.add_asked(
            store,
            [
                ("a", ONE, "/v1/responses", "m", '{"a":1}'),
                ("a", ONE, "/v1/responses", "m", '{"a":1}'),
                ("b", ONE, "/v1/responses", "m", '{"a":1}'),
                ("b", TWO, "/v1/responses", "m", '{"a":2}'),
            ],
        )
    found = imports.asked(store, ["a", "b", "c"])
    assert found["a"] == [ImportTarget(ONE, "/v1/responses", "m", '{"a":1}')]
    assert [item.request_hash for item in found["b"]] == [ONE, TWO]
    assert "c" not in found


def test_hashes_are_found_by_their_beginning_by_way_of_an_index(store: Store, run: int) -> None:
    asked_before = f"v1:{'3' * 64}"
    imports.adopt(store, run, [answer(asked_before)], {})
    beginnings = [digest[:43] for digest in (ONE, asked_before, f"v1:{'4' * 64}")]
    assert imports.complete_hashes(store, beginnings) == {beginnings[0]: ONE, beginnings[1]: asked_before}
    assert imports.complete_hashes(store, [f"v1:{'1' * 39}2"]) == {}
    statements: list[str] = []
    store.connection.set_trace_callback(statements.append)
    imports.complete_hashes(store, beginnings)
    store.connection.set_trace_callback(None)
    for statement in statements:
        plan = " ".join(row[3] for row in store.rows(f"EXPLAIN QUERY PLAN {statement}"))
        assert "request_hash>?" in plan
        assert "SCAN q" not in plan


def test_members_of_batches_are_found_by_their_name(store: Store) -> None:
    recorder = Recorder(store, runs.begin(store, "run", "batch", Selection()), "batch")
    recorder.record([Started(attempt(ONE, "bf-1")), Started(attempt(TWO, None, 2))])
    assert imports.batches_of(store, ["t1-1", "t1-2", "t1-3"]) == {"t1-1": "bf-1"}
    assert imports.known(store, [ONE])[ONE].in_batch
    assert imports.known(store, [ONE])[ONE].usable is None


def test_one_target_stands_for_all_that_want_a_request(store: Store) -> None:
    artists.read_into(store, [Artist("2", "Artist 2"), Artist("3", "Artist 3", "x", {"born": 1})])
    found = imports.targets_wanting(store, [ONE, TWO], ["bio"])
    assert found[ONE].artist == Artist("3", "Artist 3", "x", {"born": 1}), "the first was removed from the input"
    assert found[TWO].artist == Artist("2", "Artist 2")
    assert imports.targets_wanting(store, [ONE], ["haiku"]) == {}
    assert imports.artists_named(store, ["2", "4"]) == {"2"}


def test_a_refusal_that_was_paid_for_here_gives_way_to_an_answer_from_elsewhere(store: Store, run: int) -> None:
    sent = attempt(TWO)
    recorder = Recorder(store, runs.begin(store, "run", "async", Selection()), "async")
    recorder.record([Started(sent)])
    recorder.record([Unusable(sent, Response(b"{}", problem=REFUSED, cost_usd=1.0), 0.1)])
    imports.adopt(store, run, [answer(TWO, body=None)], {})
    assert reasons(store)[1] == (None, 0)
    assert (ledger(store).paid, ledger(store).imported, ledger(store).lost) == (1, 1, 0)

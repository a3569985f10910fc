"""Bodies that are packed: each comes back as it came, whatever it is, and never without what it is read with."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlite_utils import Database

from bioforge.core.errors import StateError
from bioforge.store import Store, compression
from bioforge.store.batches import StoredMembers
from bioforge.store.compression import MAGIC, Compressor, Decompressor
from bioforge.store.migrations import migrations

INSTRUCTIONS = "".join(f"Rule {number}: {number * 7919} {number * 104729}. " for number in range(200))


def _is_compressed(value: object) -> bool:
    return isinstance(value, bytes) and value.startswith(compression.MAGIC)


def request(number: int, instructions: str = INSTRUCTIONS) -> bytes:
    return json.dumps({"input": f"Artist {number}", "instructions": instructions, "model": "m"}).encode()


def answer(number: int) -> bytes:
    body = {"id": f"resp_{number:032x}", "object": "response", "status": "completed", "error": None}
    text = f"Artist {number}, born in {1800 + number}. Größe."
    more = {"output": [{"type": "message", "content": [{"type": "output_text", "text": text}]}], "tools": []}
    return json.dumps(
        body | more | {"usage": {"input_tokens": number, "output_tokens": 9}}, ensure_ascii=False
    ).encode()


ODD = {
    "empty": b"",
    "short": b"{}",
    "no text": b"\xff\x00",
    "the magic": MAGIC,
    "the magic and what it stands for": MAGIC + b"1" + zlib.compress(b"x"),
    "the magic before what was escaped": MAGIC + b"0" + MAGIC + b"0",
    "the magic before much": MAGIC + b"a" * 5_000,
    "nothing to gain": bytes(range(256)) * 2,
    "long": b'{"a": "' + b"long " * 30_000 + b'"}',
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "state.db") as opened:
        yield opened


def dictionaries(store: Store, kind: str) -> list[str]:
    return [row[0] for row in store.rows("SELECT recipe FROM dictionaries WHERE kind = ? ORDER BY made_at", (kind,))]


def fill(store: Store, numbers: range = range(1, 41)) -> None:
    """Requests and answers as every version has written them, some of them odd, and a failure."""
    with store.transaction() as connection:
        connection.execute(
            "INSERT OR IGNORE INTO targets (id, artist, recipe, definition, row_hash) VALUES (1, 1, 'bio', 1, '')"
        )
        for number in numbers:
            connection.execute(
                "INSERT INTO requests (request_hash, endpoint, model, body, state, created_at)"
                " VALUES (?, '/v1/responses', 'm', ?, 'answered', 0)",
                (f"v1:{number}", request(number).decode()),
            )
            connection.execute(
                "INSERT INTO attempts (id, request_hash, target, number, started_at, body) VALUES (?, ?, 1, 1, 0, ?)",
                (number, f"v1:{number}", '{"error": "slow down"}' if number == 3 else None),
            )
            body = list(ODD.values())[number] if number < len(ODD) else answer(number)
            connection.execute(
                "INSERT INTO responses (id, request_hash, attempt, created_at, usable, body) VALUES (?, ?, ?, 0, 1, ?)",
                (number, f"v1:{number}", number, compression.as_received(body)),
            )


def bodies(store: Store) -> dict[tuple[str, int], bytes]:
    """Every body of a state, as it came."""
    unpacker = Decompressor(store)
    return {
        (table, number): unpacker.raw(body, f"{table}, {number}")
        for table in ("requests", "responses", "attempts")
        for number, body in store.rows(f"SELECT rowid, body FROM {table} WHERE body IS NOT NULL")
    }


def packed(store: Store, table: str) -> int:
    return sum(_is_compressed(row[0]) for row in store.rows(f"SELECT body FROM {table}"))


# ---------------------------------------------------------------------------------------------------------- one body


@pytest.mark.parametrize("on", [False, True], ids=["off", "on"])
@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
def test_whatever_is_received_comes_back(store: Store, body: bytes, on: bool) -> None:
    packer, unpacker = Compressor(store, on), Decompressor(store)
    for _ in range(3):  # the first one by itself, the next ones with a dictionary
        for pack in (packer.pack_answer, packer.pack_failure):
            kept = pack(body, "m", "bio")
            assert store.value("SELECT ?", (kept,)) == kept
            assert unpacker.raw(kept, "here") == body


@given(received=st.lists(st.binary() | st.builds(MAGIC.__add__, st.binary()) | st.text().map(str.encode), max_size=6))
def test_any_bodies_come_back_in_any_order(received: list[bytes]) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrations().apply(Database(connection))
        store = Store(Path("memory"), connection, None)
        packer, unpacker = Compressor(store, on=True), Decompressor(store)
        for body in [*received, *received]:
            assert unpacker.raw(packer.pack_answer(body, "m"), "here") == body


def test_off_bodies_are_kept_as_ever(store: Store) -> None:
    packer = Compressor(store)
    assert packer.pack_answer(answer(1), "m") == answer(1).decode()
    assert packer.pack_request(request(1), "m") == request(1).decode()
    assert packer.pack_failure(b"\xff\x00", "m") == b"\xff\x00"
    assert store.value("SELECT count(*) FROM dictionaries") == 0


def test_what_hardly_becomes_smaller_stays_readable_for_sqlite(store: Store) -> None:
    packer = Compressor(store, on=True)
    assert packer.pack_answer(b'{"id":1}', "m") == '{"id":1}'


# ------------------------------------------------------------------------------------------------------ dictionaries


def test_what_bodies_share_is_kept_once(store: Store) -> None:
    packer = Compressor(store, on=True)
    requests = [packer.pack_request(request(number), "m", "bio") for number in range(50)]
    answers = [packer.pack_answer(answer(number), "m", "bio") for number in range(50)]
    assert max(map(len, requests[2:])) < 100 < len(request(1)) // 50
    assert max(map(len, answers[2:])) < len(answer(1)) // 3
    assert dictionaries(store, "request") == ["bio"]
    assert len(dictionaries(store, "answer")) <= 2


def test_a_later_process_goes_on_with_them(store: Store) -> None:
    first = Compressor(store, on=True)
    for number in range(4):
        first.pack_request(request(number), "m", "bio")
    assert len(Compressor(store, on=True).pack_request(request(9), "m", "bio")) < 100
    assert len(dictionaries(store, "request")) == 1


def test_recipes_that_take_turns_have_their_own(store: Store) -> None:
    packer = Compressor(store, on=True)
    for number in range(10):
        for recipe, variant in (("bio", ""), ("bio", "instructions=2"), ("haiku", "")):
            kept = packer.pack_request(request(number, f"{recipe}{variant}" + INSTRUCTIONS[::-1]), "m", recipe, variant)
            assert number < 2 or len(kept) < 100
        packer.pack_request(request(number), "m")
    assert sorted(dictionaries(store, "request")) == ["bio", "bio instructions=2", "haiku", "m"]


def test_an_edited_prompt_gets_a_dictionary_of_its_own(store: Store) -> None:
    edited = "".join(f"{number * 15485863} " for number in range(600))
    for number in range(4):
        Compressor(store, on=True).pack_request(request(number), "m", "bio")  # one body a run: nothing to share it with
    assert dictionaries(store, "request") == []
    for instructions in (INSTRUCTIONS, edited):
        packer = Compressor(store, on=True)
        kept = [packer.pack_request(request(number, instructions), "m", "bio") for number in range(20)]
        assert len(kept[-1]) < 100
    assert dictionaries(store, "request") == ["bio", "bio"]


def test_bodies_that_share_nothing_make_few_of_them(store: Store) -> None:
    packer, unpacker = Compressor(store, on=True), Decompressor(store)
    for number in range(2_000):
        body = json.dumps({"text": "".join(chr(97 + (number * step) % 23) for step in range(1, 300))}).encode()
        assert unpacker.raw(packer.pack_answer(body, "m", "bio"), "here") == body
    assert len(dictionaries(store, "answer")) <= 14


def test_a_dictionary_whose_transaction_was_undone_is_not_used(store: Store) -> None:
    packer, unpacker = Compressor(store, on=True), Decompressor(store)
    with suppress(KeyError), store.transaction():
        for number in range(5):
            packer.pack_request(request(number), "m", "bio")
        assert dictionaries(store, "request") == ["bio"]
        raise KeyError
    assert dictionaries(store, "request") == []
    for number in range(5):
        assert unpacker.raw(packer.pack_request(request(number), "m", "bio"), "here") == request(number)
    assert dictionaries(store, "request") == ["bio"]


def test_a_dictionary_that_rotted_is_not_used(store: Store) -> None:
    packer = Compressor(store, on=True)
    for number in range(4):
        packer.pack_request(request(number), "m", "bio")
    store.rows("UPDATE dictionaries SET data = CAST(x'00' || data AS BLOB)")
    kept = Compressor(store, on=True).pack_request(request(9), "m", "bio")
    assert Decompressor(store).raw(kept, "here") == request(9)


# ------------------------------------------------------------------------------------------------------------ damage


def damaged(store: Store, change: str) -> bytes | str:
    packer = Compressor(store, on=True)
    kept = [packer.pack_request(request(number), "m", "bio") for number in range(4)][-1]
    assert isinstance(kept, bytes)
    match change:
        case "cut off":
            return kept[:-3]
        case "longer":
            return kept + b"x"
        case "another byte":
            return kept[:14] + bytes([kept[14] ^ 1]) + kept[15:]
        case "only the magic":
            return MAGIC
        case "of a later version":
            return MAGIC + b"9" + kept[5:]
        case _:
            store.rows("DELETE FROM dictionaries")
            return kept


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("cut off", "ended before the end"),
        ("longer", "Unknown frame descriptor"),
        ("another byte", "corruption|checksum"),
        ("only the magic", "unknown method"),
        ("of a later version", r"unknown method \(b'9'\)"),
        ("no dictionary", r"dictionary \d+ is missing"),
    ],
)
def test_a_body_that_cannot_be_read_is_named(store: Store, change: str, said: str) -> None:
    kept = damaged(store, change)
    with pytest.raises(StateError, match=rf"state\.db: the body in requests, v1:1 cannot be decompressed: .*{said}"):
        Decompressor(store).text(kept, "requests, v1:1")


# ---------------------------------------------------------------------------------------------------- whole states


@pytest.mark.parametrize("change", ["nothing", "a transaction at a time"])
def test_a_state_is_packed_and_unpacked(store: Store, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    if change != "nothing":
        monkeypatch.setattr(compression, "_PAGE", 3)
        monkeypatch.setattr(compression, "_ROWS", 6)
    fill(store)
    before = bodies(store)
    kept = store.rows("SELECT typeof(body), body FROM responses ORDER BY id")
    done = compression.repack(store, on=True)
    assert done.after < done.before / 4
    assert (packed(store, "requests"), packed(store, "attempts")) == (40, 0), "a failure of few bytes stays"
    assert bodies(store) == before
    assert done.bodies == packed(store, "requests") + packed(store, "responses") - sum(
        _is_compressed(body) for _, body in kept
    )
    assert compression.repack(store, on=True).bodies == 0
    back = compression.repack(store, on=False)
    assert back.bodies == done.bodies
    assert bodies(store) == before
    assert store.rows("SELECT typeof(body), body FROM responses ORDER BY id") == kept
    assert store.rows("SELECT DISTINCT typeof(body) FROM requests") == [("text",)]


def test_packing_goes_on_where_it_was_stopped(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_PAGE", 5)
    monkeypatch.setattr(compression, "_ROWS", 5)
    fill(store)
    before = bodies(store)
    write, calls = compression._write, iter(range(4))

    def stopped(*given: object) -> int:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return write(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(compression, "_write", stopped)
    with pytest.raises(KeyboardInterrupt):
        compression.repack(store, on=True)
    monkeypatch.setattr(compression, "_write", write)
    done = packed(store, "responses")
    assert 0 < done < 20
    assert bodies(store) == before
    compression.repack(store, on=True)
    assert packed(store, "responses") > done
    assert bodies(store) == before


KILLED = """
import os, signal, sys
from pathlib import Path
from bioforge.store import Store, compression
compression._PAGE = compression._ROWS = 5
committed, groups = compression._write, 0
def write(*given):
    global groups
    groups += 1
    if groups == int(sys.argv[2]):
        store.transaction = dying
    return committed(*given)
from contextlib import contextmanager
@contextmanager
def dying():
    with Store.transaction(store) as connection:
        yield connection
        os.kill(os.getpid(), signal.SIGKILL)  # everything is written, nothing is committed
compression._write = write
store = Store.open(Path(sys.argv[1]))
compression.repack(store, True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
@pytest.mark.parametrize("group", [1, 2, 9])
def test_no_body_is_left_without_its_dictionary_by_a_kill(tmp_path: Path, group: int) -> None:
    path = tmp_path / "state.db"
    with Store.open(path) as store:
        fill(store)
        before = bodies(store)
        odd = packed(store, "responses")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), str(group)], env={**os.environ}, capture_output=True, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with Store.open(path) as store:
        assert store.value("PRAGMA integrity_check") == "ok"
        assert bodies(store) == before
        assert (packed(store, "responses") + packed(store, "requests") > odd) == (group > 1)
        compression.repack(store, on=True)
        assert bodies(store) == before


def test_whoever_waits_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_PAGE", 4)
    monkeypatch.setattr(compression, "_ROWS", 4)
    monkeypatch.setattr(compression, "_REPORT_EVERY", 25)
    fill(store)
    told: list[int] = []
    done = compression.repack(store, True, told.append)
    assert [number // 25 for number in told] == [1, 2]
    assert told[-1] <= done.bodies


def test_a_body_that_cannot_be_read_stops_unpacking_and_stays(store: Store) -> None:
    fill(store)
    compression.repack(store, on=True)
    store.rows("UPDATE responses SET body = substr(body, 1, length(body) - 1) WHERE id = 30")
    broken = store.value("SELECT body FROM responses WHERE id = 30")
    with pytest.raises(
        StateError, match=r"the body in responses, id 30 cannot be decompressed: .*ended before the end"
    ):
        compression.repack(store, on=False)
    assert store.value("SELECT body FROM responses WHERE id = 30") == broken


def test_members_of_batches_are_read_from_packed_requests(store: Store) -> None:
    fill(store)
    store.rows("UPDATE attempts SET batch = 'k'")
    before = [attempt.request.body for attempt in StoredMembers(store).attempts_of("k")]
    assert before == [request(number) for number in range(1, 41)]
    compression.repack(store, on=True)
    fill(store, range(41, 45))
    store.rows("UPDATE attempts SET batch = 'k'")
    after = [attempt.request.body for attempt in StoredMembers(store).attempts_of("k")]
    assert after == [request(number) for number in range(1, 45)]


# ---------------------------------------------------------------------------------------------------- the state


def test_the_state_remembers_the_option(store: Store) -> None:
    assert not compression.is_enabled(store)
    compression.save_setting(store, on=True)
    assert isinstance(Compressor(store).pack_answer(answer(1) * 3, "m"), bytes)
    compression.save_setting(store, on=False)
    assert isinstance(Compressor(store).pack_answer(answer(1) * 3, "m"), str)
    changes = store.connection.total_changes
    compression.save_setting(store, on=False)
    assert store.connection.total_changes == changes, "an option that stays costs nothing"


def test_a_state_of_the_version_before_can_be_packed(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrations().apply(Database(connection), stop_before="0004_packed_bodies")
        fill(Store(path, connection, None))
        assert not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'dictionaries'").fetchone()
        kept = connection.execute("SELECT * FROM responses ORDER BY id").fetchall()
    with Store.open(path) as migrated, Store.open(tmp_path / "fresh.db") as fresh:
        schema = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
        assert migrated.rows(schema) == fresh.rows(schema)
        assert migrated.rows("SELECT * FROM responses ORDER BY id") == kept
        before = bodies(migrated)
        compression.repack(migrated, on=True)
        assert bodies(migrated) == before


def test_a_migration_that_breaks_off_leaves_the_version_before(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrations().apply(Database(connection), stop_before="0004_packed_bodies")
        fill(Store(path, connection, None))
        connection.execute("CREATE TABLE dictionaries (theirs)")
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        Store.open(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM responses").fetchone() == (40,)
        assert connection.execute("SELECT count(*) FROM _sqlite_migrations").fetchone() == (3,)

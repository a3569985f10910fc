"""Deliver every record at least once and none again after it was recorded."""

from __future__ import annotations

import json
import signal
import sqlite3
import threading
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from bioforge_webhook import WebhookWriter
from bioforge_webhook.options import WebhookOptions
from conftest import Deliver, bios
from filelock import FileLock
from receiver import Answer, Post, Receiver

from bioforge.plugin import OutputError, Record


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def test_records_are_delivered_once(deliver: Deliver, receiver: Receiver) -> None:
    assert deliver(bios(3)) == "delivered 3, 0 before"
    assert deliver(bios(4)) == "delivered 1, 3 before"
    assert deliver(bios(4)) == "delivered 0, 4 before"
    assert receiver.delivered == ["1", "2", "3", "4"]


def test_a_changed_answer_is_delivered_again_and_so_is_one_that_changes_back(
    deliver: Deliver, receiver: Receiver
) -> None:
    deliver(bios(2))
    changed = [bios(1, "A sculptor.")[0], bios(2)[1]]
    assert deliver(changed) == "delivered 1, 1 before"
    assert deliver(bios(2)) == "delivered 1, 1 before"
    assert deliver(bios(2)) == "delivered 0, 2 before"
    texts = [post.records[0]["response_text"] for post in receiver.posts if post.artists == ["1"]]
    assert texts == ["A painter.", "A sculptor.", "A painter."]
    assert receiver.duplicates() == {}, "the third has another id"


def test_an_unclear_change_that_changes_back_is_delivered_again(deliver: Deliver, receiver: Receiver) -> None:
    deliver(bios(1))
    receiver.answer = lambda post: None  # closes the connection: the result is unclear
    with pytest.raises(OutputError):
        deliver(bios(1, "A sculptor."), max_attempts=1)
    receiver.answer = lambda post: 204
    assert deliver(bios(1)) == "delivered 1, 0 before"
    assert receiver.duplicates() == {}


def test_another_url_is_another_receiver_unless_it_has_the_same_name(deliver: Deliver, receiver: Receiver) -> None:
    deliver(bios(1))
    assert deliver(bios(1), url=receiver.url + "?version=2") == "delivered 1, 0 before"
    assert deliver(bios(1), receiver="crm") == "delivered 1, 0 before"
    assert deliver(bios(1), receiver="crm", url=receiver.url + "?version=3") == "delivered 0, 1 before"


def test_records_with_an_error_are_left_out_unless_failed_is_set(deliver: Deliver, receiver: Receiver) -> None:
    records: list[Record] = [*bios(1), {"artist_id": "2", "recipe": "bio", "error": {"class": "refused"}}]
    assert deliver(records) == "delivered 1, 0 before"
    assert deliver(records, failed=True) == "delivered 1, 1 before"
    assert receiver.posts[-1].records[0]["error"] == {"class": "refused"}


def test_several_records_in_a_request(deliver: Deliver, receiver: Receiver) -> None:
    assert deliver(bios(7), batch=3, concurrency=1) == "delivered 7, 0 before"
    assert [post.artists for post in receiver.posts] == [["1", "2", "3"], ["4", "5", "6"], ["7"]]
    assert all(isinstance(json.loads(post.body), list) for post in receiver.posts)
    assert deliver(bios(9), batch=3) == "delivered 2, 7 before"


def test_one_refused_record_does_not_hold_back_the_others_of_its_request(deliver: Deliver, receiver: Receiver) -> None:
    receiver.answer = lambda post: (422, {}, b"no such artist") if "5" in post.artists else 200
    with pytest.raises(OutputError, match=r"1 of 8 records .* 422 .*: no such artist \(delivered 7, 0 before\)"):
        deliver(bios(8), batch=8)
    assert receiver.delivered == ["1", "2", "3", "4", "6", "7", "8"]
    assert receiver.duplicates() == {}


def test_failures_are_listed_and_only_they_are_sent_by_the_next_run(
    deliver: Deliver, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.answer = lambda post: 500 if post.artists[0] in ("2", "4") else 200
    with pytest.raises(OutputError) as caught:
        deliver(bios(5), max_attempts=2)
    assert caught.value.message == (
        f"2 of 5 records could not be delivered to {receiver.url.split('/')[2]}: 500 Internal Server Error"
        " (delivered 3, 0 before)"
    )
    assert "the next run posts only those" in caught.value.hint
    assert caught.value.exit_code == 1
    found = rows(tmp_path / "deliveries.db", "SELECT artist_id, attempts, error FROM failures ORDER BY artist_id")
    assert found == [("2", 2, "500 Internal Server Error"), ("4", 2, "500 Internal Server Error")]

    receiver.forget()
    receiver.answer = lambda post: 200
    assert deliver(bios(5)) == "delivered 2, 3 before"
    assert receiver.delivered == ["2", "4"]
    assert rows(tmp_path / "deliveries.db", "SELECT * FROM failures") == []


def test_a_receiver_that_fails_now_and_then_gets_all(deliver: Deliver, receiver: Receiver) -> None:
    def now_and_then(post: Post) -> Answer:
        return (503, None, 429, 200, 200)[post.number % 5]

    receiver.answer = now_and_then
    assert deliver(bios(40), max_attempts=20) == "delivered 40, 0 before"
    assert receiver.delivered == sorted(str(number) for number in range(1, 41))


def test_an_endpoint_that_is_down_gets_one_request_at_a_time(deliver: Deliver, receiver: Receiver) -> None:
    receiver.answer = lambda post: 503
    with pytest.raises(OutputError, match=r"100 of 100 records .* stopped after 3 failures in a row"):
        deliver(bios(100), stop_after=3, max_attempts=2, concurrency=8)
    assert len(receiver.posts) == 6
    assert receiver.most_at_once == 1, "until it has taken something it is asked by one at a time"


def test_an_endpoint_that_goes_down_stops_the_delivery(deliver: Deliver, receiver: Receiver) -> None:
    receiver.answer = lambda post: 200 if post.number <= 10 else 503
    with pytest.raises(OutputError, match=r"90 of 100 records .* \(delivered 10, 0 before\)"):
        deliver(bios(100), stop_after=3, max_attempts=1, concurrency=1)
    assert len(receiver.posts) == 13


def test_refused_records_do_not_stop_the_others(deliver: Deliver, receiver: Receiver) -> None:
    receiver.answer = lambda post: 422 if int(post.artists[0]) <= 20 else 200
    with pytest.raises(OutputError, match=r"20 of 30 records .* \(delivered 10, 0 before\)"):
        deliver(bios(30), stop_after=3)


def test_a_gone_endpoint_gets_one_request_a_run(deliver: Deliver, receiver: Receiver) -> None:
    receiver.answer = lambda post: 410
    with pytest.raises(OutputError, match=r"50 of 50 records .* the endpoint is gone \(410 Gone\)"):
        deliver(bios(50), concurrency=8)
    assert len(receiver.posts) == 1


def test_a_long_retry_after_ends_the_run(deliver: Deliver, receiver: Receiver) -> None:
    receiver.answer = lambda post: 200 if post.number == 1 else (429, {"Retry-After": "900"}, b"")
    with pytest.raises(OutputError, match=r"4 of 5 records .*Retry-After is 900 s.*; nothing more was sent"):
        deliver(bios(5), concurrency=1)
    assert len(receiver.posts) == 2


def test_an_unreachable_endpoint(deliver: Deliver, receiver: Receiver, tmp_path: Path) -> None:
    with Receiver() as other:
        url = other.url
    with pytest.raises(OutputError, match=r"2 of 2 records .* Connection refused"):
        deliver(bios(2), url=url, max_attempts=2)
    assert deliver(bios(2)) == "delivered 2, 0 before"


def test_a_record_without_a_json_form_is_one_failure(deliver: Deliver, receiver: Receiver) -> None:
    records: list[Record] = [{**bios(1)[0], "parsed": float("inf")}, bios(2)[1]]
    with pytest.raises(OutputError, match=r"1 of 2 records .* 1: cannot be written as JSON"):
        deliver(records)
    assert receiver.delivered == ["2"]


def test_concurrency_is_the_limit_of_requests_in_flight(deliver: Deliver, receiver: Receiver) -> None:
    both = threading.Barrier(3)

    def together(post: Post) -> Answer:
        if post.number > 1:
            both.wait(30)  # passes when three requests are in flight
        return 200

    receiver.answer = together
    assert deliver(bios(10), concurrency=3) == "delivered 10, 0 before"
    assert receiver.most_at_once == 3


def test_memory_does_not_grow_with_the_records(receiver: Receiver, tmp_path: Path) -> None:
    def many(number: int) -> Iterator[Record]:
        for artist in range(number):
            yield {**bios(1, "x" * 1_000)[0], "artist_id": str(artist)}

    def peak(number: int) -> int:
        options = WebhookOptions.model_validate({"url": receiver.url, "batch": 100})
        tracemalloc.start()
        try:
            WebhookWriter()(many(number), tmp_path / f"{number}.db", options)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    small = peak(500)
    receiver.forget()
    large = peak(5_000)
    kept = sum(len(post.body) for post in receiver.posts) * 2  # the test receiver's share
    assert large - kept < small * 3


def test_an_interrupted_delivery_has_recorded_accepted_records(
    deliver: Deliver, receiver: Receiver, tmp_path: Path
) -> None:
    """Interrupt with Python's own SIGINT handler: background processes of a shell ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupted() -> Iterator[Record]:
        yield from bios(5)
        signal.raise_signal(signal.SIGINT)

    options = WebhookOptions.model_validate({"url": receiver.url})
    try:
        with pytest.raises(KeyboardInterrupt):
            WebhookWriter()(interrupted(), tmp_path / "deliveries.db", options)
    finally:
        signal.signal(signal.SIGINT, before)
    taken = len(receiver.taken)
    assert deliver(bios(5)) == f"delivered {5 - taken}, {taken} before"
    assert receiver.duplicates() == {}


def test_an_error_while_reading_records_keeps_deliveries(deliver: Deliver, receiver: Receiver, tmp_path: Path) -> None:
    def broken() -> Iterator[Record]:
        yield from bios(3)
        raise RuntimeError("the state cannot be read")

    with pytest.raises(RuntimeError):
        WebhookWriter()(broken(), tmp_path / "deliveries.db", WebhookOptions.model_validate({"url": receiver.url}))
    assert len(rows(tmp_path / "deliveries.db", "SELECT id FROM deliveries")) == len(receiver.taken) > 0


# ----------------------------------------------------------------------------------------- the record of deliveries


def test_the_record_lists_deliveries_and_times(deliver: Deliver, receiver: Receiver, tmp_path: Path) -> None:
    deliver(bios(2))
    path = tmp_path / "deliveries.db"
    ids = {record["delivery_id"] for post in receiver.posts for record in post.records}
    found = rows(path, "SELECT id, artist_id, recipe, variant, status FROM deliveries ORDER BY artist_id")
    assert [row[1:] for row in found] == [("1", "bio", "", 204), ("2", "bio", "", 204)]
    assert {row[0] for row in found} == ids
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]
    assert not path.with_name("deliveries.db-wal").exists(), "one file, when nobody has it open"


def test_another_file_is_refused_and_unchanged(deliver: Deliver, receiver: Receiver, tmp_path: Path) -> None:
    text = tmp_path / "bios.jsonl"
    text.write_text('{"artist_id": "1"}\n' * 100)
    other = tmp_path / "state.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE artists (id)")
    for path in (text, other):
        before = path.read_bytes()
        with pytest.raises(OutputError, match="is not a record of deliveries"):
            deliver(bios(1), path=path)
        assert path.read_bytes() == before
    with pytest.raises(OutputError, match="cannot use the record of deliveries"):
        deliver(bios(1), path=tmp_path)
    assert receiver.posts == []


def test_a_record_of_a_newer_version_is_refused_and_unchanged(
    deliver: Deliver, receiver: Receiver, tmp_path: Path
) -> None:
    deliver([])
    with closing(sqlite3.connect(tmp_path / "deliveries.db")) as connection:
        connection.execute("PRAGMA user_version = 2")
    with pytest.raises(OutputError, match="newer"):
        deliver(bios(1))


def test_a_second_process_with_the_same_record_is_refused(deliver: Deliver, receiver: Receiver, tmp_path: Path) -> None:
    with FileLock(tmp_path / "deliveries.db.lock"), pytest.raises(OutputError, match="another process is delivering"):
        deliver(bios(1))
    assert deliver(bios(1)) == "delivered 1, 0 before"


def test_nothing_is_posted_if_the_record_is_not_writable(deliver: Deliver, receiver: Receiver, tmp_path: Path) -> None:
    deliver(bios(1))
    with closing(sqlite3.connect(tmp_path / "deliveries.db")) as connection:
        connection.execute("CREATE TRIGGER full BEFORE INSERT ON deliveries BEGIN SELECT RAISE(FAIL, 'disk full'); END")
    with pytest.raises(OutputError, match=r"cannot use the record of deliveries .*: disk full"):
        deliver(bios(50))
    assert len(receiver.posts) == 2, "one more, and no further"


def test_the_record_contains_no_bios(deliver: Deliver, tmp_path: Path) -> None:
    deliver(bios(1, "A very private life."), headers={"X-Source": "bios"}, secret_env="WEBHOOK_SECRET")
    content = (tmp_path / "deliveries.db").read_bytes()
    assert b"private" not in content
    assert b"whsec" not in content
    assert Counter(rows(tmp_path / "deliveries.db", "SELECT artist_id FROM deliveries")) == {("1",): 1}

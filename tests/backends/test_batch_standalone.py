"""The Batch API without a project, as a stranger's program uses it: prepare, submit, poll, fetch, over a socket."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from odd_server import OddServer

from bioforge.backends.batch.service import STATUSES, BatchResult, CallError, status
from bioforge.backends.openai.plugin import BatchBackend
from bioforge.core.errors import ConfigError, UsageError
from bioforge.core.interfaces import BackendContext
from bioforge.core.types import Batch, BatchState, Paid, Request
from bioforge.simulator import Simulator, SimulatorOptions

from .bench import requests

Start = Callable[..., tuple[BatchBackend, Simulator]]


@pytest.fixture
def start(stack: ExitStack) -> Start:
    """A backend, and the provider it speaks to, which is done with a batch at once."""

    def begin(options: dict[str, Any] | None = None, **simulated: Any) -> tuple[BatchBackend, Simulator]:
        server = stack.enter_context(Simulator(SimulatorOptions(**{"batch_seconds": 0, **simulated})))
        backend = BatchBackend(BackendContext(server.base_url, "key", options=options or {}))
        stack.callback(backend.service.close)
        return backend, server

    return begin


def ended(backend: BatchBackend, batch: Batch) -> Batch:
    """Polled until it is over; the test's own time limit ends a wait for ever."""
    while status(batch := backend.poll(batch)) in ("submitted", "in_progress"):
        continue
    return batch


def bought(
    backend: BatchBackend, asked: Iterator[Request], folder: Path
) -> tuple[Batch, dict[str | None, BatchResult]]:
    """One batch, from its requests to its rows by the artists' ids."""
    wanted = list(asked)
    names = {backend.service.custom_id(request, 1): request.artist_id for request in wanted}
    (prepared,) = backend.prepare(wanted, folder)
    batch = ended(backend, backend.submit(prepared))
    return batch, {names.get(row.custom_id or ""): row for row in backend.fetch(batch)}


class TestTheProgramOfTheDocstring:
    def test_from_requests_to_texts(self, start: Start, tmp_path: Path) -> None:
        backend, server = start({"max_requests": 4})
        texts: dict[str | None, str | None] = {}

        prepared = backend.prepare(requests(10), tmp_path / "work")
        batches = [backend.submit(one) for one in prepared]
        while batches:
            batches = [backend.poll(batch) for batch in batches]
            for batch in [one for one in batches if status(one) in ("completed", "failed", "cancelled")]:
                texts |= {row.custom_id: row.text for row in backend.fetch(batch) if row.success}
                batches.remove(batch)

        assert {backend.service.custom_id(request, 1) for request in requests(10)} == set(texts)
        assert all((text or "").startswith("Simulated answer") for text in texts.values())
        assert server.ledger.batches.created == 3
        assert server.ledger.totals().charges == server.ledger.totals().bodies == 10

    def test_the_files_can_be_looked_at_before_anything_is_sent(self, start: Start, tmp_path: Path) -> None:
        backend, server = start({"max_requests": 2})
        chat = requests(["Björk"], "/v1/chat/completions")
        prepared = backend.prepare([*requests(3), *chat], tmp_path / "work")
        assert server.ledger.counts.requests == 0
        assert [(one.batch.endpoint, one.batch.requests) for one in prepared] == [
            ("/v1/responses", 2),
            ("/v1/responses", 1),
            ("/v1/chat/completions", 1),
        ]
        for one in prepared:
            content = one.path.read_bytes()
            assert one.batch.bytes == len(content)
            assert one.batch.state is BatchState.PREPARED
            for line in content.splitlines():
                asked = json.loads(line)
                assert (asked["method"], asked["url"]) == ("POST", one.batch.endpoint)
        assert sorted(path.name for path in (tmp_path / "work").iterdir()) == sorted(
            f"{one.batch.key}.jsonl" for one in prepared
        )

    def test_bodies_go_out_byte_for_byte(self, start: Start, tmp_path: Path) -> None:
        backend, _ = start()
        (request,) = requests(["Łempicka – ünïcode \u2028"])
        (prepared,) = backend.prepare([request], tmp_path)
        assert b'"body":' + request.body + b"}\n" in prepared.path.read_bytes()

    def test_nothing_asked_is_nothing_prepared(self, start: Start, tmp_path: Path) -> None:
        backend, _ = start()
        assert backend.prepare([], tmp_path / "work") == []

    def test_a_batch_can_be_put_away_and_polled_by_another_program(self, start: Start, tmp_path: Path) -> None:
        backend, server = start()
        (prepared,) = backend.prepare(requests(3), tmp_path)
        kept = pickle.dumps(backend.submit(prepared))
        later = BatchBackend(BackendContext(server.base_url, "key"))
        with closing(later.service):
            batch = ended(later, pickle.loads(kept))
            assert len(list(later.fetch(batch))) == 3


class TestStatusWords:
    def test_every_state_has_one_of_five_words(self) -> None:
        assert STATUSES.keys() == set(BatchState)
        assert set(STATUSES.values()) == {"submitted", "in_progress", "completed", "failed", "cancelled"}

    @pytest.mark.parametrize(
        ("faults", "word", "answered"),
        [
            ("ok", "completed", 4),
            ("errors_only", "completed", 0),
            ("failed_validation=2", "failed", 0),
            ("expired=0.5", "failed", 2),
            ("cancelled=0.5", "cancelled", 2),
        ],
    )
    def test_how_a_batch_ends(self, start: Start, tmp_path: Path, faults: str, word: str, answered: int) -> None:
        backend, _ = start(batch_script=[faults])
        batch, rows = bought(backend, requests(4), tmp_path)
        assert status(batch) == word
        assert sum(row.success for row in rows.values()) == answered

    def test_how_it_is_on_its_way(self, start: Start, tmp_path: Path) -> None:
        backend, _ = start(batch_script=["stuck"])
        (prepared,) = backend.prepare(requests(4), tmp_path)
        batch = backend.submit(prepared)
        assert status(batch) == "submitted"
        while status(batch := backend.poll(batch)) == "submitted":
            continue
        assert status(batch) == "in_progress"
        assert list(backend.fetch(batch)) == [], "there is nothing yet"

    def test_why_it_failed(self, start: Start, tmp_path: Path) -> None:
        backend, _ = start(batch_script=["failed_validation=2"])
        batch, _ = bought(backend, requests(4), tmp_path)
        assert [(problem.code, problem.line) for problem in batch.problems] == [("invalid_json_line", 2)]


class TestRows:
    def test_an_answer(self, start: Start, tmp_path: Path) -> None:
        backend, _ = start()
        _, rows = bought(backend, requests(1, metadata={"shelf": "A3"}), tmp_path)
        row = rows["a-0"]
        assert (row.success, row.error, row.retryable, row.stops_run) == (True, None, False, False)
        assert (row.text or "").startswith("Simulated answer")
        assert row.data["object"] == "response"
        assert row.data["status"] == "completed"
        assert row.metadata == {"shelf": "A3"}
        assert row.paid is Paid.YES
        assert (row.request_id or "").startswith("req_")
        assert row.retry_after is None

    def test_it_costs_half(self, start: Start, tmp_path: Path) -> None:
        backend, _ = start()
        _, rows = bought(backend, requests(1), tmp_path)
        answer = rows["a-0"].answer
        assert answer is not None
        assert answer.usage is not None
        assert answer.cost_usd == backend.price("gpt-6-luna", answer.usage)
        assert answer.cost_usd == pytest.approx((backend.price("gpt-6-luna", answer.usage, "default") or 0) / 2)

    def test_without_metadata_there_is_none(self, start: Start, tmp_path: Path) -> None:
        backend, _ = start()
        _, rows = bought(backend, requests(1), tmp_path)
        assert rows["a-0"].metadata == {}

    def test_an_answer_that_cannot_be_used(self, start: Start, tmp_path: Path) -> None:
        backend, _ = start(script={"Absalon": ["incomplete"]})
        _, rows = bought(backend, requests(["Absalon", "Björk"]), tmp_path)
        cut, whole = rows["a-0"], rows["a-1"]
        assert whole.success
        assert not cut.success
        assert cut.error is not None
        assert cut.error.error_class == "truncated"
        assert cut.data["status"] == "incomplete"
        assert (cut.paid, cut.retryable) == (Paid.YES, False)

    @pytest.mark.parametrize(
        ("fault", "error_class", "code", "transient", "stops"),
        [
            ("bad_request", "bad_request", "invalid_prompt", False, False),
            ("server_error", "server_error", "server_error", True, False),
            ("rate_limit", "rate_limit", "rate_limit_exceeded", True, False),
            ("drop_before", "timeout", "request_timeout", True, False),
        ],
    )
    def test_a_failure(
        self, start: Start, tmp_path: Path, fault: str, error_class: str, code: str, transient: bool, stops: bool
    ) -> None:
        backend, _ = start(script={"Absalon": [fault]})
        _, rows = bought(backend, requests(["Absalon", "Björk"]), tmp_path)
        row = rows["a-0"]
        assert (row.success, row.text, row.data, row.metadata, row.answer) == (False, None, None, {}, None)
        assert row.error is not None
        assert (row.error.error_class, row.error.code) == (error_class, code)
        assert (row.retryable, row.stops_run, row.paid) == (transient, stops, Paid.NO)
        assert row.body
        assert rows["a-1"].success

    def test_no_money_left(self, start: Start, tmp_path: Path) -> None:
        backend, _ = start(quota_after=1)
        _, rows = bought(backend, requests(2), tmp_path)
        assert [(row.success, row.stops_run) for row in rows.values()] == [(True, False), (False, True)]

    def test_what_expired_may_be_asked_again(self, start: Start, tmp_path: Path) -> None:
        backend, _ = start(batch_script=["expired=0.5", "ok"])
        asked = list(requests(4))
        _, rows = bought(backend, iter(asked), tmp_path)
        again = [request for request in asked if rows[request.artist_id].retryable]
        assert {rows[request.artist_id].error.error_class for request in again} == {"expired"}  # type: ignore[union-attr]
        _, rest = bought(backend, iter(again), tmp_path)
        assert all(row.success for row in rest.values())
        assert len(rest) == 2

    def test_what_has_no_row_is_the_caller_s_to_find(self, start: Start, tmp_path: Path) -> None:
        backend, _ = start(batch_script=["lines_missing=0.5"])
        batch, rows = bought(backend, requests(20), tmp_path)
        assert status(batch) == "completed"
        assert 0 < len(rows) < 20

    def test_what_is_no_row_is_told_too(self, stack: ExitStack) -> None:
        server = stack.enter_context(OddServer((200, {}, b'not json\n\n{"custom_id": "x"}\n')))
        backend = BatchBackend(BackendContext(server.base_url, "key"))
        with closing(backend.service):
            rows = list(backend.fetch(Batch("k", "/v1/responses", "m", output_file_id="file-1")))
        assert [(row.custom_id, row.error.error_class) for row in rows if row.error] == [
            (None, "unreadable"),
            ("x", "batch_error"),
        ]
        assert {row.paid for row in rows} == {Paid.MAYBE}


class TestCallsThatFail:
    def test_a_submission_whose_end_is_unclear_is_made_again_and_found(self, start: Start, tmp_path: Path) -> None:
        backend, server = start(batch_script=["create_lost"])
        (prepared,) = backend.prepare(requests(3), tmp_path)
        with pytest.raises(CallError) as caught:
            backend.submit(prepared)
        assert caught.value.outcome.paid is Paid.MAYBE
        batch = backend.submit(prepared)
        assert (server.ledger.batches.created, server.ledger.batches.uploads) == (1, 1)
        assert len(list(backend.fetch(ended(backend, batch)))) == 3

    def test_a_refused_creation_deletes_its_file(self, stack: ExitStack, tmp_path: Path) -> None:
        refused = json.dumps({"error": {"message": "not in a batch", "code": "unsupported_endpoint"}}).encode()
        uploaded = b'{"id": "file-1", "status": "processed"}'
        empty = (200, {}, b'{"data": []}')
        server = stack.enter_context(OddServer(empty, empty, (200, {}, uploaded), (400, {}, refused), (200, {}, b"{}")))
        backend = BatchBackend(BackendContext(server.base_url, "key"))
        stack.callback(backend.service.close)
        (prepared,) = backend.prepare(requests(3), tmp_path)
        with pytest.raises(CallError, match="not in a batch"):
            backend.submit(prepared)
        assert [asked[:2] for asked in server.asked[-2:]] == [("POST", "/v1/batches"), ("DELETE", "/v1/files/file-1")]

    def test_a_file_that_is_being_processed_is_uploaded_once(self, stack: ExitStack, tmp_path: Path) -> None:
        empty = (200, {}, b'{"data": []}')
        pending = b'{"id": "file-1", "status": "pending"}'
        server = stack.enter_context(OddServer(empty, empty, (200, {}, pending)))
        backend = BatchBackend(BackendContext(server.base_url, "key"))
        stack.callback(backend.service.close)
        (prepared,) = backend.prepare(requests(3), tmp_path)
        with pytest.raises(CallError) as caught:
            backend.submit(prepared)
        assert caught.value.failure.error_class == "pending"
        assert caught.value.outcome.retryable
        assert [asked[0] for asked in server.asked] == ["GET", "GET", "POST", "GET"]

    def test_an_upload_whose_end_is_unclear_is_used(self, start: Start, tmp_path: Path) -> None:
        backend, server = start(batch_script=["upload_lost", "ok"])
        (prepared,) = backend.prepare(requests(3), tmp_path)
        with pytest.raises(CallError):
            backend.submit(prepared)
        backend.submit(prepared)
        assert (server.ledger.batches.created, server.ledger.batches.uploads) == (1, 1)

    def test_a_download_that_is_cut_off_is_made_again(self, start: Start, tmp_path: Path) -> None:
        backend, _ = start(batch_script=["download_truncated"])
        (prepared,) = backend.prepare(requests(3), tmp_path)
        batch = ended(backend, backend.submit(prepared))
        with pytest.raises(CallError) as caught:
            list(backend.fetch(batch))
        assert caught.value.outcome.retryable
        assert len(list(backend.fetch(batch))) == 3

    def test_when_to_try_again(self, stack: ExitStack, tmp_path: Path) -> None:
        busy = (429, {"retry-after": "7"}, b'{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}')
        server = stack.enter_context(OddServer(busy))
        backend = BatchBackend(BackendContext(server.base_url, "key"))
        with closing(backend.service):
            (prepared,) = backend.prepare(requests(1), tmp_path)
            with pytest.raises(CallError, match="slow down") as caught:
                backend.submit(prepared)
        outcome = caught.value.outcome
        assert (outcome.retryable, outcome.retry_after) == (True, 7.0)
        assert caught.value.failure.error_class == "rate_limit"

    def test_a_batch_that_does_not_exist(self, start: Start) -> None:
        backend, _ = start()
        with pytest.raises(CallError) as caught:
            backend.poll(Batch("k", "/v1/responses", "m", batch_id="batch_0"))
        assert caught.value.failure.error_class == "not_found"
        assert not caught.value.outcome.retryable

    def test_a_wrong_key(self, start: Start, tmp_path: Path) -> None:
        backend, server = start()
        (prepared,) = backend.prepare(requests(1), tmp_path)
        stranger = BatchBackend(replace(backend.context, api_key="sk-invalid-1"))
        with closing(stranger.service), pytest.raises(CallError) as caught:
            stranger.submit(prepared)
        assert caught.value.outcome.stops_run
        assert server.ledger.batches.uploads == 0

    def test_a_key_is_needed_and_options_are_checked(self) -> None:
        with pytest.raises(UsageError, match="MY_KEY is not set"):
            BatchBackend(BackendContext("https://api.openai.com/v1", None, "MY_KEY")).check()
        with pytest.raises(ConfigError, match=r"backend\.batch\.max_request: unknown key"):
            BatchBackend(BackendContext("http://127.0.0.1:9/v1", None, options={"max_request": 2}))


class TestCare:
    def test_the_same_request_twice_is_asked_once_in_a_file(self, start: Start, tmp_path: Path) -> None:
        """The provider refuses a file in which a name stands twice, and with it everything else that is in there."""
        backend, _ = start()
        (request,) = requests(1)
        prepared = backend.prepare([request, request], tmp_path)
        batches = [ended(backend, backend.submit(one)) for one in prepared]
        assert {status(batch) for batch in batches} == {"completed"}

    def test_files_that_were_fetched_are_removed(
        self, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import tempfile

        backend, _ = start()
        (prepared,) = backend.prepare(requests(3), tmp_path / "work")
        batch = ended(backend, backend.submit(prepared))
        place = tmp_path / "temporary"
        place.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(place))
        rows = backend.fetch(batch)
        next(rows)
        assert list(place.iterdir())
        list(rows)
        assert not list(place.iterdir())

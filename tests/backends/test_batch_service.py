"""OpenAI's Batch API through the real SDK: against the simulator, and against servers that misbehave."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from odd_server import OddServer

from bioforge.backends.batch.service import CallError
from bioforge.backends.openai.batch import PAGE, OpenAIBatches
from bioforge.backends.openai.prices import price
from bioforge.core.errors import OutputError, UsageError
from bioforge.core.events import Attempt
from bioforge.core.interfaces import BackendContext
from bioforge.core.types import Batch, BatchState, Paid, Request
from bioforge.simulator import Simulator, SimulatorOptions

from .bench import requests

KEY = "sk-a-very-secret-key"
Connect = Callable[..., OpenAIBatches]
Serve = Callable[..., OddServer]


@pytest.fixture
def connect(stack: ExitStack) -> Connect:
    """A service on a server, or on an address."""

    def open_service(server: Simulator | str, **options: Any) -> OpenAIBatches:
        base_url = server if isinstance(server, str) else server.base_url
        observe = options.pop("observe", None)
        service = OpenAIBatches(BackendContext(base_url, options.pop("api_key", KEY), **options), price, observe)
        stack.callback(service.close)
        return service

    return open_service


@pytest.fixture
def start(stack: ExitStack) -> Callable[..., Simulator]:
    return lambda **options: stack.enter_context(Simulator(SimulatorOptions(**{"batch_seconds": 0, **options})))


@pytest.fixture
def server(start: Callable[..., Simulator]) -> Simulator:
    """A simulator that is done with a batch at once."""
    return start()


@pytest.fixture
def service(server: Simulator, connect: Connect) -> OpenAIBatches:
    return connect(server)


def prepared(service: OpenAIBatches, folder: Path, key: str = "key-1", names: int = 3) -> tuple[Batch, Path]:
    """A batch as it is before anything was sent, and its file."""
    path = folder / f"{key}-input"
    lines = [service.line(attempt(request)) for request in requests(names, metadata={"key": key})]
    path.write_bytes(b"".join(lines))
    batch = Batch(
        key=key,
        endpoint="/v1/responses",
        model="gpt-6-luna",
        state=BatchState.PREPARED,
        requests=names,
        bytes=path.stat().st_size,
        prepared_at=time.time(),
    )
    return batch, path


def attempt(request: Request) -> Attempt:
    return Attempt(request, 1, "B01", f"{request.artist_id}-{request.request_hash[3:11]}", time.time())


def uploaded(service: OpenAIBatches, folder: Path, key: str = "key-1", names: int = 3) -> Batch:
    batch, path = prepared(service, folder, key, names)
    return replace(batch, state=BatchState.UPLOADED, file_id=service.upload(batch, path))


def ended(service: OpenAIBatches, batch: Batch) -> Batch:
    """The batch when the server is done with it, asked for again and again; the test's own time limit ends that."""
    while not (batch := service.look(batch)).ended:
        continue
    return batch


def refused(call: Callable[[], object]) -> CallError:
    with pytest.raises(CallError) as caught:
        call()
    return caught.value


# --------------------------------------------------------------------------------------------------- the usual course


def test_a_batch_from_its_file_to_its_rows(service: OpenAIBatches, tmp_path: Path) -> None:
    batch, path = prepared(service, tmp_path)
    file_id = service.upload(batch, path)
    batch = service.create(replace(batch, file_id=file_id), "my project")
    assert batch.batch_id is not None
    assert batch.file_id == file_id
    assert batch.submitted_at is not None

    batch = ended(service, batch)
    assert (batch.state, batch.status, batch.completed, batch.failed) == (BatchState.COMPLETED, "completed", 3, 0)
    assert batch.output_file_id is not None
    assert batch.ended_at is not None
    assert batch.usage is not None

    place = tmp_path / "results" / "out.jsonl"
    size = service.download(batch.output_file_id, place)
    assert size == place.stat().st_size == service.file_bytes(batch.output_file_id)
    assert [entry.name for entry in place.parent.iterdir()] == ["out.jsonl"]
    rows = [service.read(batch, line) for line in place.read_bytes().splitlines()]
    assert {row.custom_id for row in rows} == {attempt(request).client_request_id for request in requests_of(path)}
    assert all(row.success and row.paid is Paid.YES for row in rows)
    assert all(row.metadata == {"key": "key-1"} for row in rows)
    cost = service.cost(batch)
    assert cost is not None
    assert sum(row.answer.cost_usd or 0 for row in rows if row.answer) == pytest.approx(cost)
    output = sum(row.answer.usage.output_tokens for row in rows if row.answer and row.answer.usage)
    assert batch.usage.output_tokens == output


def requests_of(path: Path) -> list[Request]:
    return list(requests(len(path.read_bytes().splitlines()), metadata={"key": "key-1"}))


def test_what_is_created_carries_its_key_and_project(service: OpenAIBatches, tmp_path: Path) -> None:
    batch = service.create(uploaded(service, tmp_path), "p" * 600)
    job = service.job(batch.batch_id or "")
    assert job["metadata"] == {"bioforge": "key-1", "project": "p" * 512}
    assert job["completion_window"] == "24h"
    assert service.seen(job).key == "key-1"
    nameless = service.create_job(uploaded(service, tmp_path, "key-2"), {"a": "b"})
    assert service.job(nameless.batch_id or "")["metadata"] == {"a": "b"}
    assert service.seen(service.job(nameless.batch_id or "")).key == ""


def test_an_uploaded_file_is_kept_for_thirty_days(service: OpenAIBatches, server: Simulator, tmp_path: Path) -> None:
    import httpx2

    batch = uploaded(service, tmp_path)
    headers = {"Authorization": "Bearer any"}
    file = httpx2.get(f"{server.base_url}/files/{batch.file_id}", headers=headers).json()
    assert (file["filename"], file["bytes"], file["purpose"]) == ("key-1.jsonl", batch.bytes, "batch")
    assert file["expires_at"] - file["created_at"] == 30 * 86_400


def test_a_batch_is_cancelled(start: Callable[..., Simulator], connect: Connect, tmp_path: Path) -> None:
    service = connect(start(batch_seconds=3600))
    batch = service.create(uploaded(service, tmp_path), "")
    assert service.look(batch).state in (BatchState.SUBMITTED, BatchState.IN_PROGRESS)
    service.cancel(batch)
    batch = ended(service, batch)
    assert batch.state is BatchState.CANCELLED
    error = refused(lambda: service.cancel(batch))
    assert error.failure.error_class == "conflict"


def test_why_a_batch_failed(service: OpenAIBatches, tmp_path: Path) -> None:
    batch, path = prepared(service, tmp_path)
    line = path.read_bytes().splitlines(keepends=True)[0]
    path.write_bytes(line + line)
    batch = ended(service, service.create(replace(batch, file_id=service.upload(batch, path)), ""))
    assert batch.state is BatchState.FAILED
    assert [(problem.code, problem.line) for problem in batch.problems] == [("duplicate_custom_id", 2)]


def test_a_file_is_deleted_once_and_then_gone(service: OpenAIBatches, tmp_path: Path) -> None:
    batch = uploaded(service, tmp_path)
    assert batch.file_id is not None
    service.delete_file(batch.file_id)
    service.delete_file(batch.file_id)
    assert service.find_file(batch) is None
    assert refused(lambda: service.create(batch, "")).failure.error_class == "not_found"


def test_the_limit_of_enqueued_tokens(start: Callable[..., Simulator], connect: Connect, tmp_path: Path) -> None:
    service = connect(start(batch_enqueued_tokens=1))
    batch = ended(service, service.create(uploaded(service, tmp_path), ""))
    assert batch.state is BatchState.FAILED
    problem = batch.problems[0]
    assert service.enqueued_limit(f"{problem.code}: {problem.message}") == 1
    service = connect(start(batch_enqueued_tokens=1, batch_token_refusal="create"))
    late = uploaded(service, tmp_path)
    assert service.enqueued_limit(refused(lambda: service.create(late, "")).failure.message) == 1


def test_a_key_is_needed_away_from_loopback(connect: Connect) -> None:
    with pytest.raises(UsageError, match="OPENAI_API_KEY is not set"):
        connect("https://api.openai.com/v1", api_key=None).check()
    connect("http://127.0.0.1:9/v1", api_key=None).check()


# -------------------------------------------------------------------------------------------------- adopting what is there


def test_a_creation_that_was_lost_is_found(start: Callable[..., Simulator], connect: Connect, tmp_path: Path) -> None:
    service = connect(start(batch_script=["ok", "create_lost"]))
    other = service.create(uploaded(service, tmp_path, "other"), "")
    batch = uploaded(service, tmp_path, "lost")
    assert service.find(batch) is None
    error = refused(lambda: service.create(batch, ""))
    assert error.outcome.paid is Paid.MAYBE
    found = service.find(batch)
    assert found is not None
    assert found.batch_id not in (None, other.batch_id)
    by_key = service.find(replace(batch, file_id=None))
    assert by_key is not None
    assert by_key.batch_id == found.batch_id
    by_file = service.find(replace(batch, key="unknown"))
    assert by_file is not None
    assert by_file.batch_id == found.batch_id
    assert service.find(replace(batch, key="", file_id=None)) is None


def test_an_upload_that_was_lost_is_found(start: Callable[..., Simulator], connect: Connect, tmp_path: Path) -> None:
    service = connect(start(batch_script=["upload_lost"]))
    batch, path = prepared(service, tmp_path)
    assert service.find_file(batch) is None
    assert refused(lambda: service.upload(batch, path)).outcome.paid is Paid.MAYBE
    file_id = service.find_file(batch)
    assert file_id is not None
    assert service.find_file(replace(batch, bytes=0)) == file_id
    assert service.find_file(replace(batch, bytes=batch.bytes + 1)) is None
    assert service.find_file(replace(batch, key="other")) is None


def test_a_pending_file_is_asked_for_until_it_is_processed(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "input.jsonl"
    path.write_bytes(b"{}\n")
    words = ("pending", "processing", "processed")
    server = serve(*((200, {}, json.dumps({"id": "file-1", "status": word}).encode()) for word in words))
    service = connect(server.base_url)
    assert service.upload(KNOWN, path) == "file-1"
    assert [service.file_pending("file-1") for _ in range(3)] == [True, False, False]
    assert len(server.asked) == len(words)


def test_a_server_without_a_status_of_files_is_not_waited_for(serve: Serve, connect: Connect) -> None:
    assert not connect(serve((404, {}, b"{}")).base_url).file_pending("file-1")


def test_all_pages_are_read(service: OpenAIBatches, tmp_path: Path) -> None:
    first = service.create(uploaded(service, tmp_path, "first"), "")
    file = uploaded(service, tmp_path, "last")
    for number in range(PAGE):
        service.create(replace(file, key=f"n-{number}"), "")
    assert len(list(service.jobs())) == PAGE + 1
    found = service.find(replace(first, batch_id=None, file_id=None))
    assert found is not None
    assert found.batch_id == first.batch_id


def test_the_newest_of_several_is_found(service: OpenAIBatches, tmp_path: Path) -> None:
    batch = uploaded(service, tmp_path)
    created = [service.create(batch, "") for _ in range(3)]
    found = service.find(batch)
    assert found is not None
    assert found.batch_id == created[-1].batch_id


# ------------------------------------------------------------------------------------------------------ downloads


def test_a_download_that_is_cut_off_leaves_nothing(
    start: Callable[..., Simulator], connect: Connect, tmp_path: Path
) -> None:
    service = connect(start(batch_script=["download_truncated"]))
    batch = ended(service, service.create(uploaded(service, tmp_path), ""))
    assert batch.output_file_id is not None
    place = tmp_path / "out" / "results.jsonl"
    place.parent.mkdir()
    place.write_text("old")
    file_id = batch.output_file_id
    error = refused(lambda: service.download(file_id, place))
    assert (error.failure.error_class, error.outcome.retryable) == ("truncated_body", True)
    assert [entry.name for entry in place.parent.iterdir()] == ["results.jsonl"]
    assert place.read_text() == "old"
    service.download(file_id, place)
    assert len(place.read_bytes().splitlines()) == 3


def test_a_download_that_cannot_be_written(service: OpenAIBatches, tmp_path: Path) -> None:
    batch = ended(service, service.create(uploaded(service, tmp_path), ""))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        service.download(batch.output_file_id or "", tmp_path / "file" / "results.jsonl")
    with pytest.raises(OutputError, match="cannot read"):
        service.upload(batch, tmp_path / "nothing")


# ---------------------------------------------------------------------------------------------- servers that misbehave


@pytest.fixture
def serve(stack: ExitStack) -> Serve:
    return lambda *answers: stack.enter_context(OddServer(*answers))


KNOWN = Batch("key-1", "/v1/responses", "gpt-6-luna", BatchState.UPLOADED, file_id="file-1", batch_id="batch_1")


def calls(service: OpenAIBatches, folder: Path) -> Iterator[Callable[[], object]]:
    """Every call that the API has, each with whatever it needs."""
    path = folder / "input.jsonl"
    path.write_bytes(b"{}\n")
    yield lambda: service.upload(KNOWN, path)
    yield lambda: service.find_file(KNOWN)
    yield lambda: service.create(KNOWN, "project")
    yield lambda: service.find(KNOWN)
    yield lambda: service.look(KNOWN)
    yield lambda: service.cancel(KNOWN)
    yield lambda: service.delete_file("file-1")
    yield lambda: service.download("file-1", folder / "output.jsonl")
    yield lambda: service.file_bytes("file-1")
    yield lambda: list(service.jobs())


def test_a_refusal_is_told_once_in_our_words(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    body = json.dumps({"error": {"message": f"no: {KEY}", "code": "insufficient_quota", "type": "x"}}).encode()
    server = serve((429, {"retry-after": "7", "X-Request-Id": "req_1"}, body))
    for number, call in enumerate(calls(connect(server.base_url), tmp_path), 1):
        outcome = refused(call).outcome
        assert outcome.failure is not None
        assert (outcome.failure.error_class, outcome.failure.http_status) == ("quota", 429)
        assert outcome.failure.message == "no: [key]"
        assert KEY.encode() not in (outcome.body or b"")
        assert outcome.stops_run
        assert outcome.paid is Paid.NO
        assert outcome.request_id == "req_1"
        assert len(server.asked) == number, "every call goes out once"
        assert server.asked[-1][2]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 409, 429])
def test_trouble_that_passes_is_left_to_the_caller(serve: Serve, connect: Connect, tmp_path: Path, status: int) -> None:
    server = serve((status, {"retry-after": "7"}, b"<html>busy</html>"))
    error = refused(lambda: connect(server.base_url).create(KNOWN, ""))
    assert error.outcome.retryable
    assert error.outcome.retry_after == 7.0
    assert error.failure.http_status == status
    assert len(server.asked) == 1


def test_a_connection_that_breaks(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    server = serve(None)
    for number, call in enumerate(calls(connect(server.base_url), tmp_path), 1):
        outcome = refused(call).outcome
        assert outcome.paid is Paid.MAYBE
        assert outcome.retryable
        assert len(server.asked) == number


def test_a_body_that_is_cut_off(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    server = serve((200, {"content-length": "100"}, b'{"id": "ba'))
    for call in calls(connect(server.base_url), tmp_path):
        outcome = refused(call).outcome
        assert outcome.paid is Paid.MAYBE
        assert outcome.retryable
    assert not (tmp_path / "output.jsonl").exists()


@pytest.mark.parametrize("content", [b"", b"OK", b"[]", b'{"id": 7}', b'{"data": 7}', b"[" * 100_000])
def test_a_success_that_cannot_be_read(serve: Serve, connect: Connect, content: bytes) -> None:
    service = connect(serve((200, {}, content)).base_url)
    error = refused(lambda: service.create(KNOWN, ""))
    assert error.failure.error_class == "malformed"
    assert error.outcome.paid is Paid.MAYBE
    assert error.outcome.retryable


def test_a_server_that_is_not_there(connect: Connect, tmp_path: Path) -> None:
    for call in calls(connect("http://127.0.0.1:9/v1"), tmp_path):
        outcome = refused(call).outcome
        assert outcome.failure is not None
        assert outcome.failure.error_class == "connection"
        assert outcome.paid is Paid.NO
        assert outcome.outage


def test_a_creation_does_not_follow_to_elsewhere(serve: Serve, connect: Connect) -> None:
    elsewhere = serve((200, {}, b'{"id": "batch_1"}'))
    server = serve((307, {"location": f"{elsewhere.base_url}/batches"}, b""))
    error = refused(lambda: connect(server.base_url).create(KNOWN, ""))
    assert error.failure.error_class == "redirect"
    assert not elsewhere.asked


def test_a_download_follows_to_elsewhere_without_the_key(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    elsewhere = serve((200, {}, b"rows"))
    server = serve((302, {"location": elsewhere.base_url.replace("127.0.0.1", "localhost")}, b""))
    assert connect(server.base_url).download("file-1", tmp_path / "out") == 4
    assert "authorization" not in elsewhere.asked[0][2]


def test_a_key_that_is_no_header_is_not_shown(connect: Connect) -> None:
    error = refused(lambda: connect("http://127.0.0.1:9/v1", api_key="sk-line\x01break").look(KNOWN))
    assert "break" not in str(error)
    assert error.outcome.paid is Paid.NO


def test_a_list_without_end_ends(serve: Serve, connect: Connect) -> None:
    page = json.dumps({"object": "list", "data": [{"id": "batch_1"}], "has_more": True}).encode()
    server = serve((200, {}, page))
    assert [job["id"] for job in connect(server.base_url).jobs()] == ["batch_1", "batch_1"]
    assert len(server.asked) == 2


def test_the_search_ends_before_the_batch_was_prepared(serve: Serve, connect: Connect) -> None:
    jobs = [{"id": f"batch_{n}", "created_at": 1_000_000 - n * 5_000} for n in range(130)]
    page = json.dumps({"object": "list", "data": jobs, "has_more": True}).encode()
    server = serve((200, {}, page))
    service = connect(server.base_url)
    assert service.find(replace(KNOWN, prepared_at=1_000_000.0)) is None
    assert service.find_file(replace(KNOWN, prepared_at=1_000_000.0)) is None
    assert len(server.asked) == 2


def test_a_list_with_the_oldest_first_is_searched_to_its_end(serve: Serve, connect: Connect) -> None:
    jobs = [{"id": f"batch_{n}", "created_at": 1_000 + n, "metadata": {}} for n in range(200)]
    jobs.append(
        {"id": "batch_ours", "created_at": 1_000_000, "metadata": {"bioforge": KNOWN.key}, "status": "completed"}
    )
    page = json.dumps({"object": "list", "data": jobs, "has_more": False}).encode()
    found = connect(serve((200, {}, page)).base_url).find(replace(KNOWN, prepared_at=1_000_000.0))
    assert found is not None
    assert found.batch_id == "batch_ours"


def test_each_call_is_observed(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    seen: list[tuple[str, Mapping[str, str], float, CallError | None]] = []
    server = serve((200, {"x-request-id": "req_1"}, b'{"id": "x-1", "bytes": 3}'), (503, {}, b""))
    service = connect(server.base_url, observe=lambda *call: seen.append(call))
    first, *others = calls(service, tmp_path)
    first()
    for call in others:
        refused(call)
    assert [call[0] for call in seen] == [
        "upload", "list files", "create", "list", "retrieve", "cancel", "delete file", "download", "describe file",
        "list",
    ]  # fmt: skip
    assert seen[0][1] == {"key": "key-1", "file_id": "x-1", "request_id": "req_1"}
    assert seen[0][3] is None
    assert seen[2][1] == {"key": "key-1", "file_id": "file-1"}
    assert [call[3] and call[3].failure.error_class for call in seen] == [None] + ["overloaded"] * 9
    assert all(call[2] >= 0 for call in seen)

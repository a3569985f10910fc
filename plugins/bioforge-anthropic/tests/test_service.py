"""Test the service against the server: sent bytes and the outcome of each call."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from bioforge_anthropic import AnthropicBatchBackend, batch_service
from bioforge_anthropic.batch_service import AnthropicBatches
from bioforge_anthropic.client import call_headers, endpoint_url
from server import AnthropicServer
from test_contract import LimitedBatches

from bioforge.plugin import (
    BackendContext,
    Batch,
    BatchState,
    CallError,
    InlineBatchService,
    OutputError,
    Paid,
    Rendered,
    Request,
    Undecided,
    canonical,
    request_hash,
)

MakeServer = Callable[..., AnthropicServer]
KEY = "bf-20261121-0123456789abcdef"


def context(server: AnthropicServer, url: str = "") -> BackendContext:
    return BackendContext(url or server.base_url, "sk-ant-test", "ANTHROPIC_API_KEY", 20.0)


def requests(number: int) -> Iterator[Request]:
    backend = AnthropicBatchBackend(BackendContext("http://127.0.0.1:9", None))
    for place in range(number):
        given = Rendered("/v1/messages", "claude-haiku-4-5", None, f"Artist {place}", None, {"max_tokens": 9})
        body = canonical(backend.body(given))
        digest = request_hash("/v1/messages", body, "anthropic")
        yield Request(digest, "/v1/messages", "claude-haiku-4-5", body, f"a-{place}", "bio", target=place)


def prepared(server: AnthropicServer, folder: Path, number: int = 3) -> tuple[AnthropicBatches, Batch, Path]:
    backend = AnthropicBatchBackend(context(server))
    (one,) = backend.prepare(requests(number), folder)
    return backend.service, one.batch, one.path


def test_it_is_a_service_without_files(make_server: MakeServer) -> None:
    service = AnthropicBatches(context(make_server()))
    assert isinstance(service, InlineBatchService)


def test_a_creation_has_the_lines_of_the_file(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server(batch_seconds=60)
    service, batch, path = prepared(server, tmp_path, 2_000)
    with closing(service):
        created = service.create_from(batch, "test", path)
    (job,) = server.batches.by_id.values()
    assert (created.batch_id, created.state) == (job.id, BatchState.IN_PROGRESS)
    assert [entry["params"]["messages"][0]["content"] for entry in job.requests] == [
        f"Artist {n}" for n in range(2_000)
    ]
    assert created.expires_at == pytest.approx(time.time() + 86_400, abs=60)


def test_a_life_without_a_project(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server(batch_script=["errored=0.2"])
    with closing(LimitedBatches(context(server))) as backend:
        (one,) = backend.prepare(requests(5), tmp_path)
        batch = backend.poll(backend.submit(one))
        rows = list(backend.fetch(batch))
    assert batch.state is BatchState.COMPLETED
    assert sorted(row.success for row in rows) == [False, True, True, True, True]
    assert {row.custom_id for row in rows} == {
        entry["custom_id"] for entry in server.batches.by_id[batch.name].requests
    }


def test_a_submission_whose_end_is_unclear_is_looked_for_when_it_is_made_again(
    make_server: MakeServer, tmp_path: Path
) -> None:
    server = make_server(batch_script=["lost"], batch_seconds=60)
    with closing(LimitedBatches(context(server))) as backend:
        (one,) = backend.prepare(requests(5), tmp_path)
        with pytest.raises(CallError) as lost:
            backend.submit(one)
        with pytest.raises(CallError, match="not known yet") as unclear:
            backend.submit(one)
        (job,) = server.batches.by_id.values()
        job.ends = 0
        assert backend.submit(one).batch_id == job.id
    assert lost.value.outcome.paid is Paid.MAYBE
    assert unclear.value.failure.error_class == "undecided"
    assert len(server.batches.by_id) == 1


def test_that_it_was_begun_is_on_the_disk_before_anything_is_sent(
    make_server: MakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a machine that fails would submit and pay the batch again."""
    server = make_server()
    synced: list[int] = []

    def fsync(descriptor: int) -> None:
        assert not server.batches.by_id, "it was sent before"
        synced.append(os.fstat(descriptor).st_ino)

    with closing(LimitedBatches(context(server))) as backend:
        (one,) = backend.prepare(requests(5), tmp_path)
        monkeypatch.setattr(os, "fsync", fsync)
        backend.submit(one)
    begun = one.path.with_suffix(".begun")
    assert synced == [begun.stat().st_ino, tmp_path.stat().st_ino], "the file, and then its name"


def test_where_that_cannot_be_written_nothing_is_sent(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server()
    with closing(LimitedBatches(context(server))) as backend:
        (one,) = backend.prepare(requests(5), tmp_path)
        gone = replace(one, path=tmp_path / "file" / one.path.name)
        (tmp_path / "file").write_text("not a folder")
        with pytest.raises(OutputError) as caught:
            backend.submit(gone)
    assert caught.value.hint == "nothing was sent: solve that, then submit again"
    assert not server.batches.by_id


def test_a_cancelled_batch_says_so(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server(batch_seconds=60)
    service, batch, path = prepared(server, tmp_path)
    with closing(service):
        created = service.create_from(batch, "", path)
        assert service.cancel(created).status == "canceling"
        assert service.look(created).state is BatchState.CANCELLED


class TestSearch:
    def test_nothing_there_is_nothing_found(self, make_server: MakeServer, tmp_path: Path) -> None:
        service, batch, _ = prepared(make_server(), tmp_path)
        with closing(service):
            assert service.search(batch, ()) is None

    def test_one_at_work_may_be_it_and_one_that_has_ended_is_it(self, make_server: MakeServer, tmp_path: Path) -> None:
        server = make_server(batch_seconds=60)
        service, batch, path = prepared(server, tmp_path)
        with closing(service):
            created = service.create_from(batch, "", path)
            found = service.search(batch, ())
            assert isinstance(found, Undecided)
            assert "msgbatch_000001 has as many requests" in found.message
            assert found.until == pytest.approx(time.time() + 90_000, abs=60)
            assert service.search(batch, {created.name}) is None
            server.batches.by_id[created.name].ends = 0
            adopted = service.search(batch, ())
            assert isinstance(adopted, Batch)
            assert (adopted.batch_id, adopted.state) == (created.batch_id, BatchState.COMPLETED)

    def test_one_that_has_ended_is_looked_into_once(self, make_server: MakeServer, tmp_path: Path) -> None:
        server = make_server()
        service, batch, path = prepared(server, tmp_path)
        with closing(service):
            service.create_from(batch, "", path)
            for _ in range(3):
                assert service.search(replace(batch, key=KEY), ()) is None
        assert sum(path.endswith("/results") for path in server.arrived) == 1

    @pytest.mark.parametrize(("older", "found"), [(1_800.0, True), (90_000.0, False)])
    def test_clocks_may_differ(self, make_server: MakeServer, tmp_path: Path, older: float, found: bool) -> None:
        server = make_server()
        service, batch, path = prepared(server, tmp_path)
        with closing(service):
            service.create_from(batch, "", path)
            server.batches.by_id["msgbatch_000001"].created -= older
            assert (service.search(batch, ()) is not None) == found

    def test_it_reads_on_through_all_pages(
        self, make_server: MakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(batch_service, "PAGE", 2)
        server = make_server()
        service, batch, path = prepared(server, tmp_path)
        with closing(service):
            service.create_from(batch, "", path)
            for _ in range(4):
                server.batches.create([{"custom_id": "x", "params": {}}], {})
            found = service.search(batch, ())
            assert isinstance(found, Batch)
            assert found.batch_id == "msgbatch_000001"
        assert server.arrived.count("GET /v1/messages/batches") == 3


class TestEnds:
    def test_what_is_not_there(self, make_server: MakeServer, tmp_path: Path) -> None:
        service = AnthropicBatches(context(make_server()))
        with closing(service):
            for call in (
                lambda: service.look(Batch(KEY, "", "", batch_id="msgbatch_9")),
                lambda: service.download("msgbatch_9", tmp_path / "results"),
            ):
                with pytest.raises(CallError) as error:
                    call()
                assert (error.value.failure.http_status, error.value.outcome.paid) == (404, Paid.NO)
        assert not (tmp_path / "results").exists()

    def test_results_that_break_off_are_no_results(self, make_server: MakeServer, tmp_path: Path) -> None:
        server = make_server(batch_script=["download_cut"])
        service, batch, path = prepared(server, tmp_path)
        with closing(service):
            created = service.look(service.create_from(batch, "", path))
            target = tmp_path / "results.jsonl"
            with pytest.raises(CallError) as error:
                service.download(created.name, target)
            assert error.value.outcome.retryable
            assert not target.exists()
            assert service.download(created.name, target) == target.stat().st_size
        assert len(target.read_bytes().splitlines()) == 3

    @pytest.mark.parametrize(("fate", "paid"), [("lost", Paid.MAYBE), ("unsent", Paid.MAYBE), ("refused", Paid.NO)])
    def test_a_creation_is_sent_once_whatever_comes_of_it(
        self, make_server: MakeServer, tmp_path: Path, fate: str, paid: Paid
    ) -> None:
        server = make_server(batch_script=[fate])
        service, batch, path = prepared(server, tmp_path)
        with closing(service), pytest.raises(CallError) as error:
            service.create_from(batch, "", path)
        assert error.value.outcome.paid is paid
        assert server.arrived == ["POST /v1/messages/batches"]

    def test_nobody_listening(self, make_server: MakeServer, tmp_path: Path) -> None:
        server = make_server()
        service, batch, path = prepared(server, tmp_path)
        server.stop()
        with closing(service), pytest.raises(CallError) as error:
            service.create_from(batch, "", path)
        assert (error.value.outcome.paid, error.value.outcome.outage) == (Paid.NO, True)


def test_the_sdk_says_who_is_calling(make_server: MakeServer) -> None:
    headers = {name.lower(): value for name, value in call_headers(context(make_server())).items()}
    assert headers["anthropic-version"]
    assert "sk-ant-test" in headers.get("authorization", "") + headers.get("x-api-key", "")


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_a_base_url_may_have_the_version_at_its_end(make_server: MakeServer, end: str) -> None:
    server = make_server()
    assert endpoint_url(server.base_url + end, "/v1/messages") == f"{server.base_url}/v1/messages"
    service = AnthropicBatches(context(server, server.base_url + end))
    with closing(service):
        assert service.search(Batch(KEY, "", "", requests=1, prepared_at=time.time()), ()) is None
    assert server.arrived == ["GET /v1/messages/batches"]

"""Check the distribution of calls over workers and servers, and scaling."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pytest
from bioforge_ray import RayBackend
from bioforge_ray.options import RayOptions
from bioforge_ray.worker import Worker
from conftest import raylets, workers_below

from bioforge.plugin import AsyncBackend, BackendContext, BackendFactory, Limits, UsageError, Work
from bioforge.simulator import Simulator, SimulatorOptions
from bioforge.testing import BackendBench, Book, charged_by, wait_until


@pytest.mark.usefixtures("joined")
class TestFleet(BackendBench):
    options: Mapping[str, object] = {"workers": 2, "cpus_per_worker": 0.25}

    def factory(self) -> BackendFactory:
        return RayBackend

    def test_answers_are_those_of_async(self, joined: Any) -> None:
        def texts() -> dict[str, str | None]:
            return {e.attempt.request.artist_id: e.answer.text for e in self.run(self.requests(60)).succeeded}

        by_ray = texts()
        self.factory = lambda: AsyncBackend  # type: ignore[method-assign]
        self.options, self.book = {}, Book()
        assert by_ray == texts()
        assert len(by_ray) == 60

    def test_limits_of_rate_and_number_hold_for_all_workers_together(self, joined: Any) -> None:
        """A server that enforces the limits refuses nothing."""
        self.serve(requests_per_minute=1200, latency=0.02)
        recorded = self.run(self.requests(60), concurrency=6, requests_per_minute=1100)
        assert len(recorded.succeeded) == 60
        assert not recorded.failed

    def test_a_slow_answer_delays_no_others(self, joined: Any) -> None:
        """Outcomes arrive as calls end, also from the chunk of a hanging call."""
        self.options = {**self.options, "workers": 1}
        self.serve(script={"Artist 000": ["hang"]}, hang_seconds=2.0)
        seen: list[str] = []
        recorded = self.run(
            self.requests(40),
            concurrency=40,
            look=lambda recorded, work: seen.extend(
                e.attempt.request.artist_id for e in recorded.succeeded[len(seen) :]
            ),
        )
        assert len(recorded.succeeded) == 40
        assert seen[-1] == "a-0"

    def test_requests_of_any_size_arrive(self, joined: Any) -> None:
        """Small requests use Ray's messages, large ones its object store."""
        names = [
            f"{number:03d} " + "x" * size for number, size in enumerate([10, 60_000, 70_000, 120_000, 500_000] * 4)
        ]
        recorded = self.run(self.requests(names), concurrency=20)
        assert len(recorded.succeeded) == 20
        recorded.check(self.server.charged())

    def test_work_is_spread_over_servers_and_around_one_that_is_away(self, joined: Any) -> None:
        with Simulator(SimulatorOptions(latency=0.02)) as one, Simulator(SimulatorOptions(latency=0.02)) as other:
            gone = Simulator(SimulatorOptions())
            with gone:
                url = gone.base_url
            self.options = {**self.options, "base_urls": [url, one.base_url, other.base_url]}
            recorded = self.run(self.requests(200), concurrency=32)
            assert len(recorded.succeeded) == 200
            assert {len(one.ledger) > 60, len(other.ledger) > 60} == {True}
            recorded.check([*charged_by(one), *charged_by(other)])

    @pytest.mark.slow
    def test_workers_come_while_calls_wait_and_go_when_fewer_are_enough(self, joined: Any) -> None:
        workers = {"min": 1, "max": 2, "grow_seconds": 0.2, "shrink_seconds": 1.0}
        self.options = {"workers": workers, "cpus_per_worker": 0.25, "calls_per_worker": 8}
        # the last one hangs, so one call stays in flight
        self.serve(latency=0.2, script={"Artist 499": ["hang"]}, hang_seconds=6.0)
        recorded = self.run(self.requests(500), concurrency=16)
        assert len(recorded.succeeded) == 500
        assert not recorded.failed
        messages = [notice.message for notice in recorded.notices("worker")]
        assert messages[0] == "calls are waiting: workers 1 -> 2"
        wait_until(lambda: not workers_below(*raylets(joined)), "no worker is left behind")

    @pytest.mark.parametrize("placement", ["DEFAULT", "PACK", "STRICT_SPREAD"])
    @pytest.mark.slow
    def test_every_placement_works_on_a_cluster_that_has_the_room(self, joined: Any, placement: str) -> None:
        self.options = {**self.options, "placement": placement}
        assert len(self.run(self.requests(20)).succeeded) == 20

    def test_a_cluster_without_room_is_reported_before_anything_is_sent(self, joined: Any) -> None:
        self.options = {**self.options, "resources": {"unobtainium": 1.0}, "start_seconds": 1.0}
        with pytest.raises(UsageError, match=r"each needs 0.25 CPU, 1 unobtainium, at least 2.* 2 nodes with 4 CPU"):
            self.run(self.requests(1))
        assert not self.server.charged()

    def test_a_worker_without_a_key_is_reported_before_anything_is_sent(self, joined: Any) -> None:
        self.options = {**self.options, "key_from": "worker"}
        with pytest.raises(UsageError, match="MY_KEY is not set for the workers on"):
            self.run(self.requests(1))
        assert not self.server.charged()

    def test_an_invalid_chunk_ends_the_worker(self) -> None:
        """Otherwise its attempts would never get an outcome."""

        async def work() -> None:
            worker = Worker()
            await worker.send(b"what is this")
            await worker.collect()

        with pytest.raises(UnpicklingError):
            asyncio.run(work())

    def test_another_version_on_a_node_is_reported(self) -> None:
        """Call a worker without a cluster."""
        answer = asyncio.run(Worker().hello(b"", "0.0.1"))
        assert "this machine has 0.0.1" in answer.problem

    def test_the_key_is_nowhere_in_the_cluster(self, joined: Any) -> None:
        """Neither the control store nor any log contains the key."""
        secret = "sk-looking-for-this-one"
        context = BackendContext(self.server.base_url, secret, options=RayOptions.model_validate(self.options))
        groups = list(RayBackend(context).execute(Work(self.requests(5), Limits(4))))
        assert groups
        session = Path(joined.head_node.get_session_dir_path())
        files = [path for path in session.rglob("*") if path.is_file()]
        assert files
        assert not [path for path in files if secret.encode() in path.read_bytes()]

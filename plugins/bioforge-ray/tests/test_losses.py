"""Lose workers and nodes during a run: no answer is lost, and possible charges are reported."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from bioforge_ray import RayBackend
from conftest import NODE, raylets, workers_below

from bioforge.plugin import BackendFactory, Paid, RetryPolicy, Work
from bioforge.testing import BackendBench, Recorded, wait_until

Look = Callable[[Recorded, Work], None]


def when(answers: int, happens: Callable[[], object]) -> Look:
    """An action that runs once after a number of answers."""
    done: list[bool] = []

    def look(recorded: Recorded, work: Work) -> None:
        if not done and len(recorded.succeeded) >= answers:
            done.append(True)
            happens()

    return look


def lost(recorded: Recorded) -> list[Any]:
    return [event for event in recorded.failed if event.failure.error_class == "worker_lost"]


@pytest.mark.slow
class TestLosses(BackendBench):
    options: Mapping[str, object] = {"workers": 2, "cpus_per_worker": 0.25}

    def factory(self) -> BackendFactory:
        return RayBackend

    def test_a_worker_is_killed_and_replaced(self, joined: Any) -> None:
        self.serve(latency=0.2, latency_sigma=0.5)  # so that there is always somebody in the middle

        def kill() -> None:
            os.kill(min(workers_below(*raylets(joined))), signal.SIGKILL)

        recorded = self.run(self.requests(400), concurrency=32, look=when(60, kill))
        assert len(recorded.succeeded) == 400
        assert 0 < len(lost(recorded)) <= 16, "an equal share of the concurrency"
        assert {(event.paid, event.final) for event in lost(recorded)} == {(Paid.MAYBE, False)}
        assert recorded.failed == lost(recorded)
        recorded.check(self.server.charged())
        (notice,) = recorded.notices("worker")
        assert f"with {len(lost(recorded))} calls in flight" in notice.message

    def test_who_wants_nothing_asked_twice_gets_it(self, joined: Any) -> None:
        self.serve(latency=0.2, latency_sigma=0.5)  # so that there is always somebody in the middle

        def kill() -> None:
            os.kill(min(workers_below(*raylets(joined))), signal.SIGKILL)

        recorded = self.run(
            self.requests(200), concurrency=32, look=when(40, kill), retry=RetryPolicy(maybe_paid=False)
        )
        assert 0 < len(recorded.lost) == len(lost(recorded))
        assert len(recorded.succeeded) + len(recorded.lost) == 200
        recorded.check(self.server.charged())

    def test_all_workers_are_killed_at_once(self, joined: Any) -> None:
        self.serve(latency=0.2, latency_sigma=0.5)  # so that there is always somebody in the middle

        def kill() -> None:
            for pid in workers_below(*raylets(joined)):
                os.kill(pid, signal.SIGKILL)

        recorded = self.run(self.requests(200), concurrency=16, look=when(40, kill))
        assert len(recorded.succeeded) == 200
        assert 0 < len(lost(recorded)) <= 16
        recorded.check(self.server.charged())

    def test_a_node_is_lost(self, joined: Any) -> None:
        """Its worker restarts on a remaining node."""
        self.options = {**self.options, "resources": {"spot": 1.0}}
        self.serve(latency=0.2, latency_sigma=0.5)  # so that there is always somebody in the middle
        nodes = [joined.add_node(**NODE, resources={"spot": 2}) for _ in range(2)]
        try:
            recorded = self.run(
                self.requests(300),
                concurrency=16,
                look=when(60, lambda: joined.remove_node(nodes.pop(), allow_graceful=False)),
            )
        finally:
            for node in nodes:
                joined.remove_node(node)
        assert len(recorded.succeeded) == 300
        assert len(lost(recorded)) <= 16
        assert {event.paid for event in recorded.failed} == {Paid.MAYBE}
        assert recorded.notices("worker")
        recorded.check(self.server.charged())

    def test_without_workers_the_run_stops(self, joined: Any) -> None:
        """After the loss of the only suitable node, waiting attempts are not sent and the run stops."""
        self.options = {**self.options, "resources": {"rare": 1.0}, "workers": 1, "start_seconds": 20.0}
        self.serve(latency=0.2, latency_sigma=0.5)  # so that there is always somebody in the middle
        node = joined.add_node(**NODE, resources={"rare": 1})
        begun = threading.Event()

        def look(recorded: Recorded, work: Work) -> None:
            if len(recorded.succeeded) >= 8 and not begun.is_set():
                begun.set()
                self.options = {}
                joined.remove_node(node, allow_graceful=False)

        recorded = self.run(self.requests(100), concurrency=8, look=look)
        assert recorded.stopped is not None
        assert "no worker started within" in recorded.stopped.message
        assert "rare" in recorded.stopped.message
        assert not recorded.lost
        recorded.check(self.server.charged())
        wait_until(lambda: not workers_below(*raylets(joined)), "no worker is left behind")

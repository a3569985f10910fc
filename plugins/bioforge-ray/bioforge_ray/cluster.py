"""Join or start the Ray cluster of a run, start workers in it and leave it. Only this module calls Ray."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

from bioforge.plugin import UsageError, __version__
from bioforge_ray.options import FLEXIBLE_PLACEMENTS, RayOptions
from bioforge_ray.worker import Hello, Settings, Worker, packed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bioforge_ray.worker import AttemptMessage

OBJECT_STORE_BYTES = 100_000_000
"""For a cluster started by the run, which uses the store little; Ray's default is a third of the memory."""

METHODS_AT_ONCE = 8
"""Concurrent method calls of one actor. Only `collect` waits in a call; requests are tasks of the actor's loop."""


class WorkerHandle:
    """A handle for one actor. Its methods return awaitables, which raise a `RayError` when the actor is gone."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def hello(self, settings: Settings) -> Awaitable[Hello]:
        # Ray sends method arguments to the worker directly, and stores constructor arguments in the control store.
        return cast("Awaitable[Hello]", self._actor.hello.remote(packed_settings(settings), __version__))

    def send(self, attempts: Sequence[AttemptMessage]) -> None:
        """Send attempts without waiting. If they do not arrive the worker is gone, and `collect` raises."""
        self._actor.send.remote(packed(attempts))

    def collect(self) -> Awaitable[bytes]:
        return cast("Awaitable[bytes]", self._actor.collect.remote())

    def kill(self) -> None:
        """End the worker and its calls in flight; do nothing if it or the cluster has ended."""
        import ray

        with suppress(Exception):
            ray.kill(self._actor, no_restart=True)


def packed_settings(settings: Settings) -> bytes:
    import pickle

    return pickle.dumps(settings, protocol=pickle.HIGHEST_PROTOCOL)


class Cluster:
    """The cluster of a run; open and leave it on the driver's thread.

    The processes of a cluster started by the run end with the thread that started them.
    """

    def __init__(self, options: RayOptions) -> None:
        self._options = options
        self._own = not _connected()
        if self._own:
            _connect(options)
        import ray

        self._remote = ray.remote(Worker)
        self._group = self._make_group()

    def start(self, place: int) -> WorkerHandle:
        """Request a worker, which is ready when it answers `hello`. `place`: its index in a placement group."""
        options = self._options
        actor = self._remote.options(
            num_cpus=options.cpus_per_worker,
            resources=dict(options.resources) or None,
            scheduling_strategy=self._strategy(place),
            max_concurrency=METHODS_AT_ONCE,
            # Ray must not retry: only the engine decides about paid retries.
            max_restarts=0,
            max_task_retries=0,
            enable_task_events=False,
        ).remote()
        return WorkerHandle(actor)

    def describe(self) -> str:
        """Describe the cluster's resources for an error message."""
        import ray

        ask = cast("Any", ray)  # these two are untyped
        have = ask.cluster_resources()
        shown = [f"{amount:g} {name}" for name, amount in sorted(have.items()) if name == "CPU" or name in self._asked]
        nodes = len([node for node in ask.nodes() if node["Alive"]])
        return f"{nodes} node{'' if nodes == 1 else 's'} with {', '.join(shown) or 'no CPU'}"

    def leave(self) -> None:
        import ray

        if self._group is not None:
            ray.util.remove_placement_group(self._group)
        if self._own:
            ray.shutdown()

    @property
    def _asked(self) -> dict[str, float]:
        return {"CPU": self._options.cpus_per_worker, **self._options.resources}

    def _make_group(self) -> Any:
        if self._options.placement in FLEXIBLE_PLACEMENTS:
            return None
        from ray.util.placement_group import placement_group

        return placement_group([self._asked] * self._options.most, strategy=self._options.placement)

    def _strategy(self, place: int) -> Any:
        if self._group is None:
            return self._options.placement
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        return PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=place)


def _connected() -> bool:
    """Return True if this process has joined a cluster, which is then used and not shut down."""
    import sys

    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _connect(options: RayOptions) -> None:
    # Read when Ray is imported. Under `uv run` Ray would copy the folder with .env to the cluster.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if options.address == "local":
        # Listen on loopback only: access to a cluster's ports allows running any code.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        common |= {
            "num_cpus": max(1, math.ceil(options.most * options.cpus_per_worker)),
            "resources": {name: amount * options.most for name, amount in options.resources.items()} or None,
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": False,
        }
    import ray

    with _keep_signal_handlers():
        try:
            _check_reachable(options.address)
            ray.init(address=options.address, **common)
        except (OSError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"backend.ray.address: no cluster at {options.address!r}: {_first_line(error)}",
                'run bioforge on a node of the cluster (`ray start --address=…`), or use "local" to start a cluster',
            ) from error
    # Ray prints messages about lost nodes to stdout, which may carry answers; no public option turns them off.
    getattr(ray, "_private").worker._worker_logs_enabled = False  # noqa: B009 - it has no types


def _check_reachable(address: str) -> None:
    """Raise OSError if the address refuses connections; Ray itself would retry and log for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        with socket.create_connection((host.strip("[]"), int(port)), timeout=10.0):
            pass


@contextmanager
def _keep_signal_handlers() -> Iterator[None]:
    """Restore the SIGTERM handler, which Ray replaces; here SIGTERM drains the run."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

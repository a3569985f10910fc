"""The Ray cluster of one run: found or started, asked for workers, left again. Everything that Ray is told is in here."""

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
from bioforge_ray.options import FREE, RayOptions
from bioforge_ray.worker import Hello, Settings, Worker, packed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bioforge_ray.worker import Sending

OBJECT_STORE_BYTES = 100_000_000
"""For a cluster of one's own: next to nothing goes through the store, and Ray takes a third of the memory by itself."""

METHODS_AT_ONCE = 8
"""Of one actor: calls are tasks of its loop, so only `collect` waits in there, and `send` for a moment."""


class WorkerHandle:
    """One actor, whose methods return what can be awaited. They raise a `RayError` when it is gone."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def hello(self, settings: Settings) -> Awaitable[Hello]:
        # An argument of a method goes to the worker's process directly; only the constructor's are kept elsewhere.
        return cast("Awaitable[Hello]", self._actor.hello.remote(packed_settings(settings), __version__))

    def send(self, attempts: Sequence[Sending]) -> None:
        """Returns at once. That it did not arrive is told by `collect`: then the whole worker is gone."""
        self._actor.send.remote(packed(attempts))

    def collect(self) -> Awaitable[bytes]:
        return cast("Awaitable[bytes]", self._actor.collect.remote())

    def kill(self) -> None:
        """Ends it, with all that it has in flight. Nothing happens where it has ended, or the cluster has."""
        import ray

        with suppress(Exception):
            ray.kill(self._actor, no_restart=True)


def packed_settings(settings: Settings) -> bytes:
    import pickle

    return pickle.dumps(settings, protocol=pickle.HIGHEST_PROTOCOL)


class Cluster:
    """To be opened and left on the thread that drives the run.

    Processes of a cluster of one's own end with the thread that started them.
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
        """Asks for a worker; it is there when its `hello` was answered. `place`: which one of a placement group."""
        options = self._options
        actor = self._remote.options(
            num_cpus=options.cpus_per_worker,
            resources=dict(options.resources) or None,
            scheduling_strategy=self._strategy(place),
            max_concurrency=METHODS_AT_ONCE,
            # Ray never tries anything again by itself: what may be sent once more is decided where money is counted.
            max_restarts=0,
            max_task_retries=0,
            enable_task_events=False,
        ).remote()
        return WorkerHandle(actor)

    def describe(self) -> str:
        """What the cluster has, for a message that says that it was not enough."""
        import ray

        ask = cast("Any", ray)  # it has no types for these two
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
        if self._options.placement in FREE:
            return None
        from ray.util.placement_group import placement_group

        return placement_group([self._asked] * self._options.most, strategy=self._options.placement)

    def _strategy(self, place: int) -> Any:
        if self._group is None:
            return self._options.placement
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        return PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=place)


def _connected() -> bool:
    """Whether the program has joined a cluster before, which then is the one to be used, and to be left alone."""
    import sys

    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _connect(options: RayOptions) -> None:
    # Read when Ray is imported. Under `uv run` it would otherwise copy the folder, .env included, to the cluster.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if options.address == "local":
        # Only on loopback: whoever reaches a cluster's ports can run what he likes on it.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        common |= {
            "num_cpus": max(1, math.ceil(options.most * options.cpus_per_worker)),
            "resources": {name: amount * options.most for name, amount in options.resources.items()} or None,
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": False,
        }
    import ray

    with _signals_as_they_were():
        try:
            _knock(options.address)
            ray.init(address=options.address, **common)
        except (OSError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"backend.ray.address: no cluster at {options.address!r}: {_first_line(error)}",
                'bioforge runs on a node of the cluster (`ray start --address=…`); "local" starts one of its own',
            ) from error
    # What Ray has to say of lost nodes it prints to stdout, whatever it is told, where texts of answers may be going.
    getattr(ray, "_private").worker._worker_logs_enabled = False  # noqa: B009 - it has no types


def _knock(address: str) -> None:
    """Raises OSError where nobody listens: Ray itself tries for minutes, and logs each time."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        with socket.create_connection((host.strip("[]"), int(port)), timeout=10.0):
            pass


@contextmanager
def _signals_as_they_were() -> Iterator[None]:
    """Ray takes SIGTERM for itself, which here asks for a run that drains."""
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

"""Run a backend against a server; the author describes both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from bioforge.core.budget import Budget
from bioforge.core.hashing import canonical, request_hash
from bioforge.core.interfaces import (
    Backend,
    BackendContext,
    BackendFactory,
    Limits,
    PurchaseDecision,
    RetryPolicy,
    RunControl,
    Stop,
    Work,
)
from bioforge.core.types import Rendered, Request
from bioforge.simulator import FAULTS, Outage, Simulator, SimulatorOptions
from bioforge.testing.folders import Server, charged_by
from bioforge.testing.plugin_host import handed
from bioforge.testing.recorder import Book, Recorded
from bioforge.testing.state import RecordedRun

QUICK = RetryPolicy(first_delay=0.01, max_delay=0.05)
"""Retries without long delays."""

THREADS_END_WITHIN = 5.0
"""Seconds in which threads must end after a run."""

Look = Callable[[Recorded, Work], object]
"""Called after each group of events, which is durable then, while the backend waits."""


class SimulatorServer:
    """The simulator as a `Server`."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator

    @property
    def base_url(self) -> str:
        return self.simulator.base_url

    def charged(self) -> Sequence[str | None]:
        return charged_by(self.simulator)


class BackendBench:
    """The description of a backend and its server, and helpers for stories."""

    options: Mapping[str, object] = {}
    """The table `[backend.NAME]` for every story."""

    siblings: Mapping[str, Mapping[str, object]] = {}
    """All such tables by name, for a backend that uses others."""

    choice: PurchaseDecision | None = None
    """The purchase decision, for a backend with several options."""

    model: str = "gpt-6-luna"
    """A model that the server knows, with a price that the backend knows, if it knows any."""

    batch: bool = False
    """True if requests are sent in batches. Stories about single calls are skipped then."""

    parameters: Mapping[str, object] = {}
    """Further parameters of every recipe: `{"max_output_tokens": 400}` for a vendor that requires it."""

    needs_key: bool = False
    """True if nothing can be sent to another machine without a key."""

    sends_to_base_url: bool = True
    """True if it opens connections to `BackendContext.base_url` itself."""

    refusals: Mapping[str, str] = {
        "rate_limit": "rate_limit",
        "rate_limit_bare": "rate_limit",
        "slow_down": "slow_down",
        "server_error": "server_error",
        "unavailable": "overloaded",
    }
    """Faults of the server that refuse a request, which costs nothing and is retried; each with its `error_class`."""

    broken: Mapping[str, str] = {
        "drop_before": "connection",
        "drop_after": "connection",
        "truncated": "truncated_body",
        "malformed": "malformed",
    }
    """Faults by which an answer arrives incomplete and may have been charged; each with its `error_class`."""

    nothing_received: frozenset[str] = frozenset({"drop_before", "drop_after"})
    """Those of `broken` of which no byte arrives."""

    hangs: str | None = "hang"
    """The fault by which an answer never arrives. None: the server has none."""

    unusable: Mapping[str, str] = {"incomplete": "truncated", "content_filter": "content_filter", "refusal": "refusal"}
    """Faults that are complete, paid answers without a usable text; each with the `error_class` of the problem."""

    bad_request: tuple[str, str] | None = ("bad_request", "bad_request")
    """The fault of a request that is refused for its content, and its `error_class`. None: the server has none."""

    random_faults: Mapping[str, float] = dict.fromkeys(FAULTS, 0.2 / len(FAULTS))
    """Faults with their probability per attempt, for the story of three hundred requests. Empty: it is skipped."""

    quota: bool = True
    """True if the server supports `quota_after`: no credit is left after this many answers."""

    invalid_key: str | None = "sk-invalid-1"
    """A key that the server refuses. None: it refuses none."""

    outages: bool = True
    """True if the server supports `outage`: it refuses all requests for a while."""

    latency: bool = True
    """True if the server supports `latency`: seconds until an answer is ready."""

    # ------------------------------------------------------------------------------------------------------- to give

    def factory(self) -> BackendFactory:
        """Return the backend class or factory that `bioforge_backends()` returns."""
        raise NotImplementedError(
            "give the backend: def factory(self): return MyBackend   (what bioforge_backends() has under its name)"
        )

    def start_server(self, stack: ExitStack, **options: Any) -> Server:
        """Return a running server for a story, closed with `stack`. The default is bioforge's simulator.

        Your server receives these options, as far as the attributes above allow them: `script` (`{"Absalon":
        ["rate_limit", "ok"]}`: the faults of the 1st, 2nd … attempt of each request that contains the text),
        `faults` (probabilities), `retry_after` (seconds in a refusal), `latency`, `hang_seconds`,
        `quota_after` (answers), `outage` (how many requests are answered first, and how many are refused
        then).
        """
        if outage := options.pop("outage", None):
            options["outage"] = Outage(*outage)
        # a batch is done as soon as it can be
        return SimulatorServer(stack.enter_context(Simulator(SimulatorOptions(**{"batch_seconds": 0, **options}))))

    # ------------------------------------------------------------------------------------------------------- helpers

    @pytest.fixture(autouse=True)
    def _bench(self) -> Iterator[None]:
        assert callable(self.factory()), "factory() should return what makes the backend, usually its class"
        with ExitStack() as stack:
            self.stack = stack
            self.book = Book()
            self.recorded = Recorded()
            self.kept = RecordedRun(Path(stack.enter_context(TemporaryDirectory(prefix="bioforge-"))) / "state.db")
            self.names: dict[str, str] = {}
            self._server: Server | None = None
            yield

    @property
    def server(self) -> Server:
        """Return the server of this story, without faults unless the story set some."""
        return self._server or self.serve()

    def serve(self, **options: Any) -> Server:
        """Start the server of this story."""
        self._server = self.start_server(self.stack, **options)
        return self._server

    def backend(self, base_url: str | None = None, key: str | None = "key", timeout: float = 20.0) -> Backend:
        """Return a backend as a project creates it, sending to the server of this story."""
        factory = self.factory()
        context = BackendContext(
            base_url or self.server.base_url,
            key,
            "MY_KEY",
            timeout,
            handed(factory, self.options, "backend"),
            siblings=self.siblings,
        )
        return factory(context)

    def requests(
        self, names: Sequence[str] | int, endpoint: str | None = None, max_output_tokens: int | None = None
    ) -> Iterator[Request]:
        """Yield one request for each name, or for this many artists, with the backend's body."""
        known = [f"Artist {number:03d}" for number in range(names)] if isinstance(names, int) else names
        backend = self.backend("http://127.0.0.1:9")
        endpoint = endpoint or backend.endpoints[0]
        parameters = dict(self.parameters)
        if max_output_tokens is not None:
            parameters["max_output_tokens"] = max_output_tokens
        for place, name in enumerate(known):
            body = canonical(backend.body(Rendered(endpoint, self.model, None, name, None, parameters)))
            digest = request_hash(endpoint, body, backend.dialect)
            self.names[digest] = name
            yield Request(
                digest,
                endpoint,
                self.model,
                body,
                f"a-{place}",
                "bio",
                input_tokens=10,
                output_tokens=80,
                max_output_tokens=max_output_tokens,
            )

    def mark(self, request: Request) -> str | None:
        """Return text that only the answer to this request contains; None if that is unknown.

        Then the request is sent alone first, and must get the same answer each time. `self.names` has the
        name in a request, by its `request_hash`; the simulator repeats it.
        """
        return f"for: {self.names[request.request_hash]}." if isinstance(self.server, SimulatorServer) else None

    def run(
        self,
        source: Iterator[Request],
        *,
        concurrency: int = 8,
        retry: RetryPolicy = QUICK,
        timeout: float = 20.0,
        stop: Stop | None = None,
        base_url: str | None = None,
        key: str | None = "key",
        wait: bool = True,
        more: Callable[[], bool] = lambda: False,
        look: Look = lambda recorded, work: None,
        **limits: Any,
    ) -> Recorded:
        """Run to the end. `book` checks and stores events group by group; those of the last run are in `recorded`.

        At the end they are also stored in a real state, like those of every plugin.
        """
        self.book.settle()
        given = _Given(source, self.book)
        batches = self.book.open()
        work = Work(
            given,
            Limits(concurrency, **limits),
            retry,
            RunControl(stop or Stop(), Budget(limits.get("max_cost_usd")), more=more),
            batches=batches,
            members=self.book,
            retries=self.book.retries,
            wait=wait,
            choice=self.choice,
        )
        recorded = self.recorded = Recorded()
        for group in self.backend(base_url, key, timeout).execute(work):
            self.book.record(group)
            if group:
                recorded.groups.append(group)
            look(recorded, work)
        self.kept.keep(recorded.groups, work, given.taken, batches)
        if not self.batch and work.control.stop.level < 2:
            assert work.control.gauges.in_flight == 0, (
                f"{work.control.gauges.in_flight} requests are said to be in flight at the end"
            )
        return recorded

    def only_calls(self) -> None:
        """Skip a story that does not apply to batches."""
        if self.batch:
            pytest.skip("it tells of calls; a batch goes on at the provider")


class _Given(Iterator[Request]):
    """Requests as a backend receives them; exhausted ones may continue later."""

    def __init__(self, requests: Iterator[Request], book: Book) -> None:
        self._requests = requests
        self._book = book
        self.taken: list[Request] = []

    def __next__(self) -> Request:
        request = next(self._requests)
        self.taken.append(request)
        self._book.given[request.request_hash] = request
        return request


def assert_no_more_threads(before: int) -> None:
    """Assert that no thread is left, once those that are ending have ended."""
    deadline = time.monotonic() + THREADS_END_WITHIN
    while threading.active_count() > before and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    left = [one.name for one in threading.enumerate()][before:]
    assert not left, f"threads that were left behind: {left}"

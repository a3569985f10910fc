"""A backend at work against a server: what an author says about both, and a run of it."""

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
"""Retries that nobody has to wait for."""

THREADS_END_WITHIN = 5.0
"""Seconds that threads have to end in when a run is left."""

Look = Callable[[Recorded, Work], object]
"""What a story does after each group of events: they are durable then, and the backend waits."""


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
    """What `BackendContract` has to be told, and what its stories are told with."""

    options: Mapping[str, object] = {}
    """The table `[backend.NAME]` for every story."""

    siblings: Mapping[str, Mapping[str, object]] = {}
    """All such tables by name, for a backend that works by others."""

    choice: PurchaseDecision | None = None
    """How it is to buy, for a backend that has several ways."""

    model: str = "gpt-6-luna"
    """A model the server knows, and whose price the backend knows, where it knows any."""

    batch: bool = False
    """Whether requests are sent in batches. Stories of calls alone (what is in flight, what breaks off) are skipped then."""

    parameters: Mapping[str, object] = {}
    """What the recipe of every story has beside its texts: `{"max_output_tokens": 400}` for a vendor that wants it said."""

    needs_key: bool = False
    """Whether nothing can be sent to an address that is not on this machine without a key."""

    sends_to_base_url: bool = True
    """Whether it opens connections to `BackendContext.base_url` itself, so that it meets whatever listens there."""

    refusals: Mapping[str, str] = {
        "rate_limit": "rate_limit",
        "rate_limit_bare": "rate_limit",
        "slow_down": "slow_down",
        "server_error": "server_error",
        "unavailable": "overloaded",
    }
    """Faults of the server that refuse a request, which costs nothing and is tried again; each with the `error_class`."""

    broken: Mapping[str, str] = {
        "drop_before": "connection",
        "drop_after": "connection",
        "truncated": "truncated_body",
        "malformed": "malformed",
    }
    """Faults by which an answer does not arrive as it should and may have been paid for; each with the `error_class`."""

    nothing_received: frozenset[str] = frozenset({"drop_before", "drop_after"})
    """Those of `broken` of which not one byte arrives that could be kept."""

    hangs: str | None = "hang"
    """The fault by which an answer never comes. None: the server has none."""

    unusable: Mapping[str, str] = {"incomplete": "truncated", "content_filter": "content_filter", "refusal": "refusal"}
    """Faults that are whole answers, paid for, without a text to use; each with the `error_class` of the problem."""

    bad_request: tuple[str, str] | None = ("bad_request", "bad_request")
    """The fault of a request that is refused for what it says, and its `error_class`. None: the server has none."""

    random_faults: Mapping[str, float] = dict.fromkeys(FAULTS, 0.2 / len(FAULTS))
    """Faults by their probability for each try, for the story of three hundred requests. Empty: it is skipped."""

    quota: bool = True
    """Whether the server takes `quota_after`: so many answers, and then no credit is left."""

    invalid_key: str | None = "sk-invalid-1"
    """A key the server refuses. None: it refuses none."""

    outages: bool = True
    """Whether the server takes `outage`: requests that are all told it is not available, for a while."""

    latency: bool = True
    """Whether the server takes `latency`: seconds until an answer is ready."""

    # ------------------------------------------------------------------------------------------------------- to give

    def factory(self) -> BackendFactory:
        """What `bioforge_backends()` returns under its name: usually the class."""
        raise NotImplementedError(
            "give the backend: def factory(self): return MyBackend   (what bioforge_backends() has under its name)"
        )

    def start_server(self, stack: ExitStack, **options: Any) -> Server:
        """A running server with what a story wants of it, closed with `stack`. The default is bioforge's simulator.

        A server of your own is asked for these, as far as the attributes above say it can:
        `script` (`{"Absalon": ["rate_limit", "ok"]}`: the faults of the 1st, 2nd … try of each request in which the
        text stands), `faults` (probabilities), `retry_after` (seconds that a refusal names), `latency`, `hang_seconds`,
        `quota_after` (answers), `outage` (how many requests are answered first, and how many are refused then).
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
        """The server of this story; one without faults, where it did not ask for another."""
        return self._server or self.serve()

    def serve(self, **options: Any) -> Server:
        """Start the server of this story."""
        self._server = self.start_server(self.stack, **options)
        return self._server

    def backend(self, base_url: str | None = None, key: str | None = "key", timeout: float = 20.0) -> Backend:
        """A backend as a project makes it, sending to the server of this story."""
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
        """One request for each name, or for so many artists, with the body that the backend gives it."""
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
        """What stands in the text of the answer to this request and to no other. None where nobody can say: then it is
        asked alone first, to know what the server says to it, which has to be the same each time.

        `self.names` has the name that a request is about, by its `request_hash`; the simulator repeats it.
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
        """A run to its end. Events are made durable in `book`, group by group, which says what is wrong with them; those of
        the last run are in `recorded`. At the end they are put into a state, as those of every plugin are."""
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
        """Skip a story that has no meaning for batches."""
        if self.batch:
            pytest.skip("it tells of calls; a batch goes on at the provider")


class _Given(Iterator[Request]):
    """Requests as a backend takes them. One that had no more may have further ones later."""

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
    """That there are no more threads than there were, as soon as those that are ending have ended."""
    deadline = time.monotonic() + THREADS_END_WITHIN
    while threading.active_count() > before and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    left = [one.name for one in threading.enumerate()][before:]
    assert not left, f"threads that were left behind: {left}"

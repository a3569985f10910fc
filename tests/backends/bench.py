"""A backend at work against a simulator, and what is to be true of every run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from bioforge.events import Event, Failed, Noticed, Started, Stopped, Succeeded, Unusable
from bioforge.fingerprint import canonical, request_hash
from bioforge.interfaces import Backend, BackendContext, Limits, RetryPolicy, Stop, Work
from bioforge.model import Paid, Request
from bioforge.simulator import Ledger, Simulator, SimulatorOptions

QUICK = RetryPolicy(first_delay=0.01, max_delay=0.05)


def requests(names: Sequence[str] | int, endpoint: str = "/v1/responses", **parameters: Any) -> Iterator[Request]:
    """One request for each name, or for so many artists."""
    known = [f"Artist {number:03d}" for number in range(names)] if isinstance(names, int) else names
    for place, name in enumerate(known):
        asked = {"input": name} if endpoint == "/v1/responses" else {"messages": [{"role": "user", "content": name}]}
        body = canonical({"model": "gpt-6-luna", **asked, **parameters})
        yield Request(
            request_hash(endpoint, body),
            endpoint,
            "gpt-6-luna",
            body,
            f"a-{place}",
            "bio",
            input_tokens=10,
            output_tokens=80,
            max_output_tokens=parameters.get("max_output_tokens"),
        )


class Recorded:
    """The events of a run, and what can be said about them."""

    def __init__(self) -> None:
        self.groups: list[Sequence[Event]] = []

    def of(self, *kinds: type[Any]) -> list[Any]:
        return [event for group in self.groups for event in group if isinstance(event, kinds)]

    @property
    def succeeded(self) -> list[Succeeded]:
        return self.of(Succeeded)

    @property
    def failed(self) -> list[Failed]:
        return self.of(Failed)

    @property
    def lost(self) -> list[Failed]:
        return [event for event in self.failed if event.final]

    @property
    def stopped(self) -> Stopped | None:
        found = self.of(Stopped)
        assert len(found) <= 1
        if found:
            assert self.groups[-1][-1] is found[0]
        return found[0] if found else None

    def notices(self, kind: str) -> list[Noticed]:
        return [event for event in self.of(Noticed) if event.kind == kind]

    def check(self, ledger: Ledger) -> None:
        """Every attempt has one beginning and one end, and every charge of the ledger is accounted for."""
        started = [event.launch.client_request_id for event in self.of(Started)]
        ended = [event.launch.client_request_id for event in self.of(Succeeded, Unusable, Failed)]
        assert len(set(started)) == len(started)
        assert sorted(started) == sorted(ended)
        paid = {event.launch.client_request_id for event in self.of(Succeeded, Unusable)}
        maybe = {event.launch.client_request_id for event in self.failed if event.paid is Paid.MAYBE}
        charged = {charge.client_request_id for charge in ledger.entries()}
        assert paid <= charged
        assert charged <= paid | maybe


class Bench:
    """A backend against a simulator: `bench(faults={...})`, then `bench.run(requests(10))`."""

    def __init__(self, factory: Callable[[BackendContext], Backend], stack: ExitStack) -> None:
        self.factory = factory
        self.stack = stack
        self.server = Simulator()

    def __call__(self, **options: Any) -> Bench:
        self.server = self.stack.enter_context(Simulator(SimulatorOptions(**options)))
        return self

    def backend(self, base_url: str | None = None, timeout: float = 20.0, key: str | None = "key") -> Backend:
        return self.factory(BackendContext(base_url or self.server.base_url, key, timeout=timeout))

    def run(
        self,
        source: Iterator[Request],
        concurrency: int = 8,
        retry: RetryPolicy = QUICK,
        timeout: float = 20.0,
        stop: Stop | None = None,
        base_url: str | None = None,
        key: str | None = "key",
        look: Callable[[Recorded, Work], object] = lambda recorded, work: None,
        **limits: Any,
    ) -> Recorded:
        work = Work(source, Limits(concurrency, **limits), retry, stop or Stop())
        recorded = Recorded()
        for group in self.backend(base_url, timeout, key).execute(work):
            recorded.groups.append(group)
            look(recorded, work)
        assert work.gauges.in_flight == 0 or work.stop.level > 1
        return recorded

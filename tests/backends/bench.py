"""A backend at work against a simulator, with requests whose bodies are written by hand, and what is to be true of every
run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from bioforge import testing
from bioforge.core.budget import Budget
from bioforge.core.hashing import canonical, request_hash
from bioforge.core.interfaces import Backend, BackendContext, Limits, RetryPolicy, RunControl, Stop, Work
from bioforge.core.types import Request
from bioforge.simulator import Ledger, Simulator, SimulatorOptions
from bioforge.testing.bench import QUICK

__all__ = ["QUICK", "Bench", "Recorded", "requests"]


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


class Recorded(testing.Recorded):
    """The kit's, which asks the simulator's ledger what was charged."""

    def check(self, ledger: Ledger) -> None:  # type: ignore[override]
        super().check(charge.custom_id or charge.client_request_id for charge in ledger.entries())


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
        work = Work(
            source, Limits(concurrency, **limits), retry, RunControl(stop or Stop(), Budget(limits.get("max_cost_usd")))
        )
        recorded = Recorded()
        for group in self.backend(base_url, timeout, key).execute(work):
            recorded.groups.append(group)
            look(recorded, work)
        assert work.control.gauges.in_flight == 0 or work.control.stop.level > 1
        return recorded

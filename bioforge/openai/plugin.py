"""The built-in backends: OpenAI's API, and every server that speaks it, by threads and by coroutines."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bioforge.hookspecs import hookimpl
from bioforge.interfaces import Backend, BackendContext, BackendFactory, Choice, Job, Load, Work
from bioforge.model import Batch, Rendered, Request, Usage

if TYPE_CHECKING:
    from bioforge.backends.batches import BatchDriver
    from bioforge.backends.batches.library import Prepared
    from bioforge.backends.driver import Lanes
    from bioforge.batching import Row
    from bioforge.events import Event
    from bioforge.openai.batch_service import OpenAIBatches

_TIER = re.compile(rb'"service_tier":\s*"(\w+)"')
"""In a canonical body. Quotes inside of texts are escaped there, so a text cannot be taken for it."""


class OpenAIBackend(Backend):
    """What all ways have in common: bodies and prices."""

    def __init__(self, context: BackendContext) -> None:
        self.context = context

    def check(self) -> None:
        from bioforge.openai.client import check_key

        check_key(self.context)

    def body(self, rendered: Rendered) -> dict[str, object]:
        from bioforge.openai import wire

        return wire.body(rendered)

    def price(self, model: str, usage: Usage, service_tier: str | None = None) -> float | None:
        from bioforge.openai.prices import price

        return price(model, usage, service_tier)

    def most(self, request: Request) -> float | None:
        """US dollars that a request is expected to cost at most."""
        tier = _TIER.search(request.body)
        output = request.max_output_tokens or request.output_tokens
        usage = Usage(request.input_tokens, output)
        return self.price(request.model, usage, tier[1].decode() if tier else request.service_tier)


class CallsBackend(OpenAIBackend):
    """Calls that are answered at once, side by side."""

    def execute(self, work: Work) -> Iterator[Sequence[Event]]:
        import time

        from bioforge.backends.driver import drive
        from bioforge.window import Window

        window = Window(work.limits, work.retry, self.most, time.monotonic())
        yield from drive(work, window, self.lanes(work.limits.concurrency))

    @abstractmethod
    def lanes(self, concurrency: int) -> Lanes:
        """Where the attempts are sent, opened for one run."""


class ThreadsBackend(CallsBackend):
    """One thread for each call in flight."""

    def lanes(self, concurrency: int) -> Lanes:
        from bioforge.backends.threads import ThreadLanes
        from bioforge.openai.client import SyncSender

        return ThreadLanes(SyncSender(self.context, concurrency, self.price), concurrency)


class AsyncBackend(CallsBackend):
    """One event loop for all calls: for hundreds in flight."""

    def lanes(self, concurrency: int) -> Lanes:
        from bioforge.backends.asynchronous import AsyncLanes
        from bioforge.openai.client import AsyncSender

        return AsyncLanes(lambda: AsyncSender(self.context, self.price))


class BatchBackend(OpenAIBackend):
    """The Batch API: half the price, up to a day.

    Beside `execute`, for programs without a project: `prepare`, `submit`, `poll`, `fetch`; see `batches/library.py`.
    """

    batches = True

    def __init__(self, context: BackendContext) -> None:
        super().__init__(context)
        from bioforge.backends.batches.options import BatchOptions

        self.options = BatchOptions.from_options(context.options)

    @cached_property
    def service(self) -> OpenAIBatches:
        from bioforge.openai.batch_service import OpenAIBatches

        return OpenAIBatches(self.context, self.price)

    def price(self, model: str, usage: Usage, service_tier: str | None = None) -> float | None:
        return super().price(model, usage, service_tier or "batch")

    def execute(self, work: Work) -> Iterator[Sequence[Event]]:
        with closing(self.service), closing(self.driver(work)) as driver:
            yield from driver.run(wait=work.wait)
            yield driver.left_waiting()

    def driver(self, work: Work, *, requeue: bool = True) -> BatchDriver:
        from bioforge.backends.batches import BatchDriver

        return BatchDriver(work, self.service, self.options, self.most, requeue=requeue)

    def prepare(self, requests: Iterable[Request], folder: Path) -> list[Prepared]:
        from bioforge.backends.batches.library import prepare

        return prepare(requests, folder, self.service, self.options)

    def submit(self, prepared: Prepared) -> Batch:
        from bioforge.backends.batches.library import submit

        return submit(prepared, self.service)

    def poll(self, batch: Batch) -> Batch:
        return self.service.look(batch)

    def fetch(self, batch: Batch) -> Iterator[Row]:
        from bioforge.backends.batches.library import fetch

        return fetch(batch, self.service)


class AutoBackend(OpenAIBackend):
    """Batch, flex or standard, whichever is cheapest in the time there is; what one leaves over goes to the next."""

    batches = True

    def __init__(self, context: BackendContext) -> None:
        super().__init__(context)
        from dataclasses import replace

        from bioforge.backends.choice import ChoiceOptions

        self.options = ChoiceOptions.from_options(context.options)
        self._batch = BatchBackend(replace(context, options=context.siblings.get("batch", {})))
        self._calls = AsyncBackend(context)

    def choose(self, job: Job) -> Choice | None:
        from bioforge.backends.choice import choose

        return choose(job, self._price_of, self.options)

    def _price_of(self, load: Load, tier: str | None) -> float | None:
        if not load.requests:
            return 0.0
        # by the average request: prices may depend on how long a single one is
        each = Usage(round(load.input_tokens / load.requests), round(load.output_tokens / load.requests))
        one = self.price(load.model, each, tier)
        return None if one is None else one * load.requests

    def execute(self, work: Work) -> Iterator[Sequence[Event]]:
        from bioforge.backends.auto import AutoDriver

        with closing(self._batch.service), closing(self._batch.driver(work, requeue=False)) as batches:
            yield from AutoDriver(work, batches, self._calls.execute).run()


@hookimpl
def bioforge_backends() -> Mapping[str, BackendFactory]:
    return {"threads": ThreadsBackend, "async": AsyncBackend, "batch": BatchBackend, "auto": AutoBackend}

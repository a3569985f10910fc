"""The built-in backends, for OpenAI's API and compatible servers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING

from bioforge.backends.base import AsyncCallsBackend, BatchesBackend, ThreadCallsBackend, VendorBackend, largest_usage
from bioforge.core.interfaces import (
    AsyncSender,
    BackendContext,
    BackendFactory,
    Load,
    PurchaseDecision,
    PurchaseJob,
    Sender,
    Work,
)
from bioforge.core.types import Rendered, Request, Usage
from bioforge.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from bioforge.backends.openai.batch import OpenAIBatches
    from bioforge.backends.openai.wire import Price
    from bioforge.core.events import Event

_TIER = re.compile(rb'"service_tier":\s*"(\w+)"')
"""Finds the tier in a canonical body. Quotes inside texts are escaped there, so a text cannot match."""


class OpenAIBackend(VendorBackend):
    """The common part: bodies and prices."""

    socks = False
    """True if every client of the backend takes a SOCKS proxy."""

    def check(self) -> None:
        from bioforge.backends.openai.client import check_context

        check_context(self.context, socks=self.socks)

    def body(self, rendered: Rendered) -> dict[str, object]:
        return self._body(rendered)

    def price(self, model: str, usage: Usage, service_tier: str | None = None) -> float | None:
        return self._price(model, usage, service_tier)

    # imported when they are first used: a command that asks for nothing starts without them

    @cached_property
    def _body(self) -> Callable[[Rendered], dict[str, object]]:
        from bioforge.backends.openai.wire import body

        return body

    @cached_property
    def _price(self) -> Price:
        from bioforge.backends.openai.prices import price

        return price

    def max_cost(self, request: Request) -> float | None:
        tier = _TIER.search(request.body)
        return self.price(request.model, largest_usage(request), tier[1].decode() if tier else request.service_tier)


class ThreadsBackend(OpenAIBackend, ThreadCallsBackend):
    """A thread for each call in flight."""

    socks = True

    def open_sender(self, concurrency: int) -> Sender:
        from bioforge.backends.openai.client import OpenAISender

        return OpenAISender(self.context, concurrency, self.price)


class AsyncBackend(OpenAIBackend, AsyncCallsBackend):
    """One event loop for all calls, for hundreds in flight."""

    def open_sender(self) -> AsyncSender:
        from bioforge.backends.openai import client

        return client.OpenAIAsyncSender(self.context, self.price)


class BatchBackend(OpenAIBackend, BatchesBackend):
    """The Batch API: half the price, up to a day."""

    socks = True

    def __init__(self, context: BackendContext) -> None:
        super().__init__(context)
        from bioforge.backends.batch.options import BatchOptions

        self.options = BatchOptions.from_options(context.options)

    @cached_property
    def service(self) -> OpenAIBatches:
        from bioforge.backends.openai.batch import OpenAIBatches

        return OpenAIBatches(self.context, self.price)

    def close(self) -> None:
        self.service.close()

    def price(self, model: str, usage: Usage, service_tier: str | None = None) -> float | None:
        return super().price(model, usage, service_tier or self.tier)


class AutoBackend(OpenAIBackend):
    """Batch, flex or standard, whichever is cheapest within the deadline; what one leaves over goes to the next."""

    batches = True

    def __init__(self, context: BackendContext) -> None:
        super().__init__(context)
        from dataclasses import replace

        from bioforge.backends.strategy import ChoiceOptions

        self.options = ChoiceOptions.from_options(context.options)
        self._batch = BatchBackend(replace(context, options=context.siblings.get("batch", {})))
        self._calls = AsyncBackend(context)

    def choose(self, job: PurchaseJob) -> PurchaseDecision | None:
        from bioforge.backends.strategy import choose

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

        with closing(self._batch), closing(self._batch.driver(work, requeue=False)) as batches:
            yield from AutoDriver(work, batches, self._calls.execute).run()


@hookimpl
def bioforge_backends() -> Mapping[str, BackendFactory]:
    return {"threads": ThreadsBackend, "async": AsyncBackend, "batch": BatchBackend, "auto": AutoBackend}

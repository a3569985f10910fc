"""The built-in backends: OpenAI's API, and every server that speaks it, by threads and by coroutines."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from bioforge.hookspecs import hookimpl
from bioforge.interfaces import Backend, BackendContext, BackendFactory, Work
from bioforge.model import Rendered, Request, Usage

if TYPE_CHECKING:
    from bioforge.backends.driver import Lanes
    from bioforge.events import Event

_TIER = re.compile(rb'"service_tier":\s*"(\w+)"')
"""In a canonical body. Quotes inside of texts are escaped there, so a text cannot be taken for it."""


class OpenAIBackend(Backend):
    """What both ways have in common: bodies, prices and the loop."""

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

    def execute(self, work: Work) -> Iterator[Sequence[Event]]:
        import time

        from bioforge.backends.driver import drive
        from bioforge.window import Window

        window = Window(work.limits, work.retry, self.most, time.monotonic())
        yield from drive(work, window, self.lanes(work.limits.concurrency))

    def most(self, request: Request) -> float | None:
        """US dollars that a request is expected to cost at most."""
        tier = _TIER.search(request.body)
        output = request.max_output_tokens or request.output_tokens
        usage = Usage(request.input_tokens, output)
        return self.price(request.model, usage, tier[1].decode() if tier else None)

    @abstractmethod
    def lanes(self, concurrency: int) -> Lanes:
        """Where the attempts are sent, opened for one run."""


class ThreadsBackend(OpenAIBackend):
    """One thread for each call in flight."""

    def lanes(self, concurrency: int) -> Lanes:
        from bioforge.backends.threads import ThreadLanes
        from bioforge.openai.client import SyncSender

        return ThreadLanes(SyncSender(self.context, concurrency, self.price), concurrency)


class AsyncBackend(OpenAIBackend):
    """One event loop for all calls: for hundreds in flight."""

    def lanes(self, concurrency: int) -> Lanes:
        from bioforge.backends.asynchronous import AsyncLanes
        from bioforge.openai.client import AsyncSender

        return AsyncLanes(lambda: AsyncSender(self.context, self.price))


@hookimpl
def bioforge_backends() -> Mapping[str, BackendFactory]:
    return {"threads": ThreadsBackend, "async": AsyncBackend}

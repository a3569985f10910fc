"""Base classes for vendors' backends.

A vendor provides senders (`Sender`, `AsyncSender`) for single calls or a `BatchService` for batches, request bodies and
prices. These classes add the scheduler, retries, the budget and the bookkeeping.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from bioforge.core.interfaces import AsyncSender, Backend, Sender, Work
from bioforge.core.types import Batch, Request, Usage

if TYPE_CHECKING:
    from bioforge.backends.batch.driver import BatchDriver
    from bioforge.backends.batch.options import BatchOptions
    from bioforge.backends.batch.service import BatchResult, BatchService
    from bioforge.backends.batch.standalone import PreparedBatch
    from bioforge.backends.driver import Executor
    from bioforge.core.events import Event


def largest_usage(request: Request) -> Usage:
    """Return the expected input of a request, its most output, and its most web searches."""
    output, searches = request.max_output_tokens or request.output_tokens, 0
    if b'"web_search' in request.body:
        from bioforge.recipes.tokens import web_searches

        searches = web_searches(json.loads(request.body))[0]
    return Usage(request.input_tokens, output, web_searches=searches)


class VendorBackend(Backend):
    """A backend that knows its prices."""

    def max_cost(self, request: Request) -> float | None:
        """Return the US dollars that a request costs at most, or None if unknown. The budget reserves them."""
        return self.price(request.model, largest_usage(request), request.service_tier)


class CallsBackend(VendorBackend):
    """Single calls, many at a time."""

    def execute(self, work: Work) -> Iterator[Sequence[Event]]:
        import time

        from bioforge.backends.driver import drive
        from bioforge.backends.open_files import fit_open_files
        from bioforge.backends.scheduler.scheduler import Scheduler

        limits, notices = fit_open_files(work.limits, self.context.base_url)
        if notices:
            yield notices
        scheduler = Scheduler(
            limits, work.retry, self.max_cost, time.monotonic(), budget=work.control.budget, proven=work.proven
        )
        yield from drive(work, scheduler, self.executor(limits.concurrency))

    @abstractmethod
    def executor(self, concurrency: int) -> Executor:
        """Return the executor of one run, for at most `concurrency` attempts in flight."""


class ThreadCallsBackend(CallsBackend):
    """A thread for each call in flight."""

    def executor(self, concurrency: int) -> Executor:
        from bioforge.backends.threads import ThreadExecutor

        return ThreadExecutor(self.open_sender(concurrency), concurrency)

    @abstractmethod
    def open_sender(self, concurrency: int) -> Sender:
        """Return the vendor's client for this many calls at once. It is closed at the end of the run."""


class AsyncCallsBackend(CallsBackend):
    """One event loop for all calls, for hundreds in flight."""

    def executor(self, concurrency: int) -> Executor:
        from bioforge.backends.asyncio import AsyncExecutor

        return AsyncExecutor(self.open_sender)

    @abstractmethod
    def open_sender(self) -> AsyncSender:
        """Return the vendor's client; called on the loop's thread, where it is also closed."""


class BatchesBackend(VendorBackend):
    """Batch jobs.

    Programs without a project use `prepare`, `submit`, `poll` and `fetch`; see `batch/standalone.py`. `options` has the size
    limits and the polling interval.
    """

    batches = True
    tier = "batch"
    """The price tier of requests in a batch."""
    options: BatchOptions

    @property
    @abstractmethod
    def service(self) -> BatchService:
        """Return the vendor's batch API, opened at its first use and kept for the life of this backend."""

    @abstractmethod
    def close(self) -> None:
        """Close what `service` opened; it may be used again afterwards."""

    def execute(self, work: Work) -> Iterator[Sequence[Event]]:
        with closing(self), closing(self.driver(work)) as driver:
            yield from driver.run(wait=work.wait)
            yield driver.left_waiting()

    def driver(self, work: Work, *, requeue: bool = True) -> BatchDriver:
        from bioforge.backends.batch.driver import BatchDriver

        return BatchDriver(work, self.service, self.options, self.max_cost, requeue=requeue)

    def prepare(self, requests: Iterable[Request], folder: Path) -> list[PreparedBatch]:
        from bioforge.backends.batch.standalone import prepare

        return prepare(requests, folder, self.service, self.options)

    def submit(self, prepared: PreparedBatch) -> Batch:
        from bioforge.backends.batch.standalone import submit

        return submit(prepared, self.service)

    def poll(self, batch: Batch) -> Batch:
        return self.service.look(batch)

    def fetch(self, batch: Batch) -> Iterator[BatchResult]:
        from bioforge.backends.batch.standalone import fetch

        return fetch(batch, self.service)

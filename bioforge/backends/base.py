"""What backends of vendors are made of: everything but the vendor's words.

A vendor brings senders (`Sender`, `AsyncSender`) for calls that are answered at once, or a `BatchService` for batches,
and says what a body looks like and what it costs; the scheduler, the retries, the budget and the bookkeeping are these.
"""

from __future__ import annotations

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
    from bioforge.backends.batch.service import BatchService, Row
    from bioforge.backends.batch.standalone import PreparedBatch
    from bioforge.backends.driver import Executor
    from bioforge.core.events import Event


class VendorBackend(Backend):
    """A backend that knows the prices of what it buys."""

    def most(self, request: Request) -> float | None:
        """US dollars that a request is expected to cost at most; None where its price is unknown. Budgets reserve it."""
        output = request.max_output_tokens or request.output_tokens
        return self.price(request.model, Usage(request.input_tokens, output), request.service_tier)


class CallsBackend(VendorBackend):
    """Calls that are answered at once, side by side."""

    def execute(self, work: Work) -> Iterator[Sequence[Event]]:
        import time

        from bioforge.backends.driver import drive
        from bioforge.backends.scheduler.scheduler import Scheduler

        window = Scheduler(work.limits, work.retry, self.most, time.monotonic(), budget=work.control.budget)
        yield from drive(work, window, self.lanes(work.limits.concurrency))

    @abstractmethod
    def lanes(self, concurrency: int) -> Executor:
        """Where the attempts are sent, opened for one run. At most `concurrency` are in flight."""


class ThreadCallsBackend(CallsBackend):
    """One thread for each call in flight."""

    def lanes(self, concurrency: int) -> Executor:
        from bioforge.backends.threads import ThreadExecutor

        return ThreadExecutor(self.open_sender(concurrency), concurrency)

    @abstractmethod
    def open_sender(self, concurrency: int) -> Sender:
        """The vendor's client, with room for so many calls at once. Closed at the end of the run."""


class AsyncCallsBackend(CallsBackend):
    """One event loop for all calls: for hundreds in flight."""

    def lanes(self, concurrency: int) -> Executor:
        from bioforge.backends.asyncio import AsyncExecutor

        return AsyncExecutor(self.open_sender)

    @abstractmethod
    def open_sender(self) -> AsyncSender:
        """The vendor's client, made and closed on the loop's thread."""


class BatchesBackend(VendorBackend):
    """Batches, at the price and in the time of those.

    Beside `execute`, for programs without a project: `prepare`, `submit`, `poll`, `fetch`; see `batches/library.py`.
    `options` says how large batches may be and how often they are looked at.
    """

    batches = True
    tier = "batch"
    """The price tier of what goes into a batch."""
    options: BatchOptions

    @property
    @abstractmethod
    def service(self) -> BatchService:
        """The vendor's batch API: one for this backend's life, opened when it is first used."""

    @abstractmethod
    def close(self) -> None:
        """Close what `service` has opened; it may be used again."""

    def execute(self, work: Work) -> Iterator[Sequence[Event]]:
        with closing(self), closing(self.driver(work)) as driver:
            yield from driver.run(wait=work.wait)
            yield driver.left_waiting()

    def driver(self, work: Work, *, requeue: bool = True) -> BatchDriver:
        from bioforge.backends.batch.driver import BatchDriver

        return BatchDriver(work, self.service, self.options, self.most, requeue=requeue)

    def prepare(self, requests: Iterable[Request], folder: Path) -> list[PreparedBatch]:
        from bioforge.backends.batch.standalone import prepare

        return prepare(requests, folder, self.service, self.options)

    def submit(self, prepared: PreparedBatch) -> Batch:
        from bioforge.backends.batch.standalone import submit

        return submit(prepared, self.service)

    def poll(self, batch: Batch) -> Batch:
        return self.service.look(batch)

    def fetch(self, batch: Batch) -> Iterator[Row]:
        from bioforge.backends.batch.standalone import fetch

        return fetch(batch, self.service)

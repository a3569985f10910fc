"""Pack requests into batches within sizes, enqueued tokens and the budget."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from bioforge.backends.batch.calls import Clock, Groups, StopRequested
from bioforge.backends.batch.names import naming, new_key
from bioforge.backends.batch.options import BatchOptions
from bioforge.backends.batch.packing import BatchBuilder, EnqueuedLimit, enqueued, tokens_of
from bioforge.backends.batch.service import BatchService
from bioforge.core.budget import Price, Reservation
from bioforge.core.events import Attempt, BatchChanged, Event, Failed, Started, Stopped
from bioforge.core.interfaces import Work
from bioforge.core.text import money
from bioforge.core.types import Batch, BatchState, Failure, Paid, Request

GROUP = 3_000
"""Highest number of members that are committed together; see `collect.GROUP`."""

GROUP_BYTES = 6_000_000
"""Bytes of bodies that are committed together."""

WORKER = "batch"
NOTHING = Reservation(0.0, 0.0)


class BatchPacker:
    """Packs the requests still to be sent into batches, within the budget and all limits.

    Released requests are pulled again after the others; failed ones only with `requeue`.
    """

    def __init__(
        self, work: Work, service: BatchService, options: BatchOptions, price: Price, wall: Clock, *, requeue: bool
    ) -> None:
        self.budget = work.control.budget
        self.queue = EnqueuedLimit(options.max_enqueued_tokens, work.enqueued_tokens)
        self.again = 0
        """Released or failed requests that may be sent in another batch."""
        self.elsewhere: set[str] = set()
        """Hashes of failed requests that are left to be sent in another way; none with `requeue`."""
        self.held: Request | None = None
        """The next request, if it cannot be sent yet."""
        self.out_of_money: Stopped | None = None
        """The stop for a used-up budget."""
        self.pauses: dict[str, float] = {}
        """Until when nothing of a model is sent (seconds since 1970)."""
        self._work = work
        self._service = service
        self._name = naming(service)
        self._options = options
        self._price = price
        self._wall = wall
        self._requeue = requeue
        self._retries: Iterator[Request] = iter(())
        self._parcels: dict[tuple[str, str], BatchBuilder] = {}
        self._sealed: list[Batch] = []
        self._reserved: dict[str, Reservation] = {}

    @property
    def more(self) -> bool:
        """Return True if something could be sent at once."""
        return self.again > 0 and self.held is None

    def next_batch(self, under_way: Callable[[], Collection[Batch]]) -> Groups[Batch | None]:
        """Return a batch whose members are all recorded; None when nothing more can be sent now."""
        group: list[Event] = []
        size = 0
        while not self._sealed:
            if self._work.control.stop.level:
                yield group
                raise StopRequested
            request = self._next()
            if request is None and self.again:
                # only what is recorded is known not to be waiting any more
                yield group
                group = []
                self.again = 0
                self._retries = (one for one in self._work.retries() if one.request_hash not in self.elsewhere)
                continue
            quote = NOTHING if request is None else self.budget.quote(request, self._price, calibrate=False)
            reason = None if request is None else self._refusal(request, quote, under_way())
            if request is None or reason is not None:
                self.held = request
                yield group
                group = []
                if self._parcels:
                    self._seal(*self._parcels)
                    continue
                if reason == "budget" and not self._reserved:  # nothing will end and free some
                    self.out_of_money = self._out_of_money(quote)
                return None
            size += self._pack(request, quote, group)
            if len(group) >= GROUP or size >= GROUP_BYTES:
                yield group
                group, size = [], 0
        batch = self._sealed.pop(0)
        yield [*group, BatchChanged(batch)]
        return batch

    def _next(self) -> Request | None:
        held, self.held = self.held, None
        if held is None:
            held = next(self._retries, None)
        # asked again although there were no more: what was collected can bring about further requests
        return held if held is not None else next(self._work.requests, None)

    def failed(self, request: Request) -> None:
        """Note a retryable failure: for the next batch, or another way."""
        if self._requeue:
            self.again += 1
        else:
            self.elsewhere.add(request.request_hash)

    def _refusal(self, request: Request, quote: Reservation, under_way: Collection[Batch]) -> str | None:
        """Return why this request cannot be packed now, or None."""
        if not self.budget.allows(quote):
            return "budget"
        if self.pauses.get(request.model, 0.0) > self._wall():
            return "tokens"
        tokens = enqueued(under_way, request.model)
        tokens += sum(parcel.tokens for (_, model), parcel in self._parcels.items() if model == request.model)
        return None if self.queue.has_room(request.model, tokens_of(request), tokens) else "tokens"

    def _pack(self, request: Request, quote: Reservation, group: list[Event]) -> int:
        """Add a request to its batch. Return the bytes of its line, 0 if it has to wait."""
        place, number, now = (request.endpoint, request.model), request.attempts + 1, self._wall()
        parcel = self._parcels.get(place)
        key = new_key(now) if parcel is None else parcel.batch.key
        attempt = Attempt(request, number, WORKER, self._name(request, number, key), now, key)
        size = len(self._service.line(attempt))
        if parcel is not None and not parcel.fits(size, self._options):
            self._seal(place)
            self.held = request  # comes next, and by then that batch may have taught a limit
            return 0
        if parcel is None:
            self._parcels[place] = parcel = BatchBuilder(Batch(key, *place, prepared_at=now))
            group.append(BatchChanged(parcel.batch))
        parcel.add(request, size, self._price(request))
        self.budget.reserve(quote)
        before = self._reserved.get(key, NOTHING)
        self._reserved[key] = Reservation(before.estimate + quote.estimate, before.amount + quote.amount)
        group.append(Started(attempt))
        return size

    def _seal(self, *places: tuple[str, str]) -> None:
        self._sealed += [self._parcels.pop(place).sealed() for place in places]

    # -------------------------------------------------------------------------------------------------- giving back

    def give_up(self) -> Groups[None]:
        """Release the members of batches that were not submitted."""
        for batch in (*(parcel.batch for parcel in self._parcels.values()), *self._sealed):
            yield from self.release(batch, Failure("interrupted", "stopped before it was sent"))
        self._parcels.clear()
        self._sealed.clear()

    def release(
        self, batch: Batch, failure: Failure, is_final: Callable[[Attempt], bool] = lambda attempt: False
    ) -> Groups[None]:
        """Release the members of a batch that was never submitted; they are retried unless that was their last try."""
        yield [BatchChanged(replace(batch, state=BatchState.RELEASING), failure.message)]
        group: list[Event] = []
        for attempt in self._work.members.attempts_of(batch.key, open_only=True):
            final = is_final(attempt)
            group.append(Failed(attempt, failure, Paid.NO, 0.0, final=final, counted=final))
            self.again += not final
            if len(group) >= GROUP:
                yield group
                group = []
        yield [*group, BatchChanged(replace(batch, state=BatchState.RELEASED))]
        self.settle(batch, None)

    def settle(self, batch: Batch, cost_usd: float | None, unpriced: float = 0.0) -> None:
        """Turn the reservation of a batch into money spent; None: nothing was paid.

        `unpriced` is the share of its members without a known price, which counts as estimated.
        """
        reserved = self._reserved.pop(batch.key, NOTHING)
        if reserved.amount:
            cost = None if cost_usd is None else cost_usd + reserved.estimate * unpriced
            self.budget.settle(reserved, cost, Paid.NO if cost is None else Paid.YES)

    def _out_of_money(self, quote: Reservation) -> Stopped:
        limit = self.budget.limit or 0.0
        return Stopped(
            "budget",
            f"the budget of {money(limit)} is used up: {money(self.budget.spent)} spent, and the next request may cost"
            f" {money(quote.amount)}",
            "raise [limits] max_cost_usd or --max-cost and run again: it goes on where this run stopped",
        )

"""Batches from preparation to collection, as one generator of events. No vendor's words in here.

    fill      requests are packed; the members are recorded, then the batch is sealed
    submit    its file is written from the state, uploaded, and the job created: each durable before the next
    look      every open batch in growing intervals
    collect   both files of every batch that ended; what may be tried again goes into the next batch

Whatever an earlier process left is looked for at the provider before anything is uploaded or created again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from bioforge.backends.batches.calls import Calls, Clock, Groups, Halted, Left, of_account, of_outage
from bioforge.backends.batches.collecting import GROUP, Account, told
from bioforge.backends.batches.options import BatchOptions
from bioforge.backends.batches.packing import Parcel, Price, Queue, enqueued
from bioforge.batching import BatchService, CallError, Row
from bioforge.events import (
    BatchChanged,
    BatchCollected,
    Event,
    Failed,
    Launch,
    LimitLearned,
    Noticed,
    Started,
    Stopped,
)
from bioforge.interfaces import Gauges, Work
from bioforge.model import Batch, BatchState, Failure, Paid, Request
from bioforge.window.budget import Budget, Reservation

__all__ = ["BatchDriver", "BatchOptions"]

LOOKS = 3
"""How often a job whose creation ended unclearly is looked for, before it is created once more."""

GROWTH = 1.5
"""Each interval between two looks is longer by this factor."""

RECENT = 120.0
"""Seconds in which a job may be missing from a provider's list although it was created."""

WORKER = "batch"
NOTHING = Reservation(0.0, 0.0)


@dataclass(slots=True)
class _Open:
    """A batch under way: when to look at it next (seconds since 1970), and how long after that."""

    batch: Batch
    due: float
    interval: float
    reserved: Reservation = NOTHING


class BatchDriver:
    """Executes one `Work`. `run` may be called again, to wait for what an earlier call left open.

    `requeue`: whether failures that may be tried again go into the next batch; otherwise they are left waiting.
    """

    def __init__(
        self,
        work: Work,
        service: BatchService,
        options: BatchOptions,
        price: Price,
        *,
        requeue: bool = True,
        wall: Clock = time.time,
        random: Callable[[], float] | None = None,
    ) -> None:
        self.budget = Budget(work.limits.max_cost_usd, price, calibrate=False)
        self._work = work
        self._service = service
        self._options = options
        self._price = price
        self._requeue = requeue
        self._wall = wall
        self._random = random or Random().random
        self._calls = Calls(work.stop, work.retry, self._random, wall)
        self._queue = Queue(options.max_enqueued_tokens, work.enqueued_tokens)
        self._source: Iterator[Request] = work.requests
        self._held: Request | None = None
        self._parcels: dict[tuple[str, str], Parcel] = {}
        self._reserved: dict[str, Reservation] = {}
        now = wall()
        self._open = {batch.key: _Open(batch, now, options.poll_seconds) for batch in work.batches}
        self._earlier = {batch.key for batch in work.batches}
        self._pause: dict[str, float] = {}
        self._requeued = 0
        self._tries: dict[str, int] = {}
        self._failures = 0
        self._account_trouble: Stopped | None = None
        self._temporary: TemporaryDirectory[str] | None = None
        self.stopped: Stopped | None = None

    @property
    def awaited(self) -> bool:
        """Whether batches are open that this run waits for."""
        return any(item.batch.awaited for item in self._open.values())

    @property
    def waiting(self) -> int:
        """Failures that were left to be tried another way."""
        return self._requeued

    def close(self) -> None:
        self._calls.close()
        if self._temporary is not None:
            self._temporary.cleanup()
        elif self._work.folder is not None:
            with suppress(OSError):  # only when it is empty
                self._work.folder.rmdir()

    # -------------------------------------------------------------------------------------------------------- the loop

    def run(self, *, wait: bool) -> Iterator[Sequence[Event]]:
        """Ends when everything is collected, or with a `Stopped`. Not `wait`: after one look at each batch."""
        try:
            yield from self._adopt()
            while True:
                yield from self._fill()
                yield from self._look_at_due()
                self._show()
                if self._requeue and self._requeued and self._held is None:
                    continue
                if not self.awaited and self._held is None:
                    return
                if not wait:
                    return
                yield from self._wait()
        except Left:
            yield from self._give_up_parcels()
            self.stopped = self._interrupted()
            yield [self.stopped]
        except Halted as halted:
            yield from self._give_up_parcels()
            self.stopped = halted.stopped
            yield [self.stopped]
        finally:
            self._show()

    def _adopt(self) -> Groups[None]:
        """Go on with batches whose creation may or may not have happened."""
        for item in list(self._open.values()):
            if item.batch.state in (BatchState.PREPARED, BatchState.UPLOADED):
                yield from self._submit(item.batch)

    def _wait(self) -> Groups[None]:
        times = [item.due for item in self._open.values()]
        times += [until for until in self._pause.values() if self._held is not None and until > self._wall()]
        until = min(times, default=self._wall() + self._options.poll_seconds)
        self._show(until)
        yield []
        self._calls.sleep(until)

    def _show(self, until: float | None = None) -> None:
        batches = tuple(item.batch for item in self._open.values())
        waiting = "enqueued-token limit" if self._held is not None else "batches" if batches else ""
        members = sum(batch.requests for batch in batches)
        self._work.gauges = Gauges(
            in_flight=members, retrying=self._requeued, waiting=waiting, batches=batches, look_at=until
        )

    # --------------------------------------------------------------------------------------------------------- filling

    def _fill(self) -> Groups[None]:
        """Pack and submit as many requests as may be enqueued now."""
        group: list[Event] = []
        while (request := self._next()) is not None:
            if self._work.stop.level:
                self._held = request
                yield group
                raise Left
            place = (request.endpoint, request.model)
            quote = self.budget.quote(request)
            if (reason := self._refusal(request, quote)) is not None:
                self._held = request
                yield group
                yield from self._seal(*self._parcels)
                if reason == "budget" and not self._open:
                    raise Halted(self._out_of_money(quote))
                return
            number = request.attempts + 1
            custom_id = self._service.custom_id(request, number)
            launch = Launch(request, number, WORKER, custom_id, self._wall(), "")
            size = len(self._service.line(launch))
            if place in self._parcels and not self._parcels[place].fits(size, self._options):
                yield group
                group = []
                yield from self._seal(place)
                self._held = request  # the refusal of that batch may have taught a limit
                continue
            if place not in self._parcels:
                self._parcels[place] = parcel = Parcel(self._new(*place))
                group.append(BatchChanged(parcel.batch))
            parcel = self._parcels[place]
            parcel.add(request, size, self._price(request))
            self._reserve(parcel.batch.key, quote)
            group.append(Started(replace(launch, batch=parcel.batch.key)))
            if len(group) >= GROUP:
                yield group
                group = []
        if group:
            yield group
        yield from self._seal(*self._parcels)

    def _next(self) -> Request | None:
        held, self._held = self._held, None
        if held is not None:
            return held
        request = next(self._source, None)
        if request is None and self._requeue and self._requeued:
            self._requeued = 0
            self._source = self._work.retries()
            request = next(self._source, None)
        return request

    def _refusal(self, request: Request, quote: Reservation) -> str | None:
        """Why this request cannot be put into a batch now."""
        if not self.budget.allows(quote):
            return "budget"
        if self._pause.get(request.model, 0.0) > self._wall():
            return "tokens"
        batches = [item.batch for item in self._open.values()] + [parcel.batch for parcel in self._parcels.values()]
        tokens = enqueued(iter(batches), request.model)
        return None if self._queue.has_room(request.model, request.input_tokens, tokens) else "tokens"

    def _new(self, endpoint: str, model: str) -> Batch:
        now = self._wall()
        key = f"bf-{time.strftime('%Y%m%d', time.gmtime(now))}-{secrets.token_hex(8)}"
        return Batch(key, endpoint, model, estimated_usd=0.0, prepared_at=now)

    def _reserve(self, key: str, quote: Reservation) -> None:
        self.budget.reserve(quote)
        before = self._reserved.get(key, NOTHING)
        self._reserved[key] = Reservation(before.estimate + quote.estimate, before.amount + quote.amount)

    def _seal(self, *places: tuple[str, str]) -> Groups[None]:
        for place in places:
            batch = self._parcels.pop(place).sealed()
            now = self._wall()
            self._open[batch.key] = _Open(batch, now, self._options.poll_seconds, self._reserved.pop(batch.key))
            yield [BatchChanged(batch)]
            yield from self._submit(batch)

    def _give_up_parcels(self) -> Groups[None]:
        """Nothing of an unsealed batch was sent: its members are given back."""
        for parcel in self._parcels.values():
            self.budget.settle(self._reserved.pop(parcel.batch.key), None, Paid.NO)
            yield from self._release(parcel.batch, Failure("interrupted", "stopped before it was sent"))
        self._parcels.clear()

    def _release(self, batch: Batch, failure: Failure) -> Groups[None]:
        """Give the members of a batch that never came to be back, to be tried again."""
        group: list[Event] = []
        for launch in self._work.members.launches(batch.key, open_only=True):
            group.append(Failed(launch, failure, Paid.NO, 0.0, final=False, counted=False))
            self._requeued += 1
            if len(group) >= GROUP:
                yield group
                group = []
        yield [*group, BatchChanged(replace(batch, state=BatchState.RELEASED), failure.message)]
        self._drop(batch, None)

    def _drop(self, batch: Batch, cost_usd: float | None) -> None:
        """A batch that is closed. `cost_usd` None: nothing was paid."""
        item = self._open.pop(batch.key, None)
        if item is not None and item.reserved.amount:
            self.budget.settle(item.reserved, cost_usd, Paid.NO if cost_usd is None else Paid.YES)

    # ------------------------------------------------------------------------------------------------------ submitting

    def _submit(self, batch: Batch) -> Groups[None]:
        """Upload the file and create the job, unless an earlier process already did."""
        earlier = batch.key in self._earlier
        if self._work.stop.level:
            if not earlier and batch.file_id is None:
                yield from self._release(batch, Failure("interrupted", "stopped before it was sent"))
            raise Left
        if earlier and (found := (yield from self._search(batch))) is not None:
            yield from self._submitted(found, "found at the provider: it had been created")
            return
        try:
            if batch.file_id is None:
                batch, note = yield from self._uploaded(batch, earlier)
                yield from self._change(batch, note)
            created, note = yield from self._created(batch)
        except CallError as error:
            yield from self._refused(batch, error)
            return
        yield from self._submitted(created, note)

    def _submitted(self, batch: Batch, note: str) -> Groups[None]:
        item = self._open[batch.key]
        item.due, item.interval = self._wall() + self._options.poll_seconds, self._options.poll_seconds
        if note:
            item.due = self._wall()
        yield from self._change(batch, note)

    def _change(self, batch: Batch, note: str = "") -> Groups[None]:
        self._open[batch.key].batch = batch
        self._show()
        yield [BatchChanged(batch, note)]

    def _search(self, batch: Batch) -> Groups[Batch | None]:
        """Look for the job of a batch; more than once where it may be so young that no list has it yet."""
        young = batch.file_id is not None and self._wall() - batch.prepared_at < RECENT
        for look in range(LOOKS if young else 1):
            if look:
                self._calls.sleep(self._wall() + self._options.poll_seconds / 2)
            try:
                found = yield from self._calls.patiently(
                    lambda: self._service.find(batch), f"looking for batch {batch.key}"
                )
            except CallError as error:
                raise Halted(_out_of_sight(batch, error)) from None
            if found is not None:
                return found
        return None

    def _uploaded(self, batch: Batch, earlier: bool) -> Groups[tuple[Batch, str]]:
        if earlier and (found := (yield from self._find_file(batch))) is not None:
            return replace(batch, state=BatchState.UPLOADED, file_id=found), "its file had been uploaded"
        path = self._folder() / f"{batch.key}.jsonl"
        self._write(batch, path)
        try:
            tries, since = 0, self._wall()
            while True:
                try:
                    file_id = self._calls.once(lambda: self._service.upload(batch, path))
                    return replace(batch, state=BatchState.UPLOADED, file_id=file_id), ""
                except CallError as error:
                    tries += 1
                    yield from self._before_again(error, tries, since, f"uploading batch {batch.key}")
                    if (found := (yield from self._find_file(batch))) is not None:
                        return replace(batch, state=BatchState.UPLOADED, file_id=found), "its file had arrived"
        finally:
            path.unlink(missing_ok=True)

    def _find_file(self, batch: Batch) -> Groups[str | None]:
        try:
            return (
                yield from self._calls.patiently(
                    lambda: self._service.find_file(batch), f"looking for the file of batch {batch.key}"
                )
            )
        except CallError as error:
            raise Halted(_out_of_sight(batch, error)) from None

    def _write(self, batch: Batch, path: Path) -> None:
        """The file of a batch, line by line from what the state says is in it."""
        with path.open("wb") as stream:
            for launch in self._work.members.launches(batch.key):
                stream.write(self._service.line(launch))

    def _created(self, batch: Batch) -> Groups[tuple[Batch, str]]:
        """Create the job. After any unclear end it is looked for, and only then created again."""
        tries, since = 0, self._wall()
        while True:
            try:
                return self._calls.once(lambda: self._service.create(batch, self._work.project)), ""
            except CallError as error:
                if self._service.enqueued_limit(f"{error.failure.code} {error.failure.message}") is not None:
                    raise
                tries += 1
                yield from self._before_again(error, tries, since, f"creating batch {batch.key}")
                if (found := (yield from self._search(batch))) is not None:
                    return found, "its creation had an unclear end; it was found at the provider"

    def _before_again(self, error: CallError, tries: int, since: float, what: str) -> Groups[None]:
        """Wait before a call that may already have done its work is looked after; raises where that is no use."""
        outcome = error.outcome
        if outcome.stops_run:
            raise Halted(of_account(error))
        unclear = outcome.paid is Paid.MAYBE
        if not outcome.retryable and not unclear:
            raise error
        if self._wall() - since > self._work.retry.outage_seconds:
            raise Halted(of_outage(error, self._work.retry))
        message = f"{what}: {error.failure.message}; " + (
            "looking whether it has happened" if unclear else "trying again"
        )
        yield [Noticed("batch", message)]
        if not unclear or tries > 1:
            self._calls.sleep(self._wall() + self._calls.delay(tries, outcome.retry_after))

    def _refused(self, batch: Batch, error: CallError) -> Groups[None]:
        """The provider does not take this batch: for now, because too much is enqueued, or at all."""
        failure = error.failure
        limit = self._service.enqueued_limit(f"{failure.code} {failure.message}")
        if limit is None:
            yield from self._release(batch, replace(failure, message=f"its batch was refused: {failure.message}"))
            raise Halted(
                Stopped(
                    "refused",
                    f"the provider refuses the batch: {failure.message}",
                    error.outcome.hint or "check model, endpoint and base_url, or use --backend async",
                )
            )
        yield from self._too_much_enqueued(batch, limit, failure)

    def _too_much_enqueued(self, batch: Batch, limit: int, failure: Failure) -> Groups[None]:
        others = [item.batch for key, item in self._open.items() if key != batch.key]
        attempted = enqueued(iter(others), batch.model) + batch.input_tokens
        told_limit = self._queue.refused(batch.model, limit, attempted)
        yield [LimitLearned(batch.model, told_limit)]
        why = Failure("enqueued_tokens", failure.message, failure.code)
        if batch.requests > 1 or any(other.model == batch.model for other in others):
            yield from self._release(batch, why)
            return
        # A single request, and nothing of ours will end and make room: others use the limit too, or it is too large.
        self._pause[batch.model] = self._wall() + self._options.poll_seconds
        for launch in list(self._work.members.launches(batch.key, open_only=True)):
            final = self._too_often(launch)
            yield self._noted([Failed(launch, why, Paid.NO, 0.0, final=final)])
        yield from self._release(batch, why)

    # ------------------------------------------------------------------------------------------ looking and collecting

    def _look_at_due(self) -> Groups[None]:
        for item in list(self._open.values()):
            if self._work.stop.level:
                raise Left
            if item.batch.key not in self._open or item.due > self._wall():
                continue
            if not item.batch.ended:
                yield from self._look(item)
            if item.batch.ended:
                yield from self._collect(item.batch)

    def _look(self, item: _Open) -> Groups[None]:
        batch = item.batch
        try:
            seen = yield from self._calls.patiently(lambda: self._service.look(batch), f"looking at batch {batch.name}")
        except CallError as error:
            raise Halted(_out_of_sight(batch, error)) from None
        item.due = self._wall() + item.interval * (0.9 + 0.2 * self._random())
        item.interval = min(item.interval * GROWTH, self._options.poll_max_seconds)
        if seen != batch:
            yield from self._change(seen)

    def _collect(self, batch: Batch) -> Groups[None]:
        refused = [
            limit for problem in batch.problems if (limit := self._limit_in(problem.code, problem.message)) is not None
        ]
        if refused and batch.output_file_id is None:
            failure = Failure("enqueued_tokens", batch.problems[0].message, batch.problems[0].code)
            yield from self._too_much_enqueued(batch, refused[0], failure)
            return
        account = Account(
            batch, self._service, self._work.members, self._is_final, self._wall(), self._work.retry.maybe_paid
        )
        for file_id, name in ((batch.output_file_id, "output"), (batch.error_file_id, "errors")):
            if file_id is not None:
                yield from self._read(account, batch, file_id, name)
        for group in account.absent():
            yield self._noted(group)
        closed = replace(batch, state=BatchState.COLLECTED)
        yield [BatchChanged(closed, told(account.counts)), BatchCollected(closed, account.counts, account.usage)]
        self._drop(batch, account.cost_usd)
        if self._account_trouble is not None:
            raise Halted(self._account_trouble)
        most = self._work.limits.max_failures
        if most is not None and self._failures >= most:
            raise Halted(
                Stopped(
                    "failures",
                    f"{self._failures} targets failed, and the run was to stop after {most}",
                    "see what failed with `bioforge why ID`, or raise --keep-going; open batches go on meanwhile",
                )
            )

    def _limit_in(self, code: str, message: str) -> int | None:
        return self._service.enqueued_limit(f"{code} {message}")

    def _read(self, account: Account, batch: Batch, file_id: str, name: str) -> Groups[None]:
        path = self._folder() / f"{batch.key}.{name}.jsonl"
        try:
            yield from self._calls.patiently(
                lambda: self._service.download(file_id, path), f"fetching the {name} of batch {batch.name}"
            )
        except CallError as error:
            message = f"the {name} file {file_id} of batch {batch.name} cannot be had: {error.failure.message}"
            yield [Noticed("batch", message)]
            return
        try:
            for group in account.read(path):
                if self._work.stop.level > 1:
                    raise Left
                yield self._noted(group)
        finally:
            path.unlink(missing_ok=True)

    def _noted(self, group: list[Event]) -> list[Event]:
        for event in group:
            match event:
                case Failed(final=True):
                    self._failures += 1
                case Failed():
                    self._requeued += 1
        return group

    def _is_final(self, launch: Launch, row: Row) -> bool:
        if row.stops_run:
            message = row.failure.message if row.failure else "the provider refuses all requests"
            self._account_trouble = self._account_trouble or Stopped("quota", message, "")
            return False
        if row.failure is not None and row.failure.error_class == "cancelled":
            return True  # somebody wanted it so; another run asks again
        if not row.transient or (row.paid is Paid.MAYBE and not self._work.retry.maybe_paid):
            return True
        if row.failure is not None and row.failure.error_class == "expired":
            return False  # says nothing about the request
        return self._too_often(launch)

    def _too_often(self, launch: Launch) -> bool:
        """Count a try of a request in this run; whether it was the last one allowed."""
        digest = launch.request.request_hash
        self._tries[digest] = self._tries.get(digest, 0) + 1
        return self._tries[digest] >= self._work.retry.max_attempts

    # ---------------------------------------------------------------------------------------------------------- places

    def _folder(self) -> Path:
        if self._work.folder is not None:
            self._work.folder.mkdir(parents=True, exist_ok=True)
            return self._work.folder
        if self._temporary is None:
            self._temporary = TemporaryDirectory(prefix="bioforge-")
        return Path(self._temporary.name)

    # ------------------------------------------------------------------------------------------------- why it stopped

    def left_waiting(self) -> list[Event]:
        """Said at the end by who did not want to wait, when something is still to come."""
        if self.stopped is not None or not (self.awaited or self._held is not None):
            return []
        return [Stopped("waiting", f"left on purpose: {self._remaining()}", _COME_BACK)]

    def _interrupted(self) -> Stopped:
        why = "the deadline has passed" if self._work.stop.reason == "deadline" else "interrupted"
        hint = _COME_BACK if self._open else "`bioforge resume` goes on where this stopped"
        return Stopped(self._work.stop.reason or "interrupted", f"{why}: {self._remaining()}", hint)

    def _remaining(self) -> str:
        number = len(self._open)
        members = sum(item.batch.requests for item in self._open.values())
        words = f"{number} {'batch goes' if number == 1 else 'batches go'} on at the provider with {members:,} requests"
        unsent = ", and more wait until there is room for them" if self._held is not None else ""
        return (words if number else "no batch is open") + unsent

    def _out_of_money(self, quote: Reservation) -> Stopped:
        limit = self.budget.limit or 0.0
        return Stopped(
            "budget",
            f"the budget of ${limit:.4g} is used up: ${self.budget.spent:.4g} spent, and the next request may cost"
            f" ${quote.amount:.4g}",
            "raise [limits] max_cost_usd or --max-cost and run again: it goes on where this run stopped",
        )


_COME_BACK = "`bioforge resume` or `bioforge run` collects them; `bioforge status` shows them"


def _out_of_sight(batch: Batch, error: CallError) -> Stopped:
    return Stopped(
        "outage",
        f"batch {batch.name} cannot be looked at: {error.failure.message}",
        "check that base_url and the key are those it was created with; its requests are not asked again meanwhile",
    )

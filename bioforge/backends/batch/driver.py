"""Batches from preparation to collection, as one generator of events, for any vendor.

    fill      pack requests; record the members, then seal the batch
    submit    write its file from the state, upload it, and create the job: each durable before the next (without a
              file, the start of the creation is durable before it)
    poll      look at every open batch in growing intervals
    collect   read both files of every ended batch; retryable requests go into the next batch

What an earlier process left is looked for at the provider before anything is uploaded or created again. While the
provider cannot tell whether a batch exists, it stays as it is and is looked for in growing intervals.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from shutil import rmtree
from tempfile import TemporaryDirectory

from bioforge.backends.batch.calls import Calls, Clock, Groups, RunStopped, StopRequested
from bioforge.backends.batch.collect import Account, told
from bioforge.backends.batch.fill import BatchPacker
from bioforge.backends.batch.options import BatchOptions
from bioforge.backends.batch.packing import enqueued
from bioforge.backends.batch.service import BatchResult, BatchService, CallError, FileBatchService
from bioforge.backends.batch.submit import CreateUnknown, Submitter, out_of_sight, undecided
from bioforge.backends.gil import CommitThread
from bioforge.backends.scheduler import stops
from bioforge.backends.scheduler.setup_check import UNREADABLE, UNREADABLE_TRIES, SetupCheck
from bioforge.core.budget import Price
from bioforge.core.events import (
    Attempt,
    BatchChanged,
    BatchCollected,
    Event,
    Failed,
    LimitLearned,
    Notice,
    Stopped,
    Succeeded,
    Unusable,
)
from bioforge.core.interfaces import Gauges, Outcome, Work, run_inline
from bioforge.core.reasons import ROW_REFUSED
from bioforge.core.text import plural
from bioforge.core.types import UNSUBMITTED, Batch, BatchState, Failure, Paid

__all__ = ["BatchDriver", "BatchOptions"]

GROWTH = 1.5
"""Factor by which each polling interval is longer than the one before."""

LATE_FILES = 300.0
"""Seconds after a batch's end in which its result files may still appear."""

KEPT = 30 * 86_400.0
"""Seconds for which a provider keeps result files."""

BARREN = 3
"""Number of batches in a row that expired without an answer, after which no more are sent."""

JITTER = 1.1
"""Highest random factor of an interval."""


@dataclass(slots=True)
class _Open:
    """An open batch: when to look at it next (seconds since 1970), and the interval after that."""

    batch: Batch
    due: float
    interval: float
    unseen: Stopped | None = None
    """Why the last look at it failed."""
    doubt: Stopped | None = None
    """Why it is not known whether it was created."""


class BatchDriver:
    """Executes one `Work`. `run` may be called again, to wait for what an earlier call left open.

    With `requeue`, retryable failures go into the next batch; otherwise they are `left_over`.
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
        self.stopped: Stopped | None = None
        self._work = work
        self._service = service
        self._options = options
        self._wall = wall
        self._random = random or Random().random
        self._calls = Calls(work.control.stop, work.retry, self._random, wall)
        self._filling = BatchPacker(work, service, options, price, wall, requeue=requeue)
        self._submitter = Submitter(work, service, self._calls, options, self._folder, self._known, wall)
        now = wall()
        self._open = {batch.key: _Open(batch, now, options.poll_seconds) for batch in work.batches}
        self._earlier = set(self._open)
        self._ids = {batch.batch_id for batch in work.batches}
        self._freed = False
        self._barren = 0
        self._tries: dict[str, int] = {}
        self._trouble: Stopped | None = None
        self._setup = SetupCheck(work.proven)
        self._mistake: Stopped | None = None
        """The stop after batches whose lines were all refused for the same reason; nothing more is sent."""
        self._temporary: TemporaryDirectory[str] | None = None

    @property
    def awaited(self) -> bool:
        """Return True if batches are open that this run waits for."""
        return any(item.batch.awaited for item in self._open.values())

    @property
    def open(self) -> bool:
        """Return True if any batch is open."""
        return bool(self._open)

    @property
    def left_over(self) -> set[str]:
        """Return the hashes of failed requests that are left to be sent in another way."""
        return self._filling.elsewhere

    def hand_over(self) -> int:
        """Return the number of released requests, which are sent in another way from here on."""
        given_back, self._filling.again = self._filling.again, 0
        return given_back

    def take_left_over(self) -> set[str]:
        """Return and clear the hashes of `left_over`."""
        taken, self._filling.elsewhere = self._filling.elsewhere, set()
        return taken

    @property
    def committed_usd(self) -> float:
        """Return the US dollars spent on batches and reserved for open ones."""
        return self._filling.budget.spent + self._filling.budget.reserved

    def close(self) -> None:
        self._calls.close()
        if self._temporary is not None:
            self._temporary.cleanup()
        elif self._work.folder is not None and self._work.control.stop.level < 2:
            # everything in it can be had again: files are written from the state, results are fetched
            rmtree(self._work.folder, ignore_errors=True)

    def run(self, *, wait: bool, fill: bool = True) -> Iterator[Sequence[Event]]:
        """Run until everything is collected, or a `Stopped`.

        Without `wait`, return after one look at each batch. Without `fill`, prepare no new batch.
        """
        try:
            yield from self._look_at_due()  # what is ready is kept before anything new is begun
            yield from self._adopt()
            while True:
                if fill and self._mistake is None:
                    yield from self._fill()
                yield from self._look_at_due()
                self._show()
                freed, self._freed = self._freed, False
                if fill and (self._filling.more or freed):
                    continue
                self._check_sight()
                broke = self._filling.out_of_money
                if not wait or not (self.awaited or (self._filling.held is not None and broke is None)):
                    if broke is not None:
                        raise RunStopped(broke)
                    if not (wait and fill and self._work.control.more()):
                        return
                    yield []
                    self._calls.rest()
                    continue
                yield from self._wait()
        except StopRequested:
            self.stopped = self._interrupted()
        except RunStopped as halted:
            self.stopped = halted.stopped
        finally:
            self._show()
        yield from self._filling.give_up()
        yield [self.stopped]

    def left_waiting(self) -> list[Event]:
        """Return the stop of a run that does not wait although batches are open."""
        filling = self._filling
        if self.stopped is not None or not (self.awaited or filling.held is not None or filling.again):
            return []
        doubts = [item.doubt for item in self._open.values() if item.batch.awaited and item.doubt is not None]
        if doubts:
            return [doubts[0]]
        return [Stopped("waiting", f"left on purpose: {self._remaining()}", _COME_BACK)]

    def _adopt(self) -> Groups[None]:
        """Continue batches whose creation is unresolved."""
        found = [item for item in self._open.values() if item.batch.state in UNSUBMITTED]
        # one that was being created first: the fewer jobs there are, the fewer could be it
        for item in sorted(found, key=lambda item: item.batch.state is not BatchState.CREATING):
            yield from self._submit(item.batch)

    def _check_sight(self) -> None:
        """Stop waiting for batches that cannot be looked at."""
        awaited = [item for item in self._open.values() if item.batch.awaited]
        if awaited and awaited[0].unseen is not None and all(item.unseen is not None for item in awaited):
            raise RunStopped(awaited[0].unseen)

    def _wait(self) -> Groups[None]:
        now = self._wall()
        for item in self._open.values():  # a clock that was set back must not turn a minute into a day
            item.due = min(item.due, now + self._options.poll_max_seconds * JITTER)
        times = [item.due for item in self._open.values()]
        if self._filling.held is not None:
            times += [until for until in self._filling.pauses.values() if until > now]
        until = min(times, default=now + self._options.poll_seconds)
        self._show(until)
        yield []
        self._calls.sleep(until)

    def _show(self, until: float | None = None) -> None:
        batches = tuple(item.batch for item in self._open.values())
        held = self._filling.held is not None
        self._work.control.gauges = Gauges(
            in_flight=sum(batch.requests for batch in batches),
            retrying=self._filling.again + len(self._filling.elsewhere),
            waiting="room for more batches" if held else "batches" if batches else "",
            batches=batches,
            look_at=until,
        )

    # ------------------------------------------------------------------------------------------------------ submitting

    def _fill(self) -> Groups[None]:
        while (batch := (yield from self._filling.next_batch(self._under_way))) is not None:
            self._open[batch.key] = _Open(batch, self._wall(), self._options.poll_seconds)
            yield from self._submit(batch)

    def _known(self) -> set[str]:
        """Return the provider's ids of all batches known to this run."""
        return {batch_id for batch_id in self._ids if batch_id is not None}

    def _under_way(self) -> list[Batch]:
        return [item.batch for item in self._open.values()]

    def _submit(self, batch: Batch) -> Groups[None]:
        earlier = batch.key in self._earlier
        if self._work.control.stop.level:
            if not earlier:
                yield from self._release(batch, Failure("interrupted", "stopped before it was sent"))
            raise StopRequested
        item, adopted = self._open[batch.key], earlier
        try:
            for group in (groups := self._submitter.submit(batch, earlier=earlier)):
                for event in group:
                    if isinstance(event, BatchChanged):
                        item.batch = event.batch
                        adopted = adopted or bool(event.note)
                        self._ids.add(event.batch.batch_id)
                self._show()
                yield group
        except CallError as error:
            yield from self._refused(item.batch, error)
            return
        except CreateUnknown as doubt:
            yield from self._doubt(item, doubt)
            return
        finally:
            groups.close()
        item.doubt = item.unseen = None
        # what was found at the provider may have ended long ago
        item.due = self._wall() + (0.0 if adopted else self._options.poll_seconds)
        item.interval = self._options.poll_seconds

    def _doubt(self, item: _Open, doubt: CreateUnknown) -> Groups[None]:
        """Keep a batch whose creation is unresolved, and look for it again as long as waiting may help."""
        first, until = item.doubt is None, doubt.undecided.until
        item.doubt = undecided(item.batch, doubt.undecided)
        item.unseen = item.doubt if until is None or self._wall() > until else None
        self._earlier.add(item.batch.key)
        self._postpone(item)
        if first:
            yield [Notice("batch", item.doubt.message)]

    def _release(
        self, batch: Batch, failure: Failure, is_final: Callable[[Attempt], bool] = lambda attempt: False
    ) -> Groups[None]:
        yield from self._filling.release(batch, failure, is_final)
        self._open.pop(batch.key, None)
        service, file_id = self._service, batch.file_id
        if file_id is not None and batch.batch_id is None and isinstance(service, FileBatchService):
            with suppress(CallError):  # nothing refers to it; the provider removes it in the end
                self._calls.once(lambda: service.delete_file(file_id))

    def _refused(self, batch: Batch, error: CallError) -> Groups[None]:
        """Handle a refused batch: too many enqueued tokens for now, or final."""
        failure = error.failure
        limit = self._limit_in(failure.code, failure.message)
        if limit is not None:
            yield from self._too_much_enqueued(batch, limit, failure)
            return
        yield from self._release(batch, replace(failure, message=f"its batch was refused: {failure.message}"))
        raise RunStopped(
            Stopped(
                "refused",
                f"the provider refuses the batch: {failure.message}",
                error.outcome.hint or "check model, endpoint and base_url, or use another backend",
            )
        )

    def _limit_in(self, code: str | None, message: str) -> int | None:
        return self._service.enqueued_limit(f"{code} {message}")

    def _too_much_enqueued(self, batch: Batch, limit: int, failure: Failure) -> Groups[None]:
        others = [item.batch for key, item in self._open.items() if key != batch.key]
        attempted = enqueued(others, batch.model) + batch.input_tokens
        self._filling.queue.refused(batch.model, limit, attempted)
        if limit:
            yield [LimitLearned(batch.model, limit)]
        why = Failure("enqueued_tokens", failure.message, failure.code)
        alone = batch.requests == 1 and not any(other.model == batch.model for other in others)
        if alone:
            # Nothing of ours will end and make room: others use the limit too, or the request is too large for it.
            self._filling.pauses[batch.model] = self._wall() + self._options.poll_seconds
        yield from self._release(batch, why, self._too_often if alone else lambda attempt: False)

    # ------------------------------------------------------------------------------------------ looking and collecting

    def _look_at_due(self) -> Groups[None]:
        for item in list(self._open.values()):
            if self._work.control.stop.level:
                raise StopRequested
            if item.due > self._wall():
                continue
            if item.batch.state in UNSUBMITTED:
                if item.doubt is not None:
                    yield from self._submit(item.batch)
                continue
            if not item.batch.ended or self._may_have_files(item.batch):
                yield from self._look(item)
            if item.batch.ended and not self._may_have_files(item.batch):
                yield from self._collect(item)

    def _may_have_files(self, batch: Batch) -> bool:
        """Return True if an ended batch may still name its result files."""
        late = batch.output_file_id is None and batch.error_file_id is None and batch.completed + batch.failed > 0
        patience = min(LATE_FILES, 4 * self._options.poll_max_seconds)
        return late and self._wall() - (batch.ended_at or self._wall()) < patience

    def _look(self, item: _Open) -> Groups[None]:
        batch = item.batch
        try:
            seen = yield from self._calls.patiently(lambda: self._service.look(batch), f"looking at batch {batch.name}")
        except CallError as error:
            unseen = out_of_sight(batch, error)
            if item.unseen is None:
                yield [Notice("batch", unseen.message)]
            item.unseen, item.due = unseen, self._wall() + self._options.poll_max_seconds
            return
        item.unseen = None
        self._postpone(item)
        if seen != batch:
            item.batch = seen
            self._show()
            yield [BatchChanged(seen)]

    def _postpone(self, item: _Open) -> None:
        item.due = self._wall() + item.interval * (1.0 + (JITTER - 1.0) * (2.0 * self._random() - 1.0))
        item.interval = min(item.interval * GROWTH, self._options.poll_max_seconds)

    def _collect(self, item: _Open) -> Groups[None]:
        batch = item.batch
        for problem in batch.problems:
            if batch.output_file_id is None and (limit := self._limit_in(problem.code, problem.message)) is not None:
                yield from self._too_much_enqueued(batch, limit, Failure("", problem.message, problem.code))
                return
        account = Account(batch, self._service, self._work.members, self._is_final, self._wall())
        for file_id, name in ((batch.output_file_id, "output"), (batch.error_file_id, "errors")):
            if file_id is not None and not (yield from self._read(account, file_id, name)):
                # kept open: the provider has it for weeks, and to call its answers missing would buy them again
                item.unseen = _out_of_reach(batch, file_id)
                item.due = self._wall() + self._options.poll_max_seconds
                return
        item.unseen = None
        for group in account.absent():
            yield self._noted(group)
        closed = replace(batch, state=BatchState.COLLECTED)
        yield [BatchChanged(closed, told(account.counts)), BatchCollected(closed, account.counts, account.usage)]
        self._open.pop(batch.key)
        self._freed = True
        barren = batch.state is BatchState.EXPIRED and not (account.counts["answered"] or account.counts["unusable"])
        self._barren = self._barren + 1 if barren else 0
        if self._barren >= BARREN:
            raise RunStopped(
                Stopped(
                    "outage",
                    f"{self._barren} batches in a row expired without a single answer",
                    "see the provider's status page and try later, or use another backend; nothing was charged for them",
                )
            )
        self._filling.settle(batch, account.cost_usd, account.unpriced / max(1, batch.requests))
        self._filling.queue.accepted(batch.model, batch.input_tokens)
        if account.counts["answered"] or account.counts["unusable"]:
            self._mistake = None
        elif not self.awaited:
            self._trouble = self._trouble or self._mistake
        if self._trouble is not None:
            raise RunStopped(self._trouble)

    def _read(self, account: Account, file_id: str, name: str) -> Groups[bool]:
        """Read a result file. Return False if it is not available now."""
        batch = account.batch
        path = self._folder() / f"{batch.key}.{name}.jsonl"
        what = f"fetching the {name} of batch {batch.name}"
        try:
            yield from self._calls.patiently(lambda: self._service.download(file_id, path), what)
        except CallError as error:
            yield [Notice("batch", f"{what}: {error.failure.message}")]
            gone = error.failure.http_status in (404, 410) and self._wall() - account.ended > KEPT
            return gone
        try:
            with closing(CommitThread(account.look_ahead, lambda: account.more)) as self._work.control.commit:
                for group in account.read(path):
                    if self._work.control.stop.level > 1:
                        raise StopRequested
                    yield self._noted(group)
        finally:
            self._work.control.commit = run_inline
            path.unlink(missing_ok=True)
        return True

    def _noted(self, group: list[Event]) -> list[Event]:
        group = [_of_row(event) for event in group]
        for event in group:
            if isinstance(event, Succeeded | Unusable):
                self._setup.record(event.attempt.request, Outcome(answer=event.answer))
            if isinstance(event, Failed):
                ended = Outcome(failure=event.failure, retryable=not event.final)
                self._mistake = self._setup.record(event.attempt.request, ended) or self._mistake
                if event.failure.error_class in _GIVEN_BACK and not event.final:
                    self._filling.again += 1
                elif not event.final:
                    self._filling.failed(event.attempt.request)
        return group

    def _is_final(self, attempt: Attempt, row: BatchResult) -> bool:
        """Return True if a failure is final for its request in this run."""
        failure = row.failure or Failure("batch_error", "no details")
        if row.stops_run:
            if self._setup.is_of_row(attempt.request, failure):
                return True
            self._trouble = self._trouble or _of_account(failure)
            return False
        if failure.error_class == "cancelled":
            return True  # somebody wanted it so; another run asks again
        if not row.retryable or (row.paid is Paid.MAYBE and not self._work.retry.maybe_paid):
            return True
        if failure.error_class == "missing" and row.paid is Paid.MAYBE:
            return True  # the next plan shows its price and its reason first
        if (
            failure.error_class == UNREADABLE
            and self._tries.get(attempt.request.request_hash, 0) + 1 >= UNREADABLE_TRIES
        ):
            return True
        # having expired says nothing about the request
        return failure.error_class != "expired" and self._too_often(attempt)

    def _too_often(self, attempt: Attempt) -> bool:
        """Count a try of a request in this run; return True if it was the last one allowed."""
        digest = attempt.request.request_hash
        self._tries[digest] = self._tries.get(digest, 0) + 1
        return self._tries[digest] >= self._work.retry.max_attempts

    def _folder(self) -> Path:
        if self._work.folder is not None:
            self._work.folder.mkdir(0o700, parents=True, exist_ok=True)
            return self._work.folder
        if self._temporary is None:
            self._temporary = TemporaryDirectory(prefix="bioforge-")
        return Path(self._temporary.name)

    # -------------------------------------------------------------------------------------------------- why it stopped

    def _interrupted(self) -> Stopped:
        why = "the deadline has passed" if self._work.control.stop.reason == "deadline" else "interrupted"
        hint = _COME_BACK if self._open else "`bioforge resume` goes on where this stopped"
        return Stopped(self._work.control.stop.reason or "interrupted", f"{why}: {self._remaining()}", hint)

    def _remaining(self) -> str:
        batches = [item.batch for item in self._open.values()]
        unsure = sum(batch.state is BatchState.CREATING for batch in batches)
        under_way = [batch for batch in batches if batch.state not in (BatchState.PREPARED, BatchState.CREATING)]
        number, members = len(under_way), sum(batch.requests for batch in under_way)
        goes = "batch goes" if number == 1 else "batches go"
        words = f"{number} {goes} on at the provider with {plural(members, 'request')}"
        maybe = f"{unsure:,} {'batch' if unsure == 1 else 'batches'} may have been created" if unsure else ""
        known = ", ".join(part for part in (words if number else "", maybe) if part)
        unsent = ", and more wait until there is room for them" if self._filling.held is not None else ""
        return (known or "no batch is open") + unsent


_GIVEN_BACK = ("batch_rejected", "enqueued_tokens", "interrupted")
"""Error classes that say nothing about a request, since it was not begun."""

_COME_BACK = "`bioforge resume` or `bioforge run` collects them; `bioforge status` shows them"


def _of_row(event: Event) -> Event:
    """Return the event with the class of a row's refusal if it is a 403 that does not stop the run."""
    if isinstance(event, Failed) and event.final and event.failure.error_class == "permission":
        return replace(event, failure=replace(event.failure, error_class=ROW_REFUSED))
    return event


def _of_account(failure: Failure) -> Stopped:
    if failure.error_class in stops.KEY_CLASSES:
        return Stopped("key", failure.message, "check what the key may use, then `bioforge resume`")
    return Stopped("quota", failure.message, "add credit, then `bioforge resume`")


def _out_of_reach(batch: Batch, file_id: str) -> Stopped:
    return Stopped(
        "outage",
        f"the results of batch {batch.name} (file {file_id}) cannot be fetched",
        f"run again later; until then none of its requests is sent again. `bioforge batch abandon {batch.key}` gives it up",
    )

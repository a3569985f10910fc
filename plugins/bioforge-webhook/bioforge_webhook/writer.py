"""Post the records that the record of deliveries does not list yet."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path

from bioforge.plugin import OutputError, Record
from bioforge_webhook.messages import Delivery, Message, make_content, make_delivery, make_message
from bioforge_webhook.options import WebhookOptions
from bioforge_webhook.record import DeliveryRecord, open_record
from bioforge_webhook.sender import Outcome, Result, Sender


def deliver(records: Iterable[Record], path: Path, options: WebhookOptions) -> str:
    """Deliver the records; `path` is the record of deliveries. Returns a summary."""
    with open_record(path) as record:
        record.begin()
        return DeliveryRun(record, options).deliver(records)


class DeliveryRun:
    """One call of the writer. Only the thread that calls `deliver` uses the record; pool threads only post."""

    def __init__(self, record: DeliveryRecord, options: WebhookOptions) -> None:
        self._record = record
        self._options = options
        self._stop = threading.Event()
        self._sender = Sender(options, self._stop)
        self._running: dict[Future[Outcome], Message] = {}
        self._halves: deque[Message] = deque()
        self._delivered = 0
        self._before = 0
        self._undelivered = 0
        self._failures_in_a_row = 0
        self._last_error = ""
        self._stop_reason = ""

    def deliver(self, records: Iterable[Record]) -> str:
        with closing(self._sender), ThreadPoolExecutor(self._options.concurrency, "bioforge-webhook") as pool:
            try:
                for one in self._messages(records):
                    self._start(pool, one)
                while self._running or self._halves:
                    self._collect()
                    self._start_halves(pool)
            finally:  # also after Ctrl-C: wait for requests in flight and record what was accepted
                self._stop.set()
                while self._running:
                    self._collect()
        return self._result()

    def _messages(self, records: Iterable[Record]) -> Iterator[Message]:
        """Yield undelivered records in messages of up to `batch`."""
        waiting: list[Delivery] = []
        for record in records:
            if record.get("error") is not None and not self._options.failed:
                continue
            try:
                content = make_content(self._options.identity, record)
            except ValueError as error:  # a failed record is data
                self._undelivered += 1
                self._last_error = f"{record.get('artist_id')}: cannot be written as JSON: {error}"
                continue
            revision = self._record.revision(content)
            if revision is None:
                self._before += 1
                continue
            waiting.append(make_delivery(content, revision))
            if len(waiting) == self._options.batch:
                yield self._message(waiting)
                waiting = []
        if waiting:
            yield self._message(waiting)

    def _message(self, deliveries: Iterable[Delivery]) -> Message:
        return make_message(tuple(deliveries), array=self._options.batch > 1)

    def _start(self, pool: ThreadPoolExecutor, one: Message) -> None:
        """Post `one` as soon as fewer than `_max_in_flight` requests are in flight."""
        self._start_halves(pool)
        while len(self._running) >= self._max_in_flight:
            self._collect()
            self._start_halves(pool)
        self._submit(pool, one)

    @property
    def _max_in_flight(self) -> int:
        """Return 1 until the first delivery succeeds, so that an endpoint that is down gets one request at a time."""
        return self._options.concurrency if self._delivered else 1

    def _start_halves(self, pool: ThreadPoolExecutor) -> None:
        while self._halves and len(self._running) < self._max_in_flight:
            self._submit(pool, self._halves.popleft())

    def _submit(self, pool: ThreadPoolExecutor, one: Message) -> None:
        if self._stop.is_set():
            self._undelivered += len(one.deliveries)
        else:
            self._record.mark_in_flight(one.deliveries)
            self._running[pool.submit(self._sender.send, one)] = one

    def _collect(self) -> None:
        """Wait for at least one request and record all that ended; durable when this returns."""
        if not self._running:
            return
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        for future in done:
            one, outcome = self._running[future], future.result()
            if outcome.result is Result.DELIVERED:
                self._record.delivered(one.deliveries, outcome.status or 200)
                self._delivered += len(one.deliveries)
                self._failures_in_a_row = 0
            else:
                self._failed(one, outcome)
            del self._running[future]  # last: after an interrupt the future is read again

    def _failed(self, one: Message, outcome: Outcome) -> None:
        if outcome.result is Result.REFUSED and len(one.deliveries) > 1:
            middle = len(one.deliveries) // 2  # bisect to the rejected record; the others can be delivered
            self._halves.extend(self._message(half) for half in (one.deliveries[:middle], one.deliveries[middle:]))
            return
        self._undelivered += len(one.deliveries)
        if not outcome.attempts:  # stopped before its first attempt
            return
        if not self._stop_reason:  # later errors are not the reason for the stop
            self._last_error = outcome.error
        self._record.failed(one.deliveries, outcome.attempts, outcome.error)
        if outcome.result is Result.HALT:
            self._halt("nothing more was sent")
        elif outcome.result is Result.FAILED:
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= self._options.stop_after:
                self._halt(f"stopped after {self._failures_in_a_row} failures in a row")

    def _halt(self, reason: str) -> None:
        self._stop_reason = self._stop_reason or reason
        self._stop.set()

    def _result(self) -> str:
        if not self._undelivered:
            return f"delivered {self._delivered:,}, {self._before:,} before"
        total = self._delivered + self._before + self._undelivered
        stopped = f"; {self._stop_reason}" if self._stop_reason else ""
        raise OutputError(
            f"{self._undelivered:,} of {total:,} records could not be delivered to {self._options.host}:"
            f" {self._last_error}{stopped} (delivered {self._delivered:,}, {self._before:,} before)",
            "the state is intact and nothing is paid again; the next run posts only those (see the table failures in"
            f" {self._record.path})",
        )

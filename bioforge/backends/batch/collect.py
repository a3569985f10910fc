"""Read the result files of a batch, and account for every member.

in a result file, once        its answer or its failure
in a result file, again       the first line counts; the second is kept
in a result file, not ours    the line is kept
in none                       rejected, expired, cancelled or missing, by the state of the batch
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import islice
from operator import add, attrgetter
from pathlib import Path
from typing import BinaryIO

from bioforge.backends.batch.service import BatchResult, BatchService
from bioforge.core.events import Attempt, Event, Failed, Succeeded, UnmatchedLine, Unusable
from bioforge.core.interfaces import Members
from bioforge.core.types import Batch, BatchProblem, BatchState, Failure, Paid, Usage
from bioforge.core.usage import UsageLimits

GROUP = 3_000
"""Highest number of lines that are committed together.

Each group rewrites indexes over hashes all over, so that few large groups cost much less than many small ones.
"""

GROUP_BYTES = 6_000_000
"""Bytes of lines that are committed together; a group takes a few times that in memory."""

_Line = tuple[BatchResult, int, int]
"""The result in a line, and its start and end in the file."""

Judge = Callable[[Attempt, BatchResult], bool]
"""Returns True if a failure is final for its request."""

_ABSENT = {
    BatchState.EXPIRED: ("expired", "the batch expired before this request was answered"),
    BatchState.CANCELLED: ("cancelled", "the batch was cancelled before this request was answered"),
    BatchState.FAILED: ("batch_failed", "the provider broke the batch off"),
}
_NUMBERS = attrgetter(*(field.name for field in fields(Usage)))
_MISSING = ("missing", "the batch ended without a line for this request")


class Account:
    """Accounts for the members of one batch."""

    def __init__(self, batch: Batch, service: BatchService, members: Members, judge: Judge, now: float) -> None:
        self.batch = batch
        self.counts: Counter[str] = Counter()
        self.cost_usd = 0.0
        self.unpriced = 0
        """Members without a known price: answered without one, or maybe paid."""
        self._service = service
        self._members = members
        self._judge = judge
        self.ended = batch.ended_at or now
        self._seen: set[str] = set()
        self._pages: Iterator[list[_Line]] | None = None
        self._ahead: list[_Line] | Exception | None = None
        self._used = [0] * len(fields(Usage))
        self._limited = UsageLimits()

    @property
    def usage(self) -> Usage:
        """Return the sum over all answers so far."""
        return Usage(*self._used)

    def read(self, path: Path) -> Iterator[list[Event]]:
        """Yield the events of one result file in groups; a group must be recorded before the next is taken."""
        with path.open("rb") as stream:
            self._pages = self._read_pages(stream)
            while page := self._next_page():
                yield self._events(page, stream)

    @property
    def more(self) -> bool:
        """Return True if lines of the file may not be read yet."""
        return self._pages is not None and self._ahead is None

    def look_ahead(self) -> None:
        """Read the lines of the next group, which takes as long as recording one.

        May run beside the recording: members are looked up, and errors raised, when the group is taken.
        """
        if self._pages is not None and self._ahead is None:
            try:
                self._ahead = next(self._pages, [])
            except Exception as error:
                self._ahead = error

    def _next_page(self) -> list[_Line]:
        self.look_ahead()
        page, self._ahead = self._ahead, None
        if isinstance(page, Exception):
            raise page
        return page or []

    def _read_pages(self, stream: BinaryIO) -> Iterator[list[_Line]]:
        """Yield the lines of a group with their results."""
        page: list[_Line] = []
        size = end = 0
        for line in stream:
            begin, end = end, end + len(line)
            if not line.strip():
                continue
            page.append((self._service.read(self.batch, line), begin, end))
            size += len(line)
            if len(page) >= GROUP or size >= GROUP_BYTES:
                yield page
                page, size = [], 0
        self._pages = None
        yield page

    def _events(self, page: Sequence[_Line], stream: BinaryIO) -> list[Event]:
        known = self._members.find(self.batch.key, [row.custom_id for row, _, _ in page if row.custom_id is not None])
        events: list[Event] = []
        for row, begin, end in page:
            kind = self._stray(row, known)
            if kind is not None:
                self.counts[kind] += 1
                events.append(UnmatchedLine(self.batch.key, kind, row.custom_id, _piece(stream, begin, end)))
                continue
            assert row.custom_id is not None
            self._seen.add(row.custom_id)
            member = known[row.custom_id]
            row = replace(row, answer=self._limited(row.answer, member.attempt.request))
            # counted in any case: a collection that was cut off begins again with members that have their outcome
            self._count(row)
            if member.open:
                events.append(self._event(member.attempt, row))
        return [*events, *self._limited.notices()]

    def _stray(self, row: BatchResult, known: Mapping[str, object]) -> str | None:
        if row.custom_id is None:
            return "unreadable"
        if row.custom_id in self._seen:
            return "duplicated"
        return None if row.custom_id in known else "unknown"

    def _count(self, row: BatchResult) -> None:
        if row.answer is None:
            self.unpriced += row.paid is Paid.MAYBE
            kind = row.failure.error_class if row.failure else "failed"
            self.counts[kind if kind in ("expired", "cancelled") else "failed"] += 1
            return
        self.counts["answered" if row.answer.problem is None else "unusable"] += 1
        self.cost_usd += row.answer.cost_usd or 0.0
        self.unpriced += row.answer.cost_usd is None
        if (usage := row.answer.usage) is not None:
            self._used = list(map(add, self._used, _NUMBERS(usage)))

    def _event(self, attempt: Attempt, row: BatchResult) -> Event:
        seconds = max(0.0, self.ended - attempt.at)
        if row.answer is not None:
            kind = Succeeded if row.answer.problem is None else Unusable
            return kind(attempt, row.answer, seconds, row.request_id)
        failure = row.failure or Failure("batch_error", "the line has neither an answer nor an error")
        return Failed(
            attempt,
            failure,
            row.paid,
            seconds,
            final=self._judge(attempt, row),
            counted=failure.error_class not in ("expired", "quota"),
            retry_in=row.retry_after,
            request_id=row.request_id,
            body=row.body,
        )

    # -------------------------------------------------------------------------------------------- those without a line

    def absent(self) -> Iterator[list[Event]]:
        """Yield the events of every member that no result file names, in groups."""
        if len(self._seen) >= self.batch.requests:
            return
        rejected = self._rejected()
        attempts = self._members.attempts_of(self.batch.key)
        absent = (attempt for attempt in attempts if attempt.client_request_id not in self._seen)
        while page := list(islice(absent, GROUP)):
            known = self._members.find(self.batch.key, [attempt.client_request_id for attempt in page])
            # counted in any case, as those with a line are
            events = [(self._absent(attempt, rejected), known[attempt.client_request_id].open) for attempt in page]
            yield [event for event, is_open in events if is_open]

    def _absent(self, attempt: Attempt, rejected: Mapping[str, BatchProblem]) -> Event:
        seconds = max(0.0, self.ended - attempt.at)
        if (problem := rejected.get(attempt.client_request_id)) is not None:
            self.counts["rejected"] += 1
            failure = Failure("bad_request", f"line {problem.line} of the batch: {problem.message}", problem.code)
            return Failed(attempt, failure, Paid.NO, seconds, final=True)
        if rejected:
            self.counts["given back"] += 1
            failure = Failure("batch_rejected", "other requests of its batch were rejected; it was not begun")
            return Failed(attempt, failure, Paid.NO, seconds, final=False, counted=False)
        error_class, message = _ABSENT.get(self.batch.state, _MISSING)
        self.counts[error_class if error_class != "batch_failed" else "failed"] += 1
        problem = next(iter(self.batch.problems), None)
        code = None if problem is None else problem.code
        message = message if problem is None else f"{message}: {problem.message}"
        failure = Failure(error_class, message, code)
        fate = self._fate()
        self.unpriced += fate is Paid.MAYBE
        again = self.batch.state is not BatchState.FAILED or problem is None or not problem.final
        return self._event(
            attempt, BatchResult(custom_id=attempt.client_request_id, failure=failure, paid=fate, retryable=again)
        )

    def _fate(self) -> Paid:
        """Return whether requests without a line may have been charged: not if the bill adds up without them."""
        billed, batch = self.batch.usage, self.batch
        if billed is None:
            return Paid.NO if batch.state is BatchState.FAILED and not batch.completed else Paid.MAYBE
        if batch.completed and not (billed.input_tokens or billed.output_tokens):
            return Paid.MAYBE  # no bill, but the place for one
        same = (billed.input_tokens, billed.output_tokens) == (self.usage.input_tokens, self.usage.output_tokens)
        return Paid.NO if same else Paid.MAYBE

    def _rejected(self) -> dict[str, BatchProblem]:
        """Return the members that a refusal names by line, by custom_id."""
        by_line = {problem.line: problem for problem in self.batch.problems if problem.line is not None}
        if not by_line:
            return {}
        numbered = enumerate(self._members.attempts_of(self.batch.key), start=1)
        return {attempt.client_request_id: by_line[line] for line, attempt in numbered if line in by_line}


def _piece(stream: BinaryIO, begin: int, end: int) -> bytes:
    """A part of a file that is being read, which continues where it was."""
    here = stream.tell()
    try:
        stream.seek(begin)
        return stream.read(end - begin)
    finally:
        stream.seek(here)


def told(counts: Mapping[str, int]) -> str:
    """Format `3,530 answered, 2 failed`."""
    shown: Iterable[str] = (f"{number:,} {kind}" for kind, number in counts.items() if number)
    return ", ".join(shown) or "nothing"

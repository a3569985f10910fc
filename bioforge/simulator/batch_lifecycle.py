"""The lifecycle of one batch, from its creation to its result files, as a generator of short steps.

Progress depends only on the wall clock, so that a batch continues when its server restarts. A tenth of
`batch_seconds` is for validating, a tenth for finalizing; in between, the lines become due at an even pace.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from bioforge.simulator import batch_lines
from bioforge.simulator.batch_input import LineCheck, check_lines, read_lines
from bioforge.simulator.batch_journal import Journal
from bioforge.simulator.batch_lines import LineResult, LineSettings
from bioforge.simulator.batch_state import JobState, JobStates
from bioforge.simulator.files import OUTPUT, Files
from bioforge.simulator.folder import Folder
from bioforge.simulator.ledger import Ledger
from bioforge.simulator.limits import Quota
from bioforge.simulator.options import SimulatorOptions

TOKEN_LIMIT = "token_limit_exceeded"

SLICE = 0.005
"""Seconds a step may take before requests are answered."""

_PAUSE = 0.01
"""Seconds between checks for due lines."""

_VALIDATING = 0.1
_FINALIZING = 0.1


class JobPace:
    """Measures the duration of a step."""

    def __init__(self) -> None:
        self._end = 0.0

    def begin(self) -> None:
        self._end = time.perf_counter() + SLICE

    def __call__(self) -> bool:
        return time.perf_counter() >= self._end


@dataclass(frozen=True, slots=True)
class BatchContext:
    """Services that all batches of a server share."""

    options: SimulatorOptions
    folder: Folder
    files: Files
    batches: JobStates
    ledger: Ledger
    quota: Quota
    seen: dict[bytes, int]
    """Number of attempts at each body, by digest."""
    clock: Callable[[], float] = time.time
    pace: JobPace = field(default_factory=JobPace)
    refused: set[str] = field(default_factory=set)
    """Digests of the inputs refused by the fault `token_limit`, which refuses each once."""


class JobLifecycle:
    """One batch and its position in its input."""

    def __init__(self, batch: JobState, context: BatchContext) -> None:
        self.batch = batch
        self._context = context
        self._setting = LineSettings.of(batch.endpoint, context.options, batch.faults)
        self._journal = Journal(context.folder.journal(batch.id), batch.tally)
        self._offset = 0

    def steps(self) -> Iterator[float]:
        """Execute one step at each `next`; yield the Unix time of the next step."""
        batch, options = self.batch, self._context.options
        if batch.total is None:
            yield from self.validate()
            self._save()
        else:
            self._recover()
        yield from self._until(batch.created + _VALIDATING * options.batch_seconds, "validating")
        if batch.errors:
            return self._end("failed")
        if batch.status == "validating":
            self._enter("in_progress")
        yield from self._execute()
        match batch.status:
            case "finalizing":
                yield from self._deliver()
                yield from self._until(batch.created + options.batch_seconds, "finalizing")
                self._end("completed")
            case "cancelling":
                yield from self._until(batch.moments["cancelling"] + options.batch_cancel_seconds, "cancelling")
                yield from self._skip_rest("batch_cancelled")
                yield from self._deliver()
                self._end("cancelled")
            case _:
                yield from self._skip_rest("batch_expired")
                yield from self._deliver()
                batch.expires = min(batch.expires, self._context.clock())
                self._end("expired")
        return None

    def validate(self) -> Iterator[float]:
        """Check the input; record its errors, or its number of lines and tokens."""
        context, batch = self._context, self.batch
        broken = int(batch.faults.get("failed_validation", 0)) or None
        check = LineCheck()
        for _ in check_lines(context.folder.input(batch.id), batch.endpoint, check, context.pace, broken_line=broken):
            yield context.clock()
        batch.model = check.model
        if not check.errors and (message := self._over_limit(check)):
            check.add(TOKEN_LIMIT, None, message)
        batch.errors = check.errors
        batch.total = 0 if check.errors else check.total
        batch.tokens = 0 if check.errors else check.tokens

    def fail(self, error: Exception) -> None:
        """End a batch after an error of the simulator."""
        message = f"The simulator failed: {error!r}"
        self.batch.errors = [{"code": "server_error", "line": None, "message": message, "param": None}]
        self._end("failed")

    def _over_limit(self, check: LineCheck) -> str | None:
        """Return the refusal if the batch exceeds the limit of enqueued tokens, else None."""
        context, batch = self._context, self.batch
        limit = context.options.batch_enqueued_tokens
        if "token_limit" in batch.faults and batch.input_digest not in context.refused:
            context.refused.add(batch.input_digest)
            limit = check.tokens // 2
        elif limit is None or context.batches.enqueued(check.model) + check.tokens <= limit:
            return None
        return (
            f"Enqueued token limit reached for {check.model or 'the model'} in organization org-simulator. "
            f"Limit: {limit:,} enqueued tokens. Please try again once some in_progress batches have been completed."
        )

    def _ending(self) -> tuple[float, str, int]:
        """Return the end of the execution of lines, the next status, and the number of lines executed by then."""
        batch, faults = self.batch, self.batch.faults
        total = batch.total or 0
        candidates = [
            (self._time_of(faults[name]), status, int(faults[name] * total + 1e-9))
            for name, status in (("expired", "expired"), ("cancelled", "cancelling"))
            if name in faults
        ]
        if "stuck" not in faults:
            candidates.append((self._time_of(1.0), "finalizing", total))
        candidates.append((batch.expires, "expired", self._due(batch.expires)))
        # `min` returns the first of equal moments: faults come first
        return min(candidates, key=lambda candidate: candidate[0])

    def _time_of(self, share: float) -> float:
        """Return the Unix time when this share of the lines is due."""
        seconds = self._context.options.batch_seconds
        return self.batch.created + seconds * (_VALIDATING + share * (1 - _VALIDATING - _FINALIZING))

    def _due(self, moment: float) -> int:
        """Return the number of due lines; a stuck batch stops at half."""
        total = self.batch.total or 0
        begin, end = self._time_of(0.0), self._time_of(1.0)
        share = (moment - begin) / (end - begin) if moment < end else 1.0
        due = int(max(share, 0.0) * total + 1e-9)
        return min(due, total // 2) if "stuck" in self.batch.faults else due

    def _execute(self) -> Iterator[float]:
        """Execute due lines until all are done, the window ends or the batch is cancelled."""
        batch = self.batch
        while batch.status == "in_progress":
            now = self._context.clock()
            moment, status, last = self._ending()
            due = last if now >= moment else min(self._due(now), last)
            if batch.tally.entries < due:
                self._answer(due)
                yield now
            elif now < moment:
                following = (batch.tally.entries + 1) / (batch.total or 1)
                yield min(moment, max(now + _PAUSE, self._time_of(following))) if due < last else moment
            else:
                if status != "expired":
                    self._enter(status)
                return

    def _answer(self, due: int) -> None:
        """Execute lines up to number `due` within the time of a step, then charge them."""
        context, batch = self._context, self.batch
        created = int(context.clock())
        answered: list[tuple[LineResult, int, str]] = []
        for line, offset in self._lines():
            self._offset = offset
            number = context.ledger.next_number()
            custom_id, body = batch_lines.task_of(line)
            names = self._line_id(batch.tally.entries + len(answered)), context.ledger.request_id(number)
            task = batch_lines.prepare(custom_id, body, *names, context.seen)
            result = batch_lines.execute(self._setting, task, created, context.quota.refusal())
            if result.bill is not None:
                context.quota.take()
            answered.append((result, number, custom_id))
            if batch.tally.entries + len(answered) >= due or context.pace():
                break
        # results before charges: a crash in between may lose a charge, but never charges twice
        self._journal.append(result for result, _, _ in answered)
        now = context.clock()
        for result, number, custom_id in answered:
            if result.bill is not None:
                context.ledger.charge(now, number, custom_id, result.bill, batch_id=batch.id)

    def _skip_rest(self, code: str) -> Iterator[float]:
        """Record the remaining lines as not executed."""
        batch = self.batch
        while batch.tally.entries < (batch.total or 0):
            skipped: list[LineResult] = []
            for line, offset in self._lines():
                self._offset = offset
                custom_id, _ = batch_lines.task_of(line)
                name = self._line_id(batch.tally.entries + len(skipped))
                skipped.append(batch_lines.unfinished(self._setting, custom_id, name, code))
                if self._context.pace():
                    break
            self._journal.append(skipped)
            yield self._context.clock()

    def _deliver(self) -> Iterator[float]:
        """Write the output and the error file; repeating it after a crash writes the same files."""
        context, batch, faults = self._context, self.batch, self.batch.faults
        output, error = context.folder.incoming(), context.folder.incoming()
        shuffle = Random(f"{context.options.seed}:{batch.input_digest}") if "lines_shuffled" in faults else None
        for _ in self._journal.distribute(output, error, context.pace, shuffle):
            yield context.clock()
        self._add_unknown(output, int(faults.get("unknown_lines", 0)))
        if "empty_error_file" in faults:
            error.write_bytes(b"")
        batch.output_file_id = self._keep(output, "output", False)
        batch.error_file_id = self._keep(error, "error", "empty_error_file" in faults)

    def _add_unknown(self, output: Path, count: int) -> None:
        batch, created = self.batch, int(self._context.clock())
        with output.open("ab") as file:
            for number in range(count):
                names = f"unknown-{batch.id[-12:]}-{number}", self._line_id((batch.total or 0) + number)
                line = batch_lines.unknown(self._setting, *names, batch.model, created)
                file.write(f"{line}\n".encode())

    def _keep(self, content: Path, kind: str, empty: bool) -> str | None:
        """Store a result file and return its id; delete an empty one and return None unless `empty`."""
        batch = self.batch
        if not empty and content.stat().st_size == 0:
            content.unlink()
            return None
        cut = int(batch.faults.get("download_truncated", 0))
        file_id = f"file-{kind[0]}{batch.id.removeprefix('batch_')}"
        name = f"{batch.id}_{kind}.jsonl"
        self._context.files.add(content, OUTPUT, name, file_id=file_id, keep=batch.keep_results, cut_downloads=cut)
        return file_id

    def _recover(self) -> None:
        """Find the position in the input where an earlier process stopped."""
        self._journal.recover()
        lines = self._lines()
        for _ in range(self.batch.tally.entries):
            _, self._offset = next(lines)

    def _lines(self) -> Iterator[tuple[bytes, int]]:
        return read_lines(self._context.folder.input(self.batch.id), self._offset)

    def _line_id(self, place: int) -> str:
        return f"batch_req_{self.batch.id.removeprefix('batch_')}{place:06x}"

    def _until(self, moment: float, status: str) -> Iterator[float]:
        """Wait for a moment, or until the batch leaves the status."""
        while self.batch.status == status and self._context.clock() < moment:
            yield moment

    def _enter(self, status: str) -> None:
        self.batch.enter(status, self._context.clock())
        self._save()

    def _end(self, status: str) -> None:
        self._enter(status)
        self._context.folder.clear(self.batch.id)

    def _save(self) -> None:
        self._context.batches.save(self.batch)

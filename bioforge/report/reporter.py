"""Show the events of a run: as log lines, and with `--print` each answer on stdout."""

from __future__ import annotations

import os
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import IO, Self

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
    UnmatchedLine,
    Unusable,
)
from bioforge.core.interfaces import Gauges
from bioforge.core.text import duration, printable
from bioforge.core.types import CLOSED, Batch, BatchState, Failure, Request, Usage
from bioforge.report import batches
from bioforge.report.logs import Logs, is_terminal
from bioforge.report.tally import Tally, error_class


class Printer:
    """Prints texts in UTF-8, in any locale; on a terminal under a line with artist and recipe.

    A closed pipe ends the printing, not the run: answers are stored before they are printed.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._terminal = is_terminal(stream)
        self._first = True
        self._closed = False
        self._reason = ""

    def print(self, request: Request, text: str) -> None:
        if self._closed:
            return
        if self._terminal:
            label = " · ".join(filter(None, (request.artist_id, request.recipe, request.variant)))
            gap = "" if self._first else "\n"
            # an answer must not move the cursor or retitle the window
            text = f"{gap}── {printable(label)}\n{printable(text, lines=True)}"
        self._first = False
        self._write(text if text.endswith("\n") else text + "\n")

    def problem(self) -> str:
        """Return why the printing ended early, once; None if the reader only closed the pipe."""
        problem, self._reason = self._reason, ""
        return problem

    def _write(self, text: str) -> None:
        try:
            raw = getattr(self._stream, "buffer", None)
            if raw is None:
                self._stream.write(text)
            else:
                self._stream.flush()
                raw.write(text.encode("utf-8", errors="replace"))
                raw.flush()
            self._stream.flush()
        except BrokenPipeError:
            self._close()
        except (OSError, ValueError) as problem:
            self._reason = getattr(problem, "strerror", None) or str(problem)
            self._close()

    def _close(self) -> None:
        self._closed = True
        try:
            # discard the buffer, or Python reports the broken pipe at exit
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        except (OSError, ValueError):
            return  # not a file of the system: Python reports nothing at exit


SHOWN_FAILURES = 20
"""Final failures with their own line, at most. Equal ones share a line; the rest are counted."""

Clock = Callable[[], float]


class Reporter(ABC):
    """Shows every committed group of events: `start`, `show` for each group, `finish` (may be called repeatedly).

    As a context manager it finishes at the end.
    """

    def __init__(self, logs: Logs, printer: Printer | None = None, clock: Clock = time.monotonic) -> None:
        self.logs = logs
        self.tally = Tally(started=clock())
        self._printer = printer
        self._clock = clock
        self._failures: Counter[tuple[str, str]] = Counter()
        self._logged_batches: dict[str, tuple[BatchState, str]] = {}

    def start(
        self,
        total: int | None,
        *,
        backend: str = "",
        provider: str = "",
        concurrency: int = 0,
        watch: Callable[[], Gauges] | None = None,
    ) -> None:
        """Begin. `total`: requests to send or to collect from awaited batches, None if unknown; `watch` returns gauges."""
        self.tally = Tally(total, self._clock())
        self._failures.clear()
        self._logged_batches = {}
        self._begin({"requests": total, "backend": backend, "provider": provider, "concurrency": concurrency}, watch)

    def show(self, events: Sequence[Event], gauges: Gauges) -> None:
        now = self._clock()
        self._count(events, gauges, now)
        for event in events:
            self._log(event)
        self._advance(gauges, now)

    def grow(self, requests: int) -> None:
        """Add requests to the expected total (negative: remove)."""
        if self.tally.total is not None:
            self.tally.total = max(0, self.tally.total + requests)

    def finish(self) -> None:
        self._end()
        self._group_failures()
        if self._printer is not None and (problem := self._printer.problem()):
            self.logs.logger.warning("answers are no longer printed", reason=problem)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    @abstractmethod
    def _begin(self, fields: Mapping[str, object], watch: Callable[[], Gauges] | None) -> None: ...

    @abstractmethod
    def _advance(self, gauges: Gauges, now: float) -> None: ...

    @abstractmethod
    def _end(self) -> None: ...

    def _count(self, events: Sequence[Event], gauges: Gauges, now: float) -> None:
        self.tally.add(events, now, gauges.batches)

    def _log(self, event: Event) -> None:
        match event:
            case Succeeded(attempt, answer, seconds):
                if self.logs.every_attempt:
                    self.logs.logger.debug("attempt", **_attempt(attempt, "succeeded", seconds, answer.usage))
                if self._printer is not None and answer.text is not None:
                    self._printer.print(attempt.request, answer.text)
            case Unusable(attempt, answer, seconds):
                problem = answer.problem or Failure(error_class(None), "the answer has no usable text")
                fields = _attempt(attempt, "unusable", seconds, answer.usage)
                if not event.followed:
                    self._final(problem, fields)
                elif self.logs.every_attempt:
                    self.logs.logger.debug("attempt", **fields, **_reason(problem), followed=True)
            case Failed(attempt, failure, _, seconds):
                fields = _attempt(attempt, "failed", seconds, None)
                if event.final and not event.followed:
                    self._final(failure, fields)
                elif self.logs.every_attempt:
                    retry = {} if event.retry_in is None else {"retry_in": round(event.retry_in, 3)}
                    self.logs.logger.debug("attempt", **fields, **_reason(failure), **retry)
            case Notice(kind, message, fields):
                self.logs.logger.info(message, **_rename_reserved({"kind": kind, **fields}))
            case BatchChanged(batch, note):
                self._batch(batch, note)
            case BatchCollected(batch):
                self._logged_batches.pop(batch.key, None)
                fields = (
                    batches.collected_json_fields(event) if self.logs.every_attempt else batches.collected_fields(event)
                )
                self.logs.logger.info("batch collected", **fields)
            case LimitLearned(model, tokens):
                fields = {"model": model, "tokens": tokens} if self.logs.every_attempt else {}
                self.logs.logger.info(f"the provider enqueues at most {tokens:,} tokens of {model}", **fields)
            case UnmatchedLine(key, kind, custom_id, line) if self.logs.every_attempt:
                self.logs.logger.debug("unmatched line", batch=key, kind=kind, custom_id=custom_id, bytes=len(line))
            # the closing summary shows it with a hint
            case Stopped(kind, message, hint) if self.logs.every_attempt:
                advice = {"hint": hint} if hint else {}
                if kind == "waiting":  # not an error
                    self.logs.logger.info(f"waiting: {message}", kind=kind, **advice)
                else:
                    self.logs.logger.warning(f"stopped: {message}", kind=kind, **advice)

    def _batch(self, batch: Batch, note: str) -> None:
        """Log a batch in a new state, or with new problems."""
        state, logged_note = self._logged_batches.get(batch.key, (None, ""))
        if batch.state in CLOSED:
            self._logged_batches.pop(batch.key, None)
        else:
            self._logged_batches[batch.key] = batch.state, note or logged_note
        title = batches.title(batch)
        if not title or (batch.state is state and note in ("", logged_note)):
            return
        logger, full = self.logs.logger, self.logs.every_attempt
        log = logger.debug if batch.state is BatchState.UPLOADED else logger.info
        log(title, **(batches.changed_json_fields if full else batches.changed_fields)(batch, note))
        if batch.state is BatchState.FAILED and batch.state is not state:
            for problem in batch.problems[: batches.SHOWN_PROBLEMS]:
                logger.warning(
                    "batch refused", **(batches.refused_json_fields if full else batches.refused_fields)(batch, problem)
                )

    def _final(self, failure: Failure, fields: Mapping[str, object]) -> None:
        """Log a final failure. Equal ones are counted, and logged together by `_group_failures`."""
        logger, kind = self.logs.logger, (failure.error_class, failure.message)
        self._failures[kind] += 1
        shown = self._failures.total() if self.logs.every_attempt else len(self._failures)
        if not self.logs.every_attempt:  # a short line; the log of every attempt has the other fields
            fields = {name: fields[name] for name in ("artist", "recipe", "variant") if name in fields}
            if self._failures[kind] > 1:
                return
        if shown <= SHOWN_FAILURES:
            logger.warning("failed", **fields, **_reason(failure))
            return
        if shown == SHOWN_FAILURES + 1:
            logger.warning("further failures are only counted", shown=SHOWN_FAILURES)
        if self.logs.every_attempt:
            logger.debug("failed", **fields, **_reason(failure))

    def _group_failures(self) -> None:
        """Log the count of each group of equal failures, of which only the first was logged."""
        failures, self._failures = self._failures, Counter()
        if self.logs.every_attempt:
            return
        for (word, message), number in failures.most_common(SHOWN_FAILURES):
            if number > 1:
                self.logs.logger.warning(f"{number:,} failed: {word} ({message:.100}); bioforge export --failed")


class PlainReporter(Reporter):
    """Lines for a file, a pipe or CI: progress at each tenth, at least `CLOSEST` and at most `FARTHEST` seconds apart."""

    CLOSEST = 1.0
    FARTHEST = 10.0

    def _begin(self, fields: Mapping[str, object], watch: Callable[[], Gauges] | None) -> None:
        self._shown_at = self._clock()
        self._step = 0
        self._running = True
        self.logs.logger.info("run", **{name: value for name, value in fields.items() if value})

    def _advance(self, gauges: Gauges, now: float) -> None:
        tally = self.tally
        step = 10 * tally.done // tally.expected if tally.expected else 0
        since = now - self._shown_at
        due = since >= self.FARTHEST or (step > self._step and since >= self.CLOSEST)
        # no line when everything is done: the summary follows
        if due and (tally.left != 0 or any(not batch.ended for batch in batches.open_batches(gauges))):
            self._shown_at, self._step = now, step
            self.logs.logger.info("progress", **self._fields(gauges, now))

    def _fields(self, gauges: Gauges, now: float) -> dict[str, object]:
        open_batches = batches.open_batches(gauges)
        if self.logs.format == "json":
            fields = {**self.tally.fields(now), "in_flight": gauges.in_flight, "waiting": gauges.waiting or None}
            return fields | ({"batches": batches.progress_fields(open_batches)} if open_batches else {})
        tally = self.tally
        left = tally.seconds_left(now)
        shown = {
            "done": tally.done if tally.expected is None else f"{tally.done}/{tally.expected}",
            "failed": tally.failures,
            "retrying": gauges.retrying,
            "rate": f"{tally.calls_per_second(now):.1f}/s" if tally.calls or not tally.batches else "",
            "batches": batches.sums(open_batches),
            "cost": tally.cost(),
            "left": duration(left) if left else "",
            "waiting": gauges.waiting,
        }
        return {name: value for name, value in shown.items() if value}

    def _end(self) -> None:
        if getattr(self, "_running", False):
            self._running = False
            if self.logs.format == "json":
                tally = self.tally
                failures = dict((tally.failed + tally.unusable).most_common())
                numbers = {"replaced": tally.replaced, "paid_for_nothing": tally.paid_for_nothing, "failures": failures}
                self.logs.logger.info("finished", **tally.fields(self._clock()), **numbers)


def make_reporter(
    logs: Logs,
    *,
    print_text: bool = False,
    stdout: IO[str] | None = None,
    stderr: IO[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Reporter:
    """Return a live display if stderr is a terminal that can show one, else lines.

    JSON logs, texts printed on a terminal and TERM=dumb (in `environ` or `os.environ`) also get lines.
    """
    dumb = (os.environ if environ is None else environ).get("TERM") == "dumb"
    stdout, stderr = stdout or sys.stdout, stderr or sys.stderr
    printer = Printer(stdout) if print_text else None
    if not is_terminal(stderr) or dumb or logs.format == "json" or (print_text and is_terminal(stdout)):
        return PlainReporter(logs, printer)
    from bioforge.report.live_display import LiveReporter

    return LiveReporter(logs, printer)


def _attempt(attempt: Attempt, outcome: str, seconds: float, usage: Usage | None) -> dict[str, object]:
    fields: dict[str, object] = {
        "worker": attempt.worker,
        "artist": attempt.request.artist_id,
        "recipe": attempt.request.recipe,
        "attempt": attempt.number,
        "seconds": round(seconds, 3),
        "outcome": outcome,
    }
    if attempt.request.variant:
        fields["variant"] = attempt.request.variant
    if attempt.batch is not None:
        fields["batch"] = attempt.batch
    if usage is not None:
        fields |= {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    return fields


def _reason(failure: Failure) -> dict[str, object]:
    fields: dict[str, object] = {"error": failure.error_class, "message": failure.message}
    for name, value in (("code", failure.code), ("status", failure.http_status)):
        if value is not None:
            fields[name] = value
    return fields


def _rename_reserved(fields: Mapping[str, object]) -> dict[str, object]:
    """Rename fields with a name that the log reserves."""
    taken = ("event", "level", "timestamp", "exc_info", "stack_info")
    return {f"{name}_" if name in taken else name: value for name, value in fields.items()}

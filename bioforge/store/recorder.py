"""Record the events of a backend: one transaction per group, in sets of statements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from bioforge.core.events import (
    Attempt,
    BatchChanged,
    BatchCollected,
    Event,
    Failed,
    LimitLearned,
    Started,
    Succeeded,
    UnmatchedLine,
    Unusable,
)
from bioforge.core.interfaces import Step, run_inline
from bioforge.core.reasons import HELD_CLASSES, Reason, RequestState
from bioforge.core.types import NOT_VALIDATED, Paid, Response
from bioforge.store import batches, runs, validations
from bioforge.store.compression import Compressor
from bioforge.store.database import Store, bump_results
from bioforge.store.statements import (
    BATCH_TARGETS,
    BUILD_TARGETS,
    END_ATTEMPTS,
    END_REQUESTS,
    FAIL_TARGETS,
    GIVE_BACK_TARGETS,
    INSERT_RESPONSES,
    INVALID_ATTEMPTS,
    START_ATTEMPTS,
    START_REQUESTS,
    VALIDATE_RESPONSES,
    Row,
)
from bioforge.store.targets import failure_text


class Recorder:
    """Writes the events of one run. Knows the attempts in flight, so that an outcome finds its row."""

    def __init__(self, store: Store, run: int, backend: str, provider: str = "") -> None:
        self._store = store
        self._run = run
        self._backend = backend
        self._provider = provider
        self._packer = Compressor(store)
        self._next_attempt = store.next_id("attempts")
        self._next_response = store.next_id("responses")
        self._open: dict[str, int] = {}
        self._unvalidated: dict[str, tuple[int, int]] = {}
        """Response and attempt of the answers that are held back, by request hash."""
        self._collected: set[str] = set()
        self._noted = False
        """Whether the state says that it may have answers that no schema has validated."""

    def close(self) -> None:
        """Update the sums of the runs that prepared batches collected by this one."""
        if self._collected or (self._noted and not self._unvalidated):
            with self._store.transaction() as connection:
                runs.update_sums(connection, self._collected)
                if not self._unvalidated:
                    validations.note_unvalidated(connection, False)

    def free_space(self) -> bool:
        """Free the disk space that the state reserved for answers. Return False if there was none."""
        return self._store.free_reserved_space()

    def check_place(self) -> None:
        """Raise `StateMovedError`, once, if the state was moved, deleted or replaced."""
        self._store.check_place()

    def secure(self) -> str:
        """Save what a moved, deleted or replaced state holds, and return a sentence that names the file."""
        return self._store.secure()

    def record(self, events: Sequence[Event], commit: Callable[[Step], None] = run_inline) -> None:
        """Make a group durable. Events without a request need no record. `commit` runs the writing step."""
        together = commit is not run_inline  # others run beside it
        changes = _Changes()

        def prepare() -> Step:
            self._gather(events, changes)
            return partial(self._write, changes, together)

        self._store.write(prepare, commit)
        for name in changes.closed:
            self._open.pop(name, None)

    def record_validated(self, events: Sequence[Event], commit: Callable[[Step], None] = run_inline) -> None:
        """Record the validation of answers that were held back. Not synced: it can be derived again."""
        changes = _Changes()
        done = []
        for event in events:
            if not isinstance(event, Succeeded | Unusable) or event.answer.problem == NOT_VALIDATED:
                continue
            if event.attempt.request.request_hash in self._unvalidated:
                done.append(event.attempt.request.request_hash)
                self._validated(changes, event.answer, done[-1])
        with self._store.relaxed_sync():
            self._store.write(lambda: partial(self._write, changes, commit is not run_inline), commit)
        for digest in done:
            del self._unvalidated[digest]

    def _validated(self, changes: _Changes, answer: Response, digest: str) -> None:
        response, attempt = self._unvalidated[digest]
        problem = answer.problem
        why = (None, None, None) if problem is None else (problem.error_class, problem.code, problem.message)
        changes.validated.append((problem is None, answer.parsed, answer.validation, *why, response))
        state = RequestState.ANSWERED if problem is None else RequestState.UNUSABLE
        changes.ended_requests.append((state, response, *why, digest))
        changes.shown = True
        if problem is None:
            changes.built.append((response, digest))
        else:
            changes.invalid.append((*why, attempt))
            changes.failed.append((Reason.FAILED, failure_text(why[0], why[2]), 1, digest))

    def _gather(self, events: Sequence[Event], changes: _Changes) -> None:
        """Collect the rows that the events change; batches are written at once."""
        connection = self._store.connection
        for event in events:
            match event:
                case Started(attempt):
                    self._started(changes, attempt)
                case Succeeded(attempt, answer, seconds, request_id) | Unusable(attempt, answer, seconds, request_id):
                    self._answered(changes, attempt, answer, seconds, request_id)
                    changes.shown = True
                case Failed():
                    self._failed(changes, event)
                    changes.shown = changes.shown or event.final
                case BatchChanged(batch):
                    batches.save(connection, batch, self._run, self._backend, self._provider)
                case BatchCollected():
                    changes.collected.append(event)
                case UnmatchedLine(batch, kind, custom_id, line):
                    batches.save_unmatched_line(connection, batch, kind, custom_id, line)
                case LimitLearned(model, tokens):
                    batches.save_limit(connection, self._provider, model, tokens)
                case _:
                    pass

    def _write(self, changes: _Changes, together: bool) -> None:
        connection = self._store.connection
        # outcomes first: a group may hold the end of one attempt and the start of the next of the same request
        INSERT_RESPONSES.run(connection, changes.responses, together)
        VALIDATE_RESPONSES.run(connection, changes.validated, together)
        END_ATTEMPTS.run(connection, changes.ended_attempts, together)
        INVALID_ATTEMPTS.run(connection, changes.invalid, together)
        END_REQUESTS.run(connection, changes.ended_requests, together)
        BUILD_TARGETS.run(connection, changes.built, together)
        FAIL_TARGETS.run(connection, changes.failed, together)
        GIVE_BACK_TARGETS.run(connection, changes.given_back, together)
        START_REQUESTS.run(connection, changes.requests, together)
        START_ATTEMPTS.run(connection, changes.attempts, together)
        BATCH_TARGETS.run(connection, changes.batched, together)
        for event in changes.collected:
            batches.save_collected(connection, event.batch.key, event.counts, event.usage)
            self._collected.add(event.batch.key)
        if self._unvalidated and not self._noted:
            validations.note_unvalidated(connection, True)
            self._noted = True
        # which failures are shown depends on what is in a batch
        if changes.shown or changes.batched or changes.given_back:
            bump_results(connection)

    def _started(self, changes: _Changes, attempt: Attempt) -> None:
        request = attempt.request
        if attempt.batch is None:  # the members of a batch are looked up when their results come, perhaps in days
            self._open[attempt.client_request_id] = self._next_attempt
        else:
            changes.batched.append((attempt.batch, request.request_hash))
        changes.requests.append(
            (
                request.request_hash,
                request.endpoint,
                request.model,
                self._packer.pack_request(request.body, request.model, request.recipe, request.variant),
                RequestState.STARTED if attempt.batch is None else RequestState.IN_BATCH,
                attempt.at,
                attempt.batch,
                1,
            )
        )
        changes.attempts.append(
            (
                self._next_attempt,
                request.request_hash,
                request.target,
                self._run,
                attempt.number,
                request.reason,
                self._backend if request.service_tier is None else f"{self._backend} ({request.service_tier})",
                attempt.worker,
                attempt.at,
                attempt.client_request_id,
                attempt.batch,
            )
        )
        self._next_attempt += 1

    def _answered(
        self, changes: _Changes, attempt: Attempt, answer: Response, seconds: float, request_id: str | None
    ) -> None:
        row = self._attempt(changes, attempt)
        response, self._next_response = self._next_response, self._next_response + 1
        request, usage, problem = attempt.request, answer.usage, answer.problem
        digest = request.request_hash
        why = (None, None, None) if problem is None else (problem.error_class, problem.code, problem.message)
        tokens = (None,) * 4 if usage is None else (
            usage.input_tokens, usage.cached_tokens, usage.output_tokens, usage.reasoning_tokens
        )  # fmt: skip
        changes.responses.append(
            (
                response,
                digest,
                row,
                attempt.at + seconds,
                problem is None,
                answer.response_id,
                answer.model,
                answer.service_tier,
                answer.text,
                answer.parsed,
                answer.validation,
                *why,
                *tokens,
                answer.cost_usd,
                self._packer.pack_answer(answer.body, request.model, request.recipe, request.variant),
            )
        )
        if problem is NOT_VALIDATED:
            self._unvalidated[digest] = response, row
            changes.ended_attempts.append((seconds, "succeeded", "yes", None, None, None, 200, request_id, None, row))
        else:
            outcome = "succeeded" if problem is None else "unusable"
            changes.ended_attempts.append((seconds, outcome, "yes", *why, 200, request_id, None, row))
        changes.ended_requests.append(
            (RequestState.ANSWERED if problem is None else RequestState.UNUSABLE, response, *why, digest)
        )
        if problem is None:
            changes.built.append((response, digest))
        else:
            changes.failed.append((Reason.FAILED, failure_text(why[0], why[2]), 1, digest))

    def _attempt(self, changes: _Changes, attempt: Attempt) -> int:
        """Return the row of an attempt that has ended."""
        if attempt.row:
            return attempt.row
        changes.closed.append(attempt.client_request_id)
        return self._open[attempt.client_request_id]

    def _failed(self, changes: _Changes, event: Failed) -> None:
        attempt = self._attempt(changes, event.attempt)
        failure, request, body = event.failure, event.attempt.request, event.body
        digest = request.request_hash
        why = (failure.error_class, failure.code, failure.message)
        unclear = event.paid is Paid.MAYBE
        changes.ended_attempts.append(
            (
                event.seconds,
                RequestState.MAYBE_PAID if unclear else "failed",
                str(event.paid),
                *why,
                failure.http_status,
                event.request_id,
                None
                if body is None
                else self._packer.pack_failure(body, request.model, request.recipe, request.variant),
                attempt,
            )
        )
        if event.final:
            held = failure.error_class in HELD_CLASSES
            reason = Reason.MAYBE_PAID if unclear and not held else Reason.FAILED
            changes.failed.append((reason, failure_text(why[0], why[2]), int(held), digest))
            changes.ended_requests.append((reason, None, *why, digest))
        else:
            changes.ended_requests.append((RequestState.WAITING, None, *why, digest))
            if event.attempt.batch is not None:
                changes.given_back.append((digest,))


class _Changes:
    """Rows for each statement, in the order of the events."""

    def __init__(self) -> None:
        self.responses: list[Row] = []
        self.validated: list[Row] = []
        self.invalid: list[Row] = []
        self.ended_attempts: list[Row] = []
        self.ended_requests: list[Row] = []
        self.built: list[Row] = []
        self.failed: list[Row] = []
        self.given_back: list[Row] = []
        self.requests: list[Row] = []
        self.attempts: list[Row] = []
        self.batched: list[Row] = []
        self.collected: list[BatchCollected] = []
        self.closed: list[str] = []
        """Attempts that are in flight no more."""
        self.shown = False
        """Whether results or failures are others than before."""

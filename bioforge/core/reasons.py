"""Reasons why a target is stale, states of a request, and the values that planner and store exchange about them.

Each word has one row in a table. SQL, reports and commands derive their lists of words from the rows' properties.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

SCHEMA = "schema"
"""Error class of an answer that does not fit its schema."""

CONTENT_FILTER = "content_filter"
"""Error class of a request or an answer that a filter or moderation rejects."""

ROW_REFUSED = "row_refused"
"""Error class of a 403 for one row, after the key and the model were accepted for others."""

HELD_CLASSES = frozenset({CONTENT_FILTER, ROW_REFUSED})
"""Error classes of refusals that are about the row's text: the same request would be refused again."""


class Reason(StrEnum):
    """Reason for a target to be stale; stored with the target."""

    NEW = "new"
    CHANGED = "changed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    MAYBE_PAID = "maybe paid"
    FORCED = "forced"
    FORGOTTEN = "forgotten"
    IN_BATCH = "in batch"
    INVALID = "invalid"
    REPAIR = "repair"
    FALLBACK = "fallback"
    UPSTREAM = "upstream"
    SKIPPED = "skipped"
    REMOVED = "removed"

    @property
    def info(self) -> ReasonInfo:
        return REASONS[self]


class RequestState(StrEnum):
    """State of a request; stored with the request, so that identical requests share it."""

    STARTED = "started"
    WAITING = "waiting"
    IN_BATCH = "in batch"
    ANSWERED = "answered"
    UNUSABLE = "unusable"
    INVALID = "invalid"
    FAILED = "failed"
    MAYBE_PAID = "maybe paid"
    INTERRUPTED = "interrupted"
    FORGOTTEN = "forgotten"

    @property
    def info(self) -> StateInfo:
        return STATES[self]


class Detail(StrEnum):
    """Meaning of the detail that a reason is stored with."""

    NONE = ""
    CHANGES = "changed columns and parts"
    ERROR = "error class and message"
    BATCH = "batch"
    MODEL = "that model and its error class"
    RECIPES = "upstream recipes"


@dataclass(frozen=True, slots=True)
class ReasonInfo:
    """One row of the table of reasons. `label` and `action` (of a run) are Markdown, for docs/reasons.md."""

    label: str
    action: str = "sends the request"
    detail: Detail = Detail.NONE
    sent: bool = True
    """A run sends a request for such a target, unless its answer is held back."""
    optional: bool = False
    """`retry.maybe_paid = false` keeps a run from sending it."""
    waits: bool = False
    """The target has no request yet, because an upstream recipe has no usable answer."""
    keeps_answer: bool = False
    """The stored answer stays valid if only the backend's serialization of the request has changed."""
    error: bool = False
    """Exports show the target with an error."""
    resends_paid: bool = False
    """A paid answer is bought again on purpose."""
    present: bool = True
    """The artist is in the input, and the variant in the project file."""


REASONS: Mapping[Reason, ReasonInfo] = {
    Reason.NEW: ReasonInfo("never answered: a new artist or a new recipe"),
    Reason.CHANGED: ReasonInfo(
        "answered, but the request has changed",
        "sends the new request; outputs show the old answer until then",
        Detail.CHANGES,
        keeps_answer=True,
    ),
    Reason.FAILED: ReasonInfo(
        "the last attempt failed, or the text cannot be rendered",
        "sends the request, unless it is [held back](#held-back)",
        Detail.ERROR,
        error=True,
    ),
    Reason.INTERRUPTED: ReasonInfo("a run ended before the next attempt", detail=Detail.ERROR),
    Reason.MAYBE_PAID: ReasonInfo(
        "sent, and may have been charged; no answer arrived",
        "sends the request, unless `maybe_paid = false`",
        Detail.ERROR,
        optional=True,
        error=True,
    ),
    Reason.FORCED: ReasonInfo("selected by a run with `--always-make`, and not answered since", resends_paid=True),
    Reason.FORGOTTEN: ReasonInfo("its answer was deleted by `bioforge forget`", resends_paid=True),
    Reason.IN_BATCH: ReasonInfo(
        "in a [batch](batches.md) whose results are not collected",
        "collects the results when they are ready; never sends it twice",
        Detail.BATCH,
        sent=False,
    ),
    Reason.INVALID: ReasonInfo(
        "the answer does not fit its [schema](recipes.md#structured-outputs), which became stricter",
        detail=Detail.ERROR,
        keeps_answer=True,
        resends_paid=True,
    ),
    Reason.REPAIR: ReasonInfo(
        "the answer does not fit the schema", "sends the request with the answer and its errors", Detail.ERROR
    ),
    Reason.FALLBACK: ReasonInfo("the previous model failed", "sends the request to the next model", Detail.MODEL),
    Reason.UPSTREAM: ReasonInfo(
        "waits for an [upstream recipe](recipes.md#recipes-that-need-recipes), which is stale",
        "sends the request after that answer, if it has changed",
        Detail.RECIPES,
        waits=True,
        keeps_answer=True,
    ),
    Reason.SKIPPED: ReasonInfo(
        "an upstream recipe failed",
        "sends nothing until that is fixed",
        Detail.RECIPES,
        sent=False,
        waits=True,
        keeps_answer=True,
        error=True,
    ),
    Reason.REMOVED: ReasonInfo(
        "the artist is no longer in the input, or the variant no longer in the project file",
        "sends nothing; its answers are kept for its return",
        sent=False,
        keeps_answer=True,
        present=False,
    ),
}

STALE_REASONS = tuple(reason for reason in Reason if reason.info.present)
"""Words that `--select reason:…` accepts."""


@dataclass(frozen=True, slots=True)
class StateInfo:
    """One row of the table of request states."""

    reason: Reason | None
    """Reason of a target that wants the request; None if it is fresh."""
    held: bool = False
    """Held back: not usable; only `--always-make` sends it. So are failures of `HELD_CLASSES`."""
    answer: bool = False
    """The request has a stored answer."""
    failed: bool = False
    """All attempts are used up, and no usable answer came back."""
    open: bool = False
    """A process is working on the request, or crashed while it was."""


STATES: Mapping[RequestState, StateInfo] = {
    RequestState.STARTED: StateInfo(Reason.MAYBE_PAID, open=True),
    RequestState.WAITING: StateInfo(Reason.INTERRUPTED, open=True),
    RequestState.IN_BATCH: StateInfo(Reason.IN_BATCH),
    RequestState.ANSWERED: StateInfo(None, answer=True),
    RequestState.UNUSABLE: StateInfo(Reason.FAILED, held=True, answer=True, failed=True),
    RequestState.INVALID: StateInfo(Reason.INVALID, answer=True),
    RequestState.FAILED: StateInfo(Reason.FAILED, failed=True),
    RequestState.MAYBE_PAID: StateInfo(Reason.MAYBE_PAID, failed=True),
    RequestState.INTERRUPTED: StateInfo(Reason.INTERRUPTED),
    RequestState.FORGOTTEN: StateInfo(Reason.FORGOTTEN),
}


@dataclass(frozen=True, slots=True)
class KnownRequest:
    """A request as stored. `state` is a value of `RequestState`.

    `detail` is the error class and message, or the batch. `validation` is the hash of the schema that the answer was last
    validated against; None if it never was.
    """

    state: str
    response: int | None
    detail: str | None
    error_class: str | None = None
    validation: str | None = None

    @property
    def held(self) -> bool:
        """True if only `--always-make` sends the request again."""
        return RequestState(self.state).info.held or (
            self.state == RequestState.FAILED and self.error_class in HELD_CLASSES
        )

    @property
    def misfit(self) -> bool:
        """True if there is an answer that does not fit the schema."""
        return self.state == RequestState.INVALID or (
            self.state == RequestState.UNUSABLE and self.error_class == SCHEMA
        )


@dataclass(frozen=True, slots=True)
class KnownTarget:
    """A target as it was last planned and last built; the `built_*` fields are None if it never was built.

    `reason` and `reason_before` are values of `Reason`.
    """

    request_hash: str | None
    reason: str | None
    built_response: int | None
    built_definition: int | None
    built_row: str | None
    accepted_hash: str | None
    accepted_response: int | None = None
    reason_before: str | None = None
    upstream: str | None = None
    built_upstream: str | None = None

    def forced(self, request_hash: str) -> bool:
        """Return True if the target was forced and has not been built since."""
        if self.reason in (Reason.UPSTREAM, Reason.SKIPPED):
            return self.reason_before == Reason.FORCED
        return self.reason == Reason.FORCED and self.request_hash == request_hash


@dataclass(frozen=True, slots=True)
class Decision:
    """The reason why a target is stale, or None if it is fresh, by `response`.

    `held`: the answer was paid for and is not usable; only `--always-make` sends the request again. `reason_before` is the
    reason that applies once the upstream answers are available.
    """

    reason: str | None
    detail: str | None = None
    response: int | None = None
    held: bool = False
    reason_before: str | None = None


@dataclass(frozen=True, slots=True)
class Upstream:
    """State of an upstream recipe's target. `reason` None: fresh, by `response`.

    `stuck`: stale, and a normal run will not send a request for it.
    """

    recipe: str
    reason: str | None
    detail: str | None
    response: int | None
    stuck: bool = False

"""Why a target must be built: pure decisions over what is known and what is wanted now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

NEW = "new"
CHANGED = "changed"
FAILED = "failed"
INTERRUPTED = "interrupted"
MAYBE_PAID = "maybe paid"
FORCED = "forced"
FORGOTTEN = "forgotten"
REMOVED = "removed"
IN_BATCH = "in batch"
"""Asked for, in a batch whose results are still to come."""
INVALID = "invalid"
"""The answer was good until its schema became stricter; it is asked for again."""
REPAIR = "repair"
"""The answer did not fit the schema; asked once more, with the errors."""
FALLBACK = "fallback"
"""The model before this one has failed for good."""
UPSTREAM = "upstream"
"""Waits for a recipe it needs, which is stale itself; whether there is anything to ask shows then."""
SKIPPED = "skipped"
"""A recipe it needs has failed, and is not asked again by itself."""

REASONS = (
    NEW, CHANGED, FAILED, INTERRUPTED, MAYBE_PAID, FORCED, FORGOTTEN, IN_BATCH, INVALID, REPAIR, FALLBACK, UPSTREAM,
    SKIPPED,
)  # fmt: skip
SCHEMA = "schema"
"""The error class of an answer that does not fit its schema."""

SIMULATOR = "simulator"
"""The dialect of the simulator's answers."""

# What a request has come to; kept with the request, so that identical requests share it.
STARTED = "started"
WAITING = "waiting"
ANSWERED = "answered"
UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True)
class KnownRequest:
    """What became of a request that was sent before. `detail` is the failure's class and message, or its batch;
    `validation` the hash of the schema that its answer was last checked by, None where it never was."""

    state: str
    response: int | None
    detail: str | None
    error_class: str | None = None
    validation: str | None = None

    @property
    def misfit(self) -> bool:
        """Whether there is an answer that does not fit the schema."""
        return self.state == INVALID or (self.state == UNUSABLE and self.error_class == SCHEMA)


@dataclass(frozen=True, slots=True)
class KnownTarget:
    """A target as it was last planned and last built; `built_*` are None when it never was."""

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

    def forced(self, wanted_hash: str) -> bool:
        """Whether somebody asked for it to be built anew, and it was not yet; perhaps since it waits for others."""
        if self.reason in (UPSTREAM, SKIPPED):
            return self.reason_before == FORCED
        return self.reason == FORCED and self.request_hash == wanted_hash


@dataclass(frozen=True, slots=True)
class Decision:
    """`reason` None means fresh, by `response`. `held`: its answer was paid for and cannot be used, so that asking
    again would pay again; only `--always-make` does that."""

    reason: str | None
    detail: str | None = None
    response: int | None = None
    held: bool = False
    reason_before: str | None = None
    """What it is stale for as well, once what it waits for is there."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """A needed recipe's target, as far as others depend on it. `reason` None: fresh, by `response`.

    `stuck`: stale, and nothing will be asked for it by itself.
    """

    recipe: str
    reason: str | None
    detail: str | None
    response: int | None
    stuck: bool = False


def blocked(upstream: Sequence[Upstream], target: KnownTarget | None) -> Decision | None:
    """Why a target cannot be asked for yet, by what it needs; None when everything is there."""
    stale = [need for need in upstream if need.reason is not None or need.response is None]
    if not stale:
        return None
    before = FORCED if target is not None and FORCED in (target.reason, target.reason_before) else None
    for need in stale:
        if need.reason == SKIPPED:
            return Decision(SKIPPED, need.detail, reason_before=before)
        if need.stuck:
            error_class = (need.detail or "").partition(":")[0] if need.reason == FAILED else need.reason
            return Decision(SKIPPED, f"{need.recipe} ({error_class or need.reason})", reason_before=before)
    return Decision(UPSTREAM, ", ".join(need.recipe for need in stale), reason_before=before)


def decide(wanted_hash: str, target: KnownTarget | None, request: KnownRequest | None, changes: str | None) -> Decision:
    """Whether the target is fresh, and if not, why. `changes` names what differs from its last build."""
    state = None if request is None else request.state
    if request is not None and state == IN_BATCH:
        return Decision(IN_BATCH, request.detail)
    if target is not None and target.forced(wanted_hash):
        return Decision(FORCED)
    if request is not None and state == ANSWERED:
        return Decision(None, response=request.response)
    if target is not None and target.accepted_hash == wanted_hash:
        return Decision(None, response=target.accepted_response)
    if request is not None:
        if state == UNUSABLE:
            return Decision(FAILED, request.detail, held=True)
        if state == FAILED:
            return Decision(FAILED, request.detail)
        if state in (MAYBE_PAID, STARTED):
            return Decision(MAYBE_PAID, request.detail)
        if state in (INTERRUPTED, WAITING):
            return Decision(INTERRUPTED, request.detail)
        if state == INVALID:
            return Decision(INVALID, request.detail)
        if state == FORGOTTEN:
            return Decision(FORGOTTEN)
    if target is None or target.built_response is None:
        return Decision(NEW)
    return Decision(CHANGED, changes or "rendering")


@dataclass(frozen=True, slots=True)
class Change:
    """One part that differs: `part` is `column x`, `instructions`, `input`, `model`, `parameter x` …"""

    part: str
    old: object
    new: object

    def short(self) -> str:
        """For grouping and one-line display: values only where they are short and the same for every artist."""
        if self.part.startswith("column "):
            return self.part
        if self.part == "dialect":
            return dialect_change(self.old, self.new)
        old, new = _brief(self.old), _brief(self.new)
        return f"{self.part} {old} → {new}" if old is not None and new is not None else self.part


def dialect_change(old: object, new: object) -> str:
    """Return the change of the API's dialect in words; `simulator` answers are never shared with a real API."""
    if old == SIMULATOR:
        return "answered by the simulator; now asks the real API"
    if new == SIMULATOR:
        return "answered by the real API; now asks the simulator"
    return f"answered by an {old} API; now asks an {new} API"


def _brief(value: object) -> str | None:
    text = "nothing" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 and "\n" not in text else None


def upstream_changes(old: str | None, new: str | None) -> Iterator[str]:
    """The needed recipes whose answers differ, by what a target was built from and is wanted from (JSON, by recipe)."""
    if old is None or new is None or old == new:
        return
    before, after = json.loads(old), json.loads(new)
    for need in sorted(after):
        if before.get(need) != after[need]:
            yield need


def definition_changes(old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[Change]:
    """What differs between two definitions (`Definition.as_dict`), part by part."""
    for part in ("endpoint", "model", "instructions", "input", "prompt", "schema", "needs", "for", "dialect"):
        if old.get(part) != new.get(part):
            yield Change(part, old.get(part), new.get(part))
    before, after = old.get("parameters"), new.get("parameters")
    before = before if isinstance(before, Mapping) else {}
    after = after if isinstance(after, Mapping) else {}
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield Change(f"parameter {name}", before.get(name), after.get(name))


def column_changes(
    old: Mapping[str, object], new: Mapping[str, object], used: frozenset[str] | None
) -> Iterator[Change]:
    """Which columns differ, of those the templates read (`used`; None: any may count)."""
    for name in sorted({*old, *new}):
        if (used is None or name in used) and old.get(name) != new.get(name):
            yield Change(f"column {name}", old.get(name), new.get(name))

"""Why a target must be built: pure decisions over what is known and what is wanted now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
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

REASONS = (NEW, CHANGED, FAILED, INTERRUPTED, MAYBE_PAID, FORCED, FORGOTTEN, IN_BATCH)

# What a request has come to; kept with the request, so that identical requests share it.
STARTED = "started"
WAITING = "waiting"
ANSWERED = "answered"
UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True)
class KnownRequest:
    """What became of a request that was sent before. `detail` is the failure's class and message, or its batch."""

    state: str
    response: int | None
    detail: str | None


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


@dataclass(frozen=True, slots=True)
class Decision:
    """`reason` None means fresh, by `response`. `held`: its answer was paid for and cannot be used, so that asking
    again would pay again; only `--always-make` does that."""

    reason: str | None
    detail: str | None = None
    response: int | None = None
    held: bool = False


def decide(wanted_hash: str, target: KnownTarget | None, request: KnownRequest | None, changes: str | None) -> Decision:
    """Whether the target is fresh, and if not, why. `changes` names what differs from its last build."""
    state = None if request is None else request.state
    if request is not None and state == IN_BATCH:
        return Decision(IN_BATCH, request.detail)
    if target is not None and target.reason == FORCED and target.request_hash == wanted_hash:
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
        old, new = _brief(self.old), _brief(self.new)
        return f"{self.part} {old} → {new}" if old is not None and new is not None else self.part


def _brief(value: object) -> str | None:
    text = "nothing" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 and "\n" not in text else None


def definition_changes(old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[Change]:
    """What differs between two definitions (`Definition.as_dict`), part by part."""
    for part in ("endpoint", "model", "instructions", "input", "prompt", "dialect"):
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

"""Differences between definitions, rows and upstream answers. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bioforge.core.types import SIMULATOR_DIALECT


@dataclass(frozen=True, slots=True)
class Change:
    """One part that differs: `part` is `column x`, `instructions`, `parameter x`, or another part's name."""

    part: str
    old: object
    new: object

    def short(self) -> str:
        """Return a line for grouping and display, with the values if they are short and the same for every artist."""
        if self.part.startswith("column "):
            return self.part
        if self.part == "dialect":
            return dialect_change(self.old, self.new)
        old, new = _short_value(self.old), _short_value(self.new)
        return f"{self.part} {old} → {new}" if old is not None and new is not None else self.part


def dialect_change(old: object, new: object) -> str:
    """Return the change of the API's dialect in words."""
    if old == SIMULATOR_DIALECT:
        return "answered by the simulator; now asks the real API"
    if new == SIMULATOR_DIALECT:
        return "answered by the real API; now asks the simulator"
    return f"answered by an {old} API; now asks an {new} API"


def _short_value(value: object) -> str | None:
    text = "nothing" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 and "\n" not in text else None


def upstream_changes(old: str | None, new: str | None) -> Iterator[str]:
    """Yield the upstream recipes whose answers differ. Both arguments are JSON objects of response ids by recipe."""
    if old is None or new is None or old == new:
        return
    before, after = json.loads(old), json.loads(new)
    for need in sorted(after):
        if before.get(need) != after[need]:
            yield need


def definition_changes(old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[Change]:
    """Yield the parts that differ between two definitions (`Definition.as_dict`)."""
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
    """Yield the columns that differ among those the templates read (`used`; None: all)."""
    for name in sorted({*old, *new}):
        if (used is None or name in used) and old.get(name) != new.get(name):
            yield Change(f"column {name}", old.get(name), new.get(name))

"""What a row has found: figures, each with its goal where there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    what: str
    value: float
    unit: str = "×"
    goal: float | None = None
    bound: str = ""
    """How the goal is meant: `at least`, `at most` or `exactly`."""

    @property
    def reached(self) -> bool | None:
        """None where there is no goal."""
        match self.bound, self.goal:
            case "at least", float() | int() as goal:
                return round(self.value, 2) >= goal
            case "at most", float() | int() as goal:
                return round(self.value, 2) <= goal
            case "exactly", float() | int() as goal:
                return self.value == goal
        return None

    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = {"what": self.what, "value": round(self.value, 3), "unit": self.unit}
        if self.goal is not None:
            found |= {"goal": self.goal, "bound": self.bound, "reached": self.reached}
        return found


def at_least(goal: float, what: str, value: float, unit: str = "×") -> Check:
    return Check(what, value, unit, goal, "at least")


def at_most(goal: float, what: str, value: float, unit: str = "×") -> Check:
    return Check(what, value, unit, goal, "at most")


def exactly(goal: float, what: str, value: float, unit: str = "×") -> Check:
    return Check(what, value, unit, goal, "exactly")


def noted(what: str, value: float, unit: str = "×") -> Check:
    """A figure without a goal."""
    return Check(what, value, unit)


@dataclass(frozen=True, slots=True)
class Found:
    checks: Sequence[Check]
    rows: int
    """How many it was measured with: some rows take fewer than they are offered."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """The figures that the ratios are made of."""


def figure(value: float, unit: str) -> str:
    """`0.87 ×`, `1.20 s`, `85 MB`, `1 request`."""
    if unit in ("×", "s"):
        return f"{value:,.2f} {unit}" if value < 100 else f"{value:,.0f} {unit}"
    if unit == "request":
        return f"{value:,.0f} request{'' if value == 1 else 's'}"
    return f"{value:,.0f} {unit}"


def goal(check: Mapping[str, Any]) -> str:
    if "goal" not in check:
        return "no goal"
    sign = {"at least": "≥ ", "at most": "≤ ", "exactly": ""}[check["bound"]]
    if check["unit"] == "request":
        return sign + figure(check["goal"], "request")
    return f"{sign}{check['goal']:g} {check['unit']}"


def line(name: str, rows: int, check: Mapping[str, Any]) -> str:
    """One line for people: name, ratio, goal, reached or not."""
    reached = {True: "reached", False: "NOT REACHED", None: ""}[check.get("reached")]
    shown = f"{figure(check['value'], check['unit'])} {check['what']}"
    return f"{name:20} {rows:>9,}  {shown:72} {goal(check):12} {reached}".rstrip()

"""What validation says about an answer: `Valid` with its data, or `Invalid` with what is wrong and where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

MOST_ERRORS = 20


@dataclass(frozen=True, slots=True)
class SchemaError:
    """`path` leads to the place in the answer (`works[2].year`); it is empty for the answer as a whole."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


@dataclass(frozen=True, slots=True)
class Valid:
    """`parsed` is plain JSON data; `value` the instance of the model where there is one, else the same data."""

    parsed: Any
    value: Any


@dataclass(frozen=True, slots=True)
class Invalid:
    """At most 20 errors. `repairable` is False where a validator itself broke, so that asking again cannot help."""

    errors: tuple[SchemaError, ...]
    repairable: bool = True

    def summary(self) -> str:
        """One line: the first error, and how many more there are."""
        more = len(self.errors) - 1
        return f"{self.errors[0]}{f' (and {more} more)' if more else ''}"


def invalid(errors: Iterable[SchemaError]) -> Invalid:
    """The first 20 different ones."""
    kept: dict[SchemaError, None] = {}
    for error in errors:
        kept[error] = None
        if len(kept) == MOST_ERRORS:
            break
    return Invalid(tuple(kept))

"""The schema of a recipe, and the verdict on an answer: `Valid` or `Invalid`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bioforge.recipes.schema import time_limit

if TYPE_CHECKING:
    from pydantic import BaseModel

Steps = tuple[str | int, ...]
"""The path to a part of a schema or of an answer: names and positions."""

MAX_ERRORS = 20


@dataclass(frozen=True, slots=True)
class SchemaError:
    """`path` is the place in the answer (`works[2].year`); empty for the answer as a whole."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


@dataclass(frozen=True, slots=True)
class Valid:
    """`parsed` is plain JSON data; `value` is the model's instance, or the same data without a model."""

    parsed: Any
    value: Any


@dataclass(frozen=True, slots=True)
class Invalid:
    """At most 20 errors. `repairable` is False if the validating code failed, so that a repair cannot help."""

    errors: tuple[SchemaError, ...]
    repairable: bool = True

    @classmethod
    def from_errors(cls, errors: Iterable[SchemaError]) -> Invalid:
        """Keep the first 20 different errors."""
        distinct: dict[SchemaError, None] = {}
        for error in errors:
            distinct[error] = None
            if len(distinct) == MAX_ERRORS:
                break
        return cls(tuple(distinct))

    @classmethod
    def from_message(cls, message: str, *, repairable: bool = True) -> Invalid:
        """Return one error for the answer as a whole."""
        return cls((SchemaError("", message),), repairable)

    def summary(self) -> str:
        """Return the first error and the number of further ones, on one line."""
        more = len(self.errors) - 1
        return f"{self.errors[0]}{f' (and {more} more)' if more else ''}"


@dataclass(frozen=True, slots=True)
class Schema:
    """The strict JSON Schema of a request and the validator of its answers.

    `generation` is sent, and its hash is part of the recipe's definition. `validation_hash` changes with anything that
    could change a verdict: stored answers are then validated again, and nothing is resent.
    """

    name: str
    source: str
    generation: Mapping[str, Any]
    generation_hash: str
    validation_hash: str
    unsent: tuple[str, ...] = ()
    """Places that strict mode cannot express; only the validator checks them."""
    model: type[BaseModel] | None = None
    """The pydantic model; None for a JSON Schema."""
    _validate: Callable[[str], Valid | Invalid] = field(kw_only=True, repr=False, compare=False)

    def validate(self, text: str) -> Valid | Invalid:
        """Return the verdict on an answer's text. Raises nothing but interrupts. In the main thread time is limited."""
        try:
            return time_limit.limited(self._validate, text)
        except time_limit.TimedOut:
            return Invalid.from_message(
                f"its validation took more than {time_limit.SECONDS:g} s: simplify the pattern or the model's validator",
                repairable=False,
            )

    def __hash__(self) -> int:
        return hash((self.name, self.generation_hash, self.validation_hash))

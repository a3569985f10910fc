"""A schema of a recipe: what is asked for, and what an answer is checked against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bioforge.recipes.schema.result import Invalid, Valid

if TYPE_CHECKING:
    from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Schema:
    """`generation` goes into the request, and its hash is part of what makes an answer stale. `validation_hash`
    changes with anything that could change a verdict: then answers are checked again, and nothing is asked again.

    `unsent` are the places of what the API cannot be asked for, and answers are checked against all the same.
    `model` is the pydantic model, None for a JSON Schema.
    """

    name: str
    source: str
    generation: Mapping[str, Any]
    generation_hash: str
    validation_hash: str
    unsent: tuple[str, ...] = ()
    model: type[BaseModel] | None = None
    _judge: Callable[[str], Valid | Invalid] = field(kw_only=True, repr=False, compare=False)

    def validate(self, text: str) -> Valid | Invalid:
        """The verdict on an answer's text; never an exception."""
        return self._judge(text)

    def __hash__(self) -> int:
        return hash((self.name, self.generation_hash, self.validation_hash))

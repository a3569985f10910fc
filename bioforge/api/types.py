"""What is asked and what comes back, as values: items, answers, outcomes, progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypedDict, TypeVar

from bioforge.core.errors import BioforgeError
from bioforge.core.types import Usage

if TYPE_CHECKING:
    from pydantic import BaseModel

    from bioforge.recipes.schema import Schema

Value = TypeVar("Value")
Value_co = TypeVar("Value_co", covariant=True)

AnySchema: TypeAlias = "type[BaseModel] | Schema | Mapping[str, Any] | str | Path"
"""A pydantic model; or a JSON Schema as it was loaded, as a mapping, as a file (`schemas/bio.json`) or, like a recipe's
schema, as `package.module:Model`."""


class RequestOptions(TypedDict, total=False):
    """How to ask: the options of one call, and of every item of many that says nothing else.

    `repair` asks once more where an answer does not fit its schema, with what is wrong with it; `again` asks (and pays)
    even where the state has an answer. `max_attempts` counts every attempt, whatever it came to. `parameters` are further
    request parameters by their API names. `id` is for messages and logs.
    """

    id: str
    instructions: str | None
    model: str | None
    endpoint: str | None
    temperature: float | None
    max_output_tokens: int | None
    parameters: Mapping[str, object] | None
    max_attempts: int | None
    repair: bool | None
    again: bool | None


@dataclass(frozen=True, slots=True)
class Item:
    """One of many things to ask. What is None is as for all of them; see `RequestOptions`."""

    prompt: str
    id: str = ""
    instructions: str | None = None
    model: str | None = None
    endpoint: str | None = None
    schema: AnySchema | None = None
    temperature: float | None = None
    max_output_tokens: int | None = None
    parameters: Mapping[str, object] | None = None
    max_attempts: int | None = None
    repair: bool | None = None
    again: bool | None = None
    data: Any = None
    """Whatever the caller wants to find again with the outcome; it goes nowhere."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[Value_co]):
    """A usable answer.

    `value` is the instance of the pydantic model that was asked for, the data for another schema, and the text without
    one; `parsed` is the data as plain JSON, None without a schema. `cost_usd` is what this call cost in US dollars, None
    where the price is unknown; 0.0 when `cached`: the state had the answer, or a call for the same was under way and paid
    for it. `attempts` is the number of the attempt that brought it, over all processes with this state; `seconds` how
    long that one took. `repaired`: the first answer did not fit the schema; cost and usage are of both.
    """

    text: str
    value: Value_co
    parsed: Any
    usage: Usage
    cost_usd: float | None
    model: str | None
    request_id: str | None
    response_id: str | None
    request_hash: str
    attempts: int
    seconds: float
    cached: bool = False
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class ItemResult(Generic[Value_co]):
    """What came of one item: an answer or an error, never both. `index` is its place among the items, from 0."""

    item: Item
    index: int
    answer: Answer[Value_co] | None = None
    error: BioforgeError | None = None

    @property
    def ok(self) -> bool:
        return self.answer is not None

    def unwrap(self) -> Answer[Value_co]:
        """The answer; raises the error where there is none."""
        if self.answer is None:
            assert self.error is not None
            raise self.error
        return self.answer


@dataclass(frozen=True, slots=True)
class Progress:
    """How far many have come. `total` is None where the items have no length, `in_flight` are those that wait for their
    answers; tokens and cost are of what was paid for them now, `seconds` since the beginning."""

    done: int = 0
    failed: int = 0
    cached: int = 0
    total: int | None = None
    in_flight: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0
    failures: Mapping[str, int] = field(default_factory=dict)
    """By error class."""

    @property
    def succeeded(self) -> int:
        return self.done - self.failed

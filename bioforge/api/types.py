"""The library's values: options, items, answers, results, progress."""

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
"""A pydantic model, or a JSON Schema: loaded, as a mapping, as a path (`schemas/bio.json`), or as
`package.module:Model` like a recipe's schema."""


class RequestOptions(TypedDict, total=False):
    """Options of one call, and defaults for the items of `generate_many`.

    `repair` sends an answer that does not fit its schema back once with its errors; `again` sends (and pays for) a
    request although the state has its answer. `max_attempts` counts every attempt. `parameters` are further request
    parameters by their API names. `id` is for messages and logs.
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
    """One of many prompts. Options that are None take the default of the call; see `RequestOptions`."""

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
    """Anything that the caller needs with the result; it is not sent."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[Value_co]):
    """A usable answer.

    `value` is an instance of the pydantic model, the data for another schema, or the text without a schema; `parsed` is
    the data as plain JSON, None without a schema. `cost_usd` is the cost of this call in US dollars, None if the price is
    unknown, and 0.0 when `cached`: the state had the answer, or an identical call paid for it. `attempts` is the number of
    the attempt that brought the answer, over all processes with this state; `seconds` is its duration. `repaired`: the
    first answer did not fit the schema; cost and usage include both.
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
    """The answer or the error of one item. `index` is its position among the items, from 0."""

    item: Item
    index: int
    answer: Answer[Value_co] | None = None
    error: BioforgeError | None = None

    @property
    def ok(self) -> bool:
        return self.answer is not None

    def unwrap(self) -> Answer[Value_co]:
        """Return the answer, or raise the error."""
        if self.answer is None:
            assert self.error is not None
            raise self.error
        return self.answer


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of `generate_many` or of a run.

    `total` is None if the items have no length; `in_flight` items wait for their answers. Tokens and US dollars are those
    paid for now; `seconds` since the start.
    """

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

"""From a call's arguments to the exact request: check the arguments, build the body, add the schema."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from bioforge.api.types import Item
from bioforge.backends.base import largest_usage
from bioforge.core.errors import BadArgument, ConfigError
from bioforge.core.hashing import canonical, request_hash
from bioforge.core.interfaces import Backend
from bioforge.core.types import Rendered, Request, Turn, Usage
from bioforge.recipes.schema import Schema, from_document, from_model, load_schema, parameter, repair_instructions
from bioforge.recipes.schema.request import response_format

if TYPE_CHECKING:
    from bioforge.api.types import AnySchema
    from bioforge.recipes.schema import SchemaError

DEFAULT_OUTPUT = 300
"""Estimated tokens of an answer, for a model without answers so far and a request without a limit."""

OVERHEAD = 8
"""Tokens of a request beside its texts."""

RESERVED = {
    "model": "use model=",
    "input": "that is the prompt",
    "messages": "use the prompt and instructions=",
    "instructions": "use instructions=",
    "stream": "answers are stored whole, never streamed",
    "background": "every answer is awaited",
    "api_key": "set the key in the environment, or with ProviderConfig(api_key=…)",
}
"""Names that `parameters` refuses, with what to use instead."""

ARGUMENTS = ("temperature", "max_output_tokens")
"""Request parameters that are arguments as well."""


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """An exact request, and what to do with its answer.

    `repairs`: how often an answer that does not fit the schema may still be sent back; `is_repair`: this request sends
    one back.
    """

    rendered: Rendered
    request: Request
    schema: Schema | None = None
    repairs: int = 0
    again: bool = False
    is_repair: bool = False


class RequestBuilder:
    """Builds requests. Safe to use from any thread."""

    def __init__(self, backend: Backend, dialect: str, model: str | None, endpoint: str | None) -> None:
        """`model` and `endpoint`: for items that name none. Without an endpoint: the backend's first one."""
        self._backend = backend
        self._dialect = dialect
        self._model = model
        self._endpoint = endpoint or backend.endpoints[0]
        self._check_endpoint(self._endpoint)
        self._schemas: dict[type[BaseModel] | str, Schema] = {}
        self._answers: dict[str, deque[int]] = {}
        """Output tokens of the newest answers, by model."""
        self._lengths: dict[str, int] = {}
        """Their median, which no single answer can move far."""

    def prepare(self, item: Item) -> PreparedRequest:
        """Build the request of an item. Raises `BadArgument` (a ValueError), and `ConfigError` for a schema."""
        rendered, schema = self._render(item, _check_prompt(item.prompt))
        model = self._model if item.model is None else item.model
        if not isinstance(model, str) or not model:
            raise BadArgument(
                f"model: expected the name of a model, found {_describe(model)}",
                "name one with model=, Config(model=…) or OPENAI_MODEL",
            )
        rendered = replace(rendered, model=model)
        request = self._request(rendered, item.id, _check_count("max_attempts", item.max_attempts))
        return PreparedRequest(rendered, request, schema, 1 if item.repair else 0, bool(item.again))

    def check(self, defaults: Item) -> None:
        """Raise what `prepare` would raise for every item with these defaults."""
        self._render(defaults, "")
        _check_count("max_attempts", defaults.max_attempts)

    def _render(self, item: Item, prompt: str) -> tuple[Rendered, Schema | None]:
        """Return everything but the model."""
        endpoint = self._endpoint if item.endpoint is None else item.endpoint
        self._check_endpoint(endpoint)
        schema = None if item.schema is None else self.schema(item.schema)
        rendered = Rendered(
            endpoint=endpoint,
            model=None,
            instructions=_check_text("instructions", item.instructions),
            input=prompt,
            prompt=None,
            parameters=_parameters(item, endpoint, schema),
        )
        return rendered, schema

    def _check_endpoint(self, endpoint: str) -> None:
        known = self._backend.endpoints
        if endpoint not in known:
            raise BadArgument(f"endpoint: expected {' or '.join(map(repr, known))}, found {_describe(endpoint)}")

    def repair(self, prepared: PreparedRequest, text: str, errors: tuple[SchemaError, ...]) -> PreparedRequest:
        """Return the request that sends an answer back with its schema errors."""
        turns = (Turn("assistant", text), Turn("user", repair_instructions(errors)))
        rendered = replace(prepared.rendered, turns=(*prepared.rendered.turns, *turns))
        request = self._request(rendered, prepared.request.artist_id, prepared.request.max_attempts)
        return replace(prepared, rendered=rendered, request=request, repairs=prepared.repairs - 1, is_repair=True)

    def schema(self, given: AnySchema) -> Schema:
        """Return a schema given in any form; models and files are read once. Raises `ConfigError` and `BadArgument`."""
        if isinstance(given, Schema):
            return given
        if isinstance(given, Mapping):
            return from_document(given, str(given.get("title") or "schema"))
        key = str(given) if isinstance(given, Path) else given
        if (known := self._schemas.get(key) if isinstance(key, str | type) else None) is not None:
            return known
        match key:
            case type() if issubclass(key, BaseModel) and key is not BaseModel:
                schema = from_model(key)
            case str() if key:
                schema = load_schema(key, Path.cwd())
            case _:
                raise BadArgument(
                    f"schema: expected a pydantic model, a JSON Schema or its path, found {_describe(given)}"
                )
        self._schemas[key] = schema
        return schema

    def price(self, request: Request) -> float:
        """Return the most a request is expected to cost, in US dollars. Raises `ConfigError` if that is unknown."""
        price = self._backend.price(request.model, largest_usage(request))
        if price is None:
            raise ConfigError(
                f"the price of model {request.model!r} is unknown, so a budget cannot be kept",
                "leave out max_cost_usd, or use a model whose price is known",
            )
        return price

    def learn(self, model: str, usage: Usage | None) -> None:
        """Count the length of an answer; later requests are estimated by the median of their model."""
        if usage is not None and usage.output_tokens:
            newest = self._answers.setdefault(model, deque(maxlen=99))
            newest.append(usage.output_tokens)
            self._lengths[model] = median_low(newest)

    def answered(self, request: Request) -> bool:
        """Return True if a request to the same model was answered."""
        return request.model in self._lengths

    def _request(self, rendered: Rendered, name: str, max_attempts: int | None) -> Request:
        model, limit = rendered.model or "", _output_limit(rendered.parameters)
        try:
            body = canonical(self._backend.body(rendered))
        except (TypeError, ValueError) as problem:
            raise BadArgument(f"parameters: cannot be sent as JSON: {problem}") from None
        return Request(
            request_hash=request_hash(rendered.endpoint, body, self._dialect),
            endpoint=rendered.endpoint,
            model=model,
            body=body,
            artist_id=name,
            recipe="",
            input_tokens=_input_tokens(rendered),
            output_tokens=self._lengths.get(model) or limit or DEFAULT_OUTPUT,
            max_output_tokens=limit,
            max_attempts=max_attempts,
        )


def with_defaults(item: Item, defaults: Item) -> Item:
    """Return the item with the defaults for options it does not set; `parameters` of both are merged."""
    parameters = item.parameters if item.parameters is not None else defaults.parameters
    if item.parameters and defaults.parameters:
        parameters = {**defaults.parameters, **item.parameters}
    return Item(
        prompt=item.prompt,
        id=item.id,
        instructions=defaults.instructions if item.instructions is None else item.instructions,
        model=defaults.model if item.model is None else item.model,
        endpoint=defaults.endpoint if item.endpoint is None else item.endpoint,
        schema=defaults.schema if item.schema is None else item.schema,
        temperature=defaults.temperature if item.temperature is None else item.temperature,
        max_output_tokens=defaults.max_output_tokens if item.max_output_tokens is None else item.max_output_tokens,
        parameters=parameters,
        max_attempts=defaults.max_attempts if item.max_attempts is None else item.max_attempts,
        repair=defaults.repair if item.repair is None else item.repair,
        again=defaults.again if item.again is None else item.again,
        data=item.data,
    )


def _check_prompt(prompt: object) -> str:
    if not isinstance(prompt, str):
        raise BadArgument(f"prompt: expected text, found {_describe(prompt)}")
    if not prompt.strip():
        raise BadArgument("prompt: expected text, found only white space" if prompt else "prompt: it is empty")
    return prompt


def _check_text(name: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise BadArgument(f"{name}: expected text, found {_describe(value)}")


def _check_count(name: str, value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise BadArgument(f"{name}: expected a whole number from 1, found {_describe(value)}")


def _check_temperature(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        return value
    raise BadArgument(f"temperature: expected a number from 0, found {_describe(value)}")


def _parameters(item: Item, endpoint: str, schema: Schema | None) -> dict[str, object]:
    """Return the request parameters, with the schema where the endpoint expects it."""
    given = item.parameters or {}
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise BadArgument(f"parameters: expected a mapping of names, found {_describe(item.parameters)}")
    for name in given:
        if name in RESERVED:
            raise BadArgument(f"parameters: {name!r} is not allowed here: {RESERVED[name]}")
        if name not in ARGUMENTS and (near := get_close_matches(name, ARGUMENTS, n=1, cutoff=0.85)):
            raise BadArgument(f"parameters: unknown {name!r}; did you mean {near[0]!r}?")
        if name in ARGUMENTS and getattr(item, name) is not None:
            raise BadArgument(f"{name}: given twice, as an argument and in parameters")
    parameters = {**given}
    for name, value in (
        ("temperature", _check_temperature(item.temperature)),
        ("max_output_tokens", _check_count("max_output_tokens", item.max_output_tokens)),
    ):
        if value is not None:
            parameters[name] = value
    if schema is not None:
        name = parameter(endpoint)
        own = parameters.get(name)
        parameters[name] = {**(own if isinstance(own, Mapping) else {}), **response_format(schema, endpoint)}
    return parameters


def _output_limit(parameters: Mapping[str, object]) -> int | None:
    """Return the token limit of an answer, by any of the endpoints' names for it."""
    limits = (parameters.get(name) for name in ("max_output_tokens", "max_completion_tokens", "max_tokens"))
    return next((value for value in limits if isinstance(value, int)), None)


def _input_tokens(rendered: Rendered) -> int:
    from bioforge.recipes.template import estimate_tokens

    texts = [rendered.instructions, rendered.input, *(turn.text for turn in rendered.turns)]
    return OVERHEAD + sum(estimate_tokens(text) for text in texts if text)


def _describe(value: Any) -> str:
    """Describe a wrong argument in a few words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else f"{value[:39]}…")
    return f"a {value.__name__} class" if isinstance(value, type) else type(value).__name__

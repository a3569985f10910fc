"""From what a caller says to the exact request: arguments are checked, the body is made, the schema is put into it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from bioforge.api.types import Item
from bioforge.core.errors import BadArgument, ConfigError
from bioforge.core.hashing import canonical, request_hash
from bioforge.core.interfaces import Backend
from bioforge.core.types import Rendered, Request, Turn, Usage
from bioforge.recipes.schema import Schema, from_document, from_model, load_schema, parameter, repair_instructions
from bioforge.recipes.schema.request import response_format

if TYPE_CHECKING:
    from bioforge.api.types import AnySchema
    from bioforge.recipes.schema import SchemaError

GUESSED_OUTPUT = 300
"""Tokens of an answer to a model that has not answered yet and has no limit set."""

OVERHEAD = 8
"""Tokens that a request has beside its texts."""

ELSEWHERE = {
    "model": "use model=",
    "input": "that is the prompt",
    "messages": "use the prompt and instructions=",
    "instructions": "use instructions=",
    "stream": "answers are kept whole, never streamed",
    "background": "every answer is awaited",
    "api_key": "a key belongs into the environment, or into ProviderConfig(api_key=…)",
}
"""Names that are no further parameters, and what to do instead."""

OWN = ("temperature", "max_output_tokens")
"""Request parameters that have an argument of their own."""


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """An exact request, and what is to be done with its answer. `repairs`: how many more times one that does not fit
    the schema is sent back; `mends`: this is such a request."""

    rendered: Rendered
    request: Request
    schema: Schema | None = None
    repairs: int = 0
    again: bool = False
    mends: bool = False


class RequestBuilder:
    """Makes questions. Safe to use from any thread."""

    def __init__(self, backend: Backend, dialect: str, model: str | None, endpoint: str | None) -> None:
        """`model` and `endpoint` are for items that name none. Without an endpoint: the backend's first one."""
        self._backend = backend
        self._dialect = dialect
        self._model = model
        self._endpoint = endpoint or backend.endpoints[0]
        self._known(self._endpoint)
        self._schemas: dict[type[BaseModel] | str, Schema] = {}
        self._answered: dict[str, tuple[int, int]] = {}

    def question(self, item: Item) -> PreparedRequest:
        """Raises `BadArgument` (a ValueError) for what cannot be meant, `ConfigError` for a schema."""
        rendered, schema = self._rendered(item, _prompt(item.prompt))
        model = self._model if item.model is None else item.model
        if not isinstance(model, str) or not model:
            raise BadArgument(
                f"model: expected the name of a model, found {_short(model)}",
                "name one with model=, Config(model=…) or OPENAI_MODEL",
            )
        rendered = replace(rendered, model=model)
        request = self._request(rendered, item.id, _count("max_attempts", item.max_attempts))
        return PreparedRequest(rendered, request, schema, 1 if item.repair else 0, bool(item.again))

    def check(self, defaults: Item) -> None:
        """Raises what `question` would raise for every item with these defaults."""
        self._rendered(defaults, "")
        _count("max_attempts", defaults.max_attempts)

    def _rendered(self, item: Item, prompt: str) -> tuple[Rendered, Schema | None]:
        """All but the model."""
        endpoint = self._endpoint if item.endpoint is None else item.endpoint
        self._known(endpoint)
        schema = None if item.schema is None else self.schema(item.schema)
        rendered = Rendered(
            endpoint=endpoint,
            model=None,
            instructions=_text("instructions", item.instructions),
            input=prompt,
            prompt=None,
            parameters=_parameters(item, endpoint, schema),
        )
        return rendered, schema

    def _known(self, endpoint: str) -> None:
        known = self._backend.endpoints
        if endpoint not in known:
            raise BadArgument(f"endpoint: expected {' or '.join(map(repr, known))}, found {_short(endpoint)}")

    def repairing(self, question: PreparedRequest, text: str, errors: tuple[SchemaError, ...]) -> PreparedRequest:
        """The question that sends an answer back with what is wrong with it."""
        turns = (Turn("assistant", text), Turn("user", repair_instructions(errors)))
        rendered = replace(question.rendered, turns=(*question.rendered.turns, *turns))
        request = self._request(rendered, question.request.artist_id, question.request.max_attempts)
        return replace(question, rendered=rendered, request=request, repairs=question.repairs - 1, mends=True)

    def schema(self, given: AnySchema) -> Schema:
        """The schema in any of its forms; the same model is read once. Raises `ConfigError` and `BadArgument`."""
        if isinstance(given, Schema):
            return given
        if isinstance(given, Mapping):
            return from_document(given, str(given.get("title") or "schema"))
        key = str(given) if isinstance(given, Path) else given
        if (found := self._schemas.get(key) if isinstance(key, str | type) else None) is not None:
            return found
        match key:
            case type() if issubclass(key, BaseModel) and key is not BaseModel:
                made = from_model(key)
            case str() if key:
                made = load_schema(key, Path.cwd())
            case _:
                raise BadArgument(
                    f"schema: expected a pydantic model, a JSON Schema or where it is, found {_short(given)}"
                )
        self._schemas[key] = made
        return made

    def price(self, request: Request) -> float:
        """US dollars that a request is expected to cost at most. Raises `ConfigError` where nobody knows."""
        usage = Usage(request.input_tokens, request.max_output_tokens or request.output_tokens)
        price = self._backend.price(request.model, usage)
        if price is None:
            raise ConfigError(
                f"the price of model {request.model!r} is unknown, so a budget cannot be kept",
                "leave out max_cost_usd, or use a model whose price is known",
            )
        return price

    def learn(self, model: str, usage: Usage | None) -> None:
        """Note how long an answer was: the next ones of the model are likely to be as long."""
        if usage is not None and usage.output_tokens:
            number, total = self._answered.get(model, (0, 0))
            self._answered[model] = (number + 1, total + usage.output_tokens)

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
            input_tokens=_tokens(rendered),
            output_tokens=self._output_tokens(model) or limit or GUESSED_OUTPUT,
            max_output_tokens=limit,
            max_attempts=max_attempts,
        )

    def _output_tokens(self, model: str) -> int:
        """How long answers of a model were on average; 0 before the first."""
        number, total = self._answered.get(model, (0, 0))
        return total // number if number else 0


def with_defaults(item: Item, defaults: Item) -> Item:
    """The item, with the defaults for whatever it leaves open; further parameters are taken together."""
    further = item.parameters if item.parameters is not None else defaults.parameters
    if item.parameters and defaults.parameters:
        further = {**defaults.parameters, **item.parameters}
    return Item(
        prompt=item.prompt,
        id=item.id,
        instructions=defaults.instructions if item.instructions is None else item.instructions,
        model=defaults.model if item.model is None else item.model,
        endpoint=defaults.endpoint if item.endpoint is None else item.endpoint,
        schema=defaults.schema if item.schema is None else item.schema,
        temperature=defaults.temperature if item.temperature is None else item.temperature,
        max_output_tokens=defaults.max_output_tokens if item.max_output_tokens is None else item.max_output_tokens,
        parameters=further,
        max_attempts=defaults.max_attempts if item.max_attempts is None else item.max_attempts,
        repair=defaults.repair if item.repair is None else item.repair,
        again=defaults.again if item.again is None else item.again,
        data=item.data,
    )


def _prompt(prompt: object) -> str:
    if not isinstance(prompt, str):
        raise BadArgument(f"prompt: expected text, found {_short(prompt)}")
    if not prompt.strip():
        raise BadArgument("prompt: expected text, found nothing but white space" if prompt else "prompt: it is empty")
    return prompt


def _text(name: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise BadArgument(f"{name}: expected text, found {_short(value)}")


def _count(name: str, value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise BadArgument(f"{name}: expected a whole number from 1, found {_short(value)}")


def _temperature(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        return value
    raise BadArgument(f"temperature: expected a number from 0, found {_short(value)}")


def _parameters(item: Item, endpoint: str, schema: Schema | None) -> dict[str, object]:
    """The request parameters, the schema among them where the endpoint wants it."""
    further = item.parameters or {}
    if not isinstance(further, Mapping) or not all(isinstance(name, str) for name in further):
        raise BadArgument(f"parameters: expected a mapping of names, found {_short(item.parameters)}")
    for name in further:
        if name in ELSEWHERE:
            raise BadArgument(f"parameters: {name!r} cannot be one: {ELSEWHERE[name]}")
        if name not in OWN and (near := get_close_matches(name, OWN, n=1, cutoff=0.85)):
            raise BadArgument(f"parameters: unknown {name!r}; did you mean {near[0]!r}?")
        if name in OWN and getattr(item, name) is not None:
            raise BadArgument(f"{name}: said twice, as an argument and in parameters")
    made = {**further}
    for name, value in (
        ("temperature", _temperature(item.temperature)),
        ("max_output_tokens", _count("max_output_tokens", item.max_output_tokens)),
    ):
        if value is not None:
            made[name] = value
    if schema is not None:
        name = parameter(endpoint)
        given = made.get(name)
        made[name] = {**(given if isinstance(given, Mapping) else {}), **response_format(schema, endpoint)}
    return made


def _output_limit(parameters: Mapping[str, object]) -> int | None:
    """The most tokens an answer can have, by whichever name the endpoint gives it."""
    found = (parameters.get(name) for name in ("max_output_tokens", "max_completion_tokens", "max_tokens"))
    return next((value for value in found if isinstance(value, int)), None)


def _tokens(rendered: Rendered) -> int:
    from bioforge.recipes.template import estimate_tokens

    texts = [rendered.instructions, rendered.input, *(turn.text for turn in rendered.turns)]
    return OVERHEAD + sum(estimate_tokens(text) for text in texts if text)


def _short(value: Any) -> str:
    """What was found, in a few words and without anything like a key in it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else f"{value[:39]}…")
    return f"a {value.__name__} class" if isinstance(value, type) else type(value).__name__

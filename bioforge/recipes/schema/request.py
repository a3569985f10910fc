"""A schema in a request: the parameter that has it, and the words that ask again after an invalid answer. Pure.

https://platform.openai.com/docs/guides/structured-outputs
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bioforge.recipes.schema.result import SchemaError
    from bioforge.recipes.schema.types import Schema

PARAMETERS: Mapping[str, str] = {"/v1/responses": "text", "/v1/chat/completions": "response_format"}
"""The request parameter that has the schema, by endpoint. Other vendors' endpoints find it in `text`, and translate it."""


def parameter(endpoint: str) -> str:
    """The name of the request parameter that `response_format` gives the value of."""
    return PARAMETERS.get(endpoint, "text")


def response_format(schema: Schema, endpoint: str) -> dict[str, Any]:
    """The value of `response_format` for `/v1/chat/completions`, of `text` for all others."""
    named = {"name": schema.name, "schema": dict(schema.generation), "strict": True}
    if parameter(endpoint) == "text":
        return {"format": {"type": "json_schema", **named}}
    return {"type": "json_schema", "json_schema": named}


def repair_instructions(errors: Iterable[SchemaError]) -> str:
    """What is added to a request that is sent once more. The same errors give the same words."""
    listed = "\n".join(f"- {error}" for error in errors)
    return (
        "Your previous answer did not fit the required JSON schema:\n"
        f"{listed}\n"
        "Answer the same request again with the complete, corrected JSON, and with nothing before or after it."
    )


def in_written_order(body: Mapping[str, Any]) -> dict[str, Any]:
    """A request body whose schema names its properties in the order they were written in.

    Canonical JSON sorts them, and a model answers in the order in which they are named. `required` has kept it.
    """
    return {key: _ordered(value) if key in PARAMETERS.values() else value for key, value in body.items()}


def _ordered(value: Any) -> Any:
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    made = {key: _ordered(item) for key, item in value.items()}
    properties, required = made.get("properties"), made.get("required")
    # a property may itself be called `properties`: then its siblings are no list of names
    if isinstance(properties, dict) and isinstance(required, list) and set(required) == properties.keys():
        made["properties"] = {name: properties[name] for name in required}
    return made

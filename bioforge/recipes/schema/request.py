"""The request parameter for a schema, and the instructions for a repair. Pure.

https://platform.openai.com/docs/guides/structured-outputs
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bioforge.recipes.schema.types import Schema, SchemaError

PARAMETERS: Mapping[str, str] = {"/v1/responses": "text", "/v1/chat/completions": "response_format"}
"""The request parameter for the schema, by endpoint. Other vendors' backends translate it from `text`."""


def parameter(endpoint: str) -> str:
    """Return the name of the request parameter whose value `response_format` returns."""
    return PARAMETERS.get(endpoint, "text")


def response_format(schema: Schema, endpoint: str) -> dict[str, Any]:
    """Return the value of `response_format` for `/v1/chat/completions`, of `text` for other endpoints."""
    named = {"name": schema.name, "schema": dict(schema.generation), "strict": True}
    if parameter(endpoint) == "text":
        return {"format": {"type": "json_schema", **named}}
    return {"type": "json_schema", "json_schema": named}


def repair_instructions(errors: Iterable[SchemaError]) -> str:
    """Return the message that a repair adds to a request. Its text is part of request hashes: never change it."""
    listed = "\n".join(f"- {error}" for error in errors)
    return (
        "Your previous answer did not fit the required JSON schema:\n"
        f"{listed}\n"
        "Answer the same request again with the complete, corrected JSON, and with nothing before or after it."
    )


def in_written_order(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request body whose schema has its properties in their original order, which `required` keeps.

    Canonical JSON sorts them, and models answer in the order of the schema.
    """
    return {key: _ordered(value) if key in PARAMETERS.values() else value for key, value in body.items()}


def _ordered(value: Any) -> Any:
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    node = {key: _ordered(item) for key, item in value.items()}
    properties, required = node.get("properties"), node.get("required")
    # a property may be named `properties`: its siblings are not a list of names
    if isinstance(properties, dict) and isinstance(required, list) and set(required) == properties.keys():
        node["properties"] = {name: properties[name] for name in required}
    return node

"""The rules of strict structured outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_LEVELS = 10
_FORBIDDEN = ("allOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas")

Context = tuple[str, ...]
"""The path to a part of a schema, as in the API's messages: `("properties", "born")`."""


def strict_violation(schema: Mapping[str, Any]) -> str | None:
    """Return the API's message for the first rule that a schema breaks, or None."""
    if schema.get("type") != "object" and "$ref" not in schema:
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: {schema.get('type')!r}'."
    try:
        return _broken(schema, ())
    except (AttributeError, TypeError) as error:
        return f"not a JSON Schema ({error})."


def _broken(schema: object, context: Context) -> str | None:
    if not isinstance(schema, Mapping):
        return None
    where = f"In context={context!r}, "
    # a property adds two steps and one level
    if len(context) > 2 * _LEVELS:
        return f"{where}more than {_LEVELS} levels of nesting."
    for keyword in _FORBIDDEN:
        if keyword in schema:
            return f"{where}'{keyword}' is not permitted."
    properties = schema.get("properties") or {}
    kinds = schema.get("type")
    if properties or kinds == "object" or (isinstance(kinds, list) and "object" in kinds):
        if schema.get("additionalProperties") is not False:
            return f"{where}'additionalProperties' is required to be supplied and to be false."
        absent = [name for name in properties if name not in (schema.get("required") or ())]
        if absent:
            return (
                f"{where}'required' is required to be supplied and to be an array including every key in "
                f"properties. Missing '{absent[0]}'."
            )
    problems = (_broken(part, context + step) for step, part in _parts(schema))
    return next(filter(None, problems), None)


def _parts(schema: Mapping[str, Any]) -> Iterator[tuple[Context, Any]]:
    for keyword in ("properties", "$defs", "definitions"):
        for name, part in (schema.get(keyword) or {}).items():
            yield (keyword, name), part
    for place, part in enumerate(schema.get("anyOf") or ()):
        yield ("anyOf", str(place)), part
    yield ("items",), schema.get("items")

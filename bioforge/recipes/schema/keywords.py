"""The keywords of JSON Schema, their support in strict structured outputs, and the schemas nested in them.

Sent: documented as supported. Left out: they only narrow values, and the API refuses them (`'uniqueItems' is not
permitted`) or supports them for some models only (`maxLength`); answers are validated against them here.
https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from bioforge.recipes.schema.types import Steps

HEADS = ("$ref", "allOf", "anyOf", "oneOf")
"""Keywords that are a whole schema."""

OF_TYPE: Mapping[str, frozenset[str]] = {
    "object": frozenset((
        "properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties",
        "maxProperties", "unevaluatedProperties",
    )),
    "array": frozenset((
        "items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems", "contains", "minContains",
        "maxContains", "unevaluatedItems",
    )),
    "string": frozenset(("pattern", "format", "minLength", "maxLength")),
    "number": frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
}  # fmt: skip
"""The keywords that apply to one type of value and ignore the others."""

SENT = frozenset((
    "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems",
    "maxItems",
))  # fmt: skip
BODY = frozenset(("properties", "required", "additionalProperties", "items", "prefixItems", "enum", "const"))
"""Keywords that shape values, beside the heads and `type`."""

_HANDLED = BODY | {"additionalItems"}
LEFT_OUT = frozenset().union(*OF_TYPE.values()) - SENT - _HANDLED

IMPOSSIBLE: Mapping[str, str] = {
    "allOf": "write its parts as one schema",
    "not": "describe the allowed values instead, or check it in a pydantic model",
    "if": "describe each case as a branch of anyOf, or check it in a pydantic model",
    "then": "describe each case as a branch of anyOf, or check it in a pydantic model",
    "else": "describe each case as a branch of anyOf, or check it in a pydantic model",
    "dependentRequired": "make the properties required, or check it in a pydantic model",
    "dependentSchemas": "describe each case as a branch of anyOf, or check it in a pydantic model",
    "dependencies": "describe each case as a branch of anyOf, or check it in a pydantic model",
    "$dynamicRef": "use $ref",
    "$recursiveRef": 'use "$ref": "#"',
}
"""Keywords without an equivalent in strict mode, and the hint for each."""

FORMATS = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"))

ANNOTATIONS = frozenset((
    "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "discriminator",
    "contentEncoding", "contentMediaType", "contentSchema", "$schema", "$id", "$comment", "$defs", "definitions",
    "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$vocabulary", "externalDocs", "xml",
))  # fmt: skip

KNOWN = frozenset(("type",)).union(HEADS, ANNOTATIONS, IMPOSSIBLE, BODY, *OF_TYPE.values())

_SPECIAL = re.compile(r"\\.|\(\?(?!:)", re.DOTALL)
_ESCAPES = frozenset("dDwWsSbBnrtfv.^$*+?()[]{}|\\/-")

BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
"""Keywords with schemas by name."""
ARRAYS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
"""Keywords with a list of schemas."""
SINGLE = (
    "items", "additionalItems", "additionalProperties", "contains", "propertyNames", "unevaluatedItems",
    "unevaluatedProperties", "not", "if", "then", "else",
)  # fmt: skip
"""Keywords with one schema."""


def can_be_sent(keyword: str, value: Any) -> bool:
    """Return False for undocumented formats and for patterns with look-around or engine-specific escapes."""
    match keyword:
        case "format":
            return value in FORMATS
        case "pattern":
            return all(token[0] == "\\" and token[1] in _ESCAPES for token in _SPECIAL.findall(value))
        case _:
            return True


def implied_types(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the types that a schema without `type` applies to, in a fixed order."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is not None:
        yield from dict.fromkeys(type_of(value) for value in values)
        return
    yield from (name for name, words in OF_TYPE.items() if not words.isdisjoint(schema))


def type_of(value: object) -> str:
    """Return the JSON Schema type of a value."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case _:
            return "object" if isinstance(value, Mapping) else "array"


def every(schema: object, place: Steps = ()) -> Iterator[tuple[Steps, Mapping[str, Any]]]:
    """Yield the place and content of a schema and of all schemas in it, in order. Skip values (`default`, `enum`)."""
    if not isinstance(schema, Mapping):
        return
    yield place, schema
    for word, value in schema.items():
        if word in BY_NAME and isinstance(value, Mapping):
            for name, part in value.items():
                yield from every(part, (*place, word, name))
        elif word in ARRAYS and isinstance(value, list):
            for number, part in enumerate(value):
                yield from every(part, (*place, word, number))
        elif word in SINGLE:
            yield from every(value, (*place, word))


def target(root: Mapping[str, Any], reference: object) -> tuple[Steps, Any]:
    """Return the place and schema that a reference within the document leads to. Raise LookupError with the reason."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        raise LookupError("only references within the document are supported, like '#/$defs/work'")
    place: list[str | int] = []
    part: Any = root
    for step in reference.split("/")[1:]:
        step = _unescaped(step)
        if isinstance(part, list) and step.isdecimal() and int(step) < len(part):
            place.append(int(step))
            part = part[int(step)]
        elif isinstance(part, Mapping) and step in part:
            place.append(step)
            part = part[step]
        else:
            raise LookupError("the document has no such part")
    if not isinstance(part, Mapping | bool):
        raise LookupError("that part is not a schema")
    return tuple(place), part


def _unescaped(step: str) -> str:
    from urllib.parse import unquote

    return unquote(step).replace("~1", "/").replace("~0", "~")

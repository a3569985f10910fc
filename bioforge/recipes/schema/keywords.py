"""The keywords of JSON Schema, by what strict structured outputs make of them.

Sent: documented as supported. Left out: they only narrow values, and the API refuses them (`'uniqueItems' is not
permitted`) or supports them for some models only (`maxLength`); answers are checked against them here.
https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

HEADS = ("$ref", "allOf", "anyOf", "oneOf")
"""What is a whole schema by itself."""

OF_KIND: Mapping[str, frozenset[str]] = {
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
"""The keywords that speak of one kind of value and say nothing about the others."""

SENT = frozenset((
    "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems",
    "maxItems",
))  # fmt: skip
BODY = frozenset(("properties", "required", "additionalProperties", "items", "prefixItems", "enum", "const"))
"""What gives values their shape, beside the heads and `type`."""

_HANDLED = BODY | {"additionalItems"}
LEFT_OUT = frozenset().union(*OF_KIND.values()) - SENT - _HANDLED

IMPOSSIBLE: Mapping[str, str] = {
    "allOf": "write its parts as one schema",
    "not": "say what is allowed instead, or check it in a pydantic model",
    "if": "describe each case as a branch of anyOf, or check it in a pydantic model",
    "then": "describe each case as a branch of anyOf, or check it in a pydantic model",
    "else": "describe each case as a branch of anyOf, or check it in a pydantic model",
    "dependentRequired": "make the properties required, or check it in a pydantic model",
    "dependentSchemas": "describe each case as a branch of anyOf, or check it in a pydantic model",
    "dependencies": "describe each case as a branch of anyOf, or check it in a pydantic model",
    "$dynamicRef": "use $ref",
    "$recursiveRef": 'use "$ref": "#"',
}
"""With what to do instead."""

FORMATS = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"))

ANNOTATIONS = frozenset((
    "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "discriminator",
    "contentEncoding", "contentMediaType", "contentSchema", "$schema", "$id", "$comment", "$defs", "definitions",
    "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$vocabulary", "externalDocs", "xml",
))  # fmt: skip

KNOWN = frozenset(("type",)).union(HEADS, ANNOTATIONS, IMPOSSIBLE, BODY, *OF_KIND.values())

_BEYOND = re.compile(r"\\.|\(\?(?!:)", re.DOTALL)
_ESCAPES = frozenset("dDwWsSbBnrtfv.^$*+?()[]{}|\\/-")


def can_be_sent(word: str, value: Any) -> bool:
    """A format that is not documented, and a pattern with look-around or an escape of one engine, would be refused."""
    match word:
        case "format":
            return value in FORMATS
        case "pattern":
            return all(found[0] == "\\" and found[1] in _ESCAPES for found in _BEYOND.findall(value))
        case _:
            return True


def implied_kinds(schema: Mapping[str, Any]) -> Iterator[str]:
    """The kinds of values a schema without `type` speaks of, in a fixed order."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is not None:
        yield from dict.fromkeys(kind_of(value) for value in values)
        return
    yield from (kind for kind, words in OF_KIND.items() if not words.isdisjoint(schema))


def kind_of(value: object) -> str:
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

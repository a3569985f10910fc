"""The parts of a JSON Schema: every schema inside a schema with its place, and what a `$ref` refers to. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bioforge.recipes.schema.describe import Steps

BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
IN_ORDER = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
SINGLE = (
    "items", "additionalItems", "additionalProperties", "contains", "propertyNames", "unevaluatedItems",
    "unevaluatedProperties", "not", "if", "then", "else",
)  # fmt: skip


def every(schema: object, place: Steps = ()) -> Iterator[tuple[Steps, Mapping[str, Any]]]:
    """The schema and all schemas inside it, in the order written. Values (`default`, `enum`) are never entered."""
    if not isinstance(schema, Mapping):
        return
    yield place, schema
    for word, value in schema.items():
        if word in BY_NAME and isinstance(value, Mapping):
            for name, part in value.items():
                yield from every(part, (*place, word, name))
        elif word in IN_ORDER and isinstance(value, list):
            for number, part in enumerate(value):
                yield from every(part, (*place, word, number))
        elif word in SINGLE:
            yield from every(value, (*place, word))


def target(root: Mapping[str, Any], reference: object) -> tuple[Steps, Any]:
    """The place and the schema a reference inside the document leads to. LookupError says why there is none."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        raise LookupError("only references within the document can be followed, like '#/$defs/work'")
    place: list[str | int] = []
    found: Any = root
    for step in reference.split("/")[1:]:
        step = _unescaped(step)
        if isinstance(found, list) and step.isdecimal() and int(step) < len(found):
            place.append(int(step))
            found = found[int(step)]
        elif isinstance(found, Mapping) and step in found:
            place.append(step)
            found = found[step]
        else:
            raise LookupError("the document has no such part")
    if not isinstance(found, Mapping | bool):
        raise LookupError("what stands there is no schema")
    return tuple(place), found


def _unescaped(step: str) -> str:
    from urllib.parse import unquote

    return unquote(step).replace("~1", "/").replace("~0", "~")

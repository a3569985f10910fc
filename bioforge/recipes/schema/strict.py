"""Derivation of the strict schema that structured outputs accept from any JSON Schema. Pure and deterministic.

Strict mode supports few keywords. Equivalents are rewritten (`oneOf`, lists of one type, optional properties).
Unsupported keywords that only narrow values are left out of the request, and answers are still validated against them.
Anything else raises `ConfigError` with its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from bioforge.core.errors import ConfigError
from bioforge.recipes.schema.errors import alternatives, format_path, quoted
from bioforge.recipes.schema.keywords import (
    BODY,
    HEADS,
    IMPOSSIBLE,
    LEFT_OUT,
    OF_TYPE,
    SENT,
    can_be_sent,
    implied_types,
    target,
    type_of,
)
from bioforge.recipes.schema.types import Steps

Node = dict[str, Any]


class Properties(dict[str, Any]):
    """The properties of an object; `optional` are nullable only because strict mode requires all properties."""

    optional: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Strict:
    """A strict schema. `unsent` are the places that only validation checks, like `properties.name.maxLength`."""

    schema: Node
    unsent: tuple[str, ...]
    has_optional: bool


def derive(schema: Mapping[str, Any], source: str, allows_null: Callable[[Steps], bool]) -> Strict:
    """Return the strict form of `schema`. `allows_null` tests a place in it; messages start with `source`."""
    return _Derivation(schema, source, allows_null).derive()


class _Definitions:
    """The targets of references, collected while a schema is walked, each under one name."""

    def __init__(self, root: Mapping[str, Any], error: Callable[[Steps, str], ConfigError]) -> None:
        self.root = root
        self.error = error
        self.written: dict[Steps, str] = {(): "#"}
        self.waiting: list[tuple[str, Steps, Any]] = []

    def entry(self) -> tuple[Steps, Any]:
        """Return the root, or the definition it refers to: strict mode requires an object there, not a reference."""
        if "$ref" not in self.root:
            return (), self.root
        place, part = self._follow(self.root, ())
        self.written[place] = "#"
        return place, part

    def reference(self, schema: Mapping[str, Any], place: Steps) -> str:
        """Return the strict schema's reference for a `$ref`: `#` or `#/$defs/NAME`."""
        where, part = self._follow(schema, place)
        if where not in self.written:
            name = self._new_name(where)
            self.written[where] = f"#/$defs/{name}"
            self.waiting.append((name, where, part))
        return self.written[where]

    def used(self) -> Iterator[tuple[str, Steps, Any]]:
        """Yield name, place and schema in the order of first use; more may be added during iteration."""
        while self.waiting:
            yield self.waiting.pop(0)

    def _follow(self, schema: Mapping[str, Any], place: Steps) -> tuple[Steps, Any]:
        """Follow a reference, and references it refers to, to the end."""
        part: Any = schema
        visited: list[Steps] = []
        while isinstance(part, Mapping) and "$ref" in part:
            try:
                where, part = target(self.root, part["$ref"])
            except LookupError as error:
                raise self.error((*place, "$ref"), f"{quoted(part['$ref'])}: {error}") from None
            if where in visited:
                raise self.error((*place, "$ref"), f"{quoted(schema['$ref'])} refers only to itself")
            visited.append(where)
        return visited[-1], part

    def _new_name(self, where: Steps) -> str:
        last = next((step for step in reversed(where) if isinstance(step, str)), "")
        plain = re.sub(r"[^A-Za-z0-9_.-]", "_", last) or "definition"
        taken = set(self.written.values())
        names = (plain if number == 1 else f"{plain}_{number}" for number in count(1))
        return next(name for name in names if f"#/$defs/{name}" not in taken)


class _Derivation:
    def __init__(self, root: Mapping[str, Any], source: str, allows_null: Callable[[Steps], bool]) -> None:
        self.root = root
        self.source = source
        self.allows_null = allows_null
        self.definitions = _Definitions(root, self.error)
        self.unsent: list[str] = []
        self.has_optional = False

    def error(self, place: Steps, message: str, hint: str = "") -> ConfigError:
        return ConfigError(": ".join(filter(None, [self.source, format_path(place), message])), hint)

    def derive(self) -> Strict:
        place, start = self.definitions.entry()
        node = self.convert(start, place)
        if start is not self.root:
            self.check_siblings("$ref", self.root, ())
            node = _with_description(self.root, node)
        if node.get("type") != "object":
            what = "a union" if "anyOf" in node else alternatives(_types(node))
            raise self.error(place, f"the root must be an object, found {what}", "put it into a property of an object")
        if definitions := {name: self.convert(part, place) for name, place, part in self.definitions.used()}:
            node["$defs"] = definitions
        return Strict(node, tuple(dict.fromkeys(self.unsent)), self.has_optional)

    def convert(self, schema: Any, place: Steps) -> Node:
        if schema is True:
            raise self.no_type(place)
        if schema is False:
            raise self.error(place, "no value is allowed here", "leave it out")
        for word in schema:
            if word in IMPOSSIBLE and not (word == "allOf" and len(schema[word]) == 1):
                raise self.error((*place, word), f"strict structured outputs have no {word!r}", IMPOSSIBLE[word])
        heads = [word for word in HEADS if word in schema]
        narrowing = [word for word in heads if self.only_narrows(word, schema)]
        self.unsent.extend(format_path((*place, word)) for word in narrowing)
        if heads == narrowing:
            return _with_description(schema, self.convert_typed(schema, place))
        head = next(word for word in heads if word not in narrowing)
        self.check_siblings(head, schema, place)
        match head:
            case "$ref":
                node: Node = {"$ref": self.definitions.reference(schema, place)}
            case "allOf":
                node = self.convert(schema[head][0], (*place, head, 0))
            case _:
                node = {"anyOf": self.convert_branches(head, schema, place)}
        return _with_description(schema, node)

    def no_type(self, place: Steps) -> ConfigError:
        return self.error(place, "any value is allowed here; strict structured outputs need a type", "give it a type")

    def only_narrows(self, head: str, schema: Mapping[str, Any]) -> bool:
        """Return True for a union that only narrows the values that its siblings describe."""
        if head not in ("anyOf", "oneOf"):
            return False
        shaped = {"properties", "items", "prefixItems", "enum", "const", *HEADS}
        return not BODY.isdisjoint(schema) and all(
            isinstance(branch, Mapping) and shaped.isdisjoint(branch) for branch in schema[head]
        )

    def check_siblings(self, head: str, schema: Mapping[str, Any], place: Steps) -> None:
        """Leave out narrowing keywords beside a `$ref` or union; raise `ConfigError` for keywords that shape values."""
        for word in schema:
            if word in BODY or (word in HEADS and word != head):
                raise self.error(
                    place,
                    f"{word!r} beside {head!r} is not supported by strict structured outputs",
                    "write both as one schema, without the other",
                )
            if word in LEFT_OUT | SENT:
                self.unsent.append(format_path((*place, word)))

    def convert_branches(self, head: str, schema: Mapping[str, Any], place: Steps) -> list[Node]:
        shared = {"type": schema["type"]} if "type" in schema else {}
        own = {"type", "enum", "const", *HEADS}
        return [
            self.convert(
                {**shared, **part} if isinstance(part, Mapping) and own.isdisjoint(part) else part, (*place, head, n)
            )
            for n, part in enumerate(schema[head])
        ]

    def convert_typed(self, schema: Mapping[str, Any], place: Steps) -> Node:
        written = schema.get("type", list(implied_types(schema)))
        types = [written] if isinstance(written, str) else written
        if not types:
            raise self.no_type(place)
        fixed = "const" if "const" in schema else "enum" if "enum" in schema else None
        values = None if fixed is None else self.check_values(fixed, schema[fixed], (*place, fixed))
        if fixed is not None and not (types := [name for name in types if name not in ("object", "array")]):
            raise self.error((*place, fixed), f"no value here is {alternatives(_types(schema))}")
        node: Node = {"type": types[0] if len(types) == 1 else list(types)}
        if fixed is not None:
            node[fixed] = values
        relevant = set().union(*(OF_TYPE.get("number" if name == "integer" else name, ()) for name in types))
        for word, value in schema.items():
            if word in SENT & relevant and fixed is None and can_be_sent(word, value):
                node[word] = value
            elif word in (SENT | LEFT_OUT) & relevant:
                self.unsent.append(format_path((*place, word)))
        if fixed is None and "array" in types:
            self.convert_array(schema, place, node)
        if fixed is None and "object" in types:
            self.convert_object(schema, place, node)
        return node

    def check_values(self, word: str, written: Any, place: Steps) -> Any:
        for value in written if word == "enum" else [written]:
            if type_of(value) in ("object", "array"):
                raise self.error(place, "only texts, numbers, true, false and null are supported")
        if word == "const":
            return written
        return [value for n, value in enumerate(written) if not any(_same(value, other) for other in written[:n])]

    def convert_array(self, schema: Mapping[str, Any], place: Steps, node: Node) -> None:
        rest = schema.get("items")
        word = "prefixItems"
        first = schema.get(word, [])
        if isinstance(rest, list):
            first, rest, word = rest, schema.get("additionalItems"), "items"
        if not first:
            if rest is None:
                raise self.error(place, "the items of this list are not described", 'add "items"')
            node["items"] = self.convert(rest, (*place, "items"))
            return
        parts = [self.convert(part, (*place, word, n)) for n, part in enumerate(first)]
        if isinstance(rest, Mapping):
            parts.append(self.convert(rest, (*place, "items" if word == "prefixItems" else "additionalItems")))
        if any(part != parts[0] for part in parts):
            raise self.error(
                (*place, word), "strict structured outputs have no lists with a different type at each position",
                "use an object with a property for each position",
            )  # fmt: skip
        if rest is False or schema.get("unevaluatedItems") is False:
            node["maxItems"] = min(len(first), node.get("maxItems", len(first)))
        node["items"] = parts[0]

    def convert_object(self, schema: Mapping[str, Any], place: Steps, node: Node) -> None:
        properties: Mapping[str, Any] = schema.get("properties", {})
        required = schema.get("required", [])
        for name in required:
            if name not in properties:
                raise self.error((*place, "required"), f"{name!r} is required, but missing in properties")
        if not properties and schema.get("additionalProperties") is not False:
            if "additionalProperties" not in schema:
                raise self.error(place, "an object needs at least one property", "add one (a field of the model)")
            raise self.error(
                place, "structured outputs do not allow an object with arbitrary keys",
                "name its properties, or use a list of objects with a key and a value",
            )  # fmt: skip
        converted = Properties()
        optional = []
        for name, part in properties.items():
            converted[name] = self.convert(part, (*place, "properties", name))
            if name not in required and not self.allows_null((*place, "properties", name)):
                converted[name] = _nullable(converted[name])
                optional.append(name)
        converted.optional = frozenset(optional)
        self.has_optional = self.has_optional or bool(optional)
        node.update(properties=converted, required=list(properties), additionalProperties=False)


def _with_description(schema: Mapping[str, Any], node: Node) -> Node:
    """Add the description. Strict mode allows no sibling of `$ref`, so the reference becomes a union of one."""
    description = schema.get("description")
    if not isinstance(description, str) or not description:
        return node
    if "$ref" in node:
        node = {"anyOf": [node]}
    return {**node, "description": description}


def _nullable(node: Node) -> Node:
    if "$ref" in node:
        return {"anyOf": [node, {"type": "null"}]}
    if "anyOf" in node:
        return {**node, "anyOf": [*node["anyOf"], {"type": "null"}]}
    node = {**node, "type": list(dict.fromkeys([*_types(node), "null"]))}
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if "enum" in node:
        node["enum"] = [*node["enum"], None]
    return node


def _types(node: Mapping[str, Any]) -> list[str]:
    return [node["type"]] if isinstance(node["type"], str) else list(node["type"])


def _same(one: object, other: object) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)

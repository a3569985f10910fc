"""From any JSON Schema to the strict form that structured outputs take. Pure, and the same for the same schema.

Strict mode knows few keywords. What means the same in its words is rewritten (`oneOf`, lists of one kind, what is
optional); what only narrows values and is not known there is left out, and answers are checked against it all the
same; anything else cannot be asked for and is a `ConfigError` with its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bioforge.core.errors import ConfigError
from bioforge.recipes.schema.definitions import Definitions
from bioforge.recipes.schema.describe import Steps, alternatives, shown
from bioforge.recipes.schema.keywords import (
    BODY,
    HEADS,
    IMPOSSIBLE,
    LEFT_OUT,
    OF_KIND,
    SENT,
    can_be_sent,
    implied_kinds,
    kind_of,
)

Node = dict[str, Any]


class Properties(dict[str, Any]):
    """The properties of an object; `optional` are those that may be null only because strict mode requires all."""

    optional: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Strict:
    """`unsent` are the places of what only our own validation checks, like `properties.name.maxLength`."""

    schema: Node
    unsent: tuple[str, ...]
    has_optional: bool


def derive(schema: Mapping[str, Any], source: str, allows_null: Callable[[Any], bool]) -> Strict:
    """`allows_null` says of a part of `schema` whether null is valid there. `source` stands before every message."""
    return _Derivation(schema, source, allows_null).whole()


class _Derivation:
    def __init__(self, root: Mapping[str, Any], source: str, allows_null: Callable[[Any], bool]) -> None:
        self.root = root
        self.source = source
        self.allows_null = allows_null
        self.definitions = Definitions(root, self.error)
        self.unsent: list[str] = []
        self.has_optional = False

    def error(self, place: Steps, message: str, hint: str = "") -> ConfigError:
        return ConfigError(": ".join(filter(None, [self.source, shown(place), message])), hint)

    def whole(self) -> Strict:
        place, start = self.definitions.entry()
        made = self.node(start, place)
        if start is not self.root:
            self.beside("$ref", self.root, ())
            made = _described(self.root, made)
        if made.get("type") != "object":
            what = "a union" if "anyOf" in made else alternatives(_kinds(made))
            raise self.error(
                place, f"the root has to be an object, and is {what}", "put it into a property of an object"
            )
        if definitions := {name: self.node(part, place) for name, place, part in self.definitions.used()}:
            made["$defs"] = definitions
        return Strict(made, tuple(dict.fromkeys(self.unsent)), self.has_optional)

    def node(self, schema: Any, place: Steps) -> Node:
        if schema is True:
            raise self.anything(place)
        if schema is False:
            raise self.error(place, "no value at all is allowed here", "leave it out")
        for word in schema:
            if word in IMPOSSIBLE and not (word == "allOf" and len(schema[word]) == 1):
                raise self.error((*place, word), f"strict structured outputs have no {word!r}", IMPOSSIBLE[word])
        heads = [word for word in HEADS if word in schema]
        narrowing = [word for word in heads if self.only_narrows(word, schema)]
        self.unsent.extend(shown((*place, word)) for word in narrowing)
        if heads == narrowing:
            return _described(schema, self.typed(schema, place))
        head = next(word for word in heads if word not in narrowing)
        self.beside(head, schema, place)
        match head:
            case "$ref":
                made: Node = {"$ref": self.definitions.reference(schema, place)}
            case "allOf":
                made = self.node(schema[head][0], (*place, head, 0))
            case _:
                made = {"anyOf": self.branches(head, schema, place)}
        return _described(schema, made)

    def anything(self, place: Steps) -> ConfigError:
        return self.error(place, "any value is allowed here; strict structured outputs need a type", "give it a type")

    def only_narrows(self, head: str, schema: Mapping[str, Any]) -> bool:
        """Whether this is a union that says nothing new about the shape of what stands beside it."""
        if head not in ("anyOf", "oneOf"):
            return False
        shaped = {"properties", "items", "prefixItems", "enum", "const", *HEADS}
        return not BODY.isdisjoint(schema) and all(
            isinstance(branch, Mapping) and shaped.isdisjoint(branch) for branch in schema[head]
        )

    def beside(self, head: str, schema: Mapping[str, Any], place: Steps) -> None:
        """Beside a whole schema, what narrows is left out, and what has a shape of its own cannot be asked for."""
        for word in schema:
            if word in BODY or (word in HEADS and word != head):
                raise self.error(
                    place,
                    f"{word!r} beside {head!r} cannot be asked for",
                    "write both as one schema, without the other",
                )
            if word in LEFT_OUT | SENT:
                self.unsent.append(shown((*place, word)))

    def branches(self, head: str, schema: Mapping[str, Any], place: Steps) -> list[Node]:
        kind = {"type": schema["type"]} if "type" in schema else {}
        own = {"type", "enum", "const", *HEADS}
        return [
            self.node(
                {**kind, **part} if isinstance(part, Mapping) and own.isdisjoint(part) else part, (*place, head, n)
            )
            for n, part in enumerate(schema[head])
        ]

    def typed(self, schema: Mapping[str, Any], place: Steps) -> Node:
        said = schema.get("type", list(implied_kinds(schema)))
        kinds = [said] if isinstance(said, str) else said
        if not kinds:
            raise self.anything(place)
        fixed = "const" if "const" in schema else "enum" if "enum" in schema else None
        values = None if fixed is None else self.values(fixed, schema[fixed], (*place, fixed))
        if fixed is not None and not (kinds := [kind for kind in kinds if kind not in ("object", "array")]):
            raise self.error((*place, fixed), f"no value here is {alternatives(_kinds(schema))}")
        made: Node = {"type": kinds[0] if len(kinds) == 1 else list(kinds)}
        if fixed is not None:
            made[fixed] = values
        relevant = set().union(*(OF_KIND.get("number" if kind == "integer" else kind, ()) for kind in kinds))
        for word, value in schema.items():
            if word in SENT & relevant and fixed is None and can_be_sent(word, value):
                made[word] = value
            elif word in (SENT | LEFT_OUT) & relevant:
                self.unsent.append(shown((*place, word)))
        if fixed is None and "array" in kinds:
            self.array(schema, place, made)
        if fixed is None and "object" in kinds:
            self.object(schema, place, made)
        return made

    def values(self, word: str, said: Any, place: Steps) -> Any:
        for value in said if word == "enum" else [said]:
            if kind_of(value) in ("object", "array"):
                raise self.error(place, "only texts, numbers, true, false and null can be asked for")
        if word == "const":
            return said
        return [value for n, value in enumerate(said) if not any(_same(value, other) for other in said[:n])]

    def array(self, schema: Mapping[str, Any], place: Steps, made: Node) -> None:
        rest = schema.get("items")
        word = "prefixItems"
        first = schema.get(word, [])
        if isinstance(rest, list):
            first, rest, word = rest, schema.get("additionalItems"), "items"
        if not first:
            if rest is None:
                raise self.error(place, "the items of this list are not described", 'add "items"')
            made["items"] = self.node(rest, (*place, "items"))
            return
        parts = [self.node(part, (*place, word, n)) for n, part in enumerate(first)]
        if isinstance(rest, Mapping):
            parts.append(self.node(rest, (*place, "items" if word == "prefixItems" else "additionalItems")))
        if any(part != parts[0] for part in parts):
            raise self.error(
                (*place, word), "a list with another kind of item at each place cannot be asked for",
                "use an object with a property for each place",
            )  # fmt: skip
        if rest is False or schema.get("unevaluatedItems") is False:
            made["maxItems"] = min(len(first), made.get("maxItems", len(first)))
        made["items"] = parts[0]

    def object(self, schema: Mapping[str, Any], place: Steps, made: Node) -> None:
        properties: Mapping[str, Any] = schema.get("properties", {})
        required = schema.get("required", [])
        for name in required:
            if name not in properties:
                raise self.error((*place, "required"), f"{name!r} is required, and properties do not describe it")
        if not properties and schema.get("additionalProperties") is not False:
            if "additionalProperties" not in schema:
                raise self.error(place, "an object needs at least one property", "add one (a field of the model)")
            raise self.error(
                place, "structured outputs do not allow an object with arbitrary keys",
                "name its properties, or use a list of objects with a key and a value",
            )  # fmt: skip
        written = Properties()
        optional = []
        for name, part in properties.items():
            written[name] = self.node(part, (*place, "properties", name))
            if name not in required and not self.allows_null(part):
                written[name] = _or_null(written[name])
                optional.append(name)
        written.optional = frozenset(optional)
        self.has_optional = self.has_optional or bool(optional)
        made.update(properties=written, required=list(properties), additionalProperties=False)


def _described(schema: Mapping[str, Any], made: Node) -> Node:
    """With the description that stands there. Nothing may stand beside a `$ref`, so it becomes a union of one."""
    description = schema.get("description")
    if not isinstance(description, str) or not description:
        return made
    if "$ref" in made:
        made = {"anyOf": [made]}
    return {**made, "description": description}


def _or_null(made: Node) -> Node:
    if "$ref" in made:
        return {"anyOf": [made, {"type": "null"}]}
    if "anyOf" in made:
        return {**made, "anyOf": [*made["anyOf"], {"type": "null"}]}
    made = {**made, "type": list(dict.fromkeys([*_kinds(made), "null"]))}
    if "const" in made:
        made["enum"] = [made.pop("const")]
    if "enum" in made:
        made["enum"] = [*made["enum"], None]
    return made


def _kinds(made: Mapping[str, Any]) -> list[str]:
    return [made["type"]] if isinstance(made["type"], str) else list(made["type"])


def _same(one: object, other: object) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)

"""Generation of JSON values that are valid against a JSON Schema, the same for the same seed.

Supports structured outputs (objects, arrays, strings with enum, const, format, length and pattern,
numbers with bounds, unions, `$ref` with recursion) and simple `allOf`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

from bioforge.simulator.patterns import example

DEEP = 4
"""Levels after which optional properties are left out and the shallowest branch is taken."""

LARGE = 10_000
"""Maximum of items, properties or characters that a schema may require."""

MAX_DEPTH = 60
"""Levels after which a schema is considered to have no finite value."""

_ANY = ("string", "integer", "boolean")


def generate(schema: Mapping[str, Any], seed: bytes, about: str = "") -> Any:
    """Return a value valid against `schema`; its free texts quote `about`.

    Raise ValueError if there is none: an unresolvable reference, infinite recursion, `false`.
    """
    return _ValueGenerator(schema, seed, about).value(schema, "value", 0)


class _ValueGenerator:
    """Generates one value from a root schema for references, a stream of choices and a text to quote."""

    def __init__(self, root: Mapping[str, Any], seed: bytes, about: str) -> None:
        self.root = root
        self.seed = seed
        self.about = about
        self.choices = 0

    def choose(self, count: int) -> int:
        """Return the next number of a fixed sequence, from 0 to `count` - 1."""
        self.choices += 1
        drawn = blake2b(self.seed + self.choices.to_bytes(8, "big"), digest_size=8).digest()
        return int.from_bytes(drawn, "big") % count

    def value(self, schema: Any, name: str, depth: int) -> Any:
        """Return a value; its texts quote the property `name`."""
        if depth > MAX_DEPTH:
            raise ValueError(f"no finite value satisfies the schema: '{name}' never ends")
        if schema is False:
            raise ValueError(f"no value satisfies the schema at '{name}': it is false")
        if not isinstance(schema, Mapping):
            schema = {}
        schema = self.flat(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return schema["enum"][self.choose(len(schema["enum"]))]
        for word in ("anyOf", "oneOf"):
            if branches := schema.get(word):
                rest = {key: value for key, value in schema.items() if key != word}
                return self.value(_merged(rest, self.branch(branches, depth)), name, depth + 1)
        match self.kind(schema, depth):
            case "object":
                return self.object(schema, depth)
            case "array":
                return self.array(schema, name, depth)
            case "string":
                return self.string(schema, name)
            case "integer":
                return int(self.number(schema, whole=True))
            case "number":
                return self.number(schema, whole=False)
            case "boolean":
                return bool(self.choose(2))
            case "null":
                return None
            case other:
                raise ValueError(f"unknown type {other!r} in the schema at '{name}'")

    def flat(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the schema with `$ref` and `allOf` resolved at this level."""
        for _ in range(MAX_DEPTH):
            if "$ref" in schema:
                rest = {key: value for key, value in schema.items() if key != "$ref"}
                schema = _merged(rest, self.referred(schema["$ref"]))
            elif "allOf" in schema:
                rest = {key: value for key, value in schema.items() if key != "allOf"}
                for piece in schema["allOf"]:
                    rest = _merged(rest, piece)
                schema = rest
            else:
                return schema
        raise ValueError("no finite value satisfies the schema: a reference leads back to itself")

    def referred(self, reference: str) -> Any:
        found: Any = self.root
        try:
            if not reference.startswith("#"):
                raise KeyError(reference)
            for step in reference[1:].split("/")[1:]:
                step = step.replace("~1", "/").replace("~0", "~")
                found = found[int(step)] if isinstance(found, list) else found[step]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise ValueError(f"the schema refers to {reference!r}, which it does not have") from error
        return found

    def branch(self, branches: list[Any], depth: int) -> Any:
        if depth < DEEP:
            return branches[self.choose(len(branches))]
        return min(branches, key=lambda branch: self.floor(branch, ()))

    def kind(self, schema: Mapping[str, Any], depth: int) -> str:
        kinds = schema.get("type")
        if isinstance(kinds, list):
            if depth < DEEP:
                return str(kinds[self.choose(len(kinds))])
            return str(min(kinds, key=lambda kind: self.floor({**schema, "type": kind}, ())))
        if kinds is not None:
            return str(kinds)
        for kind, words in _IMPLIED.items():
            if not words.isdisjoint(schema):
                return kind
        return _ANY[self.choose(len(_ANY))]

    def floor(self, schema: Any, seen: tuple[str, ...]) -> float:
        """Return the minimum depth of a value; infinite within its own recursion."""
        if not isinstance(schema, Mapping):
            return math.inf if schema is False else 1
        if "$ref" in schema:
            if schema["$ref"] in seen:
                return math.inf
            return self.floor(self.referred(schema["$ref"]), (*seen, schema["$ref"]))
        if "const" in schema or "enum" in schema:
            return 1
        if branches := schema.get("anyOf") or schema.get("oneOf"):
            return min(self.floor(branch, seen) for branch in branches)
        kinds = schema.get("type")
        if isinstance(kinds, list):
            return min(self.floor({**schema, "type": kind}, seen) for kind in kinds)
        if kinds == "null":
            return 0
        inner: list[Any] = list(schema.get("allOf") or ())
        if kinds in ("object", None):
            properties = schema.get("properties") or {}
            inner += [properties.get(name) for name in schema.get("required") or ()]
        if kinds == "array" and schema.get("minItems", 0) > 0:
            inner.append(schema.get("items"))
        return 1 + max((self.floor(piece, seen) for piece in inner), default=0)

    def object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties: Mapping[str, Any] = schema.get("properties") or {}
        required = schema.get("required") or []
        least = _size(schema, "minProperties")
        # optional properties are left out at random, within `minProperties`
        spare = max(0, len({*properties, *required}) - least)
        written = {}
        for name in dict.fromkeys([*properties, *required]):
            if name not in required and spare and (depth >= DEEP or self.choose(2)):
                spare -= 1
                continue
            written[name] = self.value(properties.get(name, {}), name, depth + 1)
        while len(written) < least:
            extra = schema.get("additionalProperties", {})
            written[f"key_{len(written) + 1}"] = self.value(extra, "key", depth + 1)
        return written

    def array(self, schema: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        first = schema.get("prefixItems") or []
        least = _size(schema, "minItems")
        usual = 1 if depth >= 2 else 1 + self.choose(3)
        most = schema.get("maxItems", max(least, len(first) + usual))
        length = least if depth >= DEEP else min(most, max(least, len(first) + usual))
        rest = schema.get("items", {})
        if rest is False:
            length = max(least, min(length, len(first)))
        items: list[Any] = []
        attempts = 0
        while len(items) < length:
            item = self.value(first[len(items)] if len(items) < len(first) else rest, name, depth + 1)
            attempts += 1
            if schema.get("uniqueItems") and item in items and attempts < 50 * length:
                continue
            items.append(item)
        return items

    def string(self, schema: Mapping[str, Any], name: str) -> str:
        if (pattern := schema.get("pattern")) is not None:
            return self.matching(pattern, schema)
        if (write := _FORMATS.get(schema.get("format", ""))) is not None:
            return write(self.choose(2**31))
        text = f"Simulated {name} {self.choose(16**6):06x}"
        if self.about:
            text += f": {self.about}"
        least = _size(schema, "minLength")
        most: int | None = schema.get("maxLength")
        text += "." * max(0, least - len(text))
        return text if most is None else text[:most]

    def matching(self, pattern: str, schema: Mapping[str, Any]) -> str:
        """Return a text that matches the pattern, with the required length if 20 attempts find one."""
        least, most = schema.get("minLength", 0), schema.get("maxLength", math.inf)
        best = None
        for _ in range(20):
            text = example(pattern, self.choose(2**32))
            if re.search(pattern, text):
                if least <= len(text) <= most:
                    return text
                best = best or text
        if best is None:
            raise ValueError(f"no text found for pattern {pattern!r}")
        return best

    def number(self, schema: Mapping[str, Any], *, whole: bool) -> float:
        step = schema.get("multipleOf") or (1 if whole else 0.5)
        low, high = (
            _bound(schema, "minimum", "exclusiveMinimum"),
            _bound(schema, "maximum", "exclusiveMaximum"),
        )
        smallest = None if low is None else _steps(low[0], step, up=True, exclusive=low[1])
        greatest = None if high is None else _steps(high[0], step, up=False, exclusive=high[1])
        if smallest is None:
            smallest = 0 if greatest is None else greatest - 100
        if greatest is None:
            greatest = smallest + 100
        if greatest >= smallest:
            picked: float = (smallest + self.choose(greatest - smallest + 1)) * step
            return picked
        if whole or "multipleOf" in schema or low is None or high is None or low[0] > high[0]:
            raise ValueError(f"no number satisfies the bounds of {dict(schema)}")
        middle: float = (low[0] + high[0]) / 2
        return middle


def _merged(first: Mapping[str, Any], second: Any) -> dict[str, Any]:
    """Merge two schemas: unite properties and required; the first wins otherwise."""
    if not isinstance(second, Mapping):
        if second is False:
            raise ValueError("no value satisfies the schema: a branch is false")
        return dict(first)
    merged = {**second, **first}
    for word in ("properties", "$defs"):
        if word in first and word in second:
            merged[word] = {**second[word], **first[word]}
    if "required" in first and "required" in second:
        merged["required"] = list(dict.fromkeys([*second["required"], *first["required"]]))
    return merged


def _size(schema: Mapping[str, Any], word: str) -> int:
    size: int = schema.get(word, 0)
    if size > LARGE:
        raise ValueError(f"{word} is {size}, more than the simulator writes ({LARGE})")
    return size


def _bound(schema: Mapping[str, Any], open_word: str, exclusive_word: str) -> tuple[float, bool] | None:
    """Return the bound and True if it is exclusive; None without a bound."""
    if (bound := schema.get(exclusive_word)) is not None and not isinstance(bound, bool):
        return bound, True
    if (bound := schema.get(open_word)) is not None:
        return bound, schema.get(exclusive_word) is True
    return None


def _steps(bound: float, step: float, *, up: bool, exclusive: bool) -> int:
    """Return the index of the multiple of `step` nearest to a bound, within it."""
    count = math.ceil(bound / step) if up else math.floor(bound / step)
    if exclusive and count * step == bound:
        count += 1 if up else -1
    return count


_IMPLIED = {
    "object": {"properties", "required", "additionalProperties", "minProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"},
    "string": {"pattern", "format", "minLength", "maxLength"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
}

_FORMATS: Mapping[str, Callable[[int], str]] = {
    "date": lambda n: f"19{n % 100:02d}-{n % 12 + 1:02d}-{n % 28 + 1:02d}",
    "time": lambda n: f"{n % 24:02d}:{n % 60:02d}:00Z",
    "date-time": lambda n: f"19{n % 100:02d}-{n % 12 + 1:02d}-{n % 28 + 1:02d}T{n % 24:02d}:{n % 60:02d}:00Z",
    "duration": lambda n: f"P{n % 100 + 1}D",
    "email": lambda n: f"artist{n % 10**6}@example.org",
    "hostname": lambda n: f"artist{n % 10**6}.example.org",
    "ipv4": lambda n: f"192.0.2.{n % 254 + 1}",
    "ipv6": lambda n: f"2001:db8::{n % 65535 + 1:x}",
    "uuid": lambda n: f"{n:08x}-0000-4000-8000-{n:012x}",
    "uri": lambda n: f"https://example.org/{n % 10**6}",
}

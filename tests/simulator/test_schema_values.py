"""Generated JSON is valid: by pydantic for models people write, by a small checker for each keyword."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
import uuid
from enum import Enum
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, EmailStr, Field, HttpUrl

from bioforge.simulator.patterns import example
from bioforge.simulator.schema_values import generate
from bioforge.simulator.strict_schema import strict_violation

SEEDS = [bytes([number]) * 8 for number in range(25)]


class Medium(Enum):
    textile = "textile"
    bronze = "bronze"


class Work(BaseModel):
    title: str = Field(min_length=1, max_length=30)
    year: int = Field(ge=1900, le=2026)
    medium: Medium
    url: HttpUrl | None = None


class Place(BaseModel):
    kind: Literal["place"]
    name: str
    latitude: Annotated[float, Field(gt=-90, lt=90)]


class School(BaseModel):
    kind: Literal["school"]
    identifier: uuid.UUID


class Artist(BaseModel):
    name: str
    born: datetime.date | None
    works: list[Work] = Field(min_length=1, max_length=4)
    trained: Annotated[Place | School, Field(discriminator="kind")]
    tags: set[Literal["weaver", "sculptor", "painter"]]
    exhibits: dict[str, int]
    inventory: Annotated[str, Field(pattern=r"^[A-Z]{2}-\d{4}$")]
    pupils: list[Artist]
    teacher: Artist | None


@pytest.mark.parametrize("seed", SEEDS)
def test_pydantic_accepts_what_its_schema_asks_for(seed):
    value = generate(Artist.model_json_schema(), seed, "Abakanowicz, Magdalena")
    assert Artist.model_validate(value).model_dump()


def test_email_is_a_format_too():
    assert EmailStr is not None
    assert re.fullmatch(r"[a-z0-9]+@example\.org", generate({"type": "string", "format": "email"}, b"1"))


NODE = {
    "type": "object",
    "properties": {
        "value": {"type": "integer"},
        "left": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
        "right": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
        "more": {"type": "array", "items": {"$ref": "#/$defs/node"}},
    },
    "required": ["value", "left", "right", "more"],
    "additionalProperties": False,
}

SCHEMAS = [
    {},
    {"type": "string"},
    {"type": "string", "minLength": 200},
    {"type": "string", "maxLength": 3},
    {"type": "string", "minLength": 5, "maxLength": 5},
    {"type": "string", "pattern": "^(Dr|Prof)\\. [A-Z][a-z]{2,8}$"},
    {"type": "string", "pattern": "^[a-z]+$", "minLength": 3, "maxLength": 4},
    {"type": "string", "enum": ["a", "b"]},
    {"enum": [1, "x", None, [1]]},
    {"const": {"a": 1}},
    {"type": "integer"},
    {"type": "integer", "minimum": 1900, "maximum": 1901},
    {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
    {"type": "integer", "minimum": 1, "multipleOf": 7},
    {"type": "integer", "maximum": -5},
    {"type": "number"},
    {"type": "number", "minimum": 0.1, "maximum": 0.2},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.25},
    {"type": "number", "minimum": 1.5, "multipleOf": 0.25},
    {"type": "boolean"},
    {"type": "null"},
    {"type": ["string", "null"]},
    {"type": ["array", "integer"], "items": {"type": "boolean"}},
    {"type": "array", "items": {"type": "integer"}},
    {"type": "array", "items": {"type": "integer"}, "minItems": 7},
    {"type": "array", "items": {"type": "integer"}, "maxItems": 0},
    {"type": "array", "items": {"enum": [1, 2, 3, 4]}, "minItems": 3, "uniqueItems": True},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False},
    {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
    {"type": "object", "minProperties": 3, "additionalProperties": {"type": "integer"}},
    {"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 2},
    {"anyOf": [{"type": "integer", "minimum": 5}, {"type": "string", "maxLength": 2}]},
    {"oneOf": [{"const": 1}, {"const": 2}]},
    {"allOf": [{"type": "integer"}, {"minimum": 5}, {"maximum": 6}]},
    {"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}], "properties": {"a": {}, "b": {}}},
    {"$ref": "#/$defs/node", "$defs": {"node": NODE}},
    {
        "type": "object",
        "properties": {"children": {"type": "array", "items": {"$ref": "#"}, "minItems": 0, "maxItems": 3}},
        "required": ["children"],
        "additionalProperties": False,
    },
    {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer", "minimum": 4}}, "description": "escaped"},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: str(schema)[:60])
def test_generated_values_are_valid_and_repeatable(schema):
    for seed in SEEDS:
        value = generate(schema, seed, "Kobro, Katarzyna")
        assert valid(value, schema, schema), value
        assert value == generate(schema, seed, "Kobro, Katarzyna")


def test_other_seeds_give_other_values():
    assert len({generate({"type": "string"}, seed) for seed in SEEDS}) == len(SEEDS)


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"$ref": "#"}, "leads back to itself"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "no finite value"),
        ({"$ref": "#/$defs/x"}, "refers to '#/\\$defs/x', which it does not have"),
        ({"$ref": "http://example.org/schema"}, "which it does not have"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "no number satisfies"),
        ({"type": "date"}, "unknown type 'date'"),
        ({"type": "array", "items": False, "minItems": 1}, "no value|is false"),
        ({"type": "string", "pattern": "(?=x)y"}, "no text found for pattern"),
        ({"type": "string", "minLength": 10**9}, "more than the simulator writes"),
    ],
)
def test_a_schema_without_a_value_says_why(schema, problem):
    with pytest.raises(ValueError, match=problem):
        generate(schema, b"seed")


@pytest.mark.parametrize(
    "pattern",
    [
        r"^\d{4}(-\d{2}){2}$",
        r"^[^\s@]+@[^\s@]+\.[a-z]{2,}$",
        r"^(?:https?://)?[\w.-]+/\S*$",
        r"^#?([a-fA-F0-9]{6}|[a-fA-F0-9]{3})$",
        r"^(?P<a>x)(?<b>y)?z*?$".replace("?<b>", "?P<b>"),
        r"^[\]\-a]{3}\.\*\u0041\x42$",
        r"^[^a-z]{5}\D\W\S$",
        r"^(a|b)\1{2}$",
        r"^a{2$",
        r"^.{2,}$",
        r"a|b|",
        "",
    ],
)
def test_examples_match_their_pattern(pattern):
    for seed in range(30):
        text = example(pattern, seed)
        assert re.search(pattern, text), text
        assert text == example(pattern, seed)


def test_examples_repeat_in_another_process():
    code = r"from bioforge.simulator.patterns import example; print(example(r'^[^a-z]{20}\W{9}\D{9}.{9}$', 1), end='')"
    texts = {
        subprocess.check_output([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    }
    assert len(texts) == 1


@pytest.mark.parametrize("pattern", ["(a", "a)", "[a", "*a", r"\p{L}", "a{9999}", "a\\", r"(?(2)a|b)", "a++"])
def test_patterns_beyond_it_are_refused(pattern):
    with pytest.raises(ValueError, match=r"pattern .* is not supported|exceeds 1000 repetitions"):
        example(pattern, 0)


def test_a_strict_schema_has_no_problem():
    assert strict_violation(NODE) is None
    assert strict_violation({**NODE, "$defs": {"node": NODE}}) is None


def valid(value, schema, root) -> bool:
    """A checker for the keywords used here, written apart from the generator."""
    if isinstance(schema, bool):
        return schema
    if "$ref" in schema:
        target = root
        for step in schema["$ref"].split("/")[1:]:
            target = target[step.replace("~1", "/")]
        if not valid(value, target, root):
            return False
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(is_kind(value, kind) for kind in kinds):
        return False
    number = isinstance(value, int | float) and not isinstance(value, bool)
    properties = schema.get("properties", {})
    extra = schema.get("additionalProperties", True)
    first = schema.get("prefixItems", [])
    rules = [
        "const" not in schema or value == schema["const"],
        "enum" not in schema or value in schema["enum"],
        "anyOf" not in schema or any(valid(value, branch, root) for branch in schema["anyOf"]),
        "oneOf" not in schema or sum(valid(value, branch, root) for branch in schema["oneOf"]) == 1,
        all(valid(value, branch, root) for branch in schema.get("allOf", [])),
    ]
    if isinstance(value, str):
        rules += [
            schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**9),
            re.search(schema.get("pattern", ""), value) is not None,
        ]
    if number:
        step = schema.get("multipleOf")
        rules += [
            value >= schema.get("minimum", value),
            value <= schema.get("maximum", value),
            "exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"],
            "exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"],
            step is None or (value / step) == int(value / step),
        ]
    if isinstance(value, list):
        rules += [
            schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 10**9),
            not schema.get("uniqueItems") or all(value.count(item) == 1 for item in value),
            all(valid(item, part, root) for item, part in zip(value, first, strict=False)),
            all(valid(item, schema.get("items", True), root) for item in value[len(first) :]),
        ]
    if isinstance(value, dict):
        rules += [
            all(name in value for name in schema.get("required", [])),
            len(value) >= schema.get("minProperties", 0),
            all(valid(item, properties.get(name, extra), root) for name, item in value.items()),
        ]
    return all(rules)


def is_kind(value, kind) -> bool:
    match kind:
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case _:
            types = {"string": str, "boolean": bool, "null": type(None), "array": list, "object": dict}
            return isinstance(value, types[kind])

"""From any JSON Schema to the strict form: what is rewritten, what is left out, what cannot be asked for."""

from __future__ import annotations

import enum
import json
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel

from bioforge.core.errors import ConfigError
from bioforge.core.hashing import canonical
from bioforge.recipes.schema import Schema, Valid, from_document, from_model
from bioforge.simulator.schema_values import generate
from bioforge.simulator.strict_schema import strict_violation

SOURCE = "schemas/bio.json"


def derived(document: dict[str, Any]) -> Any:
    return from_document(document, SOURCE).generation


def of(part: Any, **beside: Any) -> dict[str, Any]:
    """A document whose one required property is `part`."""
    return {"type": "object", "properties": {"it": part}, "required": ["it"], **beside}


def part(schema: Any, **beside: Any) -> Any:
    """What becomes of a required property."""
    return derived(of(schema, **beside))["properties"]["it"]


def refusal(document: Any) -> tuple[str, str]:
    with pytest.raises(ConfigError) as caught:
        from_document(document, SOURCE)
    return caught.value.message, caught.value.hint


def test_an_object_is_closed_and_requires_all_its_properties_in_the_order_written() -> None:
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://example.org/bio.json",
        "title": "Bio",
        "type": "object",
        "properties": {
            "name": {"type": "string", "title": "Name", "description": "As signed", "examples": ["Klee"]},
            "born": {"type": "integer", "default": 0},
        },
        "required": ["name"],
    }
    assert derived(document) == {
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "As signed"},
            "born": {"type": ["integer", "null"]},
        },
        "required": ["name", "born"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("optional", "asked"),
    [
        ({"type": "string"}, {"type": ["string", "null"]}),
        ({"type": ["string", "integer"]}, {"type": ["string", "integer", "null"]}),
        ({"type": ["string", "null"]}, {"type": ["string", "null"]}),
        ({"enum": ["a", "b"]}, {"type": ["string", "null"], "enum": ["a", "b", None]}),
        ({"type": ["string", "null"], "enum": ["a"]}, {"type": ["string", "null"], "enum": ["a", None]}),
        ({"enum": ["a", None]}, {"type": ["string", "null"], "enum": ["a", None]}),
        ({"const": "a"}, {"type": ["string", "null"], "enum": ["a", None]}),
        ({"$ref": "#"}, {"anyOf": [{"$ref": "#"}, {"type": "null"}]}),
        (
            {"$ref": "#", "description": "Again"},
            {"anyOf": [{"$ref": "#"}, {"type": "null"}], "description": "Again"},
        ),
        (
            {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]},
        ),
        (
            {"oneOf": [{"type": "string"}, {"type": "null"}]},
            {"anyOf": [{"type": "string"}, {"type": "null"}]},
        ),
        (
            {"type": "array", "items": {"type": "string"}},
            {"type": ["array", "null"], "items": {"type": "string"}},
        ),
    ],
)
def test_what_is_optional_becomes_a_union_with_null(optional: Any, asked: Any) -> None:
    document = {"type": "object", "properties": {"it": optional}}
    assert derived(document)["properties"]["it"] == asked
    assert strict_violation(derived(document)) is None


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ({"enum": ["a", "a", 1, True]}, {"type": ["string", "integer", "boolean"], "enum": ["a", 1, True]}),
        ({"const": 1.5}, {"type": "number", "const": 1.5}),
        ({"type": ["object", "string"], "const": "a"}, {"type": "string", "const": "a"}),
        ({"const": None}, {"type": "null", "const": None}),
        ({"pattern": "^a"}, {"type": "string", "pattern": "^a"}),
        ({"minimum": 1}, {"type": "number", "minimum": 1}),
        ({"items": {"type": "string"}}, {"type": "array", "items": {"type": "string"}}),
        ({"allOf": [{"type": "string"}], "description": "D"}, {"type": "string", "description": "D"}),
        (
            {"type": "string", "anyOf": [{"pattern": "^a"}, {"format": "date"}]},
            {"anyOf": [{"type": "string", "pattern": "^a"}, {"type": "string", "format": "date"}]},
        ),
        (
            {"type": "array", "prefixItems": [{"type": "number"}, {"type": "number"}], "items": False},
            {"type": "array", "maxItems": 2, "items": {"type": "number"}},
        ),
        (
            {"prefixItems": [{"type": "number"}], "items": {"type": "number"}, "minItems": 1},
            {"type": "array", "minItems": 1, "items": {"type": "number"}},
        ),
        (
            {"type": "object", "properties": {}, "additionalProperties": False},
            {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
        ),
    ],
)
def test_what_means_the_same_is_said_in_the_words_of_strict_mode(written: Any, asked: Any) -> None:
    assert part(written) == asked
    assert strict_violation(derived(of(written))) is None


@pytest.mark.parametrize(
    ("written", "asked", "unsent"),
    [
        ({"type": "string", "minLength": 1, "maxLength": 9}, {"type": "string"}, ["minLength", "maxLength"]),
        ({"type": "string", "pattern": r"^(?!x)"}, {"type": "string"}, ["pattern"]),
        ({"type": "string", "pattern": r"(a)\1"}, {"type": "string"}, ["pattern"]),
        ({"type": "string", "pattern": r"^(?:a|\d)\.$"}, {"type": "string", "pattern": r"^(?:a|\d)\.$"}, []),
        ({"type": "string", "format": "uri"}, {"type": "string"}, ["format"]),
        ({"type": "string", "format": "uuid"}, {"type": "string", "format": "uuid"}, []),
        ({"type": "integer", "multipleOf": 5}, {"type": "integer", "multipleOf": 5}, []),
        ({"type": "integer", "maxLength": 5}, {"type": "integer"}, []),
        (
            {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "minItems": 1, "maxItems": 2},
            {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string"}},
            ["uniqueItems"],
        ),
        (
            {"type": "object", "properties": {"a": {"type": "null"}}, "minProperties": 1, "required": ["a"]},
            {
                "type": "object",
                "properties": {"a": {"type": "null"}},
                "required": ["a"],
                "additionalProperties": False,
            },
            ["minProperties"],
        ),
        ({"$ref": "#/$defs/year", "minimum": 3}, {"$ref": "#/$defs/year"}, ["minimum"]),
        (
            {"enum": ["a", "b"], "anyOf": [{"maxLength": 1}, {"pattern": "b"}]},
            {"type": "string", "enum": ["a", "b"]},
            ["anyOf"],
        ),
    ],
)
def test_what_only_narrows_is_left_out_and_named(written: Any, asked: Any, unsent: list[str]) -> None:
    schema = from_document(of(written, **{"$defs": {"year": {"type": "integer"}}}), SOURCE)
    assert schema.generation["properties"]["it"] == asked
    assert schema.unsent == tuple(f"properties.it.{word}" for word in unsent)


def test_a_choice_of_required_properties_is_left_to_validation() -> None:
    document = {
        "type": "object",
        "properties": {"born": {"type": "integer"}, "died": {"type": "integer"}},
        "anyOf": [{"required": ["born"]}, {"required": ["died"]}],
    }
    schema = from_document(document, SOURCE)
    assert "anyOf" not in schema.generation
    assert schema.unsent == ("anyOf",)
    assert isinstance(schema.validate('{"born": 1900, "died": null}'), Valid)
    assert not isinstance(schema.validate('{"born": null, "died": null}'), Valid)


def test_references_are_kept_and_definitions_nobody_uses_are_not() -> None:
    document = of(
        {"type": "array", "items": {"$ref": "#/definitions/work"}},
        definitions={
            "work": {"type": "object", "properties": {"like": {"$ref": "#/definitions/work"}}},
            "unused": {"type": "object"},
        },
    )
    assert derived(document) == {
        "type": "object",
        "properties": {"it": {"type": "array", "items": {"$ref": "#/$defs/work"}}},
        "required": ["it"],
        "additionalProperties": False,
        "$defs": {
            "work": {
                "type": "object",
                "properties": {"like": {"anyOf": [{"$ref": "#/$defs/work"}, {"type": "null"}]}},
                "required": ["like"],
                "additionalProperties": False,
            }
        },
    }


def test_a_reference_to_any_part_becomes_a_definition_of_its_own() -> None:
    document = {
        "type": "object",
        "properties": {
            "born": {"type": "integer"},
            "died": {"$ref": "#/properties/born"},
            "odd name/": {"type": "string"},
            "also": {"$ref": "#/properties/odd%20name~1"},
            "alias": {"$ref": "#/$defs/born"},
        },
        "required": ["born", "died", "also", "alias", "odd name/"],
        "$defs": {"born": {"$ref": "#/$defs/year"}, "year": {"type": "integer"}},
    }
    made = derived(document)
    assert made["properties"]["died"] == {"$ref": "#/$defs/born"}
    assert made["properties"]["also"] == {"$ref": "#/$defs/odd_name_"}
    assert made["properties"]["alias"] == {"$ref": "#/$defs/year"}
    assert made["$defs"] == {
        "born": {"type": "integer"},
        "odd_name_": {"type": "string"},
        "year": {"type": "integer"},
    }


def test_two_definitions_of_the_same_name_stay_two() -> None:
    document = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/x"}, "b": {"$ref": "#/definitions/x"}},
        "required": ["a", "b"],
        "$defs": {"x": {"type": "string"}},
        "definitions": {"x": {"type": "integer"}},
    }
    assert derived(document)["$defs"] == {"x": {"type": "string"}, "x_2": {"type": "integer"}}


def test_a_root_that_is_a_reference_is_written_out_and_refers_to_itself() -> None:
    class Node(BaseModel):
        """A work, and those it led to."""

        name: str
        led_to: list[Node] = []

    assert "$ref" in Node.model_json_schema()
    made = from_model(Node).generation
    assert made["type"] == "object"
    assert made["description"] == "A work, and those it led to."
    assert made["properties"]["led_to"] == {"type": ["array", "null"], "items": {"$ref": "#"}}
    assert "$defs" not in made


@pytest.mark.parametrize(
    ("document", "message", "hint"),
    [
        (
            {"anyOf": [{"type": "object", "properties": {"a": {"type": "null"}}}]},
            "schemas/bio.json: the root must be an object, found a union",
            "put it into a property of an object",
        ),
        (
            {"type": "array", "items": {"type": "string"}},
            "schemas/bio.json: the root must be an object, found array",
            "put it into a property of an object",
        ),
        (
            {"type": ["object", "null"], "properties": {"a": {"type": "null"}}},
            "schemas/bio.json: the root must be an object, found object or null",
            "put it into a property of an object",
        ),
        (
            of({"anyOf": [{"type": "string"}, {}]}),
            "schemas/bio.json: properties.it.anyOf[1]: any value is allowed here; strict structured outputs need a type",
            "give it a type",
        ),
        (
            of(True),
            "schemas/bio.json: properties.it: any value is allowed here; strict structured outputs need a type",
            "give it a type",
        ),
        (of(False), "schemas/bio.json: properties.it: no value is allowed here", "leave it out"),
        (
            of({"not": {"type": "string"}}),
            "schemas/bio.json: properties.it.not: strict structured outputs have no 'not'",
            "describe the allowed values instead, or check it in a pydantic model",
        ),
        (
            of({"allOf": [{"type": "string"}, {"maxLength": 3}]}),
            "schemas/bio.json: properties.it.allOf: strict structured outputs have no 'allOf'",
            "write its parts as one schema",
        ),
        (
            {**of({"type": "string"}), "if": {"required": ["it"]}, "then": {}},
            "schemas/bio.json: if: strict structured outputs have no 'if'",
            "describe each case as a branch of anyOf, or check it in a pydantic model",
        ),
        (
            {**of({"type": "string"}), "dependentRequired": {"it": ["that"]}},
            "schemas/bio.json: dependentRequired: strict structured outputs have no 'dependentRequired'",
            "make the properties required, or check it in a pydantic model",
        ),
        (
            of({"type": "object"}),
            "schemas/bio.json: properties.it: an object needs at least one property",
            "add one (a field of the model)",
        ),
        (
            of({"type": "object", "properties": {"a": {"type": "null"}}, "required": ["b"]}),
            "schemas/bio.json: properties.it.required: 'b' is required, but missing in properties",
            "",
        ),
        (
            of({"type": "array"}),
            "schemas/bio.json: properties.it: the items of this list are not described",
            'add "items"',
        ),
        (
            of({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}]}),
            "schemas/bio.json: properties.it.prefixItems: strict structured outputs have no lists"
            " with a different type at each position",
            "use an object with a property for each position",
        ),
        (of({"type": "object", "const": "a"}), "schemas/bio.json: properties.it.const: no value here is object", ""),
        (
            {"type": "object", "properties": {"it": {"$ref": "#/properties/it"}}},
            'schemas/bio.json: properties.it.$ref: "#/properties/it" refers only to itself',
            "",
        ),
        (
            of({"enum": [{"a": 1}]}),
            "schemas/bio.json: properties.it.enum: only texts, numbers, true, false and null are supported",
            "",
        ),
        (
            of({"$ref": "#/$defs/x", "properties": {}}, **{"$defs": {"x": {"type": "string"}}}),
            "schemas/bio.json: properties.it: 'properties' beside '$ref' is not supported by strict structured outputs",
            "write both as one schema, without the other",
        ),
        (
            of({"properties": {"a": {"type": "null"}}, "anyOf": [{"properties": {"b": {"type": "null"}}}]}),
            "schemas/bio.json: properties.it: 'properties' beside 'anyOf' is not supported by strict structured outputs",
            "write both as one schema, without the other",
        ),
        (
            of({"anyOf": [{"type": "string"}], "oneOf": [{"type": "string"}]}),
            "schemas/bio.json: properties.it: 'oneOf' beside 'anyOf' is not supported by strict structured outputs",
            "write both as one schema, without the other",
        ),
        (
            of({"$ref": "#/$defs/x"}, **{"$defs": {"x": {"$ref": "#/$defs/y"}, "y": {"$ref": "#/$defs/x"}}}),
            'schemas/bio.json: properties.it.$ref: "#/$defs/x" refers only to itself',
            "",
        ),
        (
            {"type": "object", "properties": {"à la carte": {"type": "array", "items": True}}},
            'schemas/bio.json: properties["à la carte"].items: any value is allowed here; strict structured outputs need'
            " a type",
            "give it a type",
        ),
    ],
)
def test_what_cannot_be_asked_for_is_refused_with_its_place(document: Any, message: str, hint: str) -> None:
    assert refusal(document) == (message, hint)


def nested(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        inner = of(inner)
    return inner


def test_the_limits_of_the_api_are_checked_before_anything_is_sent() -> None:
    assert strict_violation(derived(nested(10))) is None
    assert refusal(nested(11)) == (
        f"schemas/bio.json: {'.'.join(['properties.it'] * 11)}: nested more than 10 levels deep",
        "move inner objects to $defs and refer to them",
    )
    many = {f"p{number}": {"type": "null"} for number in range(5001)}
    assert refusal({"type": "object", "properties": many})[0] == (
        "schemas/bio.json: 5,001 properties in total; strict structured outputs allow 5,000"
    )
    assert refusal(of({"enum": list(range(1001))}))[0] == (
        "schemas/bio.json: 1,001 enum values in total; strict structured outputs allow 1,000"
    )
    assert refusal(of({"enum": [f"{number:0100}" for number in range(251)]}))[0] == (
        "schemas/bio.json: properties.it.enum: 25,100 characters in all values; strict structured outputs allow 15,000"
    )
    assert refusal(of({"const": "x" * 120_000}))[0] == (
        "schemas/bio.json: 120,002 characters in all names, enum values and constants; strict structured outputs allow"
        " 120,000"
    )


def test_a_schema_nested_beyond_reading_is_refused_too() -> None:
    assert refusal(nested(2000))[0] == "schemas/bio.json: nested too deeply to be read"


# Models


class Medium(enum.Enum):
    OIL = "oil"
    STONE = "stone"


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str | None = None


class Everything(BaseModel):
    """What people write into models."""

    medium: Medium = Field(description="How it was made")
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    pets: list[Cat | Dog] = []
    price: Decimal | None = None
    spot: tuple[float, float]
    tags: set[str] = Field(default_factory=set, max_length=3)
    born: Annotated[int, Field(ge=1, le=2100)] | None
    renamed: str = Field(alias="otherName", min_length=1)


def test_models_of_all_kinds_are_derived() -> None:
    schema = from_model(Everything, "models:Everything")
    made = schema.generation
    assert strict_violation(made) is None
    assert list(made["properties"]) == ["medium", "pet", "pets", "price", "spot", "tags", "born", "otherName"]
    assert made["properties"]["medium"] == {"anyOf": [{"$ref": "#/$defs/Medium"}], "description": "How it was made"}
    assert made["properties"]["pet"] == {"anyOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]}
    assert made["properties"]["spot"] == {
        "type": "array",
        "minItems": 2,
        "maxItems": 2,
        "items": {"type": "number"},
    }
    assert {"properties.tags.uniqueItems", "properties.otherName.minLength"} <= set(schema.unsent)


def test_a_model_without_a_shape_is_refused_by_its_own_name() -> None:
    class Free(BaseModel):
        notes: dict[str, str]

    with pytest.raises(
        ConfigError, match=r"^models:Free: properties\.notes: .* do not allow an object with arbitrary keys"
    ):
        from_model(Free, "models:Free")
    with pytest.raises(ConfigError, match=r"^models:Many: the root must be an object, found array$"):
        from_model(RootModel[list[int]], "models:Many")


# Properties


def names() -> st.SearchStrategy[str]:
    return st.sampled_from(["name", "born", "title", "properties", "$ref", "enum", "à la carte", "type"])


def texts() -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {"type": st.just("string")},
        optional={"format": st.sampled_from(["date", "uuid", "email"]), "description": st.text(max_size=5)},
    )


def leaves() -> st.SearchStrategy[Any]:
    return st.one_of(
        texts(),
        st.fixed_dictionaries({"type": st.sampled_from(["boolean", "null"])}),
        st.fixed_dictionaries(
            {"type": st.sampled_from(["integer", "number"])},
            optional={"minimum": st.integers(-9, 9), "exclusiveMaximum": st.integers(20, 30)},
        ),
        st.builds(lambda values: {"enum": values}, st.lists(st.sampled_from(["a", "b", 1, None]), min_size=1)),
        st.builds(lambda value: {"const": value, "title": "T"}, st.sampled_from(["x", 3, True, None])),
        st.just({"$ref": "#/$defs/year"}),
        st.just({"$ref": "#/$defs/work", "description": "A work"}),
    )


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def built(properties: dict[str, Any], required: set[str], closed: bool) -> Any:
        made = {"type": "object", "properties": properties, "required": sorted(required & properties.keys())}
        return {**made, "additionalProperties": False} if closed else made

    return st.builds(built, st.dictionaries(names(), inner, min_size=1, max_size=4), st.sets(names()), st.booleans())


def parts() -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves(),
        lambda inner: st.one_of(
            objects(inner),
            st.builds(lambda items: {"type": "array", "items": items}, inner),
            st.builds(lambda branches: {"anyOf": branches}, st.lists(inner, min_size=1, max_size=3)),
            st.builds(lambda only: {"allOf": [only]}, inner),
        ),
        max_leaves=8,
    )


def documents() -> st.SearchStrategy[dict[str, Any]]:
    work = {"type": "object", "properties": {"like": {"$ref": "#/$defs/work"}, "year": {"$ref": "#/$defs/year"}}}
    definitions = {"year": {"type": "integer", "minimum": 1}, "work": work}
    return st.builds(lambda made: {**made, "$defs": definitions}, objects(parts()))


def strict(document: dict[str, Any]) -> Schema | None:
    try:
        return from_document(document, SOURCE)
    except ConfigError as refused:
        if "nested more than 10 levels" in refused.message:
            return None
        raise


@given(documents())
def test_the_api_takes_whatever_is_derived(document: dict[str, Any]) -> None:
    if (schema := strict(document)) is not None:
        assert strict_violation(schema.generation) is None


@given(documents(), st.binary(min_size=4, max_size=4))
def test_an_answer_written_for_the_derived_schema_is_valid_by_the_original(
    document: dict[str, Any], seed: bytes
) -> None:
    if (schema := strict(document)) is not None:
        answer = generate(schema.generation, seed)
        assert isinstance(schema.validate(json.dumps(answer)), Valid)


@given(documents())
def test_a_strict_schema_is_its_own_derivation(document: dict[str, Any]) -> None:
    if (schema := strict(document)) is not None:
        again = from_document(json.loads(json.dumps(schema.generation)), SOURCE)
        assert canonical(again.generation) == canonical(schema.generation)
        assert again.generation_hash == schema.generation_hash


@given(documents())
def test_deriving_twice_gives_the_same_and_leaves_the_original_alone(document: dict[str, Any]) -> None:
    before = json.dumps(document)
    if (schema := strict(document)) is not None:
        assert json.dumps(schema.generation) == json.dumps(from_document(document, SOURCE).generation)
    assert json.dumps(document) == before


EVERYTHING = cache(lambda: from_model(Everything))


@given(st.binary(min_size=4, max_size=4))
def test_an_answer_written_for_a_model_is_valid_by_the_model(seed: bytes) -> None:
    schema = EVERYTHING()
    answer = generate(schema.generation, seed)
    answer["price"] = None  # a text that is no number is for the model alone to refuse
    answer["tags"] = answer["tags"] and list(dict.fromkeys(answer["tags"]))
    assert isinstance(schema.validate(json.dumps(answer)), Valid)

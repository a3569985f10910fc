"""Answers against a schema: by the original, with paths into the answer and words a model can act on."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from bioforge.recipes.schema import Invalid, Schema, SchemaError, Valid, from_document, from_model
from bioforge.recipes.schema.validator import DIALECTS, FORMATS, Validator

WORK = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "minLength": 1},
        "year": {"type": "integer", "minimum": 1000},
        "place": {"type": "string"},
        "price": {"type": ["number", "null"]},
    },
    "required": ["title", "year"],
    "additionalProperties": False,
}
BIO = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "works": {"type": "array", "items": {"$ref": "#/$defs/work"}}},
    "required": ["name", "works"],
    "$defs": {"work": WORK},
}
FENCE = "the JSON stands in a Markdown fence (```), expected JSON alone"


class Work(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: str = Field(min_length=1)
    year: int = Field(ge=1000)
    place: str = "unknown"
    price: float | None = None


class Bio(BaseModel):
    name: str
    works: list[Work]

    @field_validator("name")
    @classmethod
    def known(cls, name: str) -> str:
        if name == "Nobody":
            raise ValueError("nobody is  no\nartist")
        return name


@pytest.fixture(params=["file", "model"])
def bio(request: pytest.FixtureRequest) -> Schema:
    return from_document(BIO, "schemas/bio.json") if request.param == "file" else from_model(Bio)


def wrong(schema: Schema, answer: object) -> list[str]:
    verdict = schema.validate(answer if isinstance(answer, str) else json.dumps(answer))
    assert isinstance(verdict, Invalid)
    assert verdict.repairable
    return [str(error) for error in verdict.errors]


def parsed(schema: Schema, answer: object) -> Any:
    verdict = schema.validate(json.dumps(answer))
    assert isinstance(verdict, Valid), verdict
    return verdict.parsed


def one(part: Any) -> Schema:
    """A schema with one required property `it`."""
    return from_document({"type": "object", "properties": {"it": part}, "required": ["it"]}, "one.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the answer is empty, expected JSON"),
        (" \n", "the answer is empty, expected JSON"),
        ("Paul Klee was born in 1879.", "not JSON: Expecting value (line 1, column 1)"),
        ('{"name": "Klee"', "not JSON: Expecting ',' delimiter (line 1, column 16)"),
        ('```json\n{"name": "Klee", "works": []}\n```', FENCE),
        ('Here it is:\n```\n{"name": "Klee", "works": []}\n```', FENCE),
        ('{"name": "K", "works": [{"title": "t", "year": NaN}]}', "not JSON: NaN is no number of JSON"),
        (
            '{"name": "K", "works": [{"title": "t", "year": 1900, "price": 1e999}]}',
            "not JSON that can be read: 1e999 is too large a number",
        ),
        ("[" * 100_000, "not JSON that can be read: nested too deeply"),
        (
            '{"name": "\\ud800", "works": []}',
            "not JSON that can be kept: half of a surrogate pair (\\ud800 to \\udfff)",
        ),
    ],
)
def test_what_is_not_json_is_one_error_of_the_whole_answer(text: str, message: str) -> None:
    schema = from_document(BIO, "schemas/bio.json")
    assert schema.validate(text) == Invalid((SchemaError("", message),))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Klee",
        '```json\n{"name": "Klee", "works": []}\n```',
        '{"name": "K", "works": [{"year": NaN}]}',
        "[" * 100_000,
    ],
)
def test_a_model_says_the_same_of_what_is_not_json(text: str) -> None:
    assert from_model(Bio).validate(text) == from_document(BIO, "schemas/bio.json").validate(text)


def test_no_text_makes_a_verdict_fail(bio: Schema) -> None:
    for text in ('{"name": "\ud800", "works": []}', '"\\ud800"', "1" * 5000, '{"name": "K", "works": [1e999]}', "null"):
        assert isinstance(bio.validate(text), Valid | Invalid)


def test_an_answer_nested_too_deeply_is_one_error() -> None:
    link = {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["next"],
    }
    schema = from_document(link, "link.json")
    for levels in (100, 200):
        assert isinstance(schema.validate('{"next":' * levels + "null" + "}" * levels), Valid)
    for levels in (300, 900):
        assert isinstance(schema.validate('{"next":' * levels + "null" + "}" * levels), Valid | Invalid)
        assert wrong(schema, '{"next":' * levels + "1" + "}" * levels) == ["nested too deeply to be checked"]


def test_a_fence_inside_a_text_is_no_fence(bio: Schema) -> None:
    assert parsed(bio, {"name": "``` Klee ```", "works": []})["name"] == "``` Klee ```"


def test_errors_have_the_path_into_the_answer() -> None:
    answer = {
        "name": 7,
        "works": [
            {"title": "A", "year": 1900},
            {"title": "", "year": "19th century", "size": 1},
            {"title": "B", "price": "dear"},
            "C",
        ],
    }
    assert wrong(from_document(BIO, "schemas/bio.json"), answer) == [
        "name: expected string, found 7",
        "works[1].title: expected at least 1 character, found 0",
        'works[1].year: expected integer, found "19th century"',
        "works[1].size: not in the schema",
        'works[2].price: expected number or null, found "dear"',
        "works[2].year: missing",
        'works[3]: expected object, found "C"',
    ]
    found = wrong(from_model(Bio), answer)
    assert [error.partition(":")[0] for error in found] == [
        "name",
        "works[1].title",
        "works[1].year",
        "works[1].size",
        "works[2].year",
        "works[2].price",
        "works[3]",
    ]
    assert found[0] == "name: Input should be a valid string, found 7"
    assert found[3:5] == ["works[1].size: not in the schema", "works[2].year: missing"]


def test_errors_keep_the_order_of_the_documents_keywords() -> None:
    """Repair requests quote them: in another order they would be other requests, paid for again."""
    work = {"required": ["year", "title"], "additionalProperties": False, "properties": WORK["properties"]}
    document = {"type": "object", "properties": {"b": {"$ref": "#/$defs/work"}, "a": {"$ref": "#/$defs/work"}}}
    schema = from_document({**document, "required": ["a", "b"], "$defs": {"work": work}}, "two.json")
    answer = {"a": {"place": 1, "size": 2, "price": "x"}, "b": {"year": 1, "title": ""}}
    assert wrong(schema, answer) == [
        "b.title: expected at least 1 character, found 0",
        "b.year: expected at least 1000, found 1",
        "a.year: missing",
        "a.title: missing",
        "a.size: not in the schema",
        "a.place: expected string, found 1",
        'a.price: expected number or null, found "x"',
    ]


def test_at_most_twenty_different_errors_are_kept(bio: Schema) -> None:
    verdict = bio.validate(json.dumps({"name": "Klee", "works": ["x"] * 100}))
    assert isinstance(verdict, Invalid)
    assert len(verdict.errors) == 20
    assert "\n" not in verdict.summary()
    assert verdict.summary().startswith("works[0]: ")
    assert verdict.summary().endswith(" (and 19 more)")


def test_a_single_error_is_its_own_summary() -> None:
    assert Invalid((SchemaError("born", "missing"),)).summary() == "born: missing"
    assert Invalid((SchemaError("", "not JSON"),)).summary() == "not JSON"


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ({"enum": ["oil", "stone"]}, "wood", 'it: expected "oil" or "stone", found "wood"'),
        (
            {"enum": list(range(12))},
            "x",
            'it: expected 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more, found "x"',
        ),
        ({"const": "a"}, ["b"], 'it: expected "a", found a list of 1 item'),
        ({"type": "integer"}, {}, "it: expected integer, found an empty object"),
        ({"type": "integer"}, {"a": 1}, "it: expected integer, found an object"),
        ({"type": "integer"}, True, "it: expected integer, found true"),
        ({"type": "integer"}, "x" * 500, f'it: expected integer, found "{"x" * 59}…"'),
        ({"type": "number", "minimum": 1}, 0, "it: expected at least 1, found 0"),
        ({"type": "number", "maximum": 1}, 2, "it: expected at most 1, found 2"),
        ({"type": "number", "exclusiveMinimum": 1}, 1, "it: expected more than 1, found 1"),
        ({"type": "number", "exclusiveMaximum": 1}, 1, "it: expected less than 1, found 1"),
        ({"type": "integer", "multipleOf": 5}, 7, "it: expected a multiple of 5, found 7"),
        ({"type": "string", "maxLength": 3}, "x" * 9, "it: expected at most 3 characters, found 9"),
        ({"type": "string", "pattern": "^a"}, "b", 'it: expected text matching ^a, found "b"'),
        ({"type": "string", "format": "date"}, "1900", 'it: expected date, found "1900"'),
        ({"type": "array", "items": {"type": "null"}, "minItems": 1}, [], "it: expected at least 1 item, found 0"),
        ({"type": "array", "items": {"type": "null"}, "maxItems": 0}, [None], "it: expected at most 0 items, found 1"),
        ({"type": "array", "items": {"type": "null"}, "uniqueItems": True}, [None] * 2, "it: expected no item twice"),
        (
            {"type": "array", "items": {"type": "integer"}, "contains": {"const": 1}},
            [2],
            "it: no item of the list is the one that has to be in it",
        ),
        ({**WORK, "minProperties": 3}, {"title": "a", "year": 1900}, "it: expected at least 3 properties, found 2"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, [], "it: expected string or integer, found an empty list"),
        ({"anyOf": [WORK, {"type": "null"}]}, {"title": "a", "year": 1}, "it.year: expected at least 1000, found 1"),
        (
            {"anyOf": [{"type": "string", "pattern": "^a"}, {"type": "string", "format": "date"}]},
            "b",
            "it: fits none of the 2 forms that are allowed here",
        ),
        (
            {"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]},
            "b",
            "it: fits more than one of the forms that exclude each other here",
        ),
        (
            {"type": "object", "properties": {"a b": {"type": "null"}}, "propertyNames": {"maxLength": 1}},
            {"a b": None},
                'it: the name "a b": expected at most 1 character, found 3',
        ),
    ],
)  # fmt: skip
def test_every_keyword_has_its_words(part: Any, value: object, message: str) -> None:
    assert wrong(one(part), {"it": value}) == [message]


def test_of_a_union_with_tags_only_the_branch_that_was_meant_is_explained() -> None:
    cat = {"properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}}, "required": ["kind", "lives"]}
    dog = {"properties": {"kind": {"const": "dog"}, "name": {"type": "string"}}, "required": ["kind", "name"]}
    assert wrong(one({"oneOf": [cat, dog]}), {"it": {"kind": "dog", "name": 7}}) == [
        "it.name: expected string, found 7"
    ]


# Nulls


def test_a_null_that_says_left_out_is_removed_before_validation(bio: Schema) -> None:
    answer = {"name": "Klee", "works": [{"title": "A", "year": 1900, "place": None, "price": None}]}
    [work] = parsed(bio, answer)["works"]
    if bio.model is None:
        assert work == {"title": "A", "year": 1900, "price": None}
    else:
        assert work == {"title": "A", "year": 1900, "place": "unknown", "price": None}


def test_a_null_of_a_required_property_stays_an_error() -> None:
    assert wrong(from_document(BIO, "b.json"), {"name": None, "works": []}) == ["name: expected string, found null"]


def test_a_null_in_a_list_is_none_of_strict_mode() -> None:
    schema = one({"type": "array", "items": {"type": "string"}})
    assert wrong(schema, {"it": [None]}) == ["it[0]: expected string, found null"]


class Painting(BaseModel):
    kind: Literal["painting"]
    note: str = "no note"


class Sculpture(BaseModel):
    kind: Literal["sculpture"]
    note: str | None


class Loose(BaseModel):
    """Fits every object, as models do that ignore what they do not know."""

    anything: str = ""


def test_in_a_union_the_branch_that_was_written_counts() -> None:
    class Show(BaseModel):
        works: list[Loose | Painting | Sculpture]

    schema = from_model(Show)
    works = [
        {"kind": "painting", "note": None},
        {"kind": "sculpture", "note": None},
        {"anything": None},
    ]
    assert parsed(schema, {"works": works})["works"] == [
        {"kind": "painting", "note": "no note"},
        {"kind": "sculpture", "note": None},
        {"anything": ""},
    ]


def test_where_two_branches_fit_the_one_that_allows_null_is_taken() -> None:
    optional = {"type": "object", "properties": {"note": {"type": "string"}}, "additionalProperties": False}
    nullable = {"type": "object", "properties": {"note": {"type": ["string", "null"]}}, "required": ["note"]}
    assert parsed(one({"anyOf": [optional, nullable]}), {"it": {"note": None}}) == {"it": {"note": None}}


def test_nulls_are_no_noise_in_the_errors_of_an_optional_object() -> None:
    schema = from_document({"type": "object", "properties": {"it": WORK}}, "one.json")
    answer = {"it": {"title": "A", "year": 1, "place": None, "price": None}}
    assert wrong(schema, answer) == ["it.year: expected at least 1000, found 1"]
    assert parsed(schema, {"it": None}) == {}


def test_a_server_without_strict_mode_may_leave_out_what_is_optional(bio: Schema) -> None:
    assert parsed(bio, {"name": "Klee", "works": [{"title": "A", "year": 1900}]})["name"] == "Klee"


# Models


def test_a_model_gives_its_instance_and_plain_data() -> None:
    verdict = from_model(Bio).validate('{"name": "Klee", "works": [{"title": "A", "year": "1900", "price": null}]}')
    assert isinstance(verdict, Valid)
    assert verdict.value == Bio(name="Klee", works=[Work(title="A", year=1900)])
    assert verdict.parsed["works"] == [{"title": "A", "year": 1900, "place": "unknown", "price": None}]


def test_the_words_of_a_validator_are_the_message_on_one_line() -> None:
    assert wrong(from_model(Bio), {"name": "Nobody", "works": []}) == ["name: nobody is no artist"]


def test_a_validator_that_breaks_makes_no_repair_worthwhile() -> None:
    class Broken(BaseModel):
        name: str

        @model_validator(mode="after")
        def check(self) -> Broken:
            return {}[self.name]  # type: ignore[return-value]

    verdict = from_model(Broken).validate('{"name": "Klee"}')
    assert isinstance(verdict, Invalid)
    assert not verdict.repairable
    line = Broken.check.__code__.co_firstlineno + 2
    assert verdict.summary() == (
        f"the model's own code failed in test_schema_validation.py, line {line}: KeyError: 'Klee'"
    )


def test_data_that_json_cannot_hold_is_invalid() -> None:
    class Ratio(BaseModel):
        value: Annotated[float, AfterValidator(lambda value: value * float("inf"))]

    [message] = wrong(from_model(Ratio), {"value": 1.5})
    assert message.startswith("the model's data is no JSON: Out of range float values are not JSON compliant")


# The validator and the package jsonschema, which gave the verdicts before


def schemas() -> st.SearchStrategy[Any]:
    leaf = st.one_of(
        st.booleans(),
        st.fixed_dictionaries(
            {},
            optional={
                "type": st.one_of(st.sampled_from(["string", "integer", "number", "boolean", "null", "array", "object"]),
                                  st.just(["string", "null"])),
                "minLength": st.integers(0, 2),
                "maxLength": st.integers(0, 2),
                "pattern": st.sampled_from(["^a", "b$"]),
                "format": st.sampled_from([*FORMATS, "date-time"]),
                "minimum": st.integers(-1, 1),
                "exclusiveMaximum": st.floats(-1, 1),
                "multipleOf": st.sampled_from([2, 0.5]),
            },
        ),
        st.builds(lambda values: {"enum": values}, st.lists(data(2), min_size=1, max_size=3)),
        st.builds(lambda value: {"const": value}, data(2)),
        st.just({"$ref": "#/$defs/a", "minimum": 1}),
    )  # fmt: skip
    return st.recursive(
        leaf,
        lambda inner: st.fixed_dictionaries(
            {},
            optional={
                "properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
                "patternProperties": st.dictionaries(st.just("^a"), inner, max_size=1),
                "additionalProperties": inner,
                "required": st.lists(st.sampled_from("ab"), unique=True),
                "items": inner,
                "prefixItems": st.lists(inner, min_size=1, max_size=2),
                "minItems": st.integers(0, 2),
                "uniqueItems": st.booleans(),
                "anyOf": st.lists(inner, min_size=1, max_size=3),
                "oneOf": st.lists(inner, min_size=1, max_size=3),
                "allOf": st.lists(inner, min_size=1, max_size=3),
                "not": inner,
                "contains": inner,
            },
        ),
        max_leaves=6,
    )


def data(depth: int = 3) -> st.SearchStrategy[Any]:
    scalar = st.one_of(
        st.none(), st.booleans(), st.integers(-2, 2), st.sampled_from([0.5, 1.0, -1.5, "", "a", "ab", "2000-01-01"])
    )
    return st.recursive(
        scalar,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "ab"]), inner, max_size=3)
        ),
        max_leaves=depth,
    )


@given(schemas(), schemas(), st.sampled_from(sorted(DIALECTS)), st.lists(data(6), min_size=1, max_size=8))
def test_verdicts_are_those_of_jsonschema(schema: Any, definition: Any, dialect: str, values: list[Any]) -> None:
    if isinstance(schema, bool):
        schema = {"allOf": [schema]}
    if "2020" not in dialect:
        schema = json.loads(json.dumps(schema).replace('"prefixItems"', '"items"'))
    plain = json.loads(json.dumps(definition).replace('{"$ref": "#/$defs/a", "minimum": 1}', "true"))
    if "2020" not in dialect:
        plain = json.loads(json.dumps(plain).replace('"prefixItems"', '"items"'))
    document = {**schema, "$schema": dialect, "$defs": {"a": plain}}
    validator = Validator(document, "x.json")
    expected = getattr(jsonschema, f"{DIALECTS[dialect]}Validator")(
        document, format_checker=jsonschema.FormatChecker(formats=FORMATS)
    )
    definition_alone = expected.evolve(schema=plain)
    for value in values:
        assert validator.is_valid(value) == expected.is_valid(value), value
        assert validator.part(("$defs", "a"))(value) == definition_alone.is_valid(value), value
        assert bool(validator.issues(value)) != validator.is_valid(value), value


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        (r"^\w+$", ["é", "日本", "a_1", "a\n"], ["a b", "", "-"]),
        (r"^[\w ]+$", ["Sophie Täuber"], ["Sophie-Täuber"]),
        (r"^\d+$", ["12", "١٢"], ["a"]),
        (r"^\W\D$", [" a"], ["a1", "é-"]),
        (r"^[^\W\d_]+$", ["Täuber", "日本"], ["a1", "a_", "a b"]),
        (r"^[^\W]+$", ["é1"], [" "]),
        (r"^[\Wa]+$", ["- a"], ["é", "b"]),
        (r"^[\]\\-]+$", ["]\\-"], ["a"]),
        (r"^.$", ["\r", "\u2028", "😀"], ["\n", ""]),
        (r"\Aa\Z", ["a"], ["a\n", "ba"]),
        (r"^[]a]$", ["]", "a"], ["[]a]"]),
        (r"^[^.$]$", ["a"], ["$", "."]),
        (r"(?P<x>a)(?P=x)", ["aa"], ["ab"]),
        (r"^(?=a)\w{2}$", ["ab"], ["ba"]),
        (r"^(a)\1$", ["aa"], ["a"]),
        (r"^a{,2}$", ["a", ""], ["aaa"]),
        (r"(?i)^klee$", ["KLEE"], ["KLE"]),
        (r"^\p{Lu}", ["Émile"], ["émile"]),
    ],
)
def test_patterns_match_what_they_match_in_python(pattern: str, matching: list[str], other: list[str]) -> None:
    for dialect in DIALECTS:
        validator = Validator({"$schema": dialect, "properties": {"it": {"pattern": pattern}}}, "x.json")
        assert [text for text in (*matching, *other) if validator.is_valid({"it": text})] == matching
        [issue] = validator.issues({"it": other[0]})
        assert (issue.keyword, issue.value, issue.path) == ("pattern", pattern, ("it",))


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(?=a)(a+)+$", r"^(a*)*b\1$", "(x+x+)+y"])
def test_no_pattern_takes_exponential_time(pattern: str) -> None:
    text = "a" * 45 + "!" if "x" not in pattern else "x" * 45
    [message] = wrong(one({"type": "string", "pattern": pattern}), {"it": text})
    assert message.startswith("it: ")


def test_formats_are_checked_whatever_else_is_installed() -> None:
    schema = one({"type": "string", "format": "uuid"})
    assert wrong(schema, {"it": "x"}) == ['it: expected uuid, found "x"']
    assert set(FORMATS) <= set(jsonschema.FormatChecker.checkers)

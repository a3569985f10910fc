"""A JSON Schema as a function that says whether data fits, without saying why: some ten times `jsonschema`'s speed.

It gives the library's own answer, always: a part with a keyword that is not written out here is handed to the
library, and so is the explanation of whatever does not fit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bioforge.recipes.schema.dialect import REFERENCE_STANDS_ALONE, Validator
from bioforge.recipes.schema.walk import target

Test = Callable[[Any], bool]

_TEXT = frozenset(("minLength", "maxLength", "pattern", "format"))
_NUMBER = frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"))
_OBJECT = frozenset(("properties", "required", "additionalProperties"))
_ARRAY = frozenset(("items", "minItems", "maxItems"))
_ANYWHERE = frozenset(("$ref", "type", "enum", "const", "anyOf", "oneOf", "allOf"))
_WRITTEN_OUT = _TEXT | _NUMBER | _OBJECT | _ARRAY | _ANYWHERE

_TYPES: Mapping[str, Test] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: type(value) is int or (isinstance(value, float) and value.is_integer()),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "null": lambda value: value is None,
}


class Compiler:
    """Tests for the parts of one document, each made once; parts may refer to each other in circles."""

    def __init__(self, validator: Validator) -> None:
        self.validator = validator
        self.reference_alone = type(validator).__name__ in REFERENCE_STANDS_ALONE
        self.made: dict[int, Test] = {}

    def test(self, schema: Any) -> Test:
        """For the validator's document or a part of it, known by its identity."""
        if isinstance(schema, bool):
            return lambda value: schema
        key = id(schema)
        if key not in self.made:
            self.made[key] = lambda value: self.made[key](value)  # for a reference back to what is being made
            self.made[key] = self._make(schema)
        return self.made[key]

    def _make(self, schema: Mapping[str, Any]) -> Test:
        words = {word: value for word, value in schema.items() if word in self.validator.VALIDATORS}
        if self.reference_alone and "$ref" in words:
            words = {"$ref": words["$ref"]}
        if not words.keys() <= _WRITTEN_OUT or isinstance(words.get("items"), list) or not _scalars(words):
            return self.validator.evolve(schema=schema).is_valid
        tests: list[Test] = []
        if "$ref" in words:
            tests.append(self.test(target(self.validator.schema, words["$ref"])[1]))
        if "type" in words:
            tests.append(_of_type(words["type"]))
        if "enum" in words:
            tests.append(_one_of(words["enum"]))
        if "const" in words:
            tests.append(_one_of([words["const"]]))
        for own, make in ((_TEXT, self._text), (_NUMBER, _number), (_OBJECT, self._object), (_ARRAY, self._array)):
            if not own.isdisjoint(words):
                tests.append(make(words))
        for word, combine in (("anyOf", _any), ("oneOf", _exactly_one), ("allOf", _all)):
            if word in words:
                tests.append(combine([self.test(part) for part in words[word]]))
        return _all(tests)

    def _text(self, words: Mapping[str, Any]) -> Test:
        least, most = words.get("minLength", 0), words.get("maxLength", float("inf"))
        search = _searching(words["pattern"]) if "pattern" in words else None
        checker, format_ = self.validator.format_checker, words.get("format")
        if format_ not in checker.checkers:
            format_ = None

        def test(value: Any) -> bool:
            if not isinstance(value, str):
                return True
            if not least <= len(value) <= most or (search is not None and not search(value)):
                return False
            return format_ is None or bool(checker.conforms(value, format_))

        return test

    def _object(self, words: Mapping[str, Any]) -> Test:
        required = frozenset(words.get("required", ()))
        properties = {name: self.test(part) for name, part in words.get("properties", {}).items()}
        others = self.test(words.get("additionalProperties", True))

        def test(value: Any) -> bool:
            if not isinstance(value, dict):
                return True
            if not required <= value.keys():
                return False
            return all(properties.get(name, others)(item) for name, item in value.items())

        return test

    def _array(self, words: Mapping[str, Any]) -> Test:
        least, most = words.get("minItems", 0), words.get("maxItems", float("inf"))
        each = self.test(words.get("items", True))

        def test(value: Any) -> bool:
            return not isinstance(value, list) or (least <= len(value) <= most and all(map(each, value)))

        return test


def _scalars(words: Mapping[str, Any]) -> bool:
    """Whether the values that `enum` and `const` allow can be compared without walking into them."""
    return not any(isinstance(value, dict | list) for value in (*words.get("enum", ()), words.get("const")))


def _of_type(named: str | Sequence[str]) -> Test:
    return _TYPES[named] if isinstance(named, str) else _any([_TYPES[name] for name in named])


def _one_of(values: Sequence[Any]) -> Test:
    """Equal as JSON is: 1 and 1.0 are, 1 and true are not."""
    single = [value for value in values if value is None or isinstance(value, bool)]
    plain = {value for value in values if isinstance(value, str | int | float) and not isinstance(value, bool)}

    def test(value: Any) -> bool:
        if value is None or isinstance(value, bool):
            return any(value is one for one in single)
        return not isinstance(value, dict | list) and value in plain

    return test


def _searching(pattern: str) -> Callable[[str], object]:
    try:
        return re.compile(pattern).search
    except re.error:  # of a model, in the words of another engine: the model checks it
        return lambda text: True


def _number(words: Mapping[str, Any]) -> Test:
    least, most = words.get("minimum", float("-inf")), words.get("maximum", float("inf"))
    above, below = words.get("exclusiveMinimum"), words.get("exclusiveMaximum")

    def test(value: Any) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return True
        return least <= value <= most and (above is None or value > above) and (below is None or value < below)

    return test


def _all(tests: Sequence[Test]) -> Test:
    match tests:
        case []:
            return lambda value: True
        case [only]:
            return only
        case [first, second]:
            return lambda value: first(value) and second(value)
        case _:
            return lambda value: all(test(value) for test in tests)


def _any(tests: Sequence[Test]) -> Test:
    if len(tests) == 2:
        first, second = tests
        return lambda value: first(value) or second(value)
    return lambda value: any(test(value) for test in tests)


def _exactly_one(tests: Iterable[Test]) -> Test:
    return lambda value: sum(test(value) for test in tests) == 1

"""JSON Schema documents compiled with `jsonschema-rs`: verdicts for the document and its parts, and its errors.

The only module that knows the library. Verdicts are those that the package `jsonschema` gave before: only the formats
in `FORMATS` are asserted, and patterns match as in Python's `re`, but in linear time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from functools import cache, cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from bioforge.core.errors import ConfigError, nearest
from bioforge.recipes.schema.errors import SchemaIssue, format_path, one_line, quoted, sentence
from bioforge.recipes.schema.keywords import ARRAYS, BY_NAME, SINGLE, target
from bioforge.recipes.schema.time_limit import interruptible
from bioforge.recipes.schema.types import Steps

if TYPE_CHECKING:
    import jsonschema_rs

Predicate = Callable[[Any], bool]

NEWEST = "https://json-schema.org/draft/2020-12/schema"
DIALECTS = {
    "http://json-schema.org/draft-06/schema": "Draft6",
    "http://json-schema.org/draft-07/schema": "Draft7",
    "https://json-schema.org/draft/2019-09/schema": "Draft201909",
    NEWEST: "Draft202012",
}
TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")

FORMATS = ("date", "email", "idn-email", "ipv4", "ipv6", "regex", "uuid")
"""The formats that answers are checked against; all others are annotations."""

BACKTRACK_LIMIT = 1_000_000
"""Steps that a pattern with look-around or back-references may take on one text; all others run in linear time."""

MAX_SORTED = 1000
"""Errors of one answer that are read and sorted; messages show the first 20."""

_ANNOTATED = (
    "date-time", "duration", "hostname", "idn-hostname", "iri", "iri-reference", "json-pointer",
    "relative-json-pointer", "time", "uri", "uri-reference", "uri-template",
)  # fmt: skip
_INTO_ITEMS = ("items", "additionalItems", "additionalProperties", "unevaluatedItems", "unevaluatedProperties")
"""The keywords whose schema is for an item or property of the value."""

_ROOT = "bioforge:schema"
_PYTHON_PATTERN = "x-python-pattern"
_INLINE_FLAGS = re.compile(r"\(\?[a-zA-Z-]+[:)]")


class Validator:
    """A compiled document.

    With `any_pattern`, patterns that no engine here can read match every text; else they raise `ConfigError`.
    """

    def __init__(self, document: Mapping[str, Any], source: str, *, any_pattern: bool = False) -> None:
        self.document = document
        self._source = source
        self._any_pattern = any_pattern
        self._draft = _draft(document, source)
        self._originals: dict[str, str] = {}
        """The names in `patternProperties` by their translations."""
        self._parts: dict[Steps, Predicate] = {}
        self._prepared = self._prepare({key: value for key, value in document.items() if key != "$schema"})
        self._compiled = self._compile(self._prepared)
        self.is_valid: Predicate = self._compiled.is_valid

    def part(self, place: Steps) -> Predicate:
        """Return the test of the part of the document at `place`."""
        if not place:
            return self.is_valid
        if place not in self._parts:
            from urllib.parse import quote

            pointer = "/".join(quote(str(step).replace("~", "~0").replace("/", "~1"), safe="~") for step in place)
            self._parts[place] = self._compile({"$ref": f"{_ROOT}#/{pointer}"}, registry=self._registry).is_valid
        return self._parts[place]

    def target(self, reference: str) -> tuple[Steps, Any]:
        """Return the place and the part of the document that a `$ref` refers to."""
        return target(self.document, reference)

    def issues(self, value: object) -> list[SchemaIssue]:
        """Return what is wrong with `value`, in the order in which the document lists its keywords.

        Repair requests quote these issues: another order would change their hashes.
        """
        return self._issues(self._compiled.iter_errors(value), value)

    def _issues(self, errors: Iterable[jsonschema_rs.ValidationError], value: object) -> list[SchemaIssue]:
        ordered = sorted(islice(errors, MAX_SORTED), key=lambda error: self._order(error, value))
        return [self._issue(error, value) for error in ordered]

    def _issue(self, error: jsonschema_rs.ValidationError, value: object) -> SchemaIssue:
        kind = error.kind
        if kind.name == "propertyNames":
            return self._issue(kind.error, value)  # type: ignore[attr-defined]
        path = tuple(error.instance_path)
        is_name = "propertyNames" in error.evaluation_path and isinstance(error.instance, str)
        instance = error.instance if is_name else _lookup(value, path, error.instance)
        if kind.name == "falseSchema" and error.schema_path[-1:] == ["additionalProperties"]:
            # without `properties` the library reports the object and no names
            names = [str(name) for name in instance] if isinstance(instance, dict) else []
            return SchemaIssue("additionalProperties", names, instance, error.message, path)
        keyword = "pattern" if kind.name == _PYTHON_PATTERN else kind.name
        place = [self._originals.get(str(step), step) for step in error.schema_path]
        limit = _lookup(self.document, [*place[:-1], "pattern"] if keyword == "pattern" else place, kind.value)
        if kind.name == "required":
            limit = [kind.value]
        elif kind.name == "additionalProperties":
            limit = kind.value
        # if several branches of `oneOf` are valid, the others do not matter
        branches = [self._issues(branch, value) for branch in getattr(kind, "context", ())]
        if kind.name == "oneOf" and not all(branches):
            branches = []
        return SchemaIssue(keyword, limit, instance, error.message, path, branches, is_name)

    def _order(self, error: jsonschema_rs.ValidationError, value: object) -> list[int]:
        """Return the positions of keywords, properties and items on the way to an error."""
        order: list[int] = []
        node: Any = self._prepared
        path = iter(error.instance_path)

        def descend() -> None:
            nonlocal value
            step = next(path, None)
            if isinstance(value, dict) and step in value:
                order.append(list(value).index(step))
                value = value[step]
            elif isinstance(value, list) and isinstance(step, int):
                order.append(step)
                value = value[step]

        steps = iter(error.evaluation_path)
        for step in steps:
            if not isinstance(node, Mapping) or step not in node:
                break
            order.append(list(node).index(step))
            node = node[step]
            if step == "$ref":
                node = target(self._prepared, node)[1]
            elif (step in BY_NAME and isinstance(node, Mapping)) or (step in ARRAYS and isinstance(node, list)):
                inner: Any = next(steps, None)
                if inner is None:
                    break
                order.append(inner if isinstance(inner, int) else list(node).index(inner))
                node = node[inner]
                if step in ("properties", "patternProperties", "prefixItems", "items"):
                    descend()
            elif step in _INTO_ITEMS:
                descend()
            elif step == "propertyNames" and isinstance(value, dict):
                name = getattr(getattr(error.kind, "error", None), "instance", None)
                order.append(list(value).index(name) if name in value else -1)
        return order

    def _compile(self, schema: dict[str, Any], **options: Any) -> jsonschema_rs.Validator:
        import jsonschema_rs

        kind = getattr(jsonschema_rs, f"{self._draft}Validator")
        try:
            compiled: jsonschema_rs.Validator = kind(
                schema,
                formats=_formats(),
                validate_formats=True,
                pattern_options=_pattern_options(),
                keywords={_PYTHON_PATTERN: _PythonPattern},
                offline=True,
                **options,
            )
        except jsonschema_rs.ValidationError as error:
            raise _not_a_schema(error, self._source) from None
        except (jsonschema_rs.ReferencingError, ValueError) as error:
            raise ConfigError(f"{self._source}: not a JSON Schema: {one_line(str(error), 200)}") from None
        return compiled

    @cached_property
    def _registry(self) -> jsonschema_rs.Registry:
        import jsonschema_rs

        return jsonschema_rs.Registry([(_ROOT, self._prepared)], draft=getattr(jsonschema_rs, self._draft))

    def _prepare(self, schema: Any, place: Steps = ()) -> Any:
        """Copy a schema with its patterns translated and without the keywords that only this library asserts."""
        if not isinstance(schema, Mapping):
            return schema
        prepared: dict[str, Any] = {}
        for word, value in schema.items():
            here = (*place, word)
            if word == "pattern" and isinstance(value, str):
                prepared.update(self._pattern(value, here))
            elif word in BY_NAME and isinstance(value, Mapping):
                parts = {name: self._prepare(part, (*here, name)) for name, part in value.items()}
                if word == "patternProperties":
                    self._originals |= {translate(name): name for name in parts}
                    parts = {translate(name): part for name, part in parts.items()}
                prepared[word] = parts
            elif word in ARRAYS and isinstance(value, list):
                prepared[word] = [self._prepare(part, (*here, number)) for number, part in enumerate(value)]
            elif word not in ("contentMediaType", "contentEncoding"):
                prepared[word] = self._prepare(value, here) if word in SINGLE else value
        return prepared

    def _pattern(self, pattern: str, place: Steps) -> dict[str, str]:
        translated = translate(pattern)
        if _is_supported(self._draft, translated):
            return {"pattern": translated}
        if _is_regex(pattern):
            return {_PYTHON_PATTERN: pattern}
        if self._any_pattern:
            return {}
        raise ConfigError(
            f"{self._source}: {format_path(place)}: not a JSON Schema: {quoted(pattern)} is not a regular expression"
        )


def translate(pattern: str) -> str:
    r"""Return a pattern of Python's `re` in ECMA syntax: `\d`, `\w`, `.` and `$` match what they match in Python."""
    if _INLINE_FLAGS.search(pattern):
        return pattern
    return _TOKEN.sub(_translate_token, pattern)


_TOKEN = re.compile(r"\[(\^?)(\]?(?:\\.|[^\]\\])*)\]|\\.|.", re.DOTALL)
"""A character class (its `^` and its members), an escape or a character."""

_WORD = r"\p{L}\p{N}_"
_MEMBERS = {r"\d": r"\p{Nd}", r"\D": r"\P{Nd}", r"\w": _WORD}
_TOKENS = {
    **_MEMBERS,
    r"\w": f"[{_WORD}]",
    r"\W": f"[^{_WORD}]",
    r"\A": "^",
    r"\Z": "$",
    ".": r"[^\n]",
    "$": r"(?:\n?$)",
}


def _translate_token(token: re.Match[str]) -> str:
    negated, class_members = token.groups()
    if class_members is None:
        return _TOKENS.get(token[0], token[0])
    members = re.findall(r"\\.|.", class_members, re.DOTALL)
    others = "".join(_MEMBERS.get(member, member) for member in members if member != r"\W")
    others = f"\\{others}" if others.startswith("]") else others
    if r"\W" not in members:
        return f"[{negated}{others}]"
    # ECMA has no nested classes
    if negated:
        return f"(?:(?![{others}])[{_WORD}])" if others else f"[{_WORD}]"
    return f"(?:[^{_WORD}]|[{others}])" if others else f"[^{_WORD}]"


@cache
def _is_supported(draft: str, pattern: str) -> bool:
    """Return False for a pattern that the library cannot compile."""
    import jsonschema_rs

    try:
        getattr(jsonschema_rs, f"{draft}Validator")({"pattern": pattern}, pattern_options=_pattern_options())
    except ValueError:
        return False
    return True


def _pattern_options() -> jsonschema_rs.FancyRegexOptions:
    import jsonschema_rs

    return jsonschema_rs.FancyRegexOptions(backtrack_limit=BACKTRACK_LIMIT)


class _PythonPattern:
    """The keyword for patterns that only Python's `re` can read, like `(?P<a>.)(?P=a)`."""

    def __init__(self, schema: Mapping[str, Any], pattern: str, path: Sequence[str | int]) -> None:
        self._search = interruptible(re.compile(pattern).search)

    def validate(self, value: object) -> None:
        if isinstance(value, str) and not self._search(value):
            raise ValueError("the text does not match the pattern")


@cache
def _formats() -> dict[str, Predicate]:
    return {
        **dict.fromkeys(_ANNOTATED, lambda text: True),
        "date": _is_date,
        "email": _is_email,
        "idn-email": _is_email,
        "regex": _is_regex,
        "uuid": _is_uuid,
    }


def _is_email(text: str) -> bool:
    return "@" in text


def _is_date(text: str) -> bool:
    try:
        return re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII) is not None and bool(date.fromisoformat(text))
    except ValueError:
        return False


def _is_regex(text: str) -> bool:
    try:
        return re.compile(text) is not None
    except re.error:
        return False


def _is_uuid(text: str) -> bool:
    from uuid import UUID

    try:
        return bool(UUID(text)) and all(text[position] == "-" for position in (8, 13, 18, 23))
    except ValueError:
        return False


def _draft(document: Mapping[str, Any], source: str) -> str:
    """Return the library's name for the dialect that `$schema` names; the newest without one."""
    named = document.get("$schema", NEWEST)
    uri = str(named).rstrip("#").replace("https://json-schema.org/draft-0", "http://json-schema.org/draft-0")
    if uri not in DIALECTS:
        raise ConfigError(f"{source}: $schema: unknown dialect {quoted(named)}", f"known are: {', '.join(DIALECTS)}")
    return DIALECTS[uri]


def _not_a_schema(error: jsonschema_rs.ValidationError, source: str) -> ConfigError:
    place = tuple(error.instance_path)
    where = f"{source}: {format_path(place)}: " if place else f"{source}: "
    if "type" in place[-2:] and error.kind.name in ("anyOf", "enum"):
        wrong = error.instance if isinstance(error.instance, str) else None
        return ConfigError(
            f"{where}not a JSON Schema: {quoted(error.instance)} is not a type",
            (nearest(wrong, TYPES) if wrong else "") or f"types are: {', '.join(TYPES)}",
        )
    if error.kind.value == "regex":
        return ConfigError(f"{where}not a JSON Schema: {quoted(error.instance)} is not a regular expression")
    issue = SchemaIssue(error.kind.name, error.kind.value, error.instance, error.message, place)
    return ConfigError(f"{where}not a JSON Schema: {sentence(issue)}")


def _lookup(value: Any, path: Iterable[str | int], default: Any) -> Any:
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return default
    return value

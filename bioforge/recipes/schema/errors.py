"""The wording of schema problems: places, values, and one sentence for each keyword.

Repair requests quote these sentences, so a changed word changes the hashes of repairs that were paid for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bioforge.recipes.schema.types import SchemaError, Steps

MAX_QUOTED = 60
"""Characters of a value, a name or a pattern that a message quotes."""

MAX_ENUM_VALUES = 10
"""Values of an enum that a message lists."""


@dataclass(frozen=True, slots=True)
class SchemaIssue:
    """A value that fails a keyword: `value` is the keyword's, `instance` the one in the answer at `path`.

    `branches` are the issues of each branch of a union; `is_name` says that `instance` is a property name.
    """

    keyword: str
    value: Any
    instance: Any
    message: str
    path: Steps
    branches: list[list[SchemaIssue]] = field(default_factory=list)
    is_name: bool = False


def format_path(steps: Iterable[str | int]) -> str:
    """Return `properties.born.anyOf[1]`; names that are not identifiers are quoted: `works["à la carte"]`."""
    text = ""
    for step in steps:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step.replace("$", "").replace("-", "").isidentifier() and len(step) <= MAX_QUOTED:
            text += f".{step}" if text else step
        else:
            text += f"[{quoted(step)}]"
    return text


def quoted(value: object) -> str:
    """Return a value as JSON, shortened; the name of its type if it is not JSON."""
    if isinstance(value, str):
        value = value if len(value) <= MAX_QUOTED else f"{value[: MAX_QUOTED - 1]}…"
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return one_line(text, MAX_QUOTED + 2)


def describe(value: Any) -> str:
    """Return texts and numbers quoted, objects and lists by kind and length."""
    if isinstance(value, dict):
        return "an object" if value else "an empty object"
    if isinstance(value, list):
        return f"a list of {_count(len(value), 'item')}" if value else "an empty list"
    return quoted(value)


def one_line(text: str, longest: int = 300) -> str:
    """Return `text` on one line, cut to `longest` characters."""
    # cut first: a text may have megabytes
    line = " ".join(text[: 4 * longest].split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def alternatives(words: Iterable[str]) -> str:
    """Return `a`, `a or b`, or `a, b or c`."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def explain(issues: Iterable[SchemaIssue]) -> Iterator[SchemaError]:
    """Yield a path into the answer and a sentence for each issue."""
    for issue in issues:
        match issue.keyword:
            case "required":
                for name in issue.value:
                    yield SchemaError(format_path((*issue.path, name)), "missing")
            case "additionalProperties":
                for name in issue.value:
                    yield SchemaError(format_path((*issue.path, name)), "not in the schema")
            case "anyOf" | "oneOf" if branch := _intended_branch(issue):
                yield from explain(branch)
            case _ if issue.is_name:
                yield SchemaError(format_path(issue.path), f"the name {quoted(issue.instance)}: {sentence(issue)}")
            case _:
                yield SchemaError(format_path(issue.path), sentence(issue))


def sentence(issue: SchemaIssue) -> str:
    """Return what a keyword expects and what the answer has."""
    if (write := _SENTENCES.get(issue.keyword)) is not None:
        return write(issue.value, issue.instance)
    if issue.keyword in ("anyOf", "oneOf"):
        if not issue.branches:
            return "fits more than one of the forms that exclude each other here"
        if types := _expected_types(issue):
            return f"expected {alternatives(types)}, found {describe(issue.instance)}"
        return f"fits none of the {len(issue.value)} forms that are allowed here"
    # the library quotes the whole value, however long it is
    return one_line(issue.message, 200)


def _intended_branch(issue: SchemaIssue) -> list[SchemaIssue] | None:
    """Return the issues of the only branch of a union that has the value's type and tag (a `const` or `enum`)."""
    same_type = [branch for branch in issue.branches if not any(_is_wrong_type(issue, inner) for inner in branch)]
    if len(same_type) > 1:
        same_type = [branch for branch in same_type if not any(_is_wrong_tag(issue, inner) for inner in branch)]
    return same_type[0] if len(same_type) == 1 else None


def _is_wrong_type(union: SchemaIssue, issue: SchemaIssue) -> bool:
    return issue.keyword == "type" and issue.path == union.path


def _is_wrong_tag(union: SchemaIssue, issue: SchemaIssue) -> bool:
    return issue.keyword in ("const", "enum") and len(issue.path) <= len(union.path) + 1


def _expected_types(issue: SchemaIssue) -> list[str]:
    """Return the types of all branches if the value has none of them; else an empty list."""
    expected: list[str] = []
    for branch in issue.branches:
        wrong = next((inner.value for inner in branch if _is_wrong_type(issue, inner)), None)
        if wrong is None:
            return []
        expected.extend([wrong] if isinstance(wrong, str) else wrong)
    return list(dict.fromkeys(expected))


def _list_values(values: list[Any]) -> str:
    shown = [quoted(value) for value in values[:MAX_ENUM_VALUES]]
    more = len(values) - len(shown)
    return f"{', '.join(shown)} and {more} more" if more > 0 else alternatives(shown)


def _wrong_type(expected: str | list[str], value: Any) -> str:
    return f"expected {expected if isinstance(expected, str) else alternatives(expected)}, found {describe(value)}"


def _count(number: int, noun: str) -> str:
    # no thousands separators: repair requests quote it
    return f"{number} {noun}{'' if number == 1 else 's'}"


_SENTENCES: Mapping[str, Callable[[Any, Any], str]] = {
    "type": _wrong_type,
    "enum": lambda values, value: f"expected {_list_values(values)}, found {describe(value)}",
    "const": lambda constant, value: f"expected {quoted(constant)}, found {describe(value)}",
    "minimum": lambda limit, value: f"expected at least {limit}, found {value}",
    "maximum": lambda limit, value: f"expected at most {limit}, found {value}",
    "exclusiveMinimum": lambda limit, value: f"expected more than {limit}, found {value}",
    "exclusiveMaximum": lambda limit, value: f"expected less than {limit}, found {value}",
    "multipleOf": lambda step, value: f"expected a multiple of {step}, found {value}",
    "minLength": lambda limit, value: f"expected at least {_count(limit, 'character')}, found {len(value)}",
    "maxLength": lambda limit, value: f"expected at most {_count(limit, 'character')}, found {len(value)}",
    "pattern": lambda pattern, value: f"expected text matching {one_line(pattern, 60)}, found {describe(value)}",
    "format": lambda name, value: f"expected {name}, found {describe(value)}",
    "minItems": lambda limit, value: f"expected at least {_count(limit, 'item')}, found {len(value)}",
    "maxItems": lambda limit, value: f"expected at most {_count(limit, 'item')}, found {len(value)}",
    "uniqueItems": lambda _, value: "expected no item twice",
    "minProperties": lambda limit, value: f"expected at least {limit} properties, found {len(value)}",
    "maxProperties": lambda limit, value: f"expected at most {limit} properties, found {len(value)}",
    "falseSchema": lambda _, value: one_line(f"False schema does not allow {value!r}", 200),
    "contains": lambda _, value: "no item of the list is the one that has to be in it",
}

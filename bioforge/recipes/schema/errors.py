"""What `jsonschema` found wrong with an answer, in words short enough for a table and plain enough for a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from bioforge.recipes.schema.describe import alternatives, found, one_line, quoted, shown
from bioforge.recipes.schema.dialect import SchemaIssue
from bioforge.recipes.schema.result import SchemaError

_MOST_VALUES = 10
"""Values of an enum that a message lists."""


def explained(faults: Iterable[SchemaIssue]) -> Iterator[SchemaError]:
    for fault in faults:
        place = tuple(fault.absolute_path)
        match fault.validator:
            case "required":
                for name in fault.validator_value:
                    if name not in fault.instance:
                        yield SchemaError(shown((*place, name)), "missing")
            case "additionalProperties" if isinstance(fault.instance, dict) and fault.validator_value is False:
                for name in _unexpected(fault.schema, fault.instance):
                    yield SchemaError(shown((*place, name)), "not in the schema")
            case "anyOf" | "oneOf" if branch := _meant(fault):
                yield from explained(branch)
            case _ if "propertyNames" in fault.absolute_schema_path and isinstance(fault.instance, str):
                yield SchemaError(shown(place), f"the name {quoted(fault.instance)}: {_sentence(fault)}")
            case _:
                yield SchemaError(shown(place), _sentence(fault))


def _sentence(fault: SchemaIssue) -> str:
    if (write := _SENTENCES.get(fault.validator)) is not None:
        return write(fault.validator_value, fault.instance)
    if fault.validator in ("anyOf", "oneOf"):
        if not fault.context:
            return "fits more than one of the forms that exclude each other here"
        if kinds := _kinds_wanted(fault):
            return f"expected {alternatives(kinds)}, found {found(fault.instance)}"
        return f"fits none of the {len(fault.validator_value)} forms that are allowed here"
    # the library quotes the whole value, however long it is
    return one_line(fault.message, 200)


def _unexpected(schema: Mapping[str, Any], instance: Mapping[str, Any]) -> Iterator[str]:
    import re

    patterns = schema.get("patternProperties", {})
    for name in instance:
        if name not in schema.get("properties", {}) and not any(re.search(pattern, name) for pattern in patterns):
            yield name


def _meant(fault: SchemaIssue) -> list[SchemaIssue] | None:
    """The errors of the one branch of a union that the value has the kind of, and the tag (a `const` or `enum`)."""
    of_kind = [errors for errors in _branches(fault) if not any(map(_wrong_kind, errors))]
    if len(of_kind) > 1:
        of_kind = [errors for errors in of_kind if not any(map(_wrong_tag, errors))]
    return of_kind[0] if len(of_kind) == 1 else None


def _branches(fault: SchemaIssue) -> list[list[SchemaIssue]]:
    branches: dict[str | int, list[SchemaIssue]] = {}
    for error in fault.context:
        branches.setdefault(error.schema_path[0], []).append(error)
    return list(branches.values())


def _wrong_kind(error: SchemaIssue) -> bool:
    return error.validator == "type" and not error.relative_path


def _wrong_tag(error: SchemaIssue) -> bool:
    return error.validator in ("const", "enum") and len(error.relative_path) <= 1


def _kinds_wanted(fault: SchemaIssue) -> list[str]:
    """The types of all branches, where the value has none of them; else nothing."""
    wanted: list[str] = []
    for errors in _branches(fault):
        if not (wrong := [error.validator_value for error in errors if _wrong_kind(error)]):
            return []
        wanted.extend([wrong[0]] if isinstance(wrong[0], str) else wrong[0])
    return list(dict.fromkeys(wanted))


def _listed(values: list[Any]) -> str:
    shown_values = [quoted(value) for value in values[:_MOST_VALUES]]
    more = len(values) - len(shown_values)
    return f"{', '.join(shown_values)} and {more} more" if more > 0 else alternatives(shown_values)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _of_type(wanted: str | list[str], value: Any) -> str:
    return f"expected {wanted if isinstance(wanted, str) else alternatives(wanted)}, found {found(value)}"


_SENTENCES: Mapping[str, Callable[[Any, Any], str]] = {
    "type": _of_type,
    "enum": lambda values, value: f"expected {_listed(values)}, found {found(value)}",
    "const": lambda wanted, value: f"expected {quoted(wanted)}, found {found(value)}",
    "minimum": lambda least, value: f"expected at least {least}, found {value}",
    "maximum": lambda most, value: f"expected at most {most}, found {value}",
    "exclusiveMinimum": lambda least, value: f"expected more than {least}, found {value}",
    "exclusiveMaximum": lambda most, value: f"expected less than {most}, found {value}",
    "multipleOf": lambda step, value: f"expected a multiple of {step}, found {value}",
    "minLength": lambda least, value: f"expected at least {_counted(least, 'character')}, found {len(value)}",
    "maxLength": lambda most, value: f"expected at most {_counted(most, 'character')}, found {len(value)}",
    "pattern": lambda pattern, value: f"expected text matching {one_line(pattern, 60)}, found {found(value)}",
    "format": lambda wanted, value: f"expected {wanted}, found {found(value)}",
    "minItems": lambda least, value: f"expected at least {_counted(least, 'item')}, found {len(value)}",
    "maxItems": lambda most, value: f"expected at most {_counted(most, 'item')}, found {len(value)}",
    "uniqueItems": lambda wanted, value: "expected no item twice",
    "minProperties": lambda least, value: f"expected at least {least} properties, found {len(value)}",
    "maxProperties": lambda most, value: f"expected at most {most} properties, found {len(value)}",
    "contains": lambda wanted, value: "no item of the list is the one that has to be in it",
}

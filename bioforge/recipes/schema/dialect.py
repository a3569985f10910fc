"""Which JSON Schema a document is written in, and its validator: the one place that knows the `jsonschema` library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from bioforge.core.errors import ConfigError, nearest
from bioforge.recipes.schema.describe import one_line, quoted, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

DIALECTS = {
    "http://json-schema.org/draft-06/schema": "Draft6Validator",
    "http://json-schema.org/draft-07/schema": "Draft7Validator",
    "https://json-schema.org/draft/2019-09/schema": "Draft201909Validator",
    "https://json-schema.org/draft/2020-12/schema": "Draft202012Validator",
}
NEWEST = "https://json-schema.org/draft/2020-12/schema"
REFERENCE_STANDS_ALONE = ("Draft6Validator", "Draft7Validator")
"""The dialects in which nothing beside a `$ref` counts."""

FORMATS = ("date", "email", "idn-email", "ipv4", "ipv6", "regex", "uuid")
"""What `jsonschema` checks without further packages: the same on every machine, whatever else is installed."""

TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")


class SchemaIssue(Protocol):
    """What is used of `jsonschema.ValidationError`."""

    validator: str
    validator_value: Any
    instance: Any
    schema: Any
    message: str
    absolute_path: Sequence[str | int]
    relative_path: Sequence[str | int]
    schema_path: Sequence[str | int]
    absolute_schema_path: Sequence[str | int]
    context: Sequence[SchemaIssue]


class Validator(Protocol):
    """What is used of a validator of `jsonschema`."""

    VALIDATORS: Mapping[str, Any]
    META_SCHEMA: Any
    FORMAT_CHECKER: Any
    schema: Any
    format_checker: Any

    def iter_errors(self, instance: Any) -> Iterator[SchemaIssue]: ...
    def is_valid(self, instance: Any) -> bool: ...
    def evolve(self, *, schema: Any) -> Validator: ...


def validator_of(schema: Mapping[str, Any], source: str) -> Validator:
    """For the dialect that `$schema` names, or the newest. `ConfigError` for one that is unknown.

    References lead nowhere outside the document: validation never opens a connection.
    """
    import jsonschema  # type: ignore[import-untyped]
    import referencing

    named = schema.get("$schema", NEWEST)
    name = DIALECTS.get(
        str(named).rstrip("#").replace("https://json-schema.org/draft-0", "http://json-schema.org/draft-0")
    )
    if name is None:
        raise ConfigError(
            f"{source}: $schema: unknown dialect {quoted(named)}",
            f"known are: {', '.join(DIALECTS)}",
        )
    kind = getattr(jsonschema, name)
    checker = jsonschema.FormatChecker(formats=FORMATS)
    made: Validator = kind(schema, format_checker=checker, registry=referencing.Registry())
    return made


def check(validator: Validator, source: str) -> None:
    """`ConfigError` where the validator's document is no schema of its dialect."""
    kind = type(validator)
    meta: Validator = kind(kind.META_SCHEMA, format_checker=kind.FORMAT_CHECKER)  # type: ignore[call-arg]
    for fault in meta.iter_errors(validator.schema):
        raise _no_schema(fault, source)


def _no_schema(fault: SchemaIssue, source: str) -> ConfigError:
    place = list(fault.absolute_path)
    where = f"{shown(place)}: " if place else ""
    if fault.validator == "anyOf" and place and (place[-1] == "type" or place[-2:-1] == ["type"]):
        wrong = fault.instance if isinstance(fault.instance, str) else None
        return ConfigError(
            f"{source}: {where}no JSON Schema: {quoted(fault.instance)} is no type",
            (nearest(wrong, TYPES) if wrong else "") or f"types are: {', '.join(TYPES)}",
        )
    return ConfigError(f"{source}: {where}no JSON Schema: {one_line(fault.message, 200)}")

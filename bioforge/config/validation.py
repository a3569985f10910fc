"""Format the mistakes of a project file: the key, the value found, and what is expected or the nearest valid name."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from bioforge.core.errors import ConfigError, nearest

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic.fields import FieldInfo

_SECRET = re.compile(r"sk-[\w-]{6,}")


@dataclass(frozen=True, slots=True)
class ConfigIssue:
    """A mistake; `key` is dotted (`recipe.bio.model`), `message` one short sentence without it."""

    key: str
    message: str


def error(file: str, mistakes: Sequence[ConfigIssue], sources: Mapping[str, str], hint: str = "") -> ConfigError:
    """Return one error for all issues: a single line for one, a headline and a line each for several.

    `sources` names, by dotted key, the environment variable that a value came from.
    """
    lines = [f"{_place(mistake.key, sources)}: {mistake.message}" for mistake in mistakes]
    if len(lines) == 1:
        return ConfigError(f"{file}: {lines[0]}", hint)
    return ConfigError("\n  ".join([f"{file}: {len(lines)} mistakes", *lines]), hint)


def _place(key: str, sources: Mapping[str, str]) -> str:
    return f"{key} (from {sources[key]})" if key in sources else key


def from_pydantic(error: ValidationError, model: type[BaseModel], key: str) -> Iterator[ConfigIssue]:
    """Return the issues that pydantic found in the table `key`, each at its place in the file.

    What is expected comes from each field's description. For a value that may have several types, only the
    nearest type is reported.
    """
    found = [_Found(detail, tuple(detail["loc"])) for detail in error.errors(include_url=False)]
    yield from _mistakes(found, model, key, None)


@dataclass(frozen=True, slots=True)
class _Found:
    """An error of pydantic; `rest` is the part of its location that is still to be walked, branch names included."""

    detail: Any
    rest: tuple[int | str, ...]

    @property
    def kind(self) -> str:
        return str(self.detail["type"])

    def further(self) -> _Found:
        return _Found(self.detail, self.rest[1:])


def _mistakes(found: Sequence[_Found], kind: Any, key: str, expected: str | None) -> Iterator[ConfigIssue]:
    """Return the issues at or below `key`, whose value should be a `kind`; `expected` describes it, if known."""
    choices = _choices(kind)
    if len(choices) > 1:
        yield from _of_choices(found, choices, key, expected)
        return
    (kind,) = choices or (None,)
    for part, below in _grouped(found).items():
        if part is None:
            yield from (ConfigIssue(key, _sentence(one.detail, expected)) for one in below)
        elif fields := _fields(kind):
            yield from _of_field(below, kind, fields, key, str(part))
        elif part == "[key]":
            yield from _mistakes([one.further() for one in below], None, key, expected)
        else:
            place = f"{key}[{part}]" if isinstance(part, int) else f"{key}.{part}"
            yield from _mistakes([one.further() for one in below], _item(kind, part), place, expected)


def _grouped(found: Iterable[_Found]) -> dict[int | str | None, list[_Found]]:
    """Group errors by the next part of their location, in order; None for errors at this location."""
    groups: dict[int | str | None, list[_Found]] = {}
    for one in found:
        groups.setdefault(one.rest[0] if one.rest else None, []).append(one)
    return groups


def _of_field(
    found: Sequence[_Found], model: Any, fields: Mapping[str, FieldInfo], key: str, name: str
) -> Iterator[ConfigIssue]:
    field = fields.get(name)
    expected = field.description if field is not None else None
    deeper = []
    for one in found:
        if one.kind == "extra_forbidden" and len(one.rest) == 1:
            yield ConfigIssue(f"{key}.{name}", _unknown_field(name, model, fields))
        elif one.kind == "missing" and len(one.rest) == 1:
            yield ConfigIssue(f"{key}.{name}", missing(name, one.detail["input"], fields, expected))
        else:
            deeper.append(one.further())
    if deeper:
        yield from _mistakes(deeper, None if field is None else field.annotation, f"{key}.{name}", expected)


def _unknown_field(name: str, model: Any, fields: Mapping[str, FieldInfo]) -> str:
    meant = model.model_fields.get(name)
    if meant is not None:  # by its name in Python, and the file has another one for it
        return f"unknown key; did you mean {next(one for one, field in fields.items() if field is meant)!r}?"
    return unknown(name, fields)


def _of_choices(
    found: Sequence[_Found], choices: Sequence[Any], key: str, expected: str | None
) -> Iterator[ConfigIssue]:
    """Return the issues of a union. Pydantic reports each choice under a made-up name."""
    groups = _grouped(found)
    yield from (ConfigIssue(key, _sentence(one.detail, expected)) for one in groups.pop(None, ()))
    if not groups:
        return
    near = {name: below for name, below in groups.items() if not all(_is_other_kind(one) for one in below)}
    if near:
        # one that is the right kind of thing, and has the fewest mistakes inside
        name, below = min(near.items(), key=lambda one: (all(len(each.rest) == 1 for each in one[1]), len(one[1])))
        kind = _choice(str(name), list(groups).index(name) if len(groups) == len(choices) else None, choices)
        yield from _mistakes([one.further() for one in below], kind, key, expected)
        return
    details = [one.detail for below in groups.values() for one in below]
    if expected is not None:
        yield ConfigIssue(
            key, _sentence(next((one for one in details if one["type"] in _LISTED), details[0]), expected)
        )
        return
    texts = [_words(one).removeprefix(_SHOULD_BE) for one in details]
    yield ConfigIssue(key, f"{_SHOULD_BE}{' or '.join(dict.fromkeys(texts))}, found {short(details[0]['input'])}")


def _is_other_kind(found: _Found) -> bool:
    """Return True if the value is nothing like this choice: a text where a table is expected."""
    return len(found.rest) == 1 and (found.kind in _OTHER_KIND or found.kind.endswith(("_type", "_parsing")))


def _choice(name: str, number: int | None, choices: Sequence[Any]) -> Any:
    """Return the choice that pydantic calls `name`, like `int`, `list[int]` or `function-after[check(), Range]`.

    Or by its discriminator.

    They are in order if each of them failed.
    """
    if number is not None:
        return choices[number]
    words = set(re.findall(r"\w+", name))
    for choice in choices:
        if getattr(get_origin(choice) or choice, "__name__", None) in words:
            return choice
    for choice in choices:
        if any(name in get_args(field.annotation) for field in _fields(choice).values()):
            return choice
    return None


def _choices(kind: Any) -> tuple[Any, ...]:
    """Return the choices of a union without None; the type itself if it is not a union."""
    while True:
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif hasattr(kind, "__value__"):  # an alias of a type
            kind = kind.__value__
        elif hasattr(kind, "__pydantic_root_model__") and kind.__pydantic_root_model__:
            kind = kind.model_fields["root"].annotation
        else:
            break
    if get_origin(kind) not in (Union, UnionType):
        return (kind,)
    inner = [each for each in get_args(kind) if each is not NoneType]
    return _choices(inner[0]) if len(inner) == 1 else tuple(one for each in inner for one in _only(each))


def _only(kind: Any) -> tuple[Any, ...]:
    """Return a choice without wrappers."""
    inner = _choices(kind)
    return inner if len(inner) == 1 else (kind,)


def _item(kind: Any, part: int | str) -> Any:
    """Return the value at `part` of a list, tuple, set or table."""
    inner = get_args(kind)
    if get_origin(kind) is tuple and isinstance(part, int) and Ellipsis not in inner:
        return inner[part] if part < len(inner) else None
    return inner[-1 if isinstance(part, str) else 0] if inner else None


def _fields(kind: Any) -> dict[str, FieldInfo]:
    """Return the fields of a model by the names that a file may use; empty for anything else."""
    found: dict[str, FieldInfo] = {}
    config = getattr(kind, "model_config", {})
    for name, field in getattr(kind, "model_fields", {}).items():
        alias = field.validation_alias or field.alias
        names = [name] if alias is None or config.get("populate_by_name") or config.get("validate_by_name") else []
        for one in getattr(alias, "choices", [] if alias is None else [alias]):
            names.append(str(getattr(one, "path", [one])[0]))
        found |= dict.fromkeys(names, field)
    return found


def _sentence(detail: Any, expected: str | None) -> str:
    """Describe what is wrong with a value, with the field's description if it has one."""
    if detail["type"] == "extra_forbidden":  # of a table that has no keys at all
        return "unknown key"
    if detail["type"] in _OF_A_VALIDATOR:
        return str(detail["ctx"]["error"])
    if detail["type"] in _LISTED:
        listed = str(detail["ctx"]["expected"])
        near = nearest(str(detail["input"]), re.findall("'([^']+)'", expected or listed))
        return f"expected {expected or listed}, found {short(detail['input'])}{near and '; ' + near}"
    if not detail["loc"]:  # of the table as a whole
        return _words(detail)
    return f"{f'expected {expected}' if expected else _words(detail)}, found {short(detail['input'])}"


def _words(detail: Any) -> str:
    """Rewrite a message of pydantic in our form."""
    text = str(detail["msg"])
    for theirs, ours in _TOML.items():
        text = text.replace(theirs, ours)
    return text[:1].lower() + text[1:]


_SHOULD_BE = "input should be "
_OF_A_VALIDATOR = ("value_error", "assertion_error")
_LISTED = ("literal_error", "enum")
_OTHER_KIND = frozenset({*_LISTED, "is_instance_of", "none_required", "date_from_datetime_parsing"})
_TOML = {
    "a valid dictionary or instance of ": "a table like ",
    "a valid dictionary": "a table",
    "a valid list": "a list",
    "a valid set": "a list",
    "a valid frozenset": "a list",
    "a valid tuple": "a list",
    "is not a valid path for <class 'pathlib.Path'>": "should be a path",
    "is not a valid path for <class 'pathlib._local.Path'>": "should be a path",
}
"""Terms of pydantic, and the terms for the same in TOML."""


def missing(name: str, table: object, known: Container[str], expected: str | None) -> str:
    """Return the message for a missing key, with the mistyped key of `table` that was probably meant."""
    others = [key for key in table if key not in known] if isinstance(table, Mapping) else []
    near = get_close_matches(name, others, n=1, cutoff=0.75)
    return f"missing{f' (is {near[0]!r} meant?)' if near else ''}{f', expected {expected}' if expected else ''}"


def unknown(name: str, known: object, what: str = "key") -> str:
    """Return the message for an unknown name: the nearest known one, or all of them."""
    if name.lower().replace("-", "_").endswith(("api_key", "apikey")):
        return "a key does not belong in this file: put it into the environment or .env, under provider.api_key_env"
    if near := nearest(name, known):
        return f"unknown {what}; {near}"
    names = [str(one) for one in known] if isinstance(known, (Mapping, Sequence)) else []
    return f"unknown {what} (known: {', '.join(names)})" if names else f"unknown {what}"


def short(value: object) -> str:
    """Format a value in TOML's terms, at most 60 characters, without anything like a key."""
    match value:
        case bool():
            return str(value).lower()
        case Mapping():
            return "a table"
        case list() | tuple():
            return "a list"
        case _:
            text = _SECRET.sub("sk-…", repr(value) if isinstance(value, (str, int, float)) else str(value))
            return text if len(text) <= 60 else f"{text[:56]}…{text[-1]}"


def not_json(value: object, key: str) -> Iterator[ConfigIssue]:
    """Return an issue for each value inside `value` that JSON cannot carry: dates, times, inf and nan."""
    match value:
        case Mapping():
            for name, item in value.items():
                yield from not_json(item, f"{key}.{name}")
        case list():
            for number, item in enumerate(value):
                yield from not_json(item, f"{key}[{number}]")
        case None | bool() | str() | int():
            pass
        case float() if value - value == 0:
            pass
        case _:
            yield ConfigIssue(key, f"{short(value)} cannot be sent as JSON")

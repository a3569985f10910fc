"""Mistakes of a project file as sentences: the key, what was found, what is expected or the nearest valid name."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from bioforge.errors import ConfigError, nearest

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

_SECRET = re.compile(r"sk-[\w-]{6,}")


@dataclass(frozen=True, slots=True)
class Mistake:
    """`key` is dotted (`recipe.bio.model`); `message` is one short sentence without it."""

    key: str
    message: str


def error(file: str, mistakes: Sequence[Mistake], sources: Mapping[str, str], hint: str = "") -> ConfigError:
    """One error for all mistakes: a single line for one, a headline and a line for each of several.

    `sources` names, by dotted key, the environment variable that a value came from instead of the file.
    """
    lines = [f"{_place(mistake.key, sources)}: {mistake.message}" for mistake in mistakes]
    if len(lines) == 1:
        return ConfigError(f"{file}: {lines[0]}", hint)
    return ConfigError("\n  ".join([f"{file}: {len(lines)} mistakes", *lines]), hint)


def _place(key: str, sources: Mapping[str, str]) -> str:
    return f"{key} (from {sources[key]})" if key in sources else key


def of_validation(error: ValidationError, model: type[BaseModel], key: str) -> Iterator[Mistake]:
    """The mistakes pydantic found in the table `key`. What is expected stands in each field's description."""
    for detail in error.errors(include_url=False):
        if not detail["loc"]:  # of the table as a whole
            yield Mistake(key, _words(detail))
            continue
        first, *rest = detail["loc"]
        place = ".".join([key, str(first), *(str(part) for part in rest if part != "[key]")])
        field = next((found for name, found in model.model_fields.items() if (found.alias or name) == first), None)
        expected = field.description if field is not None else None
        if expected is None and detail["type"] not in ("extra_forbidden", "value_error"):
            yield Mistake(place, f"{_words(detail)}, found {short(detail['input'])}")
            continue
        match detail["type"]:
            case "extra_forbidden":
                yield Mistake(place, unknown(str(first), model.model_fields))
            case "missing":
                yield Mistake(place, missing(str(first), detail["input"], model.model_fields, expected))
            case "value_error":
                yield Mistake(place, str(detail["ctx"]["error"]))
            case "literal_error":
                near = nearest(str(detail["input"]), re.findall("'([^']+)'", expected or ""))
                yield Mistake(place, f"expected {expected}, found {short(detail['input'])}{near and '; ' + near}")
            case _:
                yield Mistake(place, f"expected {expected}, found {short(detail['input'])}")


def _words(detail: Any) -> str:
    """What pydantic says, in the form of our own sentences."""
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    text = str(detail["msg"])
    return text[:1].lower() + text[1:]


def missing(name: str, table: object, known: Container[str], expected: str | None) -> str:
    """The sentence for a key that is not there, with the mistyped one of `table` that was meant, if any."""
    others = [key for key in table if key not in known] if isinstance(table, Mapping) else []
    near = get_close_matches(name, others, n=1, cutoff=0.75)
    return f"missing{f' (is {near[0]!r} meant?)' if near else ''}, expected {expected}"


def unknown(name: str, known: object, what: str = "key") -> str:
    """The sentence for a name that is none of `known`: the nearest of them, or all of them."""
    if name.lower().replace("-", "_").endswith(("api_key", "apikey")):
        return "a key does not belong in this file: put it into the environment or .env, under provider.api_key_env"
    if near := nearest(name, known):
        return f"unknown {what}; {near}"
    names = [str(one) for one in known] if isinstance(known, (Mapping, Sequence)) else []
    return f"unknown {what} (known: {', '.join(names)})" if names else f"unknown {what}"


def short(value: object) -> str:
    """A value as it may be shown: in the words of TOML, at most 60 characters, without anything like a key."""
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


def not_json(value: object, key: str) -> Iterator[Mistake]:
    """A mistake for each value inside `value` that JSON cannot carry: dates, times, inf and nan."""
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
            yield Mistake(key, f"{short(value)} cannot be sent as JSON")

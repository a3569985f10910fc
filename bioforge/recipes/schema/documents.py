"""A JSON Schema file: read, looked through for what people get wrong, and the judge of answers by it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bioforge.core.errors import ConfigError, nearest
from bioforge.recipes.schema.compiled import Compiler
from bioforge.recipes.schema.describe import quoted, shown
from bioforge.recipes.schema.dialect import Validator
from bioforge.recipes.schema.errors import explained
from bioforge.recipes.schema.keywords import KNOWN
from bioforge.recipes.schema.nulls import Nulls
from bioforge.recipes.schema.result import Invalid, SchemaError, Valid, invalid
from bioforge.recipes.schema.text import NotJson, read_json
from bioforge.recipes.schema.walk import every, target


def read_document(path: Path, source: str) -> dict[str, Any]:
    """`source` stands before every message. `ConfigError` for what is missing, unreadable or no JSON object."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{source}: no such file") from None
    except OSError as problem:
        raise ConfigError(f"{source}: cannot be read: {problem.strerror}") from None
    try:
        read = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_once_each, parse_constant=_no_number)
    except json.JSONDecodeError as problem:
        raise ConfigError(
            f"{source}: not JSON: {problem.msg} (line {problem.lineno}, column {problem.colno})"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{source}: not UTF-8") from None
    except ValueError as problem:
        raise ConfigError(f"{source}: {problem}") from None
    if not isinstance(read, dict):
        raise ConfigError(f"{source}: expected a JSON Schema, which is an object, found {quoted(read)}")
    return read


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{quoted(next(name for name in names if names.count(name) > 1))} is there twice")
    return read


def _no_number(word: str) -> None:
    raise ValueError(f"not JSON: {word} is no number of JSON")


def check_document(schema: Mapping[str, Any], source: str) -> None:
    """`ConfigError` for what a validator would accept without a word, and do something else than was meant."""
    wrapped = next((word for word in ("schema", "json_schema", "format") if isinstance(schema.get(word), dict)), None)
    if wrapped and schema.get("type", "json_schema") == "json_schema" and "properties" not in schema:
        raise ConfigError(
            f"{source}: this is a schema in the wrapping the API takes it in", 'keep only what stands under "schema"'
        )
    for place, part in every(schema):
        for word in part:
            where = f"{source}: {shown((*place, word))}"
            if word == "nullable":
                raise ConfigError(f"{where}: no keyword of JSON Schema", 'write "type": ["string", "null"]')
            if place and word in ("$id", "$schema"):
                raise ConfigError(f"{where}: a schema of its own inside another cannot be used", "take it out")
            if word not in KNOWN and not word.startswith("x-") and (near := _almost(word)):
                raise ConfigError(f"{where}: unknown keyword", near)
        if "$ref" in part:
            try:
                target(schema, part["$ref"])
            except LookupError as problem:
                raise ConfigError(f"{source}: {shown((*place, '$ref'))}: {quoted(part['$ref'])}: {problem}") from None


def _almost(word: str) -> str:
    from difflib import get_close_matches

    return nearest(word, KNOWN) if get_close_matches(word, KNOWN, n=1, cutoff=0.85) else ""


class DocumentJudge:
    """Validates answers by a JSON Schema, `jsonschema` having the last word on whatever is not plainly right."""

    def __init__(self, validator: Validator, compiler: Compiler, nulls: Nulls) -> None:
        self.validator = validator
        self.fits = compiler.test(validator.schema)
        self.nulls = nulls

    def __call__(self, text: str) -> Valid | Invalid:
        try:
            data = read_json(text)
            if self.nulls.possible(text):
                data = self.nulls.removed(data)
            if not self.fits(data) and (faults := invalid(explained(self.validator.iter_errors(data)))).errors:
                return faults
        except NotJson as problem:
            return Invalid((SchemaError("", str(problem)),))
        except RecursionError:
            return Invalid((SchemaError("", "nested too deeply to be checked"),))
        except ArithmeticError:  # a whole number that is no float, and has to be a multiple of one
            return Invalid((SchemaError("", "a number is too large to be checked"),))
        return Valid(data, data)

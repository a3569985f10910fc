"""Loading of a recipe's schema: a JSON Schema file (`schemas/bio.json`) or a model (`package.module:Model`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bioforge.core.errors import ConfigError, nearest
from bioforge.core.hashing import definition_hash
from bioforge.recipes.imports import import_model, importable
from bioforge.recipes.schema import limits
from bioforge.recipes.schema.errors import format_path, quoted
from bioforge.recipes.schema.keywords import KNOWN, every, target
from bioforge.recipes.schema.sources import reachable_source
from bioforge.recipes.schema.strict import derive
from bioforge.recipes.schema.types import Schema
from bioforge.recipes.schema.validate import DocumentValidation, ModelValidation, OptionalNulls, json_schema
from bioforge.recipes.schema.validator import NEWEST, Validator

if TYPE_CHECKING:
    from pydantic import BaseModel

_MODEL = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
EXPECTED = 'a JSON Schema file, like "schemas/bio.json", or a pydantic model, like "package.module:Model"'


def load_schema(text: str, root: Path) -> Schema:
    """Load a file or model. `root` is the project folder: the base of paths and the first place to import from."""
    if _MODEL.fullmatch(text):
        with importable(root, text.partition(":")[0]):
            return from_model(import_model(text, root), text)
    path = root / text
    if not _is_file(path):
        raise _no_file(text, root)
    return from_document(read_document(path, text), text)


def from_document(document: Mapping[str, Any], source: str, name: str = "") -> Schema:
    """Build a schema from a JSON Schema. Messages start with `source`, which also gives the default name."""
    try:
        check_document(document, source)
        validator = Validator(document, source)
        strict = derive(document, source, lambda place: validator.part(place)(None))
        limits.check(strict.schema, source)
        validation = DocumentValidation(validator, OptionalNulls(strict, source))
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply to be read") from None
    return Schema(
        name=_api_name(name or Path(source).stem),
        source=source,
        generation=strict.schema,
        generation_hash=definition_hash(strict.schema),
        validation_hash=_validation_hash(document),
        unsent=strict.unsent,
        _validate=validation,
    )


def from_model(model: type[BaseModel], source: str = "") -> Schema:
    """Build a schema from a pydantic model. Messages start with `source`, by default its module and name."""
    source = source or f"{model.__module__}:{model.__qualname__}"
    document = json_schema(model, source)
    validator = Validator({"$schema": NEWEST, **document}, source, any_pattern=True)
    strict = derive(document, source, lambda place: validator.part(place)(None))
    limits.check(strict.schema, source)
    return Schema(
        name=_api_name(model.__name__),
        source=source,
        generation=strict.schema,
        generation_hash=definition_hash(strict.schema),
        validation_hash=_validation_hash(
            {"schema": json.loads(json.dumps(document), parse_constant=str), "source": reachable_source(model)}
        ),
        unsent=strict.unsent,
        model=model,
        _validate=ModelValidation(model, OptionalNulls(strict, source)),
    )


def _validation_hash(validation: Mapping[str, Any]) -> str:
    """Return the hash of all that decides over verdicts. v2: `jsonschema-rs`; v1 was this package's own validator."""
    return definition_hash(validation).replace("v1:", "v2:", 1)


def read_document(path: Path, source: str) -> dict[str, Any]:
    """Read a JSON object. Raise `ConfigError`, starting with `source`, for missing and unreadable files and others."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{source}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read: {error.strerror}") from None
    try:
        document = json.loads(
            content.decode("utf-8-sig"), object_pairs_hook=_unique_keys, parse_constant=_refuse_constant
        )
    except json.JSONDecodeError as error:
        raise ConfigError(f"{source}: not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{source}: not UTF-8") from None
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{source}: expected a JSON Schema, which is an object, found {quoted(document)}")
    return document


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{quoted(next(name for name in names if names.count(name) > 1))} appears twice")
    return members


def _refuse_constant(word: str) -> None:
    raise ValueError(f"not JSON: {word} is not a JSON number")


def check_document(schema: Mapping[str, Any], source: str) -> None:
    """Raise `ConfigError` for likely mistakes that a JSON Schema validator accepts silently."""
    wrapped = next((word for word in ("schema", "json_schema", "format") if isinstance(schema.get(word), dict)), None)
    if wrapped and schema.get("type", "json_schema") == "json_schema" and "properties" not in schema:
        raise ConfigError(
            f"{source}: this is a schema inside the request parameter of the API", 'keep only the value of "schema"'
        )
    for place, part in every(schema):
        for word in part:
            where = f"{source}: {format_path((*place, word))}"
            if word == "nullable":
                raise ConfigError(f"{where}: not a JSON Schema keyword", 'write "type": ["string", "null"]')
            if place and word in ("$id", "$schema"):
                raise ConfigError(f"{where}: a separate schema inside another is not supported", "remove it")
            if word not in KNOWN and not word.startswith("x-") and (hint := _similar_keyword(word)):
                raise ConfigError(f"{where}: unknown keyword", hint)
        if "$ref" in part:
            try:
                target(schema, part["$ref"])
            except LookupError as error:
                raise ConfigError(
                    f"{source}: {format_path((*place, '$ref'))}: {quoted(part['$ref'])}: {error}"
                ) from None


def _similar_keyword(word: str) -> str:
    from difflib import get_close_matches

    return nearest(word, KNOWN) if get_close_matches(word, KNOWN, n=1, cutoff=0.85) else ""


def _api_name(name: str) -> str:
    """Return at most 64 characters of A-Z, a-z, 0-9, _ and -, as the API requires."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:64] or "answer"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long a name, or with a null character
        return False


def _no_file(text: str, root: Path) -> ConfigError:
    if "/" not in text and "\\" not in text and not text.lower().endswith(".json"):
        module, _, name = text.rpartition(".")
        meant = f"{module}:{name}" if module and _MODEL.fullmatch(f"{module}:{name}") else ""
        return ConfigError(
            f"{text!r:.80} is not a schema: expected {EXPECTED}", f"did you mean {meant!r}?" if meant else ""
        )
    try:
        is_folder = (root / text).is_dir()
        near = nearest(text, islice(_files(text, root), 2000))
    except (OSError, ValueError):
        is_folder, near = False, ""
    return ConfigError(f"{text}: {'is a folder, expected a file' if is_folder else 'no such file'}", near)


def _files(text: str, root: Path) -> Iterator[str]:
    """Yield the JSON files in the folder of `text`, the project folder and its subfolders."""
    for folder in dict.fromkeys([(root / text).parent, root, *sorted(root.glob("*/"))]):
        if folder.is_dir():
            for path in sorted(folder.glob("*.json")):
                yield path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)

"""From what a recipe says, `schemas/bio.json` or `package.module:Model`, to a `Schema`."""

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
from bioforge.recipes.schema.compiled import Compiler
from bioforge.recipes.schema.dialect import NEWEST, check, validator_of
from bioforge.recipes.schema.documents import DocumentJudge, check_document, read_document
from bioforge.recipes.schema.models import ModelJudge, json_schema
from bioforge.recipes.schema.nulls import Nulls
from bioforge.recipes.schema.sources import reachable_source
from bioforge.recipes.schema.strict import Strict, derive
from bioforge.recipes.schema.types import Schema

if TYPE_CHECKING:
    from pydantic import BaseModel

_MODEL = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
EXPECTED = 'a JSON Schema file, like "schemas/bio.json", or a pydantic model, like "package.module:Model"'


def load_schema(text: str, root: Path) -> Schema:
    """`root` is the project file's folder: paths start there, and modules are looked for there first."""
    if _MODEL.fullmatch(text):
        with importable(root, text.partition(":")[0]):
            return from_model(import_model(text, root), text)
    path = root / text
    if not _is_file(path):
        raise _no_file(text, root)
    return from_document(read_document(path, text), text)


def from_document(document: Mapping[str, Any], source: str, name: str = "") -> Schema:
    """A JSON Schema as it was read. `source` is how messages call it, and where its name comes from if none is given."""
    try:
        check_document(document, source)
        validator = validator_of(document, source)
        check(validator, source)
        compiler = Compiler(validator)
        strict = derive(document, source, lambda part: compiler.test(part)(None))
        limits.check(strict.schema, source)
        judge = DocumentJudge(validator, compiler, _nulls(strict, source))
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply to be read") from None
    return Schema(
        name=_plain(name or Path(source).stem),
        source=source,
        generation=strict.schema,
        generation_hash=definition_hash(strict.schema),
        validation_hash=definition_hash(document),
        unsent=strict.unsent,
        _judge=judge,
    )


def from_model(model: type[BaseModel], source: str = "") -> Schema:
    """A pydantic model at hand. `source` is how messages call it: its module and name, if nothing is said."""
    source = source or f"{model.__module__}:{model.__qualname__}"
    document = json_schema(model, source)
    compiler = Compiler(validator_of({"$schema": NEWEST, **document}, source))
    strict = derive(document, source, lambda part: compiler.test(part)(None))
    limits.check(strict.schema, source)
    return Schema(
        name=_plain(model.__name__),
        source=source,
        generation=strict.schema,
        generation_hash=definition_hash(strict.schema),
        validation_hash=definition_hash(
            {"schema": json.loads(json.dumps(document), parse_constant=str), "source": reachable_source(model)}
        ),
        unsent=strict.unsent,
        model=model,
        _judge=ModelJudge(model, _nulls(strict, source)),
    )


def _nulls(strict: Strict, source: str) -> Nulls:
    return Nulls(strict, Compiler(validator_of(strict.schema, source)))


def _plain(name: str) -> str:
    """At most 64 of A-Z, a-z, 0-9, _ and -, as the API demands."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:64] or "answer"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a file name, or with a null character
        return False


def _no_file(text: str, root: Path) -> ConfigError:
    if "/" not in text and "\\" not in text and not text.lower().endswith(".json"):
        module, _, name = text.rpartition(".")
        meant = f"{module}:{name}" if module and _MODEL.fullmatch(f"{module}:{name}") else ""
        return ConfigError(
            f"{text!r:.80} is no schema: expected {EXPECTED}", f"did you mean {meant!r}?" if meant else ""
        )
    try:
        is_folder = (root / text).is_dir()
        near = nearest(text, islice(_files(text, root), 2000))
    except (OSError, ValueError):
        is_folder, near = False, ""
    return ConfigError(f"{text}: {'is a folder, expected a file' if is_folder else 'no such file'}", near)


def _files(text: str, root: Path) -> Iterator[str]:
    """The JSON files of the folder named, of the project's, and of the folders in it."""
    for folder in dict.fromkeys([(root / text).parent, root, *sorted(root.glob("*/"))]):
        if folder.is_dir():
            for path in sorted(folder.glob("*.json")):
                yield path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)

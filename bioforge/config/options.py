"""Options of plugins as pydantic models, validated before use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, SecretStr, ValidationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

if TYPE_CHECKING:
    from bioforge.core.interfaces import FolderWriter, PathReader, PathWriter, Record
    from bioforge.core.types import Artist, BadRow

Made = TypeVar("Made", bound=Callable[..., Any])


_NOT_IN_TOML = frozenset(
    {
        "set",
        "frozenset",
        "tuple",
        "enum",
        "lax-or-strict",
        "decimal",
        "uuid",
        "bytes",
        "date",
        "time",
        "datetime",
        "timedelta",
    }
)
"""Types, by pydantic's core names (paths are "lax-or-strict"), that TOML lacks or writes in another way; they are
converted from TOML's types.
"""

_TIMES = frozenset({"date", "time", "datetime", "timedelta"})


def _allow(schema: Any, handler: GetCoreSchemaHandler, seen: set[int]) -> None:
    """Drop strictness from types in `_NOT_IN_TOML`, at any depth of a model."""
    if isinstance(schema, list | tuple):
        for one in schema:
            _allow(one, handler, seen)
    if not isinstance(schema, dict) or id(schema) in seen:
        return
    seen.add(id(schema))
    match schema.get("type"):
        case "definition-ref":
            with suppress(LookupError):  # a model that has itself as a part is not known yet, and sees to itself
                _allow(handler.resolve_ref_schema(cast(CoreSchema, schema)), handler, seen)
            return
        case kind if kind in _TIMES:
            relaxed = {**schema, "strict": False}
            relaxed.pop("ref", None)
            schema.clear()
            schema.update(core_schema.no_info_before_validator_function(_reject_number, cast(CoreSchema, relaxed)))
            return
        case kind if kind in _NOT_IN_TOML:
            schema.setdefault("strict", False)
    for name, part in schema.items():
        if name not in ("serialization", "metadata", "default", "config", "cls"):
            _allow(part, handler, seen)


def _reject_number(value: object) -> object:
    """Reject a number as a time, which pydantic would take for seconds since an unspecified moment."""
    if isinstance(value, int | float):
        raise PydanticCustomError("time_type", "Input should be a day, a time or a duration, not a number")
    return value


class Options(BaseModel):
    """Base class for options; give each field a `description` of what is expected, which messages quote.

    Nothing is converted (`"64"` is not a number), and unknown keys, inf and nan are refused. Types that TOML
    lacks are read from its own: paths, choices (`Enum`), times, UUIDs and exact numbers from texts, sets and
    tuples from lists. The message of a validator's `ValueError` is shown as it is.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[BaseModel], handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _allow(handler.resolve_ref_schema(schema), handler, set())
        return schema


class ReaderOptions(Options):
    """Options that every reader of rows has. `columns` goes to `artists(rows, source, options.columns)`."""

    columns: dict[str, str] = Field({}, description='a table of names and column names, like { artist_id = "id" }')


def with_options(model: type[Options]) -> Callable[[Made], Made]:
    """Decorate a reader or writer function, so that it is called with an instance of `model`."""

    def decorate(made: Made) -> Made:
        made.Options = model  # type: ignore[attr-defined]
        return made

    return decorate


def path_reader(made: Callable[[Path, str, Any], Iterable[Artist | BadRow]]) -> PathReader:
    """Decorate a function that reads a file by its path as a `PathReader`."""
    made.reads_path = True  # type: ignore[attr-defined]
    return cast("PathReader", made)


def path_writer(made: Callable[[Iterable[Record], Path, Any], str | None]) -> PathWriter:
    """Decorate a function that writes to a path as a `PathWriter`."""
    made.writes_path = True  # type: ignore[attr-defined]
    return cast("PathWriter", made)


def folder_writer(made: Callable[[Iterable[Record], Any], Iterator[tuple[str, bytes]]]) -> FolderWriter:
    """Decorate a function that yields the files of a folder as a `FolderWriter`."""
    made.writes_folder = True  # type: ignore[attr-defined]
    return cast("FolderWriter", made)


def _from_environment(value: object, info: ValidationInfo) -> object:
    if isinstance(value, SecretStr):
        return value
    if not isinstance(value, str) or not value.isidentifier():
        # The likeliest wrong value is the secret itself: not shown.
        raise ValueError("expected the name of an environment variable, never the secret itself")
    get = (info.context or {}).get("environment") or os.environ.get
    found = get(value)
    if not found:
        raise ValueError(f"{value} is not set; put it into the environment, or into .env beside the project file")
    return SecretStr(found)


SecretEnv = Annotated[SecretStr, BeforeValidator(_from_environment)]
"""A field whose value in the file is the name of an environment variable; the instance has the variable's value.

The process's environment wins over the project's `.env`. An optional one: `SecretEnv | None = None`.
"""

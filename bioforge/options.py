"""Options of plugins as pydantic models: what stands in a table of the project file, checked before it is used."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationInfo

Made = TypeVar("Made", bound=Callable[..., Any])


class Options(BaseModel):
    """Derive from this and give each field a `description` of what is expected: mistakes are told with it.

    No conversions (`"64"` is not a number), no unknown keys, no inf and nan. A validator's ValueError is shown as it is.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class ReaderOptions(Options):
    """The options that every reader of rows has. `columns` goes to `artists(rows, source, options.columns)`."""

    columns: dict[str, str] = Field({}, description='a table of names and column names, like { artist_id = "id" }')


def with_options(model: type[Options]) -> Callable[[Made], Made]:
    """Decorates a reader or writer that is a function: it is called with an instance of `model`."""

    def decorate(made: Made) -> Made:
        made.Options = model  # type: ignore[attr-defined]
        return made

    return decorate


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
"""A field whose value in the file is the name of an environment variable; the instance has what is in it.

The process's own environment wins over the project's `.env`. A field that may be left out: `SecretEnv | None = None`.
"""

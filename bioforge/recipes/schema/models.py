"""A pydantic model: its JSON Schema, and the judge of answers by the model itself, custom validators included."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bioforge.core.errors import ConfigError
from bioforge.recipes.schema.describe import Steps, found, one_line, shown
from bioforge.recipes.schema.nulls import Nulls
from bioforge.recipes.schema.result import Invalid, SchemaError, Valid, invalid
from bioforge.recipes.schema.text import NotJson, read_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails


def json_schema(model: type[BaseModel], source: str) -> dict[str, Any]:
    """`ConfigError` where the model is incomplete or has fields that JSON does not know."""
    from pydantic import PydanticInvalidForJsonSchema, PydanticUserError
    from pydantic.json_schema import PydanticJsonSchemaWarning

    try:
        with warnings.catch_warnings():
            # defaults that are no JSON: they are never sent
            warnings.simplefilter("ignore", PydanticJsonSchemaWarning)
            return model.model_json_schema()
    except PydanticInvalidForJsonSchema as problem:
        raise ConfigError(f"{source}: a field has no JSON Schema: {one_line(problem.message)}") from None
    except PydanticUserError as problem:
        raise ConfigError(f"{source}: {one_line(problem.message)}") from None


class ModelJudge:
    """Validates answers by a model; `value` is its instance, `parsed` what that dumps to as JSON."""

    def __init__(self, model: type[BaseModel], nulls: Nulls) -> None:
        self.model = model
        self.nulls = nulls

    def __call__(self, text: str) -> Valid | Invalid:
        from pydantic import ValidationError

        data: Any = None
        try:
            # pydantic takes NaN for a number, JSON does not
            if "NaN" in text or "Infinity" in text:
                read_json(text)
            if self.nulls.possible(text):
                data = read_json(text)
                if (kept := self.nulls.removed(data)) != data:
                    data, text = kept, json.dumps(kept)
            value = self.model.model_validate_json(text)
            parsed = value.model_dump(mode="json", warnings=False)
        except NotJson as problem:
            return Invalid((SchemaError("", str(problem)),))
        except ValidationError as problem:
            return _invalid(problem, text)
        except RecursionError:
            return Invalid((SchemaError("", "nested too deeply to be checked"),))
        except Exception as problem:  # a validator of the model can raise anything: it fails its answer, never the run
            return Invalid((SchemaError("", _broken(problem)),), repairable=False)
        try:
            json.dumps(parsed, allow_nan=False)
        except (TypeError, ValueError) as problem:
            return Invalid((SchemaError("", f"the model's data is no JSON: {one_line(str(problem))}"),))
        return Valid(parsed, value)


def _invalid(problem: ValidationError, text: str) -> Invalid:
    try:
        data = read_json(text)
    except NotJson as wrong:
        return Invalid((SchemaError("", str(wrong)),))
    details = problem.errors(include_url=False)
    return invalid(_error(detail, data) for detail in details)


def _error(detail: ErrorDetails, data: Any) -> SchemaError:
    place = shown(_place(detail, data))
    match detail["type"]:
        case "missing":
            return SchemaError(place, "missing")
        case "extra_forbidden":
            return SchemaError(place, "not in the schema")
        case "json_invalid":
            return SchemaError("", f"not JSON: {one_line(str(detail['ctx']['error']))}")
        case "value_error" | "assertion_error":
            return SchemaError(place, one_line(str(detail["ctx"]["error"])) or one_line(detail["msg"]))
        case _:
            return SchemaError(place, f"{one_line(detail['msg'])}, found {found(detail['input'])}")


def _place(detail: ErrorDetails, data: Any) -> Steps:
    """The way through the answer: pydantic also names the branches of unions it tried, which the answer does not."""
    place: list[str | int] = []
    for step in detail["loc"]:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            continue
        place.append(step)
    if detail["type"] == "missing" and detail["loc"]:
        place.append(detail["loc"][-1])
    return tuple(place)


def _broken(problem: Exception) -> str:
    """With file and line of the deepest frame that is not a library's."""
    frames: Iterator[tuple[str, int]] = _frames(problem)
    own = [(file, line) for file, line in frames if "site-packages" not in file and not file.startswith("<")]
    where = f" in {Path(own[-1][0]).name}, line {own[-1][1]}" if len(own) > 1 else ""
    return f"the model's own code failed{where}: {type(problem).__name__}: {one_line(str(problem))}"


def _frames(problem: Exception) -> Iterator[tuple[str, int]]:
    trace = problem.__traceback__
    while trace is not None:
        yield trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next

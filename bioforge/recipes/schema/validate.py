"""Validation of an answer's text by a JSON Schema or by a pydantic model."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bioforge.core.errors import ConfigError
from bioforge.recipes.schema.errors import describe, explain, format_path, one_line
from bioforge.recipes.schema.strict import Node, Properties, Strict
from bioforge.recipes.schema.types import Invalid, SchemaError, Steps, Valid
from bioforge.recipes.schema.validator import Validator

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

TOO_DEEP = "nested too deeply to be checked"
HALF_SURROGATE = "not JSON that can be kept: half of a surrogate pair (\\ud800 to \\udfff)"


class NotJson(Exception):
    """A text that is not JSON; repair requests quote the message."""


def read_json(text: str) -> Any:
    """Parse a text that is JSON and nothing else. Raise `NotJson` for Markdown fences, NaN and Infinity too."""
    if not text.strip():
        raise NotJson("the answer is empty, expected JSON")
    try:
        data = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
        if "\\u" in text:
            json.dumps(data, ensure_ascii=False).encode()
        return data
    except json.JSONDecodeError as error:
        if "```" in text:
            raise NotJson("the JSON stands in a Markdown fence (```), expected JSON alone") from None
        raise NotJson(f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except UnicodeEncodeError:
        raise NotJson(HALF_SURROGATE) from None
    except RecursionError:
        raise NotJson("not JSON that can be read: nested too deeply") from None
    except ValueError as error:  # an integer of thousands of digits
        raise NotJson(f"not JSON that can be read: {error}") from None


def _finite(digits: str) -> float:
    number = float(digits)
    if number - number != 0:
        raise NotJson(f"not JSON that can be read: {digits[:60]} is too large a number")
    return number


def _refuse_constant(name: str) -> None:
    raise NotJson(f"not JSON: {name} is no number of JSON")


class OptionalNulls:
    """Removes the nulls that answers have for optional properties, because strict mode requires all properties."""

    def __init__(self, strict: Strict, source: str) -> None:
        self._strict = strict
        self._validator = Validator(strict.schema, source, any_pattern=True)

    def possible(self, text: str) -> bool:
        """Return False if an answer has no such null, so that most answers need not be walked."""
        return self._strict.has_optional and "null" in text

    def remove(self, value: Any) -> Any:
        """Return an answer's data without them."""
        return self._remove((), self._strict.schema, value)

    def _remove(self, place: Steps, schema: Node, value: Any) -> Any:
        if not isinstance(value, dict | list):
            return value
        if "$ref" in schema:
            return self._remove(*self._validator.target(schema["$ref"]), value)
        if "anyOf" in schema:
            return self._remove_in_union((*place, "anyOf"), schema["anyOf"], value)
        properties = schema.get("properties")
        if isinstance(value, dict) and isinstance(properties, Properties):
            return {
                name: self._remove((*place, "properties", name), properties[name], item) if name in properties else item
                for name, item in value.items()
                if item is not None or name not in properties.optional
            }
        if isinstance(value, list) and "items" in schema:
            return [self._remove((*place, "items"), schema["items"], item) for item in value]
        return value

    def _remove_in_union(self, place: Steps, branches: list[Node], value: Any) -> Any:
        """Use the branch that the value was written for; if several fit, prefer one that allows its nulls."""
        places = [(*place, number) for number in range(len(branches))]
        fitting = [number for number, branch in enumerate(places) if self._validator.part(branch)(value)]
        numbers = fitting or range(len(branches))
        candidates = [self._remove(places[number], branches[number], value) for number in numbers]
        changed = [candidate for candidate in candidates if candidate != value]
        if fitting:
            return changed[0] if len(changed) == len(candidates) else value
        # No branch fits. If exactly one has optional nulls to remove, the value was written for it.
        return changed[0] if len(changed) == 1 else value


class DocumentValidation:
    """Validates answers by a JSON Schema."""

    def __init__(self, validator: Validator, nulls: OptionalNulls) -> None:
        self._validator = validator
        self._nulls = nulls

    def __call__(self, text: str) -> Valid | Invalid:
        try:
            data = read_json(text)
            if self._nulls.possible(text):
                data = self._nulls.remove(data)
            if not self._validator.is_valid(data):
                return Invalid.from_errors(explain(self._validator.issues(data)))
        except NotJson as error:
            return Invalid.from_message(str(error))
        except UnicodeEncodeError:
            return Invalid.from_message(HALF_SURROGATE)
        except (RecursionError, ValueError):  # jsonschema-rs raises ValueError beyond 255 levels
            return Invalid.from_message(TOO_DEEP)
        return Valid(data, data)


class ModelValidation:
    """Validates answers by a pydantic model, its custom validators included."""

    def __init__(self, model: type[BaseModel], nulls: OptionalNulls) -> None:
        self._model = model
        self._nulls = nulls

    def __call__(self, text: str) -> Valid | Invalid:
        from pydantic import ValidationError

        try:
            # pydantic accepts NaN as a number, JSON does not
            if "NaN" in text or "Infinity" in text:
                read_json(text)
            if self._nulls.possible(text):
                data = read_json(text)
                if (kept := self._nulls.remove(data)) != data:
                    text = json.dumps(kept)
            value = self._model.model_validate_json(text)
            parsed = value.model_dump(mode="json", warnings=False)
        except NotJson as error:
            return Invalid.from_message(str(error))
        except ValidationError as error:
            return _invalid_by_model(error, text)
        except RecursionError:
            return Invalid.from_message(TOO_DEEP)
        except Exception as error:  # a model's validator can raise anything; that fails its answer, not the run
            return Invalid.from_message(_describe_failure(error), repairable=False)
        try:
            json.dumps(parsed, allow_nan=False)
        except (TypeError, ValueError) as error:
            return Invalid.from_message(f"the model's data is no JSON: {one_line(str(error))}")
        return Valid(parsed, value)


def json_schema(model: type[BaseModel], source: str) -> dict[str, Any]:
    """Return a model's JSON Schema. Raise `ConfigError` for incomplete models and fields that JSON cannot express."""
    from pydantic import PydanticInvalidForJsonSchema, PydanticUserError
    from pydantic.json_schema import PydanticJsonSchemaWarning

    try:
        with warnings.catch_warnings():
            # defaults that are not JSON are never sent
            warnings.simplefilter("ignore", PydanticJsonSchemaWarning)
            return model.model_json_schema()
    except PydanticInvalidForJsonSchema as error:
        raise ConfigError(f"{source}: a field has no JSON Schema: {one_line(error.message)}") from None
    except PydanticUserError as error:
        raise ConfigError(f"{source}: {one_line(error.message)}") from None


def _invalid_by_model(error: ValidationError, text: str) -> Invalid:
    try:
        data = read_json(text)
    except NotJson as not_json:
        return Invalid.from_message(str(not_json))
    details = error.errors(include_url=False)
    return Invalid.from_errors(_model_error(detail, data) for detail in details)


def _model_error(detail: ErrorDetails, data: Any) -> SchemaError:
    place = format_path(_path_in_answer(detail, data))
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
            return SchemaError(place, f"{one_line(detail['msg'])}, found {describe(detail['input'])}")


def _path_in_answer(detail: ErrorDetails, data: Any) -> Steps:
    """Return pydantic's location without the names of union branches, which the answer does not have."""
    path: list[str | int] = []
    for step in detail["loc"]:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            continue
        path.append(step)
    if detail["type"] == "missing" and detail["loc"]:
        path.append(detail["loc"][-1])
    return tuple(path)


def _describe_failure(error: Exception) -> str:
    """Return the error with file and line of the deepest frame outside libraries."""
    frames = [(file, line) for file, line in _frames(error) if "site-packages" not in file and not file.startswith("<")]
    where = f" in {Path(frames[-1][0]).name}, line {frames[-1][1]}" if len(frames) > 1 else ""
    return f"the model's own code failed{where}: {type(error).__name__}: {one_line(str(error))}"


def _frames(error: Exception) -> Iterator[tuple[str, int]]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next

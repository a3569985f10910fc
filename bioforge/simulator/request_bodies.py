"""Request bodies: parsing, checks and canonical form.

A failed check raises `ApiError` with the API's status, `param` and `code`. Unknown parameters pass.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, NoReturn

from bioforge.simulator.errors import ApiError, describe, missing, no_model, wrong_type, wrong_value
from bioforge.simulator.strict_schema import strict_violation

RESPONSES = "/v1/responses"
CHAT = "/v1/chat/completions"

Body = Mapping[str, Any]


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_decode = json.JSONDecoder(parse_constant=_not_json).decode
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def parse(raw: bytes) -> dict[str, Any]:
    """Return the JSON object in a request body."""
    try:
        body = _decode(raw.decode())
    except (ValueError, RecursionError) as error:
        message = (
            "We could not parse the JSON body of your request. (HINT: This likely means you aren't using "
            f"your HTTP library correctly. The API expects a JSON payload, but what was sent is not: {error})"
        )
        raise ApiError(400, message) from error
    if not isinstance(body, dict):
        raise ApiError(400, f"Invalid body: expected an object, but got {describe(body)} instead.")
    return body


def canonical(body: Body) -> str:
    """Return JSON with sorted keys, no spaces and no escaped letters: equal for equal bodies."""
    return _encode(body)


def digest_of(text: str) -> bytes:
    """Return the SHA-256 of canonical JSON (32 bytes)."""
    # JSON may contain lone surrogates ("\ud800"), which UTF-8 cannot encode
    return sha256(text.encode(errors="surrogatepass")).digest()


def check(endpoint: str, body: Body) -> None:
    """Raise `ApiError` for a body that the endpoint does not accept."""
    required = "input" if endpoint == RESPONSES else "messages"
    prompt = body.get("prompt") if endpoint == RESPONSES else None
    if prompt is not None:
        _check_prompt(prompt)
    model = body.get("model")
    if model is None:
        if prompt is None:
            raise missing("model")
    elif not isinstance(model, str):
        raise wrong_type("model", "a string", model)
    elif model.startswith("missing-"):
        raise no_model(model)
    elif not model:
        raise wrong_value("model", "empty string.", "empty_string")
    if body.get(required) is None and prompt is None:
        raise missing(required)
    for name, value in body.items():
        # null means the default of an optional parameter
        if value is not None and (checker := _CHECKS[endpoint].get(name)) is not None:
            checker(name, value)


def _check_prompt(prompt: object) -> None:
    if not isinstance(prompt, dict):
        raise wrong_type("prompt", "an object", prompt)
    identifier = prompt.get("id")
    if identifier is None:
        raise missing("prompt.id")
    if not isinstance(identifier, str):
        raise wrong_type("prompt.id", "a string", identifier)
    if identifier.startswith("pmpt_missing"):
        raise ApiError(404, f"Prompt with id '{identifier}' not found.", param="prompt", code="prompt_not_found")
    if not isinstance(prompt.get("version", ""), (str, type(None))):
        raise wrong_type("prompt.version", "a string", prompt["version"])
    if not isinstance(prompt.get("variables", {}), (dict, type(None))):
        raise wrong_type("prompt.variables", "an object", prompt["variables"])


def _string(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise wrong_type(name, "a string", value)


def _boolean(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise wrong_type(name, "a boolean", value)


def _object(name: str, value: object) -> None:
    if not isinstance(value, dict):
        raise wrong_type(name, "an object", value)


def _array(name: str, value: object) -> None:
    if not isinstance(value, list):
        raise wrong_type(name, "an array", value)


def _number(minimum: float, maximum: float) -> Callable[[str, object], None]:
    def check_number(name: str, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise wrong_type(name, "a decimal", value)
        if value < minimum:
            message = f"decimal below minimum value. Expected a value >= {minimum:g}, but got {value} instead."
            raise wrong_value(name, message, "decimal_below_min_value")
        if value > maximum:
            message = f"decimal above maximum value. Expected a value <= {maximum:g}, but got {value} instead."
            raise wrong_value(name, message, "decimal_above_max_value")

    return check_number


def _integer(minimum: int) -> Callable[[str, object], None]:
    def check_integer(name: str, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(name, "an integer", value)
        if value < minimum:
            message = f"integer below minimum value. Expected a value >= {minimum}, but got {value} instead."
            raise wrong_value(name, message, "integer_below_min_value")

    return check_integer


def _one_of(*values: str) -> Callable[[str, object], None]:
    def check_choice(name: str, value: object) -> None:
        _string(name, value)
        if value not in values:
            choices = ", ".join(f"'{choice}'" for choice in values)
            raise wrong_value(name, f"value '{value}' is not one of {choices}.")

    return check_choice


def _never(reason: str) -> Callable[[str, object], None]:
    def check_off(name: str, value: object) -> None:
        _boolean(name, value)
        if value:
            raise ApiError(400, f"The simulator {reason}.", param=name, code="unsupported_value")

    return check_off


def _moved(to: str) -> Callable[[str, object], NoReturn]:
    def refuse(name: str, _value: object) -> NoReturn:
        message = (
            f"Unsupported parameter: '{name}'. In the Responses API, this parameter has moved to '{to}'. "
            "Try again with the new parameter."
        )
        raise ApiError(400, message, param=name, code="unsupported_parameter")

    return refuse


def _input(name: str, value: object) -> None:
    if not isinstance(value, (str, list)):
        raise wrong_type(name, "a string or an array of input items", value)
    if isinstance(value, list):
        for place, item in enumerate(value):
            _object(f"{name}[{place}]", item)


def _messages(name: str, value: object) -> None:
    _array(name, value)
    assert isinstance(value, list)
    if not value:
        message = "empty array. Expected an array with minimum length 1, but got an empty array instead."
        raise wrong_value(name, message, "empty_array")
    for place, message in enumerate(value):
        _object(f"{name}[{place}]", message)
        if message.get("role") is None:
            raise missing(f"{name}[{place}].role")
        _one_of("developer", "system", "user", "assistant", "tool", "function")(
            f"{name}[{place}].role", message["role"]
        )
        if not isinstance(message.get("content", ""), (str, list, type(None))):
            raise wrong_type(f"{name}[{place}].content", "a string or an array of parts", message["content"])


def _metadata(name: str, value: object) -> None:
    _object(name, value)
    assert isinstance(value, dict)
    if len(value) > 16:
        raise wrong_value(name, "more than 16 pairs.", "object_above_max_properties")
    for key, text in value.items():
        _string(f"{name}.{key}", text)


def _text(name: str, value: object) -> None:
    _object(name, value)
    assert isinstance(value, dict)
    if (wanted := value.get("format")) is not None:
        _object(f"{name}.format", wanted)
        _format(f"{name}.format", wanted, wanted)


def _response_format(name: str, value: object) -> None:
    _object(name, value)
    assert isinstance(value, dict)
    inner = value.get("json_schema")
    if value.get("type") == "json_schema":
        if inner is None:
            raise missing(f"{name}.json_schema")
        _object(f"{name}.json_schema", inner)
    _format(name, value, inner, ".json_schema")


def _format(name: str, wanted: Body, details: Any, inside: str = "") -> None:
    """Check a response format: `wanted` has the type; `details`, at `inside` in it, has name and schema."""
    if wanted.get("type") is None:
        raise missing(f"{name}.type")
    _one_of("text", "json_object", "json_schema")(f"{name}.type", wanted["type"])
    if wanted["type"] != "json_schema":
        return
    place = name + inside
    if details.get("name") is None:
        raise missing(f"{place}.name")
    _string(f"{place}.name", details["name"])
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", details["name"]):
        raise wrong_value(f"{place}.name", "expected 1 to 64 letters, digits, '_' and '-'.")
    if details.get("schema") is None:
        raise missing(f"{place}.schema")
    _object(f"{place}.schema", details["schema"])
    if details.get("strict") and (violation := strict_violation(details["schema"])):
        message = f"Invalid schema for response_format '{details['name']}': {violation}"
        raise ApiError(400, message, param=f"{place}.schema", code="invalid_json_schema")


_COMMON: dict[str, Callable[[str, object], None]] = {
    "stream": _never("does not stream"),
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "metadata": _metadata,
    "store": _boolean,
    "service_tier": _one_of("auto", "default", "flex", "scale", "priority", "fast", "ultrafast"),
    "tools": _array,
    "user": _string,
}
_CHECKS: dict[str, dict[str, Callable[[str, object], None]]] = {
    RESPONSES: {
        **_COMMON,
        "input": _input,
        "instructions": _string,
        "background": _never("has no background responses"),
        "max_output_tokens": _integer(16),
        "text": _text,
        "reasoning": _object,
        "messages": _moved("input"),
        "max_tokens": _moved("max_output_tokens"),
        "max_completion_tokens": _moved("max_output_tokens"),
        "response_format": _moved("text.format"),
        "reasoning_effort": _moved("reasoning.effort"),
    },
    CHAT: {
        **_COMMON,
        "messages": _messages,
        "max_tokens": _integer(1),
        "max_completion_tokens": _integer(1),
        "response_format": _response_format,
    },
}

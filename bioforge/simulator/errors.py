"""API errors: one exception with HTTP status and JSON body, and its common causes.

Body: `{"error": {"message", "type", "param", "code"}}`, where `type`, `param` and `code` may be null.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INVALID_REQUEST = "invalid_request_error"


class ApiError(Exception):
    """Raised by checks, and answered as an HTTP error by the application."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = INVALID_REQUEST,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def missing(param: str) -> ApiError:
    """Return 400 for a missing parameter."""
    return ApiError(400, f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def wrong_type(param: str, expected: str, found: object) -> ApiError:
    """Return 400 for a parameter of another type."""
    message = f"Invalid type for '{param}': expected {expected}, but got {describe(found)} instead."
    return ApiError(400, message, param=param, code="invalid_type")


def wrong_value(param: str, message: str, code: str = "invalid_value") -> ApiError:
    """Return 400 for an invalid value."""
    return ApiError(400, f"Invalid '{param}': {message}", param=param, code=code)


def no_model(model: str) -> ApiError:
    """Return 404 for an unknown model."""
    message = f"The model '{model}' does not exist or you do not have access to it."
    return ApiError(404, message, code="model_not_found")


def bad_key(message: str) -> ApiError:
    """Return 401 for a missing or invalid key."""
    return ApiError(401, message, code="invalid_api_key")


def no_such_path(method: str, path: str) -> ApiError:
    """Return 404 for an unknown path."""
    return ApiError(404, f"Invalid URL ({method} {path})")


def wrong_method(method: str, path: str, allowed: str) -> ApiError:
    """Return 405 for a method that a path does not support."""
    message = f"Not allowed to {method} on {path}. (HINT: Perhaps you meant {allowed}?)"
    return ApiError(405, message, code="method_not_supported", headers={"allow": allowed})


def foreign_host(name: str) -> ApiError:
    """Return 403 for a request under a name that is not the simulator's."""
    return ApiError(403, f"The simulator does not answer as '{name}': use its address, or localhost.", param="host")


def too_large(limit: int) -> ApiError:
    """Return 413 for a body over a limit in bytes."""
    return ApiError(413, f"The request body is larger than {limit} bytes.", code="request_too_large")


def quota() -> ApiError:
    """Return 429 for an exhausted quota."""
    message = "You exceeded your current quota, please check your plan and billing details."
    return ApiError(429, message, type="insufficient_quota", code="insufficient_quota")


def overloaded() -> ApiError:
    """Return 503."""
    message = "The server is overloaded or not ready yet. (simulated)"
    return ApiError(503, message, type="service_unavailable_error", code="server_is_overloaded")


def describe(value: object) -> str:
    """Return the JSON type of a value with its article, as in the API's messages."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a decimal"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"

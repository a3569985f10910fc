"""Check requests as Anthropic's API does, with its error texts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
MAX_REQUESTS = 100_000

REFUSALS: Mapping[str, tuple[int, str, str]] = {
    "rate_limit": (429, "rate_limit_error", "This request would exceed your organization's rate limit"),
    "overloaded": (529, "overloaded_error", "Overloaded"),
    "server_error": (500, "api_error", "Internal server error"),
    "gateway": (504, "timeout_error", "The request timed out"),
    "bad_request": (400, "invalid_request_error", "messages.0: not like this"),
    "not_found": (404, "not_found_error", "model: claude-none"),
    "too_large": (413, "request_too_large", "Request exceeds the maximum size"),
    "authentication": (401, "authentication_error", "invalid x-api-key"),
    "permission": (403, "permission_error", "Your API key does not have permission to use the specified resource"),
    "credit": (
        400,
        "invalid_request_error",
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase"
        " credits.",
    ),
    "spend_limit": (429, "rate_limit_error", "You have reached the spend limit"),
}
"""Faults that refuse a request; it costs nothing."""

BROKEN = ("drop_before", "drop_after", "truncated", "malformed", "hang")
"""Faults that break an answer off. All but the first charge for it."""

UNUSABLE: Mapping[str, str] = {"max_tokens": "max_tokens", "refusal": "refusal", "paused": "pause_turn"}
"""Faults that are whole answers, charged for, with this `stop_reason`."""


def wrong_params(params: object, in_batch: bool = False) -> str | None:
    """Return the API's error for invalid params."""
    if not isinstance(params, dict):
        return "expected an object"
    for name in ("model", "max_tokens", "messages"):
        if name not in params:
            return f"{name}: Field required"
    limit = params["max_tokens"]
    if not isinstance(limit, int) or limit < (1 if in_batch else 0):
        return "max_tokens: must be at least 1"
    unknown = set(params) - _PARAMS
    if unknown:
        return f"{min(unknown)}: Extra inputs are not permitted"
    messages = params["messages"]
    if not isinstance(messages, list) or not messages:
        return "messages: at least one message is required"
    if any(set(one) != {"role", "content"} or one["role"] not in ("user", "assistant") for one in messages):
        return "messages: a message has a role and content"
    return None


_PARAMS = {
    *("model", "max_tokens", "messages", "system", "temperature", "top_p", "top_k", "stop_sequences", "stream"),
    *("metadata", "service_tier", "output_config", "thinking", "tools", "tool_choice", "cache_control", "speed"),
    *("container", "inference_geo", "diagnostics"),
}


def wrong_batch(content: bytes) -> str | None:
    """Return the API's error for an invalid batch. Params are checked later, per request."""
    try:
        entries = json.loads(content)["requests"]
        names = [entry["custom_id"] for entry in entries]
        whole = all(set(entry) == {"custom_id", "params"} for entry in entries)
    except (ValueError, LookupError, TypeError):
        return "requests: Field required"
    if not whole or not 1 <= len(entries) <= MAX_REQUESTS:
        return f"requests: from 1 to {MAX_REQUESTS} of custom_id and params"
    if any(CUSTOM_ID.fullmatch(name) is None for name in names):
        return "custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'"
    return None if len(set(names)) == len(names) else "custom_id: must be unique"


def example(schema: Mapping[str, Any]) -> Any:
    """Return a value that is valid for a simple schema."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            return {name: example(one) for name, one in schema.get("properties", {}).items()}
        case "array":
            return [example(schema["items"])]
        case "integer" | "number":
            return 7
        case "boolean":
            return True
        case "null":
            return None
    return "A word."

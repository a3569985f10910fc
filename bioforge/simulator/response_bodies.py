"""Response bodies of the API: response, chat completion and model objects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bioforge.simulator.text import halves

MODELS = ("gpt-6-luna", "gpt-6.1-terra")
"""The models that `/v1/models` lists, each with its snapshot; other names are accepted too."""

SNAPSHOT = "2026-05-01"

Ending = Literal["stop", "max_output_tokens", "content_filter", "refusal"]

_DATED = re.compile(r"-\d{4}-\d{2}-\d{2}$")
_TIERS = {None: "default", "auto": "default", "fast": "priority"}


@dataclass(frozen=True, slots=True)
class Content:
    """The content and usage of an answer, independent of the endpoint."""

    identifier: str
    """Hexadecimal; the base of the ids of the answer and its items."""
    created: int
    """Unix time, seconds."""
    model: str
    """The model snapshot."""
    service_tier: str
    text: str
    """The answer or the refusal."""
    ending: Ending
    input_tokens: int
    output_tokens: int
    """Including the reasoning tokens."""
    reasoning_tokens: int
    split: bool
    """True for a reasoning item first and the text in two parts."""


def snapshot(model: str | None) -> str:
    """Return the dated snapshot of a model name; dated names are unchanged."""
    name = model or MODELS[0]
    return name if _DATED.search(name) else f"{name}-{SNAPSHOT}"


def service_tier(asked: str | None) -> str:
    """Return the service tier of a request."""
    return _TIERS.get(asked) or str(asked)


def response_id(identifier: str) -> str:
    """Return the id of a response."""
    return f"resp_{identifier}"


def completion_id(identifier: str) -> str:
    """Return the id of a chat completion."""
    return f"chatcmpl-{identifier[-38:]}"


def response(body: Mapping[str, Any], content: Content) -> dict[str, Any]:
    """Return the response object of `POST /v1/responses`, with the parameters of the request."""
    get = body.get
    incomplete = content.ending in ("max_output_tokens", "content_filter")
    status = "incomplete" if incomplete else "completed"
    text_options = get("text") or {}
    reasoning = get("reasoning") or {}
    return {
        "id": response_id(content.identifier),
        "object": "response",
        "created_at": content.created,
        "status": status,
        "background": False,
        "completed_at": None if incomplete else content.created,
        "error": None,
        "incomplete_details": {"reason": content.ending} if incomplete else None,
        "instructions": get("instructions"),
        "max_output_tokens": get("max_output_tokens"),
        "max_tool_calls": get("max_tool_calls"),
        "model": content.model,
        "output": _output(content, status),
        "parallel_tool_calls": get("parallel_tool_calls") is not False,
        "previous_response_id": get("previous_response_id"),
        "prompt": get("prompt"),
        "prompt_cache_key": get("prompt_cache_key"),
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "safety_identifier": get("safety_identifier"),
        "service_tier": content.service_tier,
        "store": get("store") is not False,
        "temperature": _or(get("temperature"), 1.0),
        "text": {
            "format": text_options.get("format") or {"type": "text"},
            "verbosity": text_options.get("verbosity") or "medium",
        },
        "tool_choice": get("tool_choice") or "auto",
        "tools": get("tools") or [],
        "top_logprobs": get("top_logprobs") or 0,
        "top_p": _or(get("top_p"), 1.0),
        "truncation": get("truncation") or "disabled",
        "usage": {
            "input_tokens": content.input_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": content.output_tokens,
            "output_tokens_details": {"reasoning_tokens": content.reasoning_tokens},
            "total_tokens": content.input_tokens + content.output_tokens,
        },
        "user": get("user"),
        "metadata": get("metadata") or {},
    }


def _output(content: Content, status: str) -> list[dict[str, Any]]:
    if content.ending == "refusal":
        parts: list[dict[str, Any]] = [{"type": "refusal", "refusal": content.text}]
    else:
        texts = halves(content.text) if content.split else (content.text,)
        parts = [{"type": "output_text", "annotations": [], "logprobs": [], "text": text} for text in texts]
    message = {
        "id": f"msg_{content.identifier}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": parts,
    }
    if not content.split:
        return [message]
    return [{"id": f"rs_{content.identifier}", "type": "reasoning", "summary": []}, message]


def completion(content: Content) -> dict[str, Any]:
    """Return the object of `POST /v1/chat/completions`, with one choice."""
    refused = content.ending == "refusal"
    finish = "length" if content.ending == "max_output_tokens" else content.ending
    return {
        "id": completion_id(content.identifier),
        "object": "chat.completion",
        "created": content.created,
        "model": content.model,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": None if refused else content.text,
                    "refusal": content.text if refused else None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": "stop" if refused else finish,
            }
        ],
        "usage": {
            "prompt_tokens": content.input_tokens,
            "completion_tokens": content.output_tokens,
            "total_tokens": content.input_tokens + content.output_tokens,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": content.reasoning_tokens,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": content.service_tier,
        "system_fingerprint": f"fp_{SNAPSHOT.replace('-', '')}",
    }


def model(name: str) -> dict[str, Any]:
    """Return one model object."""
    return {"id": name, "object": "model", "created": 1_777_593_600, "owned_by": "simulator"}


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value

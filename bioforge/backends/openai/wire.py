"""Bodies and answers of the two endpoints. Pure; never raises for what the API returned."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bioforge.backends.openai.error_body import EMBEDDED, embedded_error, readable
from bioforge.backends.openai.errors import ENDINGS
from bioforge.core.errors import ConfigError
from bioforge.core.types import Failure, Rendered, Request, Response, Usage
from bioforge.recipes.schema.request import in_written_order

Price = Callable[[str, Usage, str | None], float | None]
"""Returns US dollars for a model's usage at a service tier; None if unknown."""

RESPONSES = "/v1/responses"
CHAT = "/v1/chat/completions"
ENDPOINTS = (RESPONSES, CHAT)

_ENDED_WELL = frozenset(
    {"stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed", "tool_calls", "function_call"}
)
"""Values of `finish_reason` for a complete answer, with those of other servers."""

_MOST = 2**53
"""Highest accepted number of tokens, which every JSON reader can represent."""

_STATUSES = ("completed", "incomplete", "failed", "cancelled", "queued", "in_progress")


def body(rendered: Rendered) -> dict[str, object]:
    """Return the request body for a recipe's endpoint. Raises `ConfigError` if the endpoint cannot express it."""
    if rendered.endpoint == CHAT:
        return _chat_body(rendered)
    asked: object = rendered.input
    if rendered.turns:
        first = [] if rendered.input is None else [{"role": "user", "content": rendered.input}]
        asked = [*first, *({"role": turn.role, "content": turn.text} for turn in rendered.turns)]
    parts = {
        "model": rendered.model,
        "instructions": rendered.instructions,
        "input": asked,
        "prompt": None if rendered.prompt is None else dict(rendered.prompt),
    }
    return {**rendered.parameters, **{name: value for name, value in parts.items() if value is not None}}


def sent(request: Request) -> bytes:
    """Return the bytes to send: the request's body, with its service tier unless it names one.

    A schema's properties are sent in the order they were written in, which canonical JSON has lost.
    """
    tier, ordered = request.service_tier, b'"json_schema"' in request.body
    if tier is None and not ordered:
        return request.body
    body = json.loads(request.body)
    if tier is not None:
        body = dict(sorted({"service_tier": tier, **body}.items()))
    if ordered:
        body = in_written_order(body)
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _chat_body(rendered: Rendered) -> dict[str, object]:
    if rendered.prompt is not None:
        raise ConfigError(
            f"a reusable prompt cannot be used with {CHAT}",
            f'set endpoint = "{RESPONSES}", or write the prompt as instructions and input',
        )
    body: dict[str, object] = dict(rendered.parameters)
    if "max_output_tokens" in body:
        body["max_completion_tokens"] = body.pop("max_output_tokens")
    messages: list[tuple[str, str | None]] = [("system", rendered.instructions), ("user", rendered.input)]
    messages += [(turn.role, turn.text) for turn in rendered.turns]
    if any(content is not None for _, content in messages):
        body["messages"] = [{"role": role, "content": text} for role, text in messages if text is not None]
    if rendered.model is not None:
        body["model"] = rendered.model
    return body


def read_answer(endpoint: str, content: bytes, asked: str = "", price: Price | None = None) -> Response:
    """Read a complete 200. An unusable answer has a `problem`, with as much of the rest as could be read.

    `problem.error_class` is `malformed` for a body without any part of an answer, `EMBEDDED` for one with an error
    in place of an answer. The cost is that of the model that answered, or of the requested one if that has no known price.
    """
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        return _malformed(content, f"the answer is not JSON: {error}")
    if not isinstance(body, dict):
        return _malformed(content, f"the answer is JSON without an object: {type(body).__name__}")
    parts = body.get("choices") if endpoint == CHAT else body.get("output")
    if not isinstance(parts, list) and (endpoint == CHAT or body.get("status") not in _STATUSES):
        return _malformed(content, "the answer has not the shape of one", body)
    text, refusal = (_chat_texts if endpoint == CHAT else _response_texts)(body)
    usage = read_usage(body)
    model = _text(body.get("model"))
    tier = _text(body.get("service_tier"))
    cost = None
    if price is not None and usage is not None:
        cost = price(model or asked, usage, tier)
        if cost is None and asked:
            cost = price(asked, usage, tier)
    return Response(
        body=content,
        text=text,
        usage=usage,
        model=model,
        response_id=_text(body.get("id")),
        service_tier=tier,
        cost_usd=cost,
        problem=_problem(endpoint, body, text, refusal),
    )


def read_usage(body: Mapping[str, Any]) -> Usage | None:
    """Return the tokens in the format of either endpoint; None if there are none."""
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return None
    taken = _count(usage, "input_tokens", "prompt_tokens")
    given = _count(usage, "output_tokens", "completion_tokens")
    if taken is None and given is None:
        return None
    details = _dict(usage, "input_tokens_details", "prompt_tokens_details")
    further = _dict(usage, "output_tokens_details", "completion_tokens_details")
    return Usage(
        taken or 0,
        given or 0,
        _count(details, "cached_tokens") or 0,
        _count(details, "cache_write_tokens") or 0,
        _count(further, "reasoning_tokens") or 0,
        _searches(body, usage),
    )


def _searches(body: Mapping[str, Any], usage: Mapping[str, Any]) -> int:
    """Return the web searches with a fee: those counted in the usage, else calls that search, else 1 for cited pages."""
    if (counted := _count(_dict(usage, "server_tool_use"), "web_search_requests")) is not None:
        return counted
    calls = [item for item in _dicts(body.get("output")) if item.get("type") == "web_search_call"]
    cited = _dicts(_dict(_first(body.get("choices")), "message").get("annotations"))
    searched = [call for call in calls if _dict(call, "action").get("type", "search") == "search"]
    return len(searched) + int(any(note.get("type") == "url_citation" for note in cited))


def _response_texts(body: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return text and refusal: every `output_text` part of every message; `output[0]` may be a reasoning item."""
    texts: list[str] = []
    refusals: list[str] = []
    for item in _dicts(body.get("output")):
        if item.get("type") == "message":
            for part in _dicts(item.get("content")):
                kind, text = part.get("type"), part.get("text")
                if kind == "output_text" and isinstance(text, str):
                    texts.append(text)
                elif kind == "refusal":
                    refusals.append(_text(part.get("refusal")) or "refused without words")
    return _text("".join(texts)), _text(" ".join(refusals))


def _chat_texts(body: Mapping[str, Any]) -> tuple[str | None, str | None]:
    choice = _first(body.get("choices"))
    message = _dict(choice, "message")
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(part["text"] for part in _dicts(content) if isinstance(part.get("text"), str))
    return _text(content), _text(message.get("refusal"))


def _problem(endpoint: str, body: Mapping[str, Any], text: str | None, refusal: str | None) -> Failure | None:
    if refusal is not None:
        return Failure("refusal", refusal)
    # a failed response with usage was charged, and is kept as an answer
    if not (body.get("status") == "failed" and read_usage(body)) and embedded_error(body, text) is not None:
        return Failure(EMBEDDED, "an error in place of an answer", http_status=200)
    if endpoint == CHAT:
        reason = _text(_first(body.get("choices")).get("finish_reason"))
        if reason is not None and reason.lower() not in _ENDED_WELL:
            return _early(reason)
    else:
        status = _text(body.get("status")) or "completed"
        if status == "incomplete":
            return _early(_text(_dict(body, "incomplete_details").get("reason")))
        if status != "completed":
            error = _dict(body, "error")
            message = _text(error.get("message")) or f"the answer's status is {status!r}"
            error_class = status if status in _STATUSES else "failed"
            return Failure(error_class, message, _text(error.get("code")))
    if text is None or not text.strip():
        return Failure("empty", "the answer has no text")
    return None


def _early(reason: str | None) -> Failure:
    rule = ENDINGS.get((reason or "").lower())
    if rule is None:
        return Failure("incomplete", f"the answer is incomplete, or ended for an unknown reason: {reason}", reason)
    return Failure(rule.error_class, rule.hint, reason)


def _malformed(content: bytes, message: str, body: Mapping[str, Any] | None = None) -> Response:
    known = body or {}
    embedded = embedded_error(known, None) is not None
    return Response(
        body=content,
        usage=read_usage(known),
        model=_text(known.get("model")),
        response_id=_text(known.get("id")),
        problem=Failure(EMBEDDED if embedded else "malformed", message, http_status=200),
    )


def _dicts(value: object) -> Sequence[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else ()


def _first(value: object) -> dict[str, Any]:
    """Return the first object of a list, or an empty one."""
    found = _dicts(value)
    return found[0] if found else {}


def _dict(body: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return the first of these members that is an object, or an empty one."""
    for name in names:
        if isinstance(value := body.get(name), dict):
            return value
    return {}


def _count(body: Mapping[str, Any], *names: str) -> int | None:
    """Return the first of these members that is a number of tokens."""
    for name in names:
        value = body.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST:
            return value
    return None


def _text(value: object) -> str | None:
    """Return a text that is not empty, or None."""
    if not isinstance(value, str) or not value:
        return None
    return value if value.isascii() else readable(value)

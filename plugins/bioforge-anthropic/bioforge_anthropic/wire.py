"""Build bodies and read answers of `/v1/messages`. Without I/O; invalid responses raise no exception.

https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from bioforge.plugin import EMBEDDED, ConfigError, Failure, Rendered, Request, Response, Usage, embedded_error
from bioforge_anthropic.prices import price

EFFORTS = ("low", "medium", "high", "xhigh", "max")
TIERS = ("auto", "standard_only")

_ENDED_EARLY = {
    "max_tokens": ("truncated", "the answer was cut off at its token limit; raise max_output_tokens"),
    "model_context_window_exceeded": ("truncated", "the answer was cut off at the end of the model's context window"),
    "pause_turn": ("incomplete", "the answer was paused before its end"),
    "tool_use": ("incomplete", "the model asks for a tool, and nothing here runs tools"),
}
"""Why an answer ended before its end, to error class and sentence."""

_ENDED_WELL = ("end_turn", "stop_sequence")

_MOST = 2**53
"""More tokens than this are no number of tokens, and no number that every program can keep."""

# ------------------------------------------------------------------------------------------------------------- bodies


def body(rendered: Rendered) -> dict[str, object]:
    """Return the body for a recipe. Raises `ConfigError` if the API cannot express it.

    Parameters with another name in OpenAI's `/v1/responses` are translated; others are sent unchanged.
    """
    if rendered.prompt is not None:
        raise ConfigError(
            "a reusable prompt cannot be used with Anthropic", "write the prompt as instructions and input instead"
        )
    made = dict(rendered.parameters)
    made["max_tokens"] = _max_tokens(made)
    if (config := _output_config(made)) is not None:
        made["output_config"] = config
    if made.get("stream"):
        raise ConfigError(
            "stream: answers are not read as a stream", "leave it out: answers are stored when they are whole"
        )
    tier = made.get("service_tier")
    if tier is not None and tier not in TIERS:
        raise ConfigError(
            f"service_tier: expected {TIERS[0]!r} or {TIERS[1]!r} for Anthropic, found {tier!r}",
            "for half the price use the backend anthropic-batch",
        )
    messages = [] if rendered.input is None else [{"role": "user", "content": rendered.input}]
    messages += [{"role": turn.role, "content": turn.text} for turn in rendered.turns]
    if not messages:
        raise ConfigError("Anthropic needs an input, and the recipe has none", "write what is asked as input")
    if rendered.model is None:
        raise ConfigError(
            "Anthropic needs a model, and the recipe has none", 'write one, like model = "claude-haiku-4-5"'
        )
    if rendered.instructions is not None:
        made["system"] = rendered.instructions
    return {**made, "model": rendered.model, "messages": messages}


def _max_tokens(made: dict[str, object]) -> object:
    """Remove the limit from the parameters and return it."""
    limits = [made.pop(name) for name in ("max_output_tokens", "max_tokens") if name in made]
    if not limits:
        raise ConfigError(
            "Anthropic needs max_output_tokens, and the recipe has none",
            "write the most tokens an answer may have, like max_output_tokens = 1024",
        )
    if len(limits) > 1:
        raise ConfigError("max_output_tokens and max_tokens are the same here", "leave out one of them")
    (limit,) = limits
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ConfigError(f"max_output_tokens: expected a whole number from 1, found {limit!r}")
    return limit


def _output_config(made: dict[str, object]) -> dict[str, object] | None:
    """Build `output_config` from schema and effort; removes `text` and `reasoning` from the parameters."""
    text, reasoning, given = made.pop("text", None), made.pop("reasoning", None), made.get("output_config")
    config: dict[str, object] = dict(given) if isinstance(given, Mapping) else {}
    if text is not None:
        form = text.get("format") if isinstance(text, Mapping) else None
        if not isinstance(text, Mapping) or set(text) - {"format"}:
            raise ConfigError("text: Anthropic knows only text.format", "leave out the other keys of text")
        if isinstance(form, Mapping) and form.get("type") == "json_schema":
            if "format" in config:
                raise ConfigError("the recipe has a schema and output_config.format", "leave out one of them")
            config["format"] = {"type": "json_schema", "schema": form.get("schema")}
        elif form is not None and not (isinstance(form, Mapping) and form.get("type") == "text"):
            raise ConfigError(
                "text.format: Anthropic answers with a JSON schema or plain text", "give the recipe a schema"
            )
    if reasoning is not None:
        effort = reasoning.get("effort") if isinstance(reasoning, Mapping) else None
        if not isinstance(reasoning, Mapping) or set(reasoning) != {"effort"} or effort not in EFFORTS:
            raise ConfigError(
                f"reasoning: expected {{ effort = … }} with one of {', '.join(EFFORTS)}",
                "for anything else write Anthropic's own parameters: thinking and output_config",
            )
        if config.get("effort", effort) != effort:
            raise ConfigError("reasoning.effort and output_config.effort differ", "leave out one of them")
        config["effort"] = effort
    return config or None


def sent(request: Request) -> bytes:
    """Return the bytes to send for a request's body.

    Schema properties are sent in their original order, restored from `required` because canonical JSON sorts them: a
    model answers in that order.
    """
    if b'"output_config"' not in request.body:
        return request.body
    made = json.loads(request.body)
    made["output_config"] = _ordered(made["output_config"])
    return json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _ordered(value: Any) -> Any:
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    made = {key: _ordered(item) for key, item in value.items()}
    properties, required = made.get("properties"), made.get("required")
    if isinstance(properties, dict) and isinstance(required, list) and set(required) == properties.keys():
        made["properties"] = {name: properties[name] for name in required}
    return made


# ------------------------------------------------------------------------------------------------------------ answers


def read_answer(content: bytes, asked: str = "", tier: str | None = None) -> Response:
    """Read a complete answer. An unusable one has a `problem` and as many other fields as could be read.

    `problem.error_class` is `malformed` if it is not a message. The cost uses the answering model, or `asked` if that
    has no known price, at the price of `tier` or of the answer's tier.
    """
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        return _malformed(content, f"the answer is not JSON: {error}")
    if not isinstance(body, dict):
        return _malformed(content, f"the answer is JSON without an object: {type(body).__name__}")
    if body.get("type") != "message" or not isinstance(body.get("content"), list):
        return _malformed(content, "the answer has not the shape of a message", body)
    parts = [part["text"] for part in _dicts(body["content"]) if part.get("type") == "text" and _is_text(part)]
    words = _text("".join(parts))
    usage, model = read_usage(body), _text(body.get("model"))
    told = _text(_dict(body, "usage").get("service_tier"))
    return Response(
        body=content,
        text=words,
        usage=usage,
        model=model,
        response_id=_text(body.get("id")),
        service_tier=told,
        cost_usd=None if usage is None else _cost(body, usage, (model, asked), tier or told),
        problem=_problem(body, words),
    )


def read_usage(body: Mapping[str, Any]) -> Usage | None:
    """Read the tokens of an answer, or return None.

    Anthropic counts cache reads and writes beside `input_tokens`; here they are part of the input.
    """
    usage = _dict(body, "usage")
    plain, given = _count(usage, "input_tokens"), _count(usage, "output_tokens")
    if plain is None and given is None:
        return None
    read, written = _count(usage, "cache_read_input_tokens") or 0, _count(usage, "cache_creation_input_tokens") or 0
    return Usage(
        input_tokens=(plain or 0) + read + written,
        output_tokens=given or 0,
        cached_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=_count(_dict(usage, "output_tokens_details"), "thinking_tokens") or 0,
        web_searches=_count(_dict(usage, "server_tool_use"), "web_search_requests") or 0,
    )


def _cost(body: Mapping[str, Any], usage: Usage, models: tuple[str | None, ...], tier: str | None) -> float | None:
    long_lived = _count(_dict(_dict(body, "usage"), "cache_creation"), "ephemeral_1h_input_tokens") or 0
    found = (price(model, usage, tier, long_lived) for model in models if model)
    return next((cost for cost in found if cost is not None), None)


def _problem(body: Mapping[str, Any], words: str | None) -> Failure | None:
    reason = _text(body.get("stop_reason"))
    if reason == "refusal":
        details = _dict(body, "stop_details")
        category = _text(details.get("category"))
        said = _text(details.get("explanation")) or words or "refused without words"
        return Failure("refusal", f"{said} ({category})" if category else said, "refusal")
    if reason in _ENDED_EARLY:
        return Failure(*_ENDED_EARLY[reason], reason)
    if reason not in _ENDED_WELL:
        return Failure("incomplete", f"the answer ended for an unknown reason: {reason}", reason)
    if words is None or not words.strip():
        return Failure("empty", "the answer has no text")
    return None


def _malformed(content: bytes, message: str, body: Mapping[str, Any] | None = None) -> Response:
    known = body or {}
    return Response(
        body=content,
        usage=read_usage(known),
        model=_text(known.get("model")),
        response_id=_text(known.get("id")),
        problem=Failure("malformed" if embedded_error(known, None) is None else EMBEDDED, message, http_status=200),
    )


# --------------------------------------------------------------------------------------------------------- any JSON


def readable(text: str) -> str:
    """Return the text without lone surrogates, which have no UTF-8 form."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def _is_text(part: Mapping[str, Any]) -> bool:
    return isinstance(part.get("text"), str)


def _dicts(value: object) -> Iterator[dict[str, Any]]:
    return (entry for entry in value if isinstance(entry, dict)) if isinstance(value, list) else iter(())


def _dict(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    return value if isinstance(value, dict) else {}


def _count(body: Mapping[str, Any], name: str) -> int | None:
    value = body.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST else None


def _text(value: object) -> str | None:
    """Return a text that is not empty, or None."""
    return readable(value) if isinstance(value, str) and value else None

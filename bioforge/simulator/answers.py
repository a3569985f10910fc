"""Simulated answers: a pure function from a request body to a reply, for HTTP and for batch lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from bioforge.simulator import response_bodies
from bioforge.simulator.errors import ApiError
from bioforge.simulator.faults import draw, refusal, scripted
from bioforge.simulator.options import SimulatorOptions
from bioforge.simulator.request_bodies import CHAT, RESPONSES, Body, canonical, check, digest_of
from bioforge.simulator.schema_values import generate
from bioforge.simulator.text import compose_text, count_tokens, cut, excerpt, input_tokens

ENDPOINTS = (RESPONSES, CHAT)

_REFUSAL = "I'm sorry, I cannot write about this. (simulated fault: refusal)"


@dataclass(frozen=True, slots=True)
class Bill:
    """The model, tier and tokens of a charged answer."""

    endpoint: str
    digest: bytes
    """SHA-256 of the body's canonical JSON."""
    occurrence: int
    """The number of the attempt at this body, from 1."""
    model: str
    """The model snapshot that answered."""
    service_tier: str
    input_tokens: int
    output_tokens: int

    @property
    def response_id(self) -> str:
        return answer_id(self.endpoint, self.digest, self.occurrence)


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to one attempt at a body. `bill` is None if nothing is charged."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    fault: str | None = None
    """The fault of this attempt. For faults that cut an answer off (`faults.CUT_OFF`), status and body are those of the
    complete answer; the caller cuts it off."""
    bill: Bill | None = None


def answer(
    endpoint: str,
    body: Body,
    options: SimulatorOptions,
    occurrence: int = 1,
    *,
    created: int = 0,
    text: str | None = None,
    digest: bytes | None = None,
) -> Reply:
    """Check a body, choose its fault and return the reply, the same for the same arguments.

    `occurrence` counts the attempts at this body from 1; it decides the fault and the id, never the text.
    `created` is Unix time in seconds. `text` and `digest` are the body's canonical JSON and its SHA-256, if known.
    """
    text = canonical(body) if text is None else text
    digest = digest_of(text) if digest is None else digest
    try:
        check(endpoint, body)
        fault = fault_of(options, body, text, digest, occurrence)
        if fault and (failure := refusal(fault, options.retry_after)):
            return Reply(failure.status, failure.body(), failure.headers, fault)
        content = compose(endpoint, body, options, digest, occurrence, fault, created)
    except ApiError as failure:
        return Reply(failure.status, failure.body(), failure.headers)
    shaped = response_bodies.response(body, content) if endpoint == RESPONSES else response_bodies.completion(content)
    if fault == "drop_before":
        return Reply(200, shaped, fault=fault)
    bill = Bill(
        endpoint,
        digest,
        occurrence,
        content.model,
        content.service_tier,
        content.input_tokens,
        content.output_tokens,
    )
    return Reply(200, shaped, fault=fault, bill=bill)


def identifier(digest: bytes, occurrence: int) -> str:
    """Return 48 hexadecimal digits, different for each attempt at each body."""
    return f"{digest[:20].hex()}{occurrence:08x}"


def answer_id(endpoint: str, digest: bytes, occurrence: int) -> str:
    """Return the id of an answer, also used in the ledger."""
    name = identifier(digest, occurrence)
    return response_bodies.response_id(name) if endpoint == RESPONSES else response_bodies.completion_id(name)


def fault_of(options: SimulatorOptions, body: Body, text: str, digest: bytes, occurrence: int) -> str | None:
    """Return the fault of one attempt: the script's, else one drawn by the probabilities."""
    name = scripted(options.script, body, text, occurrence) if options.script else None
    if name is not None:
        return None if name == "ok" else name
    return draw(options.seed, options.faults, digest, occurrence) if options.faults else None


def output_limit(body: Body) -> int | None:
    """Return the output limit in tokens, under any of its parameter names."""
    limit = body.get("max_output_tokens") or body.get("max_completion_tokens") or body.get("max_tokens")
    return limit if isinstance(limit, int) else None


def compose(
    endpoint: str,
    body: Body,
    options: SimulatorOptions,
    digest: bytes,
    occurrence: int,
    fault: str | None,
    created: int,
) -> response_bodies.Content:
    """Return the content of an answer, cut to the output limit."""
    words = _words(endpoint, body, digest if occurrence == 1 else _another(body, digest, occurrence), fault)
    tokens = count_tokens(words)
    limit = output_limit(body)
    ending: response_bodies.Ending = "refusal" if fault == "refusal" else "stop"
    if fault in ("incomplete", "content_filter"):
        ending = "max_output_tokens" if fault == "incomplete" else "content_filter"
        tokens = max(1, tokens // 2)
    if limit is not None and tokens > limit:
        ending, tokens = "max_output_tokens", limit
    words = cut(words, tokens)
    split = digest[7] < options.several_parts * 256
    # reasoning uses what the limit leaves, so it never exceeds it
    room = 64 if limit is None else limit - tokens
    reasoning = min(16 + digest[8] % 48, room) if split else 0
    return response_bodies.Content(
        identifier=identifier(digest, occurrence),
        created=created,
        model=response_bodies.snapshot(body.get("model")),
        service_tier=response_bodies.service_tier(body.get("service_tier")),
        text=words,
        ending=ending,
        input_tokens=input_tokens(body),
        output_tokens=tokens + reasoning,
        reasoning_tokens=reasoning,
        split=split and endpoint == RESPONSES,
    )


def _another(body: Body, digest: bytes, occurrence: int) -> bytes:
    """Return the seed of a text: with a temperature, another one for each attempt."""
    temperature = body.get("temperature")
    warm = isinstance(temperature, int | float) and temperature > 0
    return sha256(digest + occurrence.to_bytes(8, "big")).digest() if warm else digest


def _words(endpoint: str, body: Body, digest: bytes, fault: str | None) -> str:
    if fault == "refusal":
        return _REFUSAL
    words = _natural(endpoint, body, digest)
    if fault == "misfit" and words.startswith("{"):
        return _dumps({"simulated fault": "misfit"})
    return words


def _natural(endpoint: str, body: Body, digest: bytes) -> str:
    """Return the complete answer: a text, or JSON if the request asks for it."""
    about = excerpt(body)
    if endpoint == RESPONSES:
        wanted = (body.get("text") or {}).get("format") or {}
        details, place = wanted, "text.format"
    else:
        wanted = body.get("response_format") or {}
        details, place = wanted.get("json_schema") or {}, "response_format.json_schema"
    match wanted.get("type"):
        case "json_schema":
            return _dumps(_valid(details["schema"], digest, about, f"{place}.schema"))
        case "json_object":
            return _dumps({"simulated": True, "text": compose_text(digest, about)})
        case _:
            return compose_text(digest, about)


def _valid(schema: Mapping[str, Any], digest: bytes, about: str, param: str) -> Any:
    try:
        return generate(schema, digest, about)
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError) as error:
        message = f"Invalid schema for response_format: {error}"
        raise ApiError(400, message, param=param, code="invalid_json_schema") from error


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)

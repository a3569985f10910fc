"""Read the error in a response body, in the formats of many vendors and gateways. Pure; never raises.

`{"error": {"message", "type", "code"}}` (OpenAI), `[{"error": {"status", "details"}}]` (Gemini), `{"detail": …}` (FastAPI),
`{"message": {"detail": […]}}` (Mistral), `error.innererror` (Azure), `error.metadata` (OpenRouter), `errors` (Cloudflare), HTML.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

EMBEDDED = "embedded_error"
"""Class of the problem of a 200 that holds an error; its outcome has the class of that error."""

SHOWN = 200
"""Characters of a body that are shown when no message is found in it."""

_DEPTH = 5
_ENTRIES = 5
"""Entries of a list that are read."""

_MESSAGES = (
    "message", "detail", "msg", "error", "errors", "error_description", "description", "title", "fault", "faultstring",
    "Message",
)  # fmt: skip
_CODES = ("code", "error_code", "type", "status", "reason")
_INNER = ("error", "errors", "detail", "details", "innererror", "inner_error", "metadata", "message", "fault")
_TITLE = re.compile(rb"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """An error as the provider words it. `codes` has every code, type and reason in lower case; `status` is one in the body."""

    message: str = ""
    code: str | None = None
    codes: frozenset[str] = frozenset()
    status: int | None = None


def read_error(content: bytes) -> ErrorBody:
    """Return the error in a body; of any other body its title or its start."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return ErrorBody(excerpt(content))
    found = error_in(body)
    return found if found.message or not content else ErrorBody(excerpt(content), found.code, found.codes, found.status)


def error_in(body: object) -> ErrorBody:
    """Return the error in a parsed body, or in the `error` object itself."""
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    root: object = body.get("error") if isinstance(body, dict) and isinstance(body.get("error"), dict) else body
    levels = list(_levels(root, 0))
    codes = [code for level in levels for name in _CODES if (code := word(level.get(name))) is not None]
    metadata = root.get("metadata") if isinstance(root, dict) else None
    message = _message(root, 0) or ""
    if isinstance(metadata, dict):
        raw, reasons = word(metadata.get("raw")), metadata.get("reasons")
        message += f": {_short(raw)}" if raw else ""
        if isinstance(reasons, list) and reasons:
            message += f" ({', '.join(str(word(reason)) for reason in reasons[:_ENTRIES])})"
        if reasons or "flagged_input" in metadata:
            codes.append("flagged_input")
    first = levels[0] if levels else {}
    details = first.get("details")
    named = word(details.get("error_code")) if isinstance(details, dict) else None
    # Google has the HTTP status in `code`, and its own code in `status`
    number = first.get("code")
    own = word(number) if isinstance(number, str) else None
    code = own or named or word(first.get("type")) or word(first.get("status")) or word(number)
    return ErrorBody(message, code, frozenset(code.lower() for code in codes), _status(first))


def embedded_error(body: object, text: str | None) -> object:
    """Return the error in the parsed body of a 200 with this text; None for an answer.

    A text that ended otherwise than by an error is an answer, whatever stands beside it.
    """
    if not isinstance(body, dict):
        return None
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    if choice.get("error") or choice.get("finish_reason") == "error":
        return choice.get("error") or body.get("error") or "the answer ended with an error"
    return None if text else body.get("error") or None


def excerpt(content: bytes) -> str:
    """Return the title of an HTML page, else the first 200 characters."""
    found = _TITLE.search(content[:8192])
    title = "" if found is None else _short(html.unescape(found[1].decode("utf-8", "replace")))
    return title or _short(content[: SHOWN * 4].decode("utf-8", "replace"))


def word(value: object) -> str | None:
    """Return a text or number as text, else None."""
    if isinstance(value, str):
        return readable(value) or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**9 else None


def readable(text: str) -> str:
    """Replace lone surrogates, which JSON can carry and no file or database can."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def _short(text: str) -> str:
    return " ".join(text.split())[:SHOWN]


def _status(error: Mapping[str, Any]) -> int | None:
    """Return the HTTP status that an error object names."""
    for name in ("code", "status", "status_code"):
        value = word(error.get(name))
        if value is not None and len(value) == 3 and value.isdecimal() and 300 <= int(value) < 600:
            return int(value)
    return None


def _levels(value: object, depth: int) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of an error, the outermost first."""
    if depth > _DEPTH:
        return
    if isinstance(value, list):
        for entry in value[:_ENTRIES]:
            yield from _levels(entry, depth + 1)
    elif isinstance(value, dict):
        yield value
        for name in _INNER:
            yield from _levels(value.get(name), depth + 1)


def _message(value: object, depth: int) -> str | None:
    """Return the message in a part of an error; one about a field starts with the field's place."""
    if isinstance(value, str):
        return word(value.strip())
    if depth > _DEPTH:
        return None
    if isinstance(value, list):
        return "; ".join(filter(None, (_message(entry, depth + 1) for entry in value[:_ENTRIES]))) or None
    if not isinstance(value, dict):
        return None
    found = next(filter(None, (_message(value.get(name), depth + 1) for name in _MESSAGES)), None)
    place = value.get("loc")
    if found and isinstance(place, list):
        return f"{'.'.join(str(word(part)) for part in place)}: {found}"
    return found

"""Read records of `bioforge export --format jsonl` back into answers. Pure; `store/export.py` writes them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bioforge.core.types import Failure, Response, Usage
from bioforge.engine.import_files import readable

UNUSABLE_CLASSES = frozenset({"truncated", "content_filter", "incomplete", "refusal", "empty"})
"""Error classes of unusable answers, as opposed to failures without an answer."""

_MOST = 2**53


@dataclass(frozen=True, slots=True)
class Exported:
    """An answer in a record: request hash, time in seconds since 1970 (None: unknown), `parsed` as JSON."""

    answer: Response
    request_hash: str | None
    at: float | None
    parsed: str | None


def read_record(entry: Mapping[str, Any], line: bytes) -> Exported | Failure:
    """Return the answer of a record, with the record as its body, or the failure of a record without one.

    The answer of a record with an error is not usable.
    """
    text = _text(entry.get("response_text"))
    usage = _usage(entry.get("usage"))
    error = entry.get("error")
    problem = None
    if isinstance(error, dict):
        problem = Failure(
            _text(error.get("class")) or "unknown", _text(error.get("message")) or "", _text(error.get("code"))
        )
        if problem.error_class not in UNUSABLE_CLASSES or (text is None and usage is None):
            return problem
    elif text is None and entry.get("parsed") is None:
        return Failure("empty", "the record has no text")
    request = entry.get("request")
    parsed = entry.get("parsed")
    answer = Response(
        body=line,
        text=text,
        usage=usage,
        model=_text(entry.get("model")),
        response_id=_text(entry.get("response_id")),
        cost_usd=_money(entry.get("cost_usd")),
        problem=problem,
    )
    return Exported(
        answer,
        _text(request.get("hash")) if isinstance(request, dict) else None,
        _time(entry.get("created")),
        None if parsed is None else readable(json.dumps(parsed, ensure_ascii=False)),
    )


def _text(value: object) -> str | None:
    return readable(value) if isinstance(value, str) and value else None


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict) or "input_tokens" not in value:
        return None
    names = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
    return Usage(**{name: _count(value.get(name)) for name in names})


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST else 0


def _money(value: object) -> float | None:
    """Return US dollars, or None."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value < _MOST and math.isfinite(value) else None


def _time(value: object) -> float | None:
    try:
        return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None

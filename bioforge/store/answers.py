"""Look up requests by hash: their state and newest answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bioforge.core.types import Failure, Response, Usage
from bioforge.store.database import Store


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """State of a request (`bioforge.core.reasons`), number of its attempts, and the key of its open batch.

    `failure` is why the last attempt brought no usable answer. `answer` is the newest one without its body, None
    before the first; `number`, `seconds` and `request_id` are of the attempt that brought it.
    """

    state: str
    attempts: int
    batch: str | None
    failure: Failure | None
    answer: Response | None
    number: int
    seconds: float
    request_id: str | None


def cached(store: Store, hashes: Sequence[str]) -> dict[str, CachedAnswer]:
    """Return what is stored for these request hashes; unknown ones are absent."""
    rows = store.rows(_KEPT, (json.dumps(hashes),))
    return {row[0]: _kept(row) for row in rows}


_KEPT = """
    SELECT q.request_hash, q.state, q.attempts, q.batch, q.error_class, q.error_code, q.error_message,
           r.id, r.text, r.response_id, r.model, r.service_tier, r.cost_usd, r.input_tokens, r.cached_tokens,
           r.output_tokens, r.reasoning_tokens, r.error_class, r.error_code, r.error_message,
           x.number, x.seconds, x.request_id,
           (SELECT y.http_status FROM attempts y WHERE y.request_hash = q.request_hash ORDER BY y.id DESC LIMIT 1)
    FROM requests q LEFT JOIN responses r ON r.id = q.response LEFT JOIN attempts x ON x.id = r.attempt
    WHERE q.request_hash IN (SELECT value FROM json_each(?))
"""


def _kept(row: Sequence[Any]) -> CachedAnswer:
    (
        _, state, attempts, batch, error_class, error_code, error_message,
        response, text, response_id, model, tier, cost, tokens_in, cached,
        tokens_out, reasoning, problem_class, problem_code, problem_message,
        number, seconds, request_id, status,
    ) = row  # fmt: skip
    usage = None
    if tokens_in is not None or tokens_out is not None:
        usage = Usage(tokens_in or 0, tokens_out or 0, cached or 0, reasoning_tokens=reasoning or 0)
    answer = Response(
        body=b"",
        text=text,
        usage=usage,
        model=model,
        response_id=response_id,
        service_tier=tier,
        cost_usd=cost,
        problem=None if problem_class is None else Failure(problem_class, problem_message or "", problem_code),
    )
    failure = None if error_class is None else Failure(error_class, error_message or "", error_code, status)
    return CachedAnswer(
        state,
        attempts,
        batch,
        failure,
        None if response is None else answer,
        number or attempts,
        seconds or 0.0,
        request_id,
    )

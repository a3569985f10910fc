"""Answers as export records, streamed in the order of the artists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from bioforge.store.database import Store
from bioforge.store.packing import Unpacker
from bioforge.store.selection import Selection

_PAGE = 1_000
_TEXTS = ("instructions", "input", "messages")
_SCHEMAS = (("text", "format"), ("response_format", "json_schema"))
_decode = json.JSONDecoder().decode


def records(store: Store, selection: Selection, *, failed_only: bool = False) -> Iterator[dict[str, object]]:
    """One record for each target that has an answer or has failed. Artists removed from the input are left out.

    A failed target's record carries `error`, and the newest usable answer where there is an older one. With
    `failed_only`, records of failures carry what was received, so that a truncated text can be looked at.
    """
    where, values = selection.where()
    sql = f"""
        SELECT t.artist, t.recipe, t.variant, a.artist_id, a.artist_name, a.artist_data, t.reason, t.detail,
               r.text, r.parsed, r.response_id, r.created_at, r.model, r.input_tokens, r.cached_tokens,
               r.output_tokens, r.reasoning_tokens, r.cost_usd, r.error_class,
               s.request_hash, s.endpoint, s.body, f.kind,
               q.error_class, q.error_code, q.error_message
        FROM targets t JOIN artists a ON a.id = t.artist
        LEFT JOIN requests q ON t.reason IS NOT NULL AND q.request_hash = t.request_hash
        LEFT JOIN responses r ON r.id = {"q.response" if failed_only else "t.built_response"}
        LEFT JOIN requests s ON s.request_hash = coalesce(r.request_hash, t.request_hash)
        LEFT JOIN follow_ups f ON f.request_hash = s.request_hash
        WHERE (t.artist, t.recipe, t.variant) > (?, ?, ?) AND a.removed_at IS NULL AND {where}
          AND ({"0" if failed_only else "t.built_response IS NOT NULL"} OR t.reason IN ('failed', 'maybe paid', 'skipped'))
        ORDER BY t.artist, t.recipe, t.variant LIMIT {_PAGE}
    """
    unpacker = Unpacker(store)
    after: tuple[object, ...] = (0, "", "")
    while True:
        rows = store.rows(sql, (*after, *values))
        if not rows:
            return
        for row in rows:
            yield _record(row, unpacker)
        after = rows[-1][:3]


def _record(row: tuple[Any, ...], unpacker: Unpacker) -> dict[str, object]:
    (
        _, recipe, variant, artist_id, name, data, reason, detail,
        text, parsed, response_id, created, model, tokens_in, cached, tokens_out, reasoning, cost, _,
        digest, endpoint, body, kind, error_class, error_code, error_message,
    ) = row  # fmt: skip
    record: dict[str, object] = {"artist_id": artist_id, "artist_name": name}
    if data:
        record["artist_data"] = data
    record["recipe"] = recipe
    if variant:
        record["variant"] = variant
    if body is not None:
        record["request"] = _request(digest, endpoint, unpacker.text(body, f"requests, {digest}"), kind)
    if text:
        record["response_text"] = text
    if parsed is not None and (value := _decode(parsed)) not in (None, "", {}):
        record["parsed"] = value
    if response_id:
        record["response_id"] = response_id
    if created is not None:
        record["created"] = _second(int(round(created, 6)))
    if model:
        record["model"] = model
    if tokens_in is not None:
        used = {"input_tokens": tokens_in}
        if cached is not None:
            used["cached_tokens"] = cached
        if tokens_out is not None:
            used["output_tokens"] = tokens_out
        if reasoning is not None:
            used["reasoning_tokens"] = reasoning
        record["usage"] = used
    if cost is not None:
        record["cost_usd"] = cost
    record["error"] = None if reason is None else _error(reason, detail, error_class, error_code, error_message)
    return record


@lru_cache(maxsize=64)
def _second(number: int) -> str:
    """A moment of which others are likely to be in the same second."""
    return datetime.fromtimestamp(number, UTC).isoformat()


def _request(digest: str | None, endpoint: str | None, body: str, kind: str | None) -> dict[str, object]:
    """The request without its long texts and its schema: those stand in the state, under `hash`."""
    sent: dict[str, Any] = _decode(body)
    for name, inner in _SCHEMAS:
        if isinstance(sent.get(name), dict) and isinstance(sent[name].get(inner), dict):
            sent[name][inner].pop("schema", None)  # as long as the answer, and the same for all
    found: dict[str, object] = {"hash": digest, "endpoint": endpoint, "model": sent.pop("model", None)}
    if prompt := sent.pop("prompt", None):
        found |= {"prompt_id": prompt.get("id"), "version": prompt.get("version"), "variables": prompt.get("variables")}
    for name in _TEXTS:
        sent.pop(name, None)
    found |= sent
    found["answered_by"] = kind  # where the first request had failed
    return {name: value for name, value in found.items() if value is not None}


def _error(
    reason: str | None, detail: str | None, error_class: str | None, code: str | None, message: str | None
) -> dict[str, object] | None:
    if reason == "skipped":
        return {"class": reason, "code": None, "message": f"needs {detail}"}
    if reason not in ("failed", "maybe paid"):
        return None
    if error_class is None:  # it was never sent: the text could not be rendered
        error_class, _, message = (detail or "unknown").partition(": ")
    return {"class": error_class, "code": code, "message": message}

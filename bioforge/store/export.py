"""Read answers as export records, in the order of the artists."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from bioforge.core.reasons import Reason
from bioforge.store.compression import Decompressor
from bioforge.store.database import Store
from bioforge.store.reason_sql import EXPORTED_AS_ERROR
from bioforge.store.selection import Selection

_PAGE = 1_000
_TEXTS = ("instructions", "input", "messages")
_SCHEMAS = (("text", "format"), ("response_format", "json_schema"))
_PLAIN = (str, int, float)
"""Values that two records may share."""
_DIGEST = 18
"""Index of the request hash in a row."""
_NEAR = 256
"""Positions by which the order of requests may differ from that of artists, since many are in flight at once."""
_decode = json.JSONDecoder().decode


def records(store: Store, selection: Selection, *, failed_only: bool = False) -> Iterator[dict[str, object]]:
    """Yield a record for each target with an answer or a failure, without artists that were removed from the input.

    The record of a failed target has `error`, and the newest usable answer if there is one. With `failed_only`,
    records of failures contain what was received.
    """
    where, values = selection.where()
    # nothing is looked up for each of a million where there is nothing to be found
    followed = store.value("SELECT 1 FROM follow_ups LIMIT 1") is not None
    follow_up = "LEFT JOIN follow_ups f ON f.request_hash = coalesce(r.request_hash, t.request_hash)"
    sql = f"""
        SELECT t.artist, t.recipe, t.variant, a.artist_id, a.artist_name, a.artist_data, t.reason, t.detail,
               r.text, r.parsed, r.response_id, r.created_at, r.model, r.input_tokens, r.cached_tokens,
               r.output_tokens, r.reasoning_tokens, r.cost_usd,
               coalesce(r.request_hash, t.request_hash), {"f.kind" if followed else "NULL"},
               q.error_class, q.error_code, q.error_message
        FROM targets t JOIN artists a ON a.id = t.artist
        LEFT JOIN requests q ON t.reason IS NOT NULL AND q.request_hash = t.request_hash
        LEFT JOIN responses r ON r.id = {"q.response" if failed_only else "t.built_response"}
        {follow_up if followed else ""}
        WHERE (t.artist, t.recipe, t.variant) > (?, ?, ?) AND a.removed_at IS NULL AND {where}
          AND ({"0" if failed_only else "t.built_response IS NOT NULL"} OR t.reason IN {EXPORTED_AS_ERROR})
        ORDER BY t.artist, t.recipe, t.variant LIMIT {_PAGE}
    """
    unpacker, requests, shape = Decompressor(store), _Requests(store), _Shape()
    after: tuple[object, ...] = (0, "", "")
    while rows := store.rows(sql, (*after, *values)):
        asked = requests.of([row[_DIGEST] for row in rows])
        for row in rows:
            yield _record(row, asked.get(row[_DIGEST]), unpacker, shape)
        after = rows[-1][:3]


class _Requests:
    """Reads requests in the order of their artists.

    A look-up by hash reads a random page of the index for each. Most requests were written in this order, so
    those that follow the last page's are read together.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last: int | None = None
        """The place of the last one, where those of a page lay close together."""

    def of(self, hashes: list[str]) -> dict[str, tuple[str, str | bytes]]:
        """(endpoint, body) by hash; absent where nothing was ever sent."""
        places: dict[str, int] = {}
        found: dict[str, tuple[str, str | bytes]] = {}
        near: list[Any] = []
        if self._last is not None:
            near = self._rows("rowid BETWEEN ? AND ?", (self._last - _NEAR, self._last + len(hashes) + _NEAR))
        for place, digest, endpoint, body in near:
            found[digest], places[digest] = (endpoint, body), place
        missing = [digest for digest in hashes if digest is not None and digest not in found]
        if missing:
            for place, digest, endpoint, body in self._rows(
                "request_hash IN (SELECT value FROM json_each(?))", (json.dumps(missing),)
            ):
                found[digest], places[digest] = (endpoint, body), place
        used = [places[digest] for digest in hashes if digest in places]
        close = bool(used) and max(used) - min(used) < 2 * len(used) + _NEAR
        self._last = max(used) if close else None
        return found

    def _rows(self, where: str, values: Sequence[object]) -> list[Any]:
        return self._store.rows(f"SELECT rowid, request_hash, endpoint, body FROM requests WHERE {where}", values)


def _record(
    row: tuple[Any, ...], asked: tuple[str, str | bytes] | None, unpacker: Decompressor, shape: _Shape
) -> dict[str, object]:
    (
        _, recipe, variant, artist_id, name, data, reason, detail,
        text, parsed, response_id, created, model, tokens_in, cached, tokens_out, reasoning, cost,
        digest, kind, error_class, error_code, error_message,
    ) = row  # fmt: skip
    record: dict[str, object] = {"artist_id": artist_id, "artist_name": name}
    if data:
        record["artist_data"] = data
    record["recipe"] = recipe
    if variant:
        record["variant"] = variant
    if asked is not None:
        endpoint, body = asked
        record["request"] = shape.request(digest, endpoint, unpacker.text(body, f"requests, {digest}"), kind)
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
    """Format a time, cached, since many records share a second."""
    return datetime.fromtimestamp(number, UTC).isoformat()


class _Shape:
    """The parts of a request besides its texts, cached, since nearly all requests of a recipe share them."""

    def __init__(self) -> None:
        self._endpoint = ""
        self._before = self._after = ""
        """What stands before and after the input of such a body; nothing where no such body was seen."""
        self._found: dict[str, object] = {}

    def request(self, digest: str, endpoint: str, body: str, kind: str | None) -> dict[str, object]:
        before, after = self._before, self._after
        if before and kind is None and endpoint == self._endpoint and body.startswith(before) and body.endswith(after):
            text = body[len(before) : -len(after)]
            # nothing that ends a JSON string stands in it, so that the rest is where it was
            if len(before) + len(after) <= len(body) and '"' not in text and not text.endswith("\\"):
                return {**self._found, "hash": digest}
        found = _request(digest, endpoint, body, kind)
        self._learn(body, endpoint, found if kind is None else None)
        return found

    def _learn(self, body: str, endpoint: str, found: dict[str, object] | None) -> None:
        self._before = ""
        start = '{"input":"'
        if found is None or not body.startswith(start):  # the first name there is: no text stands before it
            return
        text = json.dumps(_decode(body)["input"], ensure_ascii=False)[1:-1]
        if body[len(start) :].startswith(f'{text}"') and all(isinstance(value, _PLAIN) for value in found.values()):
            self._endpoint, self._before, self._after, self._found = (
                endpoint,
                start,
                body[len(start) + len(text) :],
                found,
            )


def _request(digest: str | None, endpoint: str | None, body: str, kind: str | None) -> dict[str, object]:
    """Return the request without its long texts and schema, which are in the state under `hash`."""
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
    if reason == Reason.SKIPPED:
        return {"class": reason, "code": None, "message": f"needs {detail}"}
    if reason is None or not Reason(reason).info.error:
        return None
    if error_class is None:  # it was never sent: the text could not be rendered
        error_class, _, message = (detail or "unknown").partition(": ")
    return {"class": error_class, "code": code, "message": message}

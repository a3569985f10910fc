"""Requests that replace a failed one: a repair with its errors, or a fallback model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bioforge.store.database import Store


@dataclass(frozen=True, slots=True)
class StoredRetry:
    """`root` is the target's own request; `kind` is repair or fallback; `body` is what is sent."""

    request_hash: str
    root: str
    kind: str
    model: str | None
    body: bytes
    input_tokens: int


def save(store: Store, follow_ups: Sequence[StoredRetry]) -> None:
    """Store these requests; a known one stays as it is."""
    if not follow_ups:
        return
    with store.transaction() as connection:
        connection.executemany(
            "INSERT OR IGNORE INTO follow_ups (request_hash, root, kind, model, body, input_tokens, planned_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    item.request_hash,
                    item.root,
                    item.kind,
                    item.model,
                    item.body.decode("utf-8", "surrogatepass"),
                    item.input_tokens,
                    time.time(),
                )
                for item in follow_ups
            ],
        )

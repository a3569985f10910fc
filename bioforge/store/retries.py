"""Requests that stand in for one that has failed: what is sent again with its errors, or to another model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bioforge.store.database import Store


@dataclass(frozen=True, slots=True)
class StoredRetry:
    """`root` is the request that the target asked for first; `kind` is repair or fallback; `body` is what is sent."""

    request_hash: str
    root: str
    kind: str
    model: str | None
    body: bytes
    input_tokens: int


def save(store: Store, follow_ups: Sequence[StoredRetry]) -> None:
    """Remember what is going to be asked; the same one twice is one."""
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

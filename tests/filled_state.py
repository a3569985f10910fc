"""A state filled by hand, through the tables as they are: for tests of what reads it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count
from typing import Any

from bioforge.store import Selection, Store, queue
from bioforge.store.queue import PendingRequest, RequestFilter


def handed_out(
    store: Store, selection: Selection, which: RequestFilter = RequestFilter.STALE, **asked: Any
) -> Iterator[PendingRequest]:
    """The targets that a run would be given, one by one."""
    return chain.from_iterable(queue.pages(store, selection, which, **asked))


class FilledState:
    def __init__(self, store: Store) -> None:
        self.store = store
        self._number = count(1)

    def insert(self, table: str, **values: object) -> int:
        with self.store.transaction() as connection:
            sql = f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})"
            return connection.execute(sql, tuple(values.values())).lastrowid or 0

    def artist(self, artist_id: str, *, removed: bool = False) -> int:
        return self.insert(
            "artists",
            artist_id=artist_id,
            artist_name=f"Artist {artist_id}",
            row_hash="row",
            generation=1,
            removed_at=1.0 if removed else None,
        )

    def target(self, artist: int, variant: str = "", *, recipe: str = "bio", **columns: object) -> None:
        """Fresh, if nothing is said."""
        values = {"definition": 1, "row_hash": "row", "reason": None, **columns}
        self.insert("targets", artist=artist, recipe=recipe, variant=variant, **values)

    def attempt(self, request_hash: str, **columns: object) -> int:
        values = {"number": 1, "started_at": 1.0, "seconds": 1.5, "outcome": "succeeded", "paid": "yes", **columns}
        return self.insert("attempts", request_hash=request_hash, **values)

    def response(
        self, request_hash: str | None = None, attempt: int | None = None, **columns: object
    ) -> tuple[int, str]:
        """(number of the response, hash of its request)."""
        request_hash = request_hash or f"v1:{next(self._number)}"
        values = {"created_at": 1.0, "usable": 1, "body": "{}", **columns}
        return self.insert("responses", request_hash=request_hash, attempt=attempt, **values), request_hash

    def answered(self, artist: int, variant: str = "", *, recipe: str = "bio", **columns: object) -> None:
        """A fresh target with an answer of its own."""
        response, digest = self.response(**columns)
        self.target(artist, variant, recipe=recipe, request_hash=digest, built_response=response)

"""Validations of stored answers: find those made by another schema, and store new ones."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bioforge.core.reasons import SCHEMA, RequestState
from bioforge.store.database import Store, bump_results
from bioforge.store.reason_sql import word_list

_PAGE = 2_000
_CHECKABLE = word_list((RequestState.ANSWERED, RequestState.INVALID))


@dataclass(frozen=True, slots=True)
class Unchecked:
    """An answer that this schema has not validated."""

    request_hash: str
    response: int
    text: str | None
    state: str


@dataclass(frozen=True, slots=True)
class Validation:
    """`parsed` is JSON text for a valid answer; else `message` says what is wrong."""

    of: Unchecked
    parsed: str | None
    message: str | None

    @property
    def state(self) -> str:
        """Return the new state of the request: a formerly valid answer is resent, one that never was is held back."""
        if self.message is None:
            return RequestState.ANSWERED
        return (
            RequestState.INVALID
            if self.of.state in (RequestState.ANSWERED, RequestState.INVALID)
            else RequestState.UNUSABLE
        )


def unchecked(store: Store, hashes: Sequence[str], validation: str) -> list[Unchecked]:
    """Return the answers to these requests that this schema has not validated."""
    rows = store.rows(
        "SELECT q.request_hash, r.id, r.text, q.state FROM requests q JOIN responses r ON r.id = q.response"
        " WHERE q.request_hash IN (SELECT value FROM json_each(?)) AND r.validation IS NOT ?"
        f" AND (q.state IN {_CHECKABLE} OR (q.state = '{RequestState.UNUSABLE}' AND q.error_class = '{SCHEMA}'))",
        (json.dumps(hashes), validation),
    )
    return [Unchecked(*row) for row in rows]


def artists_unchecked(store: Store, recipe: str, variant: str, validation: str) -> Iterator[list[int]]:
    """Yield pages of artist ids whose answer this schema has not validated. Looks at every target."""
    after = -1
    while True:
        rows = store.rows(
            "SELECT t.artist FROM targets t JOIN requests q ON q.request_hash = t.request_hash"
            " JOIN responses r ON r.id = q.response WHERE t.recipe = ? AND t.variant = ? AND r.validation IS NOT ?"
            f" AND (q.state IN {_CHECKABLE} OR q.error_class = '{SCHEMA}') AND t.artist > ?"
            f" ORDER BY t.artist LIMIT {_PAGE}",
            (recipe, variant, validation, after),
        )
        if not rows:
            return
        yield [row[0] for row in rows]
        after = rows[-1][0]


def save(store: Store, verdicts: Sequence[Validation], validation: str) -> None:
    """Store validations; answers stay as received. Notes changes for dependents.

    The parsed data of an answer that no longer fits stays, since it may still be accepted.
    """
    with store.transaction() as connection:
        connection.executemany(
            "INSERT OR IGNORE INTO upstream_changes SELECT t.recipe, t.variant, t.artist FROM targets t"
            " JOIN needed n ON n.recipe = t.recipe AND n.variant = t.variant JOIN responses r ON r.id = t.built_response"
            " WHERE t.request_hash = ? AND t.built_response = ? AND r.parsed IS NOT ?",
            [(item.of.request_hash, item.of.response, item.parsed) for item in verdicts if item.parsed is not None],
        )
        why = [(None, None) if item.message is None else (SCHEMA, item.message) for item in verdicts]
        connection.executemany(
            "UPDATE responses SET parsed = coalesce(?, parsed), validation = ?, usable = ?, error_class = ?, error_code = NULL,"
            " error_message = ? WHERE id = ?",
            [
                (item.parsed, validation, item.message is None, *reason, item.of.response)
                for item, reason in zip(verdicts, why, strict=True)
            ],
        )
        connection.executemany(
            "UPDATE requests SET state = ?, error_class = ?, error_code = NULL, error_message = ? WHERE request_hash = ?",
            [(item.state, *reason, item.of.request_hash) for item, reason in zip(verdicts, why, strict=True)],
        )
        bump_results(connection)


def note_unvalidated(connection: sqlite3.Connection, some: bool) -> None:
    """Note whether answers may have been stored that their schema has not validated, for the next plan."""
    connection.execute("INSERT OR REPLACE INTO facts VALUES ('unvalidated', ?)", (int(some),))


def text_of(store: Store, response: int) -> str:
    """Return the text of an answer as received."""
    return str(store.value("SELECT text FROM responses WHERE id = ?", (response,)) or "")

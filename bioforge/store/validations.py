"""What schemas say about stored answers: finding those that were checked by another one, and keeping the new verdicts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bioforge.core.reasons import SCHEMA, RequestState
from bioforge.store.database import Store, bump_results
from bioforge.store.reason_words import word_list

_PAGE = 2_000
_CHECKABLE = word_list((RequestState.ANSWERED, RequestState.INVALID))


@dataclass(frozen=True, slots=True)
class Unchecked:
    """An answer whose verdict is missing or of another schema."""

    request_hash: str
    response: int
    text: str | None
    state: str


@dataclass(frozen=True, slots=True)
class Validation:
    """`parsed` is JSON text where the answer is valid; else `message` says what is wrong with it."""

    of: Unchecked
    parsed: str | None
    message: str | None

    @property
    def state(self) -> str:
        """What the request comes to. An answer that was good before is asked for again; one that never was is held."""
        if self.message is None:
            return RequestState.ANSWERED
        return (
            RequestState.INVALID
            if self.of.state in (RequestState.ANSWERED, RequestState.INVALID)
            else RequestState.UNUSABLE
        )


def unchecked(store: Store, hashes: Sequence[str], validation: str) -> list[Unchecked]:
    """The answers to these requests that were not checked by this schema."""
    rows = store.rows(
        "SELECT q.request_hash, r.id, r.text, q.state FROM requests q JOIN responses r ON r.id = q.response"
        " WHERE q.request_hash IN (SELECT value FROM json_each(?)) AND r.validation IS NOT ?"
        f" AND (q.state IN {_CHECKABLE} OR (q.state = '{RequestState.UNUSABLE}' AND q.error_class = '{SCHEMA}'))",
        (json.dumps(hashes), validation),
    )
    return [Unchecked(*row) for row in rows]


def artists_unchecked(store: Store, recipe: str, variant: str, validation: str) -> Iterator[list[int]]:
    """Numbers of the artists whose answer was not checked by this schema, in pages. Looks at every target."""
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
    """Answers stay as they were received; only what is thought of them changes. Who needs their data is told.

    The data of an answer that fits no longer stays: somebody may accept it all the same.
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


def text_of(store: Store, response: int) -> str:
    """The text of an answer as it was received."""
    return str(store.value("SELECT text FROM responses WHERE id = ?", (response,)) or "")

"""Read the targets of a recipe with numbers of their answers, artist by artist, to compare its variants."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from operator import attrgetter
from typing import Any

from bioforge.core.reasons import Reason
from bioforge.store.database import Store
from bioforge.store.selection import Selection

_PAGE = 1_000
_CURRENT = f"a.removed_at IS NULL AND t.reason IS NOT '{Reason.REMOVED}'"


class MeasuredState(StrEnum):
    """State of a target: answered and fresh, failed, or stale."""

    ANSWERED = "answered"
    FAILED = "failed"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Measurement:
    """A target and the numbers of its answer. `artist` is the id in the state; `variant` names its sample too.

    `characters` of the text; `seconds` of the attempt, None in a batch or import. None also where the provider
    did not say, or the price is unknown. `held`: held back.
    """

    artist: int
    artist_id: str
    variant: str
    state: MeasuredState
    held: bool = False
    model: str | None = None
    characters: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """An answer of a judging recipe: `parsed` is JSON where it has a schema."""

    variant: str
    text: str | None
    parsed: str | None


@contextmanager
def read_snapshot(store: Store) -> Iterator[None]:
    """Read everything inside from one snapshot, also during a run."""
    store.rows("BEGIN")
    try:
        yield
    finally:
        store.rows("ROLLBACK")


def measured(store: Store, selection: Selection) -> Iterator[list[Measurement]]:
    """Yield the selected targets of one recipe, grouped by artist, in the order of `export.records`.

    Without artists outside the input and variants outside the project file. Only a fresh answer has numbers: an
    older one belongs to another request.
    """
    answered = (
        "t.reason, t.held, r.id, r.model, length(r.text), r.input_tokens, r.output_tokens, r.cost_usd,"
        " CASE WHEN x.batch IS NULL AND x.outcome = 'succeeded' THEN x.seconds END"
    )
    joined = (
        "LEFT JOIN responses r ON r.id = t.built_response AND t.reason IS NULL LEFT JOIN attempts x ON x.id = r.attempt"
    )
    rows = _pages(store, selection, answered, joined, "1")
    for _, found in groupby(map(_measurement, rows), attrgetter("artist")):
        yield list(found)


def _measurement(row: tuple[Any, ...]) -> Measurement:
    artist, _, variant, artist_id, reason, held, answer, *numbers = row
    if answer is not None:
        return Measurement(artist, artist_id, variant, MeasuredState.ANSWERED, False, *numbers)
    return Measurement(
        artist, artist_id, variant, MeasuredState.FAILED if reason == Reason.FAILED else MeasuredState.STALE, bool(held)
    )


def judgements(store: Store, selection: Selection) -> Iterator[tuple[int, list[Judgement]]]:
    """Yield (artist id, fresh answers of a judging recipe), in the order of `measured`."""
    rows = _pages(
        store, selection, "r.text, r.parsed", "JOIN responses r ON r.id = t.built_response", "t.reason IS NULL"
    )
    for artist, found in groupby(rows, lambda row: int(row[0])):
        yield artist, [Judgement(row[2], *row[4:]) for row in found]


def _pages(store: Store, selection: Selection, columns: str, joined: str, condition: str) -> Iterator[tuple[Any, ...]]:
    """Yield (artist, recipe, variant, artist_id, *columns) in the order of the artists."""
    where, values = selection.where()
    sql = f"""
        SELECT t.artist, t.recipe, t.variant, a.artist_id, {columns}
        FROM targets t JOIN artists a ON a.id = t.artist {joined}
        WHERE (t.artist, t.recipe, t.variant) > (?, ?, ?) AND {_CURRENT} AND {condition} AND {where}
        ORDER BY t.artist, t.recipe, t.variant LIMIT {_PAGE}
    """
    after: tuple[object, ...] = (0, "", "")
    while rows := store.rows(sql, (*after, *values)):
        yield from rows
        after = rows[-1][:3]


def spent(store: Store, selection: Selection) -> dict[str, float]:
    """Return US dollars by variant, paid for its targets' current requests.

    Includes unusable answers, repairs, fallbacks and requested resends. Artists with the same request share the
    price. Variants without a known price are absent.
    """
    where, values = selection.where()
    rows = store.rows(
        f"""
        WITH asked AS (
          SELECT t.variant, t.request_hash AS root, r.request_hash AS answered
          FROM targets t JOIN artists a ON a.id = t.artist
          LEFT JOIN responses r ON r.id = t.built_response AND t.reason IS NULL
          WHERE {_CURRENT} AND {where}),
        paid AS (
          SELECT variant, root AS request_hash FROM asked
          UNION SELECT variant, answered FROM asked
          UNION SELECT variant, f.request_hash FROM follow_ups f JOIN asked USING (root))
        SELECT variant, sum(cost_usd) FROM paid JOIN responses USING (request_hash)
        WHERE cost_usd IS NOT NULL GROUP BY variant
        """,
        values,
    )
    return dict(rows)

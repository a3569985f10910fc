"""The targets of a recipe with the numbers of their answers, artist by artist, for comparing its variants."""

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
    """What has become of a target: answered and up to date; tried in vain; or still to be asked (again)."""

    ANSWERED = "answered"
    FAILED = "failed"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One target and, where it is answered, its answer. `artist` is the state's number, `variant` names its sample too.

    `characters` of the text; `seconds` of the attempt that brought it, None where that says nothing (in a batch,
    imported). None also where a provider did not say, or a price is not known. `held`: paid for and not usable.
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
    """An answer of a recipe that judges another one: `parsed` is JSON where a schema was asked for."""

    variant: str
    text: str | None
    parsed: str | None


@contextmanager
def one_moment(store: Store) -> Iterator[None]:
    """Everything that is read inside is of one moment, also while a run goes on."""
    store.rows("BEGIN")
    try:
        yield
    finally:
        store.rows("ROLLBACK")


def measured(store: Store, selection: Selection) -> Iterator[list[Measurement]]:
    """The selected targets of one recipe, those of each artist together, in the order of `results.records`.

    Artists that are not in the input and variants that are no longer in the project file are left out. Only an answer
    that is up to date has numbers: an older one of a stale target was given to another question.
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
    """(the state's number of an artist, up-to-date answers of a judging recipe), in the order of `measured`."""
    rows = _pages(
        store, selection, "r.text, r.parsed", "JOIN responses r ON r.id = t.built_response", "t.reason IS NULL"
    )
    for artist, found in groupby(rows, lambda row: int(row[0])):
        yield artist, [Judgement(row[2], *row[4:]) for row in found]


def _pages(store: Store, selection: Selection, columns: str, joined: str, condition: str) -> Iterator[tuple[Any, ...]]:
    """(artist, recipe, variant, artist_id, *columns) in the order of the artists."""
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
    """US dollars by variant that were paid for what its targets ask for now: also for answers that cannot be used, for
    repairs and other models, and for second answers that were asked for. Artists with the same request share the price.
    Variants without an answer of known price are absent."""
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

"""Write planned targets in sets, and read targets by state."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bioforge.core.hashing import canonical, definition_hash
from bioforge.core.reasons import Decision, KnownRequest, KnownTarget, Reason, RequestState
from bioforge.core.types import Artist, Target
from bioforge.store.database import Store, bump_results
from bioforge.store.reason_sql import WAITING_FOR_UPSTREAM
from bioforge.store.selection import Selection

ALL_ARTISTS = 0
"""Id of the row in `artists` that stands for all artists; targets of a recipe over all artists belong to it."""

ALL_ARTISTS_ID = "*"
"""Its artist_id."""

_PAGE = 2_000
_decoded = json.JSONDecoder().raw_decode
STALE = f"t.reason IS NOT NULL AND t.reason <> '{Reason.REMOVED}'"
PRESENT = f"t.reason IS NOT '{Reason.REMOVED}'"
SENDABLE = f"(t.request_hash IS NOT NULL OR t.reason = '{Reason.UPSTREAM}') AND t.reason IS NOT '{Reason.IN_BATCH}'"
"""Condition: the target can be sent, perhaps after an upstream answer."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A target as planned now. `request_hash` None: it could not be rendered, and `decision` says why."""

    artist: int
    request_hash: str | None
    row_hash: str
    input_tokens: int
    decision: Decision
    upstream: str | None = None
    """The upstream answers of the plan: a JSON object of response ids by recipe."""
    own_hash: str | None = None
    """The target's own request, where a repair or fallback replaces it."""


class PlannedArtist(NamedTuple):
    """An artist with its id in the state and the hash of its row."""

    id: int
    row_hash: str
    artist: Artist


# ------------------------------------------------------------------------------------------------------ definitions


def definition_id(store: Store, recipe: str, variant: str, definition: dict[str, object]) -> int:
    """Return the id of this definition, and store a new one."""
    digest = definition_hash(definition)
    where = (recipe, variant, digest)
    found = store.value("SELECT id FROM definitions WHERE recipe = ? AND variant = ? AND definition_hash = ?", where)
    if found is None:
        with store.transaction() as connection:
            connection.execute(
                "INSERT INTO definitions (recipe, variant, definition_hash, definition, first_seen)"
                " VALUES (?, ?, ?, ?, ?)",
                (*where, canonical(definition).decode("utf-8", "surrogatepass"), time.time()),
            )
        return definition_id(store, recipe, variant, definition)
    return int(found)


def definition(store: Store, identity: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(store.value("SELECT definition FROM definitions WHERE id = ?", (identity,)))
    return found


NO_GENERATION = -1
"""The generation before the first: a recipe planned up to this has all its targets replanned."""


def planned_up_to(store: Store, recipe: str, variant: str) -> tuple[int, int] | None:
    """Return (definition, generation) up to which all targets of a recipe are planned; None before the first plan."""
    row = store.row("SELECT definition, generation FROM planned WHERE recipe = ? AND variant = ?", (recipe, variant))
    return None if row is None else (int(row[0]), int(row[1]))


def is_answered(store: Store, recipe: str, variant: str) -> bool:
    """Return True if any target of a recipe has an answer to the current definition."""
    known = "SELECT 1 FROM targets JOIN planned p USING (recipe, variant) WHERE recipe = ? AND variant = ?"
    return store.row(f"{known} AND built_definition = p.definition LIMIT 1", (recipe, variant)) is not None


def set_planned(store: Store, recipe: str, variant: str, definition: int, generation: int) -> None:
    with store.transaction() as connection:
        connection.execute(
            "INSERT OR REPLACE INTO planned VALUES (?, ?, ?, ?)", (recipe, variant, definition, generation)
        )


# --------------------------------------------------------------------------------------------------------- planning


def artists(store: Store, since_generation: int, *, columns: bool = True) -> Iterator[list[PlannedArtist]]:
    """Yield pages of artists whose rows changed after a generation (-1: all), optionally with further `columns`."""
    read = f"id, row_hash, artist_id, artist_name, artist_data, {'columns' if columns else 'NULL'}, generation FROM artists"
    if since_generation < 0:
        sql = f"SELECT {read} WHERE id > :id AND removed_at IS NULL ORDER BY id LIMIT {_PAGE}"
        place: dict[str, object] = {"id": 0, "generation": 0}
    else:  # where little has changed, nothing else of a million rows is looked at
        sql = (
            f"SELECT {read} INDEXED BY artists_by_generation WHERE (generation, id) > (:generation, :id) AND id > 0"
            f" AND removed_at IS NULL ORDER BY generation, id LIMIT {_PAGE}"
        )
        place = {"id": 1 << 62, "generation": since_generation}
    while rows := store.rows(sql, place):
        yield [PlannedArtist(row[0], row[1], artist_of(row[2:6])) for row in rows]
        place = {"id": rows[-1][0], "generation": rows[-1][6]}


def artists_by_id(store: Store, numbers: Sequence[int]) -> list[PlannedArtist]:
    """Return artists of the input by id, in order; also the row that stands for all."""
    rows = store.rows(
        "SELECT id, row_hash, artist_id, artist_name, artist_data, columns FROM artists"
        " WHERE id IN (SELECT value FROM json_each(?)) AND removed_at IS NULL ORDER BY id",
        (json.dumps(numbers),),
    )
    return [PlannedArtist(row[0], row[1], artist_of(row[2:])) for row in rows]


def artist_of(row: Sequence[Any]) -> Artist:
    artist_id, name, data, columns = row
    return Artist(artist_id, name, data, _decoded(columns)[0] if columns else {})


def known_targets(store: Store, recipe: str, variant: str, artists: Sequence[int]) -> dict[int, KnownTarget]:
    rows = store.rows(
        "SELECT artist, request_hash, reason, built_response, built_definition, built_row, accepted_hash,"
        " accepted_response, reason_before, upstream, built_upstream FROM targets"
        " WHERE artist IN (SELECT value FROM json_each(?)) AND recipe = ? AND variant = ?",
        (json.dumps(artists), recipe, variant),
    )
    return {row[0]: KnownTarget(*row[1:]) for row in rows}


def known_requests(store: Store, hashes: Sequence[str]) -> dict[str, KnownRequest]:
    if store.value("SELECT 1 FROM requests LIMIT 1") is None:
        return {}
    rows = store.rows(
        "SELECT q.request_hash, q.state, q.response, q.error_class, q.error_message, q.batch, r.validation FROM requests q"
        " LEFT JOIN responses r ON r.id = q.response WHERE q.request_hash IN (SELECT value FROM json_each(?))",
        (json.dumps(hashes),),
    )
    return {
        row[0]: KnownRequest(row[1], row[2], row[5] or failure_text(row[3], row[4]), row[3], row[6]) for row in rows
    }


def failure_text(error_class: str | None, message: str | None) -> str | None:
    """Return `class: message`, the form in which a failure is stored with a target."""
    return None if error_class is None else f"{error_class}: {message}" if message else error_class


def with_reason(store: Store, recipe: str, variant: str, reason: str) -> Iterator[list[int]]:
    """Yield pages of artist ids whose targets are stale for a reason."""
    after = -1
    while True:
        rows = store.rows(
            "SELECT id, artist FROM targets INDEXED BY targets_stale WHERE recipe = ? AND reason = ? AND variant = ? AND id > ?"
            f" ORDER BY id LIMIT {_PAGE}",
            (recipe, reason, variant, after),
        )
        if not rows:
            return
        yield [row[1] for row in rows]
        after = rows[-1][0]


def old_columns(store: Store, artist: int, row_hash: str) -> dict[str, object] | None:
    """Return the columns of an artist's row with this hash; None if unknown."""
    row = store.row(
        "SELECT artist_name, artist_data, columns FROM artist_history WHERE artist = ? AND row_hash = ?",
        (artist, row_hash),
    ) or store.row(
        "SELECT artist_name, artist_data, columns FROM artists WHERE id = ? AND row_hash = ?", (artist, row_hash)
    )
    if row is None:
        return None
    return {"artist_name": row[0], "artist_data": row[1], **(json.loads(row[2]) if row[2] else {})}


def save(store: Store, recipe: str, variant: str, definition: int, planned: Sequence[Planned]) -> None:
    """Write a set of planned targets. The last build stays; a fresh target is built from its answer."""
    with store.transaction() as connection:
        connection.executemany(
            """
            INSERT INTO targets (artist, recipe, variant, request_hash, definition, row_hash, reason, detail, held,
                                 input_tokens, reason_before, upstream, own_hash, built_response, built_definition, built_row,
                                 built_upstream)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT (artist, recipe, variant) DO UPDATE SET
              request_hash = excluded.request_hash, definition = excluded.definition, row_hash = excluded.row_hash,
              reason = excluded.reason, detail = excluded.detail, held = excluded.held,
              input_tokens = excluded.input_tokens, own_hash = excluded.own_hash,
              reason_before = CASE WHEN excluded.reason = '{Reason.IN_BATCH}' THEN reason_before ELSE excluded.reason_before END,
              upstream = excluded.upstream,
              built_upstream = coalesce(excluded.built_upstream, built_upstream),
              built_response = coalesce(excluded.built_response, built_response),
              built_definition = coalesce(excluded.built_definition, built_definition),
              built_row = coalesce(excluded.built_row, built_row)
            """,
            [_row(recipe, variant, definition, item) for item in planned],
        )
        bump_results(connection)


def _row(recipe: str, variant: str, definition: int, item: Planned) -> tuple[object, ...]:
    decision = item.decision
    response = decision.response
    built = (None,) * 4 if response is None else (response, definition, item.row_hash, item.upstream)
    return (
        item.artist,
        recipe,
        variant,
        item.request_hash,
        definition,
        item.row_hash,
        decision.reason,
        decision.detail,
        decision.held,
        item.input_tokens,
        decision.reason_before,
        item.upstream,
        item.own_hash or item.request_hash,
        *built,
    )


def add(store: Store, recipe: str, variant: str, definition: int, wanted: Iterable[tuple[int, str, str, int]]) -> None:
    """Write a set of new targets: (artist id, request hash, row hash, tokens). Like `save` for a first plan."""
    with store.transaction() as connection:
        connection.executemany(
            "INSERT INTO targets (recipe, variant, definition, reason, artist, request_hash, own_hash, row_hash, input_tokens)"
            f" VALUES (?, ?, ?, '{Reason.NEW}', ?, ?, ?, ?, ?)",
            [(recipe, variant, definition, row[0], row[1], *row[1:]) for row in wanted],
        )
        bump_results(connection)


def force(store: Store, run: int, selection: Selection) -> None:
    """Mark every selected target as `forced` until it is answered.

    Targets in a batch are being sent already. Targets that wait for upstream answers are forced when those
    arrive.
    """
    where, values = selection.where()
    with store.transaction() as connection:
        connection.execute(
            f"UPDATE targets SET reason = '{Reason.FORCED}', detail = NULL, held = 0,"
            " request_hash = coalesce(own_hash, request_hash) WHERE request_hash IS NOT NULL AND id IN"
            f" (SELECT t.id FROM targets t JOIN artists a ON a.id = t.artist"
            f"  WHERE a.removed_at IS NULL AND t.reason IS NOT '{Reason.REMOVED}' AND t.reason IS NOT '{Reason.IN_BATCH}'"
            "   AND NOT EXISTS (SELECT 1 FROM requests q"
            f"   WHERE q.request_hash = t.request_hash AND q.state = '{RequestState.IN_BATCH}') AND {where})",
            values,
        )
        connection.execute(
            f"UPDATE targets SET reason_before = '{Reason.FORCED}' WHERE reason IN {WAITING_FOR_UPSTREAM} AND id IN"
            f" (SELECT t.id FROM targets t JOIN artists a ON a.id = t.artist WHERE a.removed_at IS NULL AND {where})",
            values,
        )
        connection.execute("UPDATE runs SET always_make = 0 WHERE id = ?", (run,))


# ------------------------------------------------------------------------------------------------------ handing out


def listed(store: Store, selection: Selection, *, stale: bool = True, sendable: bool = False) -> Iterator[Target]:
    """Yield the selected targets in order; with `sendable`, without those that a run would not send."""
    send = SENDABLE + (" AND t.held = 0" if stale else "") if sendable else "1"
    where, values = selection.where()
    after = 0
    while True:
        rows = store.rows(
            "SELECT t.id, a.artist_id, a.artist_name, t.recipe, t.variant, t.request_hash, t.reason, t.detail"
            f" FROM targets t {'INDEXED BY targets_open' if stale else ''} JOIN artists a ON a.id = t.artist"
            f" WHERE t.id > ? AND a.removed_at IS NULL AND {STALE if stale else PRESENT} AND {send} AND {where}"
            f" ORDER BY t.id LIMIT {_PAGE}",
            (after, *values),
        )
        if not rows:
            return
        for row in rows:
            yield Target(*row)
        after = rows[-1][0]


def by_names(
    store: Store, names: Sequence[tuple[str, str, str]]
) -> dict[tuple[str, str, str], tuple[int, str | None, str | None]]:
    """Return (id, request hash, reason) of targets by (artist_id, recipe, variant).

    Artists outside the input are absent.
    """
    rows = store.rows(
        "SELECT a.artist_id, t.recipe, t.variant, t.id, t.request_hash, t.reason FROM artists a"
        " JOIN targets t ON t.artist = a.id"
        " WHERE a.artist_id IN (SELECT value FROM json_each(?)) AND a.removed_at IS NULL",
        (json.dumps([name[0] for name in names]),),
    )
    return {(row[0], row[1], row[2]): (row[3], row[4], row[5]) for row in rows}

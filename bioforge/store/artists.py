"""Keep `artists` equal to the input: new, changed, removed and duplicate rows, in sets."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from bioforge.core.errors import InputError
from bioforge.core.hashing import row_text
from bioforge.core.reasons import Reason
from bioforge.core.types import Artist, BadRow
from bioforge.store.database import Store, bump_results
from bioforge.store.targets import ALL_ARTISTS_ID

_SET = 2_000
_KEPT_BAD_ROWS = 10_000


@dataclass(slots=True)
class InputReading:
    """Result of one reading of the input. `examples` are the first bad rows."""

    artists: int = 0
    new: int = 0
    changed: int = 0
    removed: int = 0
    bad: int = 0
    examples: list[BadRow] = field(default_factory=list)
    columns: tuple[str, ...] = ()
    any_data: bool = False


def read_into(store: Store, rows: Iterable[Artist | BadRow]) -> InputReading:
    """Update `artists` from the input's rows. If interrupted, the next reading completes the work."""
    reading = InputReading()
    generation = store.fact("generation") + 1
    next_id = store.next_id("artists")
    seen = bytearray(next_id // 8 + 1)  # one bit for each artist: 1,000,000 of them take 125 KB
    columns: dict[str, None] = {}
    with store.transaction() as connection:
        connection.execute("UPDATE facts SET value = ? WHERE name = 'generation'", (generation,))
        connection.execute("DELETE FROM bad_rows")
        connection.execute("DELETE FROM inputs")  # cut off halfway, this reading must not pass for a whole one
    for group in _sets(rows):
        bad = [row for row in group if isinstance(row, BadRow)]
        good = [row for row in group if isinstance(row, Artist)]
        known = _known(store, [artist.artist_id for artist in good])
        inserts: list[tuple[object, ...]] = []
        updates: list[tuple[object, ...]] = []
        history: list[tuple[object, ...]] = []
        for artist in good:
            if artist.artist_id == ALL_ARTISTS_ID:
                bad.append(
                    BadRow(artist.source, artist.line, f"artist_id {ALL_ARTISTS_ID!r} stands for all artists together")
                )
                continue
            digest, further = row_text(artist)
            found = known.get(artist.artist_id)
            identity = next_id if found is None else found[0]
            if identity >= len(seen) * 8:
                seen.extend(bytes(len(seen) + 1024))
            if seen[identity >> 3] & (1 << (identity & 7)):
                bad.append(BadRow(artist.source, artist.line, f"artist_id {artist.artist_id!r} is already taken"))
                continue
            seen[identity >> 3] |= 1 << (identity & 7)
            reading.artists += 1
            reading.any_data = reading.any_data or bool(artist.artist_data)
            if not artist.columns.keys() <= columns.keys():
                columns.update(dict.fromkeys(artist.columns))
            if found is None:
                known[artist.artist_id] = (next_id, digest, None)
                next_id += 1
                reading.new += 1
                name, data, source, line = artist.artist_name, artist.artist_data, artist.source, artist.line
                inserts.append((identity, artist.artist_id, name, data, further, digest, generation, source, line))
            elif found[1] != digest or found[2] is not None:
                reading.changed += found[1] != digest
                reading.new += found[1] == digest  # it had been removed, and is back as it was
                if found[1] != digest:
                    history.append((time.time(), identity))
                name, data, source, line = artist.artist_name, artist.artist_data, artist.source, artist.line
                updates.append((name, data, further, digest, generation, source, line, identity))
        reading.bad += len(bad)
        reading.examples += bad[: max(0, 10 - len(reading.examples))]
        with store.transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO artist_history SELECT id, row_hash, artist_name, artist_data, columns, ?"
                " FROM artists WHERE id = ?",
                history,
            )
            connection.executemany(
                "INSERT INTO artists (id, artist_id, artist_name, artist_data, columns, row_hash, generation, source,"
                " line) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                inserts,
            )
            connection.executemany(
                "UPDATE artists SET artist_name = ?, artist_data = ?, columns = ?, row_hash = ?, generation = ?,"
                " source = ?, line = ?, removed_at = NULL WHERE id = ?",
                updates,
            )
            if reading.bad <= _KEPT_BAD_ROWS:
                connection.executemany(
                    "INSERT INTO bad_rows VALUES (?, ?, ?)", [(row.source, row.line, row.message) for row in bad]
                )
            if updates or inserts:
                bump_results(connection)
    if not reading.artists:
        raise _nothing_read(reading)
    reading.removed = _remove_unseen(store, seen, reading.artists)
    reading.columns = tuple(columns)
    with store.transaction() as connection:
        connection.execute("INSERT OR REPLACE INTO facts VALUES ('columns', ?)", (json.dumps(reading.columns),))
        # of this generation: the next reading, or one that is cut off, makes it a thing of the past
        note = f"{generation} {reading.artists}"
        connection.execute("INSERT OR REPLACE INTO facts VALUES ('artists', ?)", (note,))
    return reading


def _nothing_read(reading: InputReading) -> InputError:
    """Raise for an input without a single good row: it is a mistake, not the wish to remove every artist."""
    if not reading.bad:
        return InputError("the input has no artists", "a header alone is no input; add rows")
    shown = "".join(f"\n  {row.source}:{row.line}: {row.message}" for row in reading.examples[:5])
    return InputError(
        f"not one row of the input can be used; {reading.bad:,} bad:{shown}",
        "fix the rows; the artists, answers and outputs of before were left as they are",
    )


def _sets(rows: Iterable[Artist | BadRow]) -> Iterator[list[Artist | BadRow]]:
    iterator = iter(rows)
    while group := list(islice(iterator, _SET)):
        yield group


def _known(store: Store, ids: list[str]) -> dict[str, tuple[int, str, float | None]]:
    rows = store.rows(
        "SELECT artist_id, id, row_hash, removed_at FROM artists WHERE artist_id IN (SELECT value FROM json_each(?))",
        (json.dumps(ids),),
    )
    return {artist_id: (identity, digest, removed) for artist_id, identity, digest, removed in rows}


def total(store: Store) -> int:
    """Return the number of artists in the input."""
    generation, _, number = str(store.value("SELECT value FROM facts WHERE name = 'artists'") or "").partition(" ")
    if number and int(generation) == store.fact("generation"):
        return int(number)
    return _counted(store)


def _counted(store: Store) -> int:
    return int(store.value("SELECT count(*) FROM artists WHERE removed_at IS NULL AND id > 0"))


def _remove_unseen(store: Store, seen: bytearray, number: int) -> int:
    """Mark artists as removed that were not seen; `number` were seen."""
    if _counted(store) == number:
        return 0
    live = store.connection.execute("SELECT id FROM artists WHERE removed_at IS NULL AND id > 0")
    gone = [
        identity for (identity,) in live if identity >= len(seen) * 8 or not seen[identity >> 3] & (1 << (identity & 7))
    ]
    if gone:
        with store.transaction() as connection:
            connection.executemany(
                "UPDATE artists SET removed_at = ? WHERE id = ?", [(time.time(), identity) for identity in gone]
            )
            connection.executemany(
                f"UPDATE targets SET reason = '{Reason.REMOVED}' WHERE artist = ?", [(identity,) for identity in gone]
            )
            bump_results(connection)
    return len(gone)


def columns(store: Store) -> list[str]:
    """Return the names of all further columns of the last reading."""
    found: list[str] = json.loads(store.value("SELECT value FROM facts WHERE name = 'columns'") or "[]")
    return found


def sources(store: Store) -> dict[str, dict[str, Any]]:
    """Return signature, validators and cached copy of each source of the last reading."""
    names = ("signature", "etag", "last_modified", "cached_as")
    rows = store.rows(f"SELECT source, {', '.join(names)} FROM inputs")
    return {row[0]: dict(zip(names, row[1:], strict=True)) for row in rows}


def remember_sources(store: Store, found: dict[str, dict[str, Any]], reader: str) -> None:
    """Store the sources; with another `reader` (its name, options and version) the input is read again."""
    with store.transaction() as connection:
        connection.execute("DELETE FROM inputs")
        connection.executemany(
            "INSERT INTO inputs (source, signature, etag, last_modified, cached_as, read_at) VALUES (?, ?, ?, ?, ?, ?)",
            [
                (name, s.get("signature"), s.get("etag"), s.get("last_modified"), s.get("cached_as"), time.time())
                for name, s in found.items()
            ],
        )
        connection.execute("INSERT OR REPLACE INTO facts VALUES ('reader', ?)", (reader,))


def remembered_reader(store: Store) -> str | None:
    value = store.value("SELECT value FROM facts WHERE name = 'reader'")
    return None if value is None else str(value)


def bad_rows(store: Store, limit: int = 10) -> tuple[int, list[BadRow]]:
    """Return the number of bad rows of the last reading, and the first of them."""
    count = store.value("SELECT count(*) FROM bad_rows")
    rows = store.rows("SELECT source, line, message FROM bad_rows ORDER BY rowid LIMIT ?", (limit,))
    return int(count), [BadRow(*row) for row in rows]

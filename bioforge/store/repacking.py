"""Packing, or unpacking, the bodies that a state has: in groups that are durable one by one, so that it may be stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bioforge.core.errors import StateError
from bioforge.store.database import Store
from bioforge.store.packing import MAGIC, Packer, Unpacker

_PAGE = 50
_ROWS = 1_000
_BYTES = 8_000_000
"""A group ends with the page of rows that reaches either."""

_TOLD = 100_000
"""Bodies after which whoever waits is told how many there are."""

_NAMES = "coalesce(q.model, ''), coalesce(t.recipe, ''), coalesce(t.variant, '')"
_TABLES = {
    "responses": f"""
        SELECT r.id, r.body, {_NAMES} FROM responses r LEFT JOIN requests q ON q.request_hash = r.request_hash
        LEFT JOIN attempts x ON x.id = r.attempt LEFT JOIN targets t ON t.id = x.target
        WHERE r.id > ? AND {{}} ORDER BY r.id""",
    "requests": f"""
        SELECT q.rowid, q.body, {_NAMES} FROM requests q LEFT JOIN targets t ON t.id =
            (SELECT x.target FROM attempts x WHERE x.request_hash = q.request_hash ORDER BY x.id LIMIT 1)
        WHERE q.rowid > ? AND {{}} ORDER BY q.rowid""",
    "attempts": f"""
        SELECT x.id, x.body, {_NAMES} FROM attempts x LEFT JOIN requests q ON q.request_hash = x.request_hash
        LEFT JOIN targets t ON t.id = x.target WHERE x.id > ? AND x.body IS NOT NULL AND {{}} ORDER BY x.id""",
}
_IS_PACKED = f"(typeof({{0}}.body) = 'blob' AND substr({{0}}.body, 1, {len(MAGIC)}) = x'{MAGIC.hex()}')"

Row = tuple[int, str | bytes, str, str, str]


@dataclass(frozen=True, slots=True)
class Repacked:
    """`bodies` were written anew; what bodies take altogether in bytes, before and after."""

    bodies: int
    before: int
    after: int


def repack(store: Store, on: bool, told: Callable[[int], None] = lambda _: None) -> Repacked:
    """Pack every body that is not packed, or unpack every one that is. Each is read back before it is written.

    `told` hears of the number that was written so far, now and then.
    What a group has come to is durable before the next one is begun; begun again, it goes on with what is left. Raises
    `StateError` at a body that cannot be read, and leaves it as it is.
    """
    bodies, before = 0, _taken(store)
    packer = Packer(store, on)
    packed = {"responses": packer.pack_answer, "requests": packer.pack_request, "attempts": packer.pack_failure}
    for table, pack in packed.items():
        for group in _groups(store, table, on):
            done = _write(store, table, group, pack)
            if (bodies + done) // _TOLD > bodies // _TOLD:
                told(bodies + done)
            bodies += done
    return Repacked(bodies, before, _taken(store))


def _taken(store: Store) -> int:
    columns = [(table, "body") for table in _TABLES] + [("dictionaries", "data")]
    # as blobs: length() of a text counts its characters
    return sum(int(store.value(f"SELECT total(length(CAST({name} AS BLOB))) FROM {table}")) for table, name in columns)


def _groups(store: Store, table: str, on: bool) -> Iterator[list[Row]]:
    letter = {"responses": "r", "requests": "q", "attempts": "x"}[table]
    packed = _IS_PACKED.format(letter)
    # what is not worth packing is looked at again each time
    sql = f"{_TABLES[table].format(f'NOT {packed}' if on else packed)} LIMIT {_PAGE}"
    after, size = 0, 0
    group: list[Row] = []
    while rows := store.rows(sql, (after,)):
        after = rows[-1][0]
        group += rows
        size += sum(len(row[1]) for row in rows)
        if len(group) >= _ROWS or size >= _BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _write(store: Store, table: str, group: list[Row], pack: Callable[[bytes, str, str, str], str | bytes]) -> int:
    key = "rowid" if table == "requests" else "id"
    with store.transaction() as connection:
        unpacker = Unpacker(store)
        changed: list[tuple[str | bytes, int]] = []
        for number, value, model, recipe, variant in group:
            body = unpacker.raw(value, f"{table}, {key} {number}")
            found = pack(body, model, recipe, variant)
            if unpacker.raw(found, f"{table}, {key} {number}") != body:
                raise StateError(
                    f"{store.path}: {table}, {key} {number}: packing changed the body; it was left as it is"
                )
            if found != value:
                changed.append((found, number))
        connection.executemany(f"UPDATE {table} SET body = ? WHERE {key} = ?", changed)
    return len(changed)

"""Raw bodies in the state: as received, or compressed to a tenth to a third of their size.

A compressed body is a blob: four magic bytes that no text starts with, one byte for the method, and zlib's stream.
Bodies of one recipe are similar, so an earlier body serves as dictionary; the stream names it by its Adler-32, the id
in `dictionaries`, and ends with a checksum of the body. A dictionary is written in the same transaction as its first
use or earlier, and never changed or deleted.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bioforge.core.errors import StateError
from bioforge.store.database import Store

MAGIC = b"\xffbfz"
_ZLIB = MAGIC + b"1"
_AS_IT_CAME = MAGIC + b"0"
"""Prefix of an uncompressed body that starts with the magic bytes."""

ANSWER, REQUEST, FAILURE = "answer", "request", "failure"

_WORTH = 0.9
"""Highest compressed share of the size that is stored compressed; other bodies stay readable for SQLite."""

_GAIN = 0.75
"""Share of the compressed size that a new dictionary must reach to replace the current one."""

_EVERY = 512
"""Bodies after which another dictionary is tried; before that after 2, 4, 8, … of them."""

_DICTIONARY = 30_000
"""Bytes of a dictionary: zlib looks back 32 KB, and bodies differ in length."""

_NEWEST = "SELECT id, data FROM dictionaries WHERE kind = ? AND recipe = ? ORDER BY made_at DESC, id LIMIT 1"
_THERE = "SELECT 1 FROM dictionaries WHERE id = ?"


# ---------------------------------------------------------------------------------------------------------- packing


class Compressor:
    """Converts bodies to their stored form. The caller writes them to the same store.

    New dictionaries are written in the open transaction, else in their own.
    """

    def __init__(self, store: Store, on: bool | None = None) -> None:
        """Compress if `on`; None reads the setting in the state."""
        self._store = store
        self._on = is_enabled(store) if on is None else on
        self._lines: dict[tuple[str, str], _SimilarBodies] = {}

    def pack_answer(self, body: bytes, model: str, recipe: str = "", variant: str = "") -> str | bytes:
        """Return the stored form for `responses.body`.

        The names tell which bodies are similar: a recipe's variant, else the model.
        """
        return self._packed(ANSWER, body, model, recipe, variant) if self._on else as_received(body)

    def pack_request(self, body: bytes, model: str, recipe: str = "", variant: str = "") -> str | bytes:
        """Return the stored form for `requests.body`."""
        if self._on:
            return self._packed(REQUEST, body, model, recipe, variant)
        return body.decode("utf-8", "surrogatepass")

    def pack_failure(self, body: bytes, model: str, recipe: str = "", variant: str = "") -> str | bytes:
        """Return the stored form for `attempts.body`."""
        return self._packed(FAILURE, body, model, recipe, variant) if self._on else as_received(body)

    def _packed(self, kind: str, body: bytes, model: str, recipe: str, variant: str) -> str | bytes:
        name = (f"{recipe} {variant}" if variant else recipe) or model
        line = self._lines.get((kind, name))
        if line is None or not line.stands():
            line = self._lines[kind, name] = _SimilarBodies(self._store, kind, name)
        found = line.pack(body)
        return _ZLIB + found if len(found) + len(_ZLIB) < _WORTH * len(body) else as_received(body)


class _SimilarBodies:
    """Similar bodies and their dictionary."""

    def __init__(self, store: Store, kind: str, recipe: str) -> None:
        self._store = store
        self._kind = kind
        self._recipe = recipe
        self._number = 0
        self._before = b""
        self._id: int | None = None
        self._data = b""
        found = store.row(_NEWEST, (kind, recipe))
        if found is not None and isinstance(found[1], bytes) and zlib.adler32(found[1]) == found[0]:
            self._id, self._data = found

    def stands(self) -> bool:
        """Return True if the dictionary is in the state; its transaction may have been rolled back."""
        return self._id is None or self._store.value(_THERE, (self._id,)) is not None

    def pack(self, body: bytes) -> bytes:
        self._number += 1
        found = _deflated(body, self._data)
        if self._before and (self._number % _EVERY == 0 or self._number & (self._number - 1) == 0):
            other = _deflated(body, self._before)
            if len(other) < _GAIN * len(found) and self._adopt(self._before):
                found = other
        self._before = body[:_DICTIONARY]
        return found

    def _adopt(self, data: bytes) -> bool:
        """Make an earlier body the dictionary. Return False if another one has its checksum."""
        digest = zlib.adler32(data)
        there = self._store.value("SELECT data FROM dictionaries WHERE id = ?", (digest,))
        if there is None:
            self._store.rows(
                "INSERT INTO dictionaries (id, kind, recipe, made_at, data)"
                " VALUES (?, ?, ?, (SELECT coalesce(max(made_at), 0) + 1 FROM dictionaries), ?)",
                (digest, self._kind, self._recipe, data),
            )
        elif there != data:
            return False
        self._id, self._data = digest, data
        return True


def as_received(body: bytes) -> str | bytes:
    """Return text where possible, so that SQLite's JSON functions work on it; else the bytes."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return _AS_IT_CAME + body if body.startswith(MAGIC) else body


def _deflated(body: bytes, dictionary: bytes) -> bytes:
    # no larger window than it can use: making room for one takes longer than the packing
    bits = max(10, min(15, (len(body) + len(dictionary) + 262).bit_length()))
    memory = max(1, min(9, bits - 7))
    if dictionary:
        made = zlib.compressobj(6, zlib.DEFLATED, bits, memory, zlib.Z_DEFAULT_STRATEGY, dictionary)
    else:
        made = zlib.compressobj(6, zlib.DEFLATED, bits, memory)
    return made.compress(body) + made.flush()


# -------------------------------------------------------------------------------------------------------- unpacking


class Decompressor:
    """Reads bodies in every stored form."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._dictionaries: dict[int, bytes] = {}

    def text(self, value: str | bytes, row: str) -> str:
        """Return a body that is text. `row` names it in messages: `requests, abc…`."""
        return value if isinstance(value, str) else self.raw(value, row).decode("utf-8", "surrogatepass")

    def raw(self, value: str | bytes, row: str) -> bytes:
        """Return the body as bytes. Raises `StateError` that names the row if it cannot be read."""
        if isinstance(value, str):
            return value.encode("utf-8", "surrogatepass")
        if not value.startswith(MAGIC):
            return value
        if value.startswith(_AS_IT_CAME):
            return value[len(_AS_IT_CAME) :]
        try:
            if not value.startswith(_ZLIB):
                raise ValueError(f"it is packed in an unknown way ({value[len(MAGIC) : len(_ZLIB)]!r})")
            return self._inflated(memoryview(value)[len(_ZLIB) :])
        except (ValueError, zlib.error) as error:
            raise StateError(
                f"{self._store.path}: the body in {row} cannot be unpacked: {error}",
                "the file is damaged, or something else wrote to it; take this row from a backup",
            ) from None

    def _inflated(self, stream: memoryview) -> bytes:
        if len(stream) >= 6 and stream[1] & 0x20:  # RFC 1950: it was made with a dictionary, and names it
            made = zlib.decompressobj(zdict=self._dictionary(int.from_bytes(stream[2:6], "big")))
        else:
            made = zlib.decompressobj()
        body = made.decompress(stream) + made.flush()
        if not made.eof or made.unused_data:
            raise ValueError("it is cut off" if not made.eof else "something follows it")
        return body

    def _dictionary(self, digest: int) -> bytes:
        found = self._dictionaries.get(digest)
        if found is None:
            found = self._store.value("SELECT data FROM dictionaries WHERE id = ?", (digest,))
            if found is None:
                raise ValueError(f"its dictionary {digest} is missing")
            self._dictionaries[digest] = found
        return found


# ------------------------------------------------------------------------------------------------------- the option


_FACT = "compress_bodies"


def is_enabled(store: Store) -> bool:
    """Return True if new bodies are compressed, as last stored."""
    return bool(store.fact(_FACT))


def save_setting(store: Store, on: bool) -> None:
    """Store the project file's setting for all writers of this state. It is not part of any recipe."""
    if is_enabled(store) != on:
        with store.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (_FACT, int(on)))


_PAGE = 50
_ROWS = 1_000
_BYTES = 8_000_000
"""A group ends with the page of rows that reaches either limit."""

_REPORT_EVERY = 100_000
"""Bodies between two progress reports."""

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
class CompressionResult:
    """Number of rewritten bodies, and bytes of all bodies before and after."""

    bodies: int
    before: int
    after: int


def repack(store: Store, on: bool, told: Callable[[int], None] = lambda _: None) -> CompressionResult:
    """Compress every body that is not, or decompress every one that is. Each is read back before it is written.

    `told` receives the number of bodies so far, now and then. Each group is durable before the next; an
    interrupted call continues. Raises `StateError` for a body that cannot be read, and leaves it unchanged.
    """
    bodies, before = 0, _taken(store)
    packer = Compressor(store, on)
    packed = {"responses": packer.pack_answer, "requests": packer.pack_request, "attempts": packer.pack_failure}
    for table, pack in packed.items():
        for group in _groups(store, table, on):
            done = _write(store, table, group, pack)
            if (bodies + done) // _REPORT_EVERY > bodies // _REPORT_EVERY:
                told(bodies + done)
            bodies += done
    return CompressionResult(bodies, before, _taken(store))


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
        unpacker = Decompressor(store)
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

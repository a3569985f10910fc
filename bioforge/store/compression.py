"""Raw bodies in the state: as received, or compressed to a tenth to a third of their size.

A compressed body is a blob: four magic bytes that no text starts with, one byte for the method, and a Zstandard frame
with a checksum. Bodies of one recipe are similar, so they share a dictionary; the frame names it by the id in
`dictionaries`. A dictionary is written in the same transaction as its first use or earlier, and never changed or
deleted. Earlier versions wrote zlib streams, which are still read.
"""

from __future__ import annotations

import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from bioforge.core.errors import StateError
from bioforge.store.database import Store

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC = b"\xffbfz"
_AS_RECEIVED = MAGIC + b"0"
"""Prefix of an uncompressed body that starts with the magic bytes."""
_ZLIB = MAGIC + b"1"
_ZSTD = MAGIC + b"2"

ANSWER, REQUEST, FAILURE = "answer", "request", "failure"

_WORTH = 0.9
"""Highest compressed share of the size that is stored compressed; other bodies stay readable for SQLite."""

_GAIN = 0.75
"""Share of the compressed size that a new dictionary must reach to replace the current one."""

_SAMPLES = 64
"""Bodies to make a dictionary of."""

_EVERY = 512
"""Bodies after which another dictionary is tried; before that after 2, 4, 8, … of them."""

_DICTIONARY = 16_384
"""Bytes of bodies in a dictionary; at least one body, up to `_LONGEST` bytes of it."""
_LONGEST = 100_000

_OPTIONS: dict[int, int] = {zstd.CompressionParameter.compression_level: 3, zstd.CompressionParameter.checksum_flag: 1}

_DICTIONARY_MAGIC = "37A430EC"
"""First bytes of a Zstandard dictionary; one without them is zlib's."""

_NEWEST = (
    f"SELECT data FROM dictionaries WHERE kind = ? AND recipe = ? AND substr(data, 1, 4) = x'{_DICTIONARY_MAGIC}'"
    " ORDER BY made_at DESC, id LIMIT 1"
)
_THERE = "SELECT 1 FROM dictionaries WHERE id = ?"


# ------------------------------------------------------------------------------------------------------ compressing


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
        frame = line.pack(body)
        return _ZSTD + frame if len(frame) + len(_ZSTD) < _WORTH * len(body) else as_received(body)


class _SimilarBodies:
    """Similar bodies and their dictionary."""

    def __init__(self, store: Store, kind: str, recipe: str) -> None:
        self._store = store
        self._kind = kind
        self._recipe = recipe
        self._number = 0
        self._samples: deque[bytes] = deque(maxlen=_SAMPLES)
        data = store.value(_NEWEST, (kind, recipe))
        self._use(None if data is None else zstd.ZstdDict(data))

    def stands(self) -> bool:
        """Return True if the dictionary is in the state; its transaction may have been rolled back."""
        return self._dictionary is None or self._store.value(_THERE, (self._dictionary.dict_id,)) is not None

    def pack(self, body: bytes) -> bytes:
        self._number += 1
        frame = _compress(self._compressor, body)
        if self._samples and (self._number % _EVERY == 0 or self._number & (self._number - 1) == 0):
            made = _make_dictionary(self._samples)
            other = frame if made is None else _compress(_compressor(made), body)
            if made is not None and len(other) < _GAIN * len(frame) and self._save(made):
                self._use(made)
                frame = other
        self._samples.append(body)
        return frame

    def _save(self, made: zstd.ZstdDict) -> bool:
        """Write a dictionary. Return False if another one has its id."""
        there = self._store.value("SELECT data FROM dictionaries WHERE id = ?", (made.dict_id,))
        if there is None:
            self._store.rows(
                "INSERT INTO dictionaries (id, kind, recipe, made_at, data)"
                " VALUES (?, ?, ?, (SELECT coalesce(max(made_at), 0) + 1 FROM dictionaries), ?)",
                (made.dict_id, self._kind, self._recipe, made.dict_content),
            )
        return there in (None, made.dict_content)

    def _use(self, dictionary: zstd.ZstdDict | None) -> None:
        self._dictionary = dictionary
        self._compressor = _compressor(dictionary)


def _make_dictionary(bodies: Iterable[bytes]) -> zstd.ZstdDict | None:
    """Return a dictionary of the last bodies, or None if they are too short."""
    content, samples = b"", [body[:_LONGEST] for body in bodies]
    for body in reversed(samples):
        if content and len(content) + len(body) > _DICTIONARY:
            break
        content = body + content
    try:
        return zstd.finalize_dict(zstd.ZstdDict(content, is_raw=True), samples, len(content) + 1024, 3)
    except (ValueError, zstd.ZstdError):
        return None


def _compressor(dictionary: zstd.ZstdDict | None) -> zstd.ZstdCompressor:
    # digested: prepared once instead of for each body
    return zstd.ZstdCompressor(options=_OPTIONS, zstd_dict=dictionary and dictionary.as_digested_dict)


def _compress(compressor: zstd.ZstdCompressor, body: bytes) -> bytes:
    return compressor.compress(body, mode=zstd.ZstdCompressor.FLUSH_FRAME)


def as_received(body: bytes) -> str | bytes:
    """Return text where possible, so that SQLite's JSON functions work on it; else the bytes."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return _AS_RECEIVED + body if body.startswith(MAGIC) else body


# ---------------------------------------------------------------------------------------------------- decompressing


class Decompressor:
    """Reads bodies in every stored form."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._dictionaries: dict[int, zstd.ZstdDict] = {}

    def text(self, value: str | bytes, row: str) -> str:
        """Return a body that is text. `row` names it in messages: `requests, abc…`."""
        return value if isinstance(value, str) else self.raw(value, row).decode("utf-8", "surrogatepass")

    def raw(self, value: str | bytes, row: str) -> bytes:
        """Return the body as bytes. Raises `StateError` that names the row if it cannot be read."""
        if isinstance(value, str):
            return value.encode("utf-8", "surrogatepass")
        if not value.startswith(MAGIC):
            return value
        if value.startswith(_AS_RECEIVED):
            return value[len(_AS_RECEIVED) :]
        try:
            if value.startswith(_ZSTD):
                return self._decompressed(value[len(_ZSTD) :])
            if value.startswith(_ZLIB):
                return self._inflated(memoryview(value)[len(_ZLIB) :])
            raise ValueError(f"it is compressed by an unknown method ({value[len(MAGIC) : len(_ZLIB)]!r})")
        except (ValueError, zlib.error, zstd.ZstdError) as error:
            raise StateError(
                f"{self._store.path}: the body in {row} cannot be decompressed: {error}",
                "the file is damaged, or something else wrote to it; take this row from a backup",
            ) from None

    def _decompressed(self, frame: bytes) -> bytes:
        number = zstd.get_frame_info(frame).dictionary_id
        if not number:
            return zstd.decompress(frame)
        if number not in self._dictionaries:
            self._dictionaries[number] = zstd.ZstdDict(self._data(number))
        return zstd.decompress(frame, zstd_dict=self._dictionaries[number])

    def _inflated(self, stream: memoryview) -> bytes:
        """Return a body of an earlier version: a zlib stream."""
        if len(stream) >= 6 and stream[1] & 0x20:  # RFC 1950: it was made with a dictionary, and names it
            made = zlib.decompressobj(zdict=self._data(int.from_bytes(stream[2:6], "big")))
        else:
            made = zlib.decompressobj()
        body = made.decompress(stream) + made.flush()
        if not made.eof or made.unused_data:
            raise ValueError("it is cut off" if not made.eof else "something follows it")
        return body

    def _data(self, number: int) -> bytes:
        data = self._store.value("SELECT data FROM dictionaries WHERE id = ?", (number,))
        if data is None:
            raise ValueError(f"its dictionary {number} is missing")
        return bytes(data)


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

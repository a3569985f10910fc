"""Any input file: rows come out in order, good ones are never lost to bad neighbours, and a damaged file is refused."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from projects import invoke

from bioforge.config.plugin_options import PluginOptions
from bioforge.core.errors import BioforgeError, InputError
from bioforge.core.types import Artist, BadRow
from bioforge.engine.backends import bind_reader
from bioforge.plugins.manager import build_manager
from bioforge.readers.sources import Source
from bioforge.store import Store
from bioforge.store import artists as artists_store

from .effort import examples
from .oddities import mutated, trees
from .test_fuzz_project_file import assert_words

PLUGINS = build_manager("")

_junk = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b'""', b'a"b', b"'", b"#", b",,,,", b"\t", b"\r", b"{", b"[]", b"null",
         b'{"artist_name":', b'{"artist_name": 1}', b'{"artist_name": "x", "artist_id": {}}', b"9" * 5000,
         b'{"artist_name": "x", "n": ' + b"9" * 5000 + b"}", b'{"artist_name": "x", "n": 1e999}',
         b'{"artist_name": "x", "n": NaN}', b"[" * 2000, b'{"a":' * 2000, b'{"artist_name": "\\ud800"}', b"x" * 70_000,
         b'{"artist_id": "good-0", "artist_name": "again"}', b"good-0,again,"]
    ),
).map(lambda junk: junk.replace(b"\n", b"").replace(b"\r", b" "))  # fmt: skip
"""A line that nobody expects."""


def read(content: bytes, name: str, format: str, **options: object) -> list[Artist | BadRow]:
    """Rows as a refresh gets them: opened, unpacked and read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        found = bind_reader(PLUGINS, PluginOptions("bioforge.toml", lambda name: None), options, format)
        with Source(name, path).open() as stream:
            return list(found.reader(stream, name, options))


def assert_rows(rows: list[Artist | BadRow]) -> None:
    lines = [row.line for row in rows]
    assert lines == sorted(set(lines)), "a line that is two rows, or rows out of order"
    for row in rows:
        if isinstance(row, BadRow):
            assert row.message
            row.message.encode()
        else:
            assert row.artist_id
            assert row.artist_name
            json.dumps([row.artist_id, row.artist_name, row.artist_data, dict(row.columns)], allow_nan=False).encode()


@examples(60)
@given(st.lists(st.integers(0, 9) | _junk, max_size=12), st.sampled_from(["jsonl", "csv", "tsv"]), st.booleans())
def test_a_good_row_comes_through_whatever_stands_beside_it(
    lines: list[int | bytes], format: str, packed: bool
) -> None:
    """Quotes may join lines, so they are no quotes here; of two rows with one id the later one is kept out elsewhere."""
    mark = b"\t" if format == "tsv" else b","
    written = []
    good = []
    for number, line in enumerate(lines):
        if isinstance(line, bytes):
            written.append(line)
            continue
        name = f"good-{number}"
        good.append((name, number))
        row = (
            json.dumps({"artist_id": name, "artist_name": "x"}).encode()
            if format == "jsonl"
            else mark.join([name.encode(), b"x", b""])
        )
        written.append(row)
    head = [] if format == "jsonl" else [mark.join([b"artist_id", b"artist_name", b"artist_data"])]
    content = b"\n".join([*head, *written, b""])
    options = {} if format == "jsonl" else {"quote": "", "encoding": "utf-8"}
    try:
        rows = read(gzip.compress(content) if packed else content, "artists.x", format, **options)
    except InputError:
        rows = None
    if rows is None:
        # a JSON Lines file that begins with a bracket may be taken for one array
        assert format == "jsonl" or not content.strip()
        return
    assert_rows(rows)
    found = {row.artist_id: row for row in rows if isinstance(row, Artist) and row.artist_name == "x"}
    for name, number in good:
        assert name in found, f"lost: {name}"
        assert found[name].line == number + 1 + len(head)


@examples(60)
@given(
    st.lists(_junk | st.just(b"1,Absalon,painter") | st.just(b'{"artist_name": "Abbey"}'), max_size=12).map(b"\n".join),
    st.sampled_from(["jsonl", "csv", "tsv"]),
    st.sampled_from(["utf-8", "utf-16", "latin-1", "cp932", "gb18030", "utf-32", "hz"]),
    st.integers(0, 300),
    st.booleans(),
)
def test_what_was_cut_off_or_damaged_is_refused_in_words(
    content: bytes, format: str, encoding: str, cut: int, flipped: bool
) -> None:
    packed = bytearray(gzip.compress(content, mtime=0))
    cut %= len(packed)
    if flipped:
        packed[cut] ^= 0xFF
    damaged = bytes(packed) if flipped else bytes(packed[:cut])
    for tried in (content, damaged):
        try:
            assert_rows(read(tried, "artists.x", format, encoding=encoding))
        except InputError as error:
            assert_words(error)
        else:
            whole = tried is content or (flipped and cut < 10) or not damaged.startswith(b"\x1f\x8b")
            assert whole, "what was damaged was taken for whole"


@contextmanager
def state() -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "state.db") as store:
        yield store


@examples(15)
@given(st.lists(st.tuples(st.sampled_from(["1", "2", "3", "\ud800", "a\0"]), st.text(max_size=5), _junk), max_size=8))
def test_every_line_of_json_is_an_artist_or_a_bad_row_of_the_state(lines: list[tuple[str, str, bytes]]) -> None:
    written = b"".join(
        json.dumps({"artist_id": name, "artist_name": "x" + data}).encode() + b"\n" + junk + b"\n"
        for name, data, junk in lines
    )
    if not written:
        return
    try:
        rows = read(b'{"artist_id": "first", "artist_name": "x"}\n' + written, "artists.jsonl", "jsonl")
    except InputError:
        return
    with state() as store:
        artists_store.read_into(store, rows)
        artists = store.value("SELECT count(*) FROM artists WHERE removed_at IS NULL")
        bad, _ = artists_store.bad_rows(store, limit=1)
        assert artists + bad == len(rows), "a row was lost"
        assert store.value("PRAGMA integrity_check") == "ok"


OPTIONS: dict[str, Any] = {
    "columns": {"artist_id": "id", "artist_name": "{{ name }}", "artist_data": "bio", "x": "name"}, "header": True,
    "delimiter": ",", "encoding": "utf-8", "quote": '"', "comment": "#",
}  # fmt: skip


@examples(60)
@given(mutated(OPTIONS, trees(), most=2), st.sampled_from(["jsonl", "csv", "tsv", "ndjson"]))
def test_any_options_of_a_reader_are_taken_or_refused_in_words(options: Any, format: str) -> None:
    table = options if isinstance(options, dict) else {"columns": options}
    if format not in ("csv", "tsv"):
        table = {name: value for name, value in table.items() if name not in ("header", "delimiter", "quote")}
    content = b"id,name,bio\n1,Bj\xc3\xb6rk,singer\n" if format == "csv" else b'{"id": "1", "name": "x", "bio": "y"}\n'
    try:
        assert_rows(read(content, "artists.x", format, **table))
    except BioforgeError as error:
        assert_words(error)
        return
    event("taken")


@examples(4)
@given(st.lists(_junk, max_size=9).map(b"\n".join), st.sampled_from(["csv", "jsonl", "csv.gz"]))
def test_a_person_is_told_about_any_input_in_words(content: bytes, suffix: str) -> None:
    head = b"" if suffix == "jsonl" else b"artist_id,artist_name,artist_data\n1,Absalon,\n"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / f"artists.{suffix}").write_bytes(head + content)
        (root / "bioforge.toml").write_text(
            f'[input]\npath = "artists.{suffix}"\n[recipe.bio]\nmodel = "m"\ninput = "{{{{ artist_name }}}}"\n'
        )
        ran = invoke("plan", "-f", str(root / "bioforge.toml"))
    assert ran.code in (0, 2), ran.err
    assert ran.code == 0 or "error: " in ran.err
    event(f"plan ended with {ran.code}")


def test_the_options_that_are_mutated_are_as_they_should_be() -> None:
    rows = read(b"id,name,bio\n1,Bj\xc3\xb6rk,singer\n", "artists.csv", "csv", **OPTIONS)
    assert [(row.artist_id, row.artist_name) for row in rows if isinstance(row, Artist)] == [("1", "Björk")]
    with pytest.raises(InputError):
        read(b"", "artists.csv", "csv")

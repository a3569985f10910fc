"""Readers of others: rows by the rules of every format, paths where paths are needed, mistakes that name the plugin."""

from __future__ import annotations

import gzip
import io
import sys
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import pytest

from bioforge.core.errors import InputError
from bioforge.core.types import Artist, BadRow
from bioforge.plugin import RowError, artists, json_value
from bioforge.readers.reader_plugin import BoundReader
from bioforge.readers.sources import Source


class TestRows:
    def read(self, *rows: Mapping[str, Any] | RowError, **options: Any) -> list[Artist | BadRow]:
        return list(artists(enumerate(rows, 1), "artists.db", **options))

    def test_rows_become_artists(self) -> None:
        found = self.read(
            {"artist_id": 0, "artist_name": " Absalon ", "artist_data": None, "born": date(1964, 12, 26)},
            {"artist_id": 12.0, "artist_name": "Björk", "artist_data": ["a"]},
            {"artist_name": "Abbey"},
        )
        assert found[0] == Artist("0", "Absalon", "", {"born": "1964-12-26"}, "artists.db", 1)
        assert found[1] == Artist("12", "Björk", '["a"]', {}, "artists.db", 2)
        assert isinstance(found[2], Artist)
        assert found[2].artist_id

    def test_columns_are_renamed_and_computed(self) -> None:
        columns = {"artist_name": "name", "artist_data": "{{ name }}, {{ born }}"}
        (artist,) = self.read({"artist_id": 1, "name": "Björk", "born": 1965}, columns=columns)
        assert (artist.artist_name, artist.artist_data) == ("Björk", "Björk, 1965")  # type: ignore[union-attr]

    def test_a_bad_row_says_where_and_the_others_come(self) -> None:
        found = self.read(
            {"artist_id": 1, "artist_name": "Björk"},
            RowError("the cell has no end"),
            {"artist_id": 3, "artist_name": None},
            {"artist_id": 4, "artist_name": "Absalon", "picture": b"\x89PNG"},
            {"artist_id": 5, "artist_name": "A\0"},
        )
        assert found[1:] == [
            BadRow("artists.db", 2, "the cell has no end"),
            BadRow("artists.db", 3, "no artist_name"),
            BadRow("artists.db", 4, "picture is bytes, which has no JSON form"),
            BadRow("artists.db", 5, "artist_name has a NUL character"),
        ]

    def test_a_header_without_a_name_is_said_before_any_row(self) -> None:
        with pytest.raises(InputError, match=r"artists\.db has no column artist_name; found: id, name") as caught:
            self.read(header=["id", "name"])
        assert 'artist_id = "id", artist_name = "name"' in caught.value.hint

    def test_without_a_header_the_rows_tell(self) -> None:
        with pytest.raises(InputError, match="has no column artist_name; found: id, name"):
            self.read({"id": 1, "name": "Björk"})

    def test_a_renamed_column_that_is_not_there(self) -> None:
        with pytest.raises(InputError, match="has no column 'nam', which"):
            self.read(header=["id", "name"], columns={"artist_name": "nam"})


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (10**30, 10**30),
        (True, True),
        (float("nan"), None),
        (Decimal("12.50"), "12.50"),
        (Decimal("NaN"), None),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05+00:00"),
        (time(3, 4), "03:04:00"),
        (timedelta(days=1), "1 day, 0:00:00"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ({"a": (1, {date(2026, 1, 1)})}, {"a": [1, ["2026-01-01"]]}),
        ({3: None}, {"3": None}),
    ],
)
def test_values_become_json(value: object, kept: object) -> None:
    assert json_value(value) == kept


@pytest.mark.parametrize("value", [b"x", object(), {"a": [b"x"]}, "\ud800"])
def test_what_is_no_json_is_named(value: object) -> None:
    with pytest.raises(RowError, match=r"born(\.a)? (is (bytes|object), which|has half)"):
        json_value(value, "born")


class Paths:
    """A reader of paths that notes which it was given."""

    reads_path = True

    def __init__(self) -> None:
        self.path = Path()

    def __call__(self, path: Path, source: str, options: Any) -> Iterator[Artist]:
        self.path = path
        for line, name in enumerate(path.read_text("utf-8").split(), 1):
            yield Artist(str(line), name, source=source, line=line)


class TestPaths:
    def test_a_file_is_read_where_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "a.list").write_text("Björk Absalon", "utf-8")
        reader = Paths()
        rows = list(BoundReader(reader, {}, "bioforge-list").rows(Source("a.list", tmp_path / "a.list")))
        assert [row.artist_name for row in rows if isinstance(row, Artist)] == ["Björk", "Absalon"]
        assert reader.path == tmp_path / "a.list"

    def test_what_is_packed_is_unpacked_for_as_long_as_it_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "a.list.gz").write_bytes(gzip.compress("Björk".encode()))
        reader = Paths()
        (row,) = BoundReader(reader, {}).rows(Source("a.list.gz", tmp_path / "a.list.gz"))
        assert isinstance(row, Artist)
        assert row.artist_name == "Björk"
        assert reader.path.name == "input.list"
        assert not reader.path.exists()

    def test_standard_input_becomes_a_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Björk".encode())))
        (row,) = BoundReader(Paths(), {}).rows(Source("standard input", None))
        assert isinstance(row, Artist)

    def test_an_empty_file_is_said_as_of_every_format(self, tmp_path: Path) -> None:
        (tmp_path / "a.list").touch()
        with pytest.raises(InputError, match=r"input 'a\.list' is empty"):
            list(BoundReader(Paths(), {}).rows(Source("a.list", tmp_path / "a.list")))

    def test_a_broken_gzip(self, tmp_path: Path) -> None:
        (tmp_path / "a.list.gz").write_bytes(gzip.compress(b"Abbey" * 1000)[:-9])
        with pytest.raises(InputError, match="cannot be copied to a temporary file: "):
            list(BoundReader(Paths(), {}).rows(Source("a.list.gz", tmp_path / "a.list.gz")))


class TestMistakesOfAPlugin:
    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([Artist("1", "Björk"), {"artist_id": 2}], "gave dict, expected an Artist or a BadRow"),
            ([Artist(1, "Björk")], "gave an Artist whose artist_id is not text: 1"),  # type: ignore[arg-type]
            ([Artist("1", "")], "gave an Artist without a name"),
            ([Artist("", "Björk")], "gave an Artist without an artist_id"),
            ([Artist("1", "Björk", columns={"born": date(1965, 11, 21)})], "gave values without a JSON form"),
            ([Artist("1", "Bj\ud800rk")], "gave values without a JSON form (row 0): 'utf-8' codec"),
            (
                [Artist("1", "Björk", columns={"a": "\ud800"})],
                "gave values without a JSON form (row 0): 'utf-8' codec",
            ),
            ([Artist("1", "Björk", columns=None)], "gave columns that are not a mapping with text keys (row 0)"),  # type: ignore[arg-type]
            ([Artist("1", "Björk", columns=["a"])], "gave columns that are not a mapping with text keys (row 0)"),  # type: ignore[arg-type]
            ([Artist("1", "Björk", line="3")], "gave an Artist whose line is '3' of ''"),  # type: ignore[arg-type]
            (None, "failed: TypeError: 'NoneType' object is not iterable"),
        ],
    )
    def test_they_name_it(self, tmp_path: Path, rows: Any, message: str) -> None:
        def reader(stream: IO[bytes], source: str, options: object) -> Any:
            return rows

        (tmp_path / "a.list").write_text("x")
        with pytest.raises(InputError) as caught:
            list(BoundReader(reader, {}, "bioforge-list").rows(Source("a.list", tmp_path / "a.list")))
        assert caught.value.message.startswith(f"a.list: the reader of plugin 'bioforge-list' {message}")
        assert "BIOFORGE_DEBUG" in caught.value.hint

    def test_a_bad_row_is_made_readable(self, tmp_path: Path) -> None:
        def reader(stream: IO[bytes], source: str, options: object) -> Any:
            yield BadRow(None, None, "no \ud800")  # type: ignore[arg-type]

        (tmp_path / "a.list").write_text("x")
        found = list(BoundReader(reader, {}, "bioforge-list").rows(Source("a.list", tmp_path / "a.list")))
        assert found == [BadRow("a.list", 0, "no ?")]

    def test_one_that_leaves_is_named(self, tmp_path: Path) -> None:
        def reader(stream: IO[bytes], source: str, options: object) -> Any:
            raise SystemExit(0)

        (tmp_path / "a.list").write_text("x")
        with pytest.raises(InputError, match="the reader of plugin 'bioforge-list' failed: SystemExit: 0"):
            list(BoundReader(reader, {}, "bioforge-list").rows(Source("a.list", tmp_path / "a.list")))

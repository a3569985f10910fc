"""Convert Parquet and Arrow values to JSON without loss."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from bioforge.plugin import Artist, BadRow

Read = Callable[..., list[Artist | BadRow]]
NANOSECONDS = 1_577_836_800_123_456_789
CASES: dict[str, tuple[pa.Array, object]] = {
    "integer": (pa.array([2**63 - 1]), 2**63 - 1),
    "unsigned": (pa.array([2**64 - 1], pa.uint64()), 2**64 - 1),
    "real": (pa.array([0.1]), 0.1),
    "half": (pa.array([1.5], pa.float16()), 1.5),
    "not a number": (pa.array([float("nan")]), None),
    "bool": (pa.array([True]), True),
    "null": (pa.nulls(1), None),
    "decimal": (pa.array([Decimal("12345678901234567890.10")], pa.decimal128(22, 2)), "12345678901234567890.10"),
    "whole decimal": (pa.array([Decimal(10**37)], pa.decimal128(38, 0)), 10**37),
    "date": (pa.array([date(1965, 11, 21)]), "1965-11-21"),
    "day in milliseconds": (pa.array([86_400_000], pa.date64()), "1970-01-02"),
    "time": (pa.array([time(1, 2, 3)]), "01:02:03"),
    "time to the nanosecond": (pa.array([1], pa.time64("ns")), "00:00:00.000000001"),
    "timestamp": (pa.array([0], pa.timestamp("s")), "1970-01-01T00:00:00"),
    "before 1970": (pa.array([-1], pa.timestamp("ms")), "1969-12-31T23:59:59.999000"),
    "nanoseconds": (pa.array([NANOSECONDS], pa.timestamp("ns")), "2020-01-01T00:00:00.123456789"),
    "in UTC": (pa.array([NANOSECONDS // 1_000], pa.timestamp("us", "UTC")), "2020-01-01T00:00:00.123456+00:00"),
    "with an offset": (pa.array([0], pa.timestamp("s", "-03:30")), "1969-12-31T20:30:00-03:30"),
    "in a zone": (pa.array([NANOSECONDS], pa.timestamp("ns", "Asia/Tokyo")), "2020-01-01T09:00:00.123456789+09:00"),
    "duration": (pa.array([90_061_500], pa.duration("ms")), "PT25H1M1.5S"),
    "interval": (pa.array([pa.MonthDayNano([14, -3, 10**9])]), "P14M-3DT1S"),
    "bytes": (pa.array([b"\x00\xff"]), "AP8="),
    "uuid": (pa.array([uuid.UUID(int=7).bytes], pa.uuid()), str(uuid.UUID(int=7))),
    "category": (pa.array(["painter"]).dictionary_encode(), "painter"),
    "run": (pc.run_end_encode(pa.array([5])), 5),
    "large text": (pa.array(["a"], pa.large_string()), "a"),
    "view of text": (pa.array(["a"], pa.string_view()), "a"),
    "list": (pa.array([[1, None, 3]]), [1, None, 3]),
    "list of times": (pa.array([[0]], pa.list_(pa.timestamp("s", "UTC"))), ["1970-01-01T00:00:00+00:00"]),
    "fixed list": (pa.array([[1, 2]], pa.list_(pa.int8(), 2)), [1, 2]),
    "object": (
        pa.array([{"born": date(1965, 11, 21), "tags": ["a"], "to": {"x": None}}]),
        {"born": "1965-11-21", "tags": ["a"], "to": {"x": None}},
    ),
    "map": (pa.array([[("a", 1), ("b", 2)]], pa.map_(pa.string(), pa.int8())), {"a": 1, "b": 2}),
    "map of numbers": (pa.array([[(1, [2])]], pa.map_(pa.int8(), pa.list_(pa.int8()))), {"1": [2]}),
}


def stream_of(table: pa.Table, path: Path) -> Path:
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)
    return path


@pytest.mark.parametrize("case", CASES)
def test_types_are_kept(case: str, tmp_path: Path, read: Read) -> None:
    array, expected = CASES[case]
    # A null before the value, in a slice, tests offsets and validity.
    values = (
        pa.chunked_array([array, pa.nulls(1, array.type), array]) if case != "run" else pa.chunked_array([array] * 3)
    )
    table = pa.table({"artist_name": ["A", "B", "C"], "value": values})
    if case != "run":
        table = table.combine_chunks()
    found = read(stream_of(table.slice(1), tmp_path / "a.arrow"))
    assert [row.columns["value"] for row in found if isinstance(row, Artist)][-1] == expected
    assert type(found[-1].columns["value"]) is type(expected)  # type: ignore[union-attr]
    if case != "run":
        assert found[0].columns["value"] is None  # type: ignore[union-attr]


def test_rows_with_invalid_values_are_skipped(tmp_path: Path, read: Read) -> None:
    broken = pa.Array.from_buffers(pa.string(), 4, pa.array([b"ok", b"\xff", b"ok", b"ok"]).buffers())
    far = pa.array([0, 0, 2**62, None], pa.timestamp("us"))
    path = stream_of(pa.table({"artist_name": list("ABCD"), "note": broken, "at": far}), tmp_path / "a.arrow")
    found = read(path)
    assert found[1] == BadRow("a.arrow", 2, "note is not valid UTF-8")
    assert found[2] == BadRow("a.arrow", 3, "at has a timestamp[us] outside the years 1 to 9999")
    assert [type(row) for row in found] == [Artist, BadRow, BadRow, Artist]


def test_a_name_of_bytes_is_an_error(tmp_path: Path, read: Read) -> None:
    """Bytes as base64 would be sent and paid."""
    path = stream_of(pa.table({"titel": [b"Bj\xc3\xb6rk", None]}), tmp_path / "a.arrow")
    found = read(path, columns={"artist_name": "titel"})
    assert [row.message for row in found if isinstance(row, BadRow)] == [
        "titel is bytes, expected text",
        "no artist_name",
    ]


def test_numbers_are_ids(tmp_path: Path, read: Read) -> None:
    for ids, expected in (([0, 12], ["0", "12"]), ([0.0, 12.0], ["0", "12"]), ([Decimal(0), Decimal(12)], ["0", "12"])):
        pq.write_table(pa.table({"artist_id": ids, "artist_name": ["A", "B"]}), tmp_path / "a.parquet")
        assert [row.artist_id for row in read(tmp_path / "a.parquet") if isinstance(row, Artist)] == expected


@pytest.mark.parametrize("suffix", ["parquet", "feather", "arrows"])
def test_only_selected_columns_are_read(suffix: str, tmp_path: Path, read: Read, refused: Callable[..., str]) -> None:
    table = pa.table({"artist_name": ["A"], "photo": [b"\xff" * 100], "land": ["Iceland"]})
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, path)
    elif suffix == "feather":
        pyarrow.feather.write_feather(table, path)
    else:
        stream_of(table, path)
    (found,) = read(path, select=["land", "artist_name"])
    assert isinstance(found, Artist)
    assert dict(found.columns) == {"land": "Iceland"}
    assert "no column 'lnd', which is in [input] select | did you mean 'land'?" in refused(path, select=["lnd"])


def test_two_columns_of_one_name_are_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    table = pa.Table.from_arrays([pa.array(["A"]), pa.array(["B"])], names=["artist_name", "artist_name"])
    assert "more than one column 'artist_name'" in refused(stream_of(table, tmp_path / "a.arrow"))


def test_errors_name_the_actual_kind_of_file(tmp_path: Path, refused: Callable[..., str]) -> None:
    table = pa.table({"artist_name": ["A"]})
    parquet, arrow = io.BytesIO(), io.BytesIO()
    pq.write_table(table, parquet)
    pyarrow.feather.write_feather(table, arrow)
    cases: list[tuple[str, bytes, str]] = [
        ("a.parquet", arrow.getvalue(), 'it looks like an Arrow file: reader = "arrow"'),
        ("a.arrow", parquet.getvalue(), 'it looks like a Parquet file: reader = "parquet"'),
        ("b.parquet", b"PAR1" + b"x" * 99 + b"\x10\0\0\0PARE", "encrypted"),
        ("c.parquet", b"artist_name\nBj\xc3\xb6rk\n", "that it is a Parquet file"),
        ("d.parquet", parquet.getvalue()[:-20], "its start is valid, a later part is not"),
        ("e.parquet", b"SQLite format 3\0", 'reader = "sqlite"'),
        ("a.feather", b"FEA1" + b"x" * 99, "version 2"),
    ]
    for name, content, said in cases:
        (tmp_path / name).write_bytes(content)
        assert said in refused(tmp_path / name), name


def test_a_damaged_page_is_refused_with_the_file_s_name(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"artist_name": [f"Artist {n * n}" for n in range(10_000)]}), path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[200:2_000] = b"\xaa" * 1_800
    path.write_bytes(content)
    assert "a.parquet cannot be read as a Parquet file" in refused(path)


def test_an_unknown_time_zone_is_an_error(tmp_path: Path, refused: Callable[..., str]) -> None:
    table = pa.table({"artist_name": ["A"], "at": pa.array([0], pa.timestamp("s", "Mars/Olympus"))})
    assert "'Mars/Olympus' is not installed | install all zones: `pip install tzdata`" in refused(
        stream_of(table, tmp_path / "a.arrow")
    )


def test_the_sender_of_a_stream_may_leave_out_its_end(tmp_path: Path, read: Read) -> None:
    """The format allows a stream that ends with the file."""
    path = stream_of(pa.table({"artist_name": ["A", "B"]}), tmp_path / "a.arrows")
    path.write_bytes(path.read_bytes()[:-8])
    assert len(read(path)) == 2


def test_the_first_row_does_not_wait_for_the_last(tmp_path: Path) -> None:
    from bioforge_tables import bioforge_readers

    path = tmp_path / "a.parquet"
    table: Any = pa.table({"artist_name": [f"Artist {n}" for n in range(50_000)]})
    pq.write_table(table, path, row_group_size=1_000)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2_000] = b"\xaa" * 2_000
    path.write_bytes(content)
    reader = bioforge_readers()["parquet"]
    first = next(iter(reader(path, "a.parquet", reader.Options())))  # type: ignore[arg-type, union-attr]
    assert isinstance(first, Artist)

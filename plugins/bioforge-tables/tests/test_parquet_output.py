"""Write results as Parquet: one schema for every project, in row groups."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bioforge_tables import bioforge_writers

from bioforge.plugin import Record
from bioforge.testing import record

SCHEMA = {
    **dict.fromkeys(
        ("artist_id", "artist_name", "artist_data", "recipe", "variant", "response_text", "parsed"), "string"
    ),
    "response_id": "string",
    "created": "timestamp[us, tz=UTC]",
    "model": "string",
    **dict.fromkeys(("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens"), "int64"),
    "cost_usd": "double",
    **dict.fromkeys(("error_class", "error_code", "error_message", "request"), "string"),
}


def written(records: Iterable[Record], **options: Any) -> pq.ParquetFile:
    stream = io.BytesIO()
    writer: Any = bioforge_writers()["parquet"]
    writer(iter(records), stream, writer.Options(**options))
    assert not stream.closed, "the host closes it"
    return pq.ParquetFile(io.BytesIO(stream.getvalue()))


def test_the_schema_is_the_same_for_every_project() -> None:
    for records in ([], [record(1)], [record(1, None)]):
        schema = written(records).schema_arrow
        assert {field.name: str(field.type) for field in schema} == SCHEMA
        assert [field.name for field in schema if not field.nullable] == [
            "artist_id",
            "artist_name",
            "recipe",
            "variant",
        ]


def test_a_record_is_a_row_with_types() -> None:
    usage = {"input_tokens": 12, "cached_tokens": 3, "output_tokens": 9, "reasoning_tokens": 4}
    parsed = {"born": 1965, "quote": "„Björk“", "works": ["Debut"]}
    good = record(1, "A life.", usage=usage, parsed=parsed, variant="temperature=0.2", cost_usd=0.000025)
    found, failed = written([good, record(2, None, variant="")]).read().to_pylist()
    assert json.loads(found.pop("parsed")) == parsed
    assert json.loads(found.pop("request")) == good["request"]
    assert found == {
        "artist_id": "a1",
        "artist_name": "Artist 1",
        "artist_data": "painter 1",
        "recipe": "bio",
        "variant": "temperature=0.2",
        "response_text": "A life.",
        "response_id": "resp_1",
        "created": datetime(2026, 5, 1, 12, tzinfo=UTC),
        "model": "gpt-6-luna-2026-05-01",
        **usage,
        "cost_usd": 0.000025,
        "error_class": None,
        "error_code": None,
        "error_message": None,
    }
    empty = {name for name, value in failed.items() if value is None}
    assert empty >= {"response_text", "parsed", "created", "model", "input_tokens", "cost_usd", "error_code"}
    assert (failed["variant"], failed["error_class"], failed["error_message"]) == (
        "",
        "rate_limit",
        "too many requests",
    )


@pytest.mark.parametrize("parsed", ["1", 1, [], False, {"a": None}])
def test_parsed_answers_of_every_kind_are_json(parsed: object) -> None:
    (found,) = written([record(1, parsed=parsed)]).read().to_pylist()
    assert json.loads(found["parsed"]) == parsed


def test_rows_come_in_groups() -> None:
    found = written((record(number) for number in range(2_500)), row_group_size=1_000)
    assert [found.metadata.row_group(number).num_rows for number in range(3)] == [1_000, 1_000, 500]
    assert [row["artist_id"] for row in found.read().to_pylist()] == [f"a{number}" for number in range(2_500)]


def test_long_texts_make_smaller_groups() -> None:
    """A row group has at most 64 MB."""
    text = "x" * 100_000
    found = written(record(number, text) for number in range(1_500))
    sizes = [found.metadata.row_group(number).num_rows for number in range(found.metadata.num_row_groups)]
    assert sum(sizes) == 1_500
    assert max(sizes) < 1_500


def test_compression_is_an_option() -> None:
    cases: Mapping[str, str] = {"zstd": "ZSTD", "snappy": "SNAPPY", "gzip": "GZIP", "none": "UNCOMPRESSED"}
    for name, shown in cases.items():
        assert written([record(1)], compression=name).metadata.row_group(0).column(0).compression == shown
    assert written([record(1)]).metadata.row_group(0).column(0).compression == "ZSTD"


def test_what_stops_the_records_stops_the_file() -> None:
    def broken() -> Iterable[Record]:
        yield record(1)
        raise RuntimeError("the state is gone")

    with pytest.raises(RuntimeError, match="the state is gone"):
        written(broken())


def test_files_of_several_projects_are_one_table() -> None:
    tables = [written([record(1)]).read(), written([record(2, None)]).read()]
    assert pa.concat_tables(tables).num_rows == 2

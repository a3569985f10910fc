"""The built-in readers keep the contract that plugins are held to."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from bioforge.readers.plugin import bioforge_readers
from bioforge.testing import ReaderContract
from bioforge.testing.readers import Row


class TestCsv(ReaderContract):
    suffix = name = "csv"
    delimiter = ","
    wrong_options = (
        ({"header": "yes"}, "header"),
        ({"delimiter": "ab"}, "delimiter"),
        ({"encoding": "utf-9"}, "encoding"),
    )

    def reader(self):
        return bioforge_readers()[self.suffix]

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        columns = list(rows[0]) if rows else ["artist_id", "artist_name"]
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns, delimiter=self.delimiter)
            writer.writeheader()
            writer.writerows(rows)


class TestTsv(TestCsv):
    many = 4_000
    suffix = name = "tsv"
    delimiter = "\t"


class TestJsonLines(ReaderContract):
    suffix = name = "jsonl"
    numbers = True
    values = ((3, 3), (1.5, 1.5), (True, True), ({"a": [1, None]}, {"a": [1, None]}))
    wrong_options = (({"comment": 3}, "comment"), ({"encoding": "utf-9"}, "encoding"))

    def reader(self):
        return bioforge_readers()[self.suffix]

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_ndjson_is_another_name_of_json_lines() -> None:
    readers = bioforge_readers()
    assert readers["ndjson"] is readers["jsonl"]

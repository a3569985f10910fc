"""Run the contracts of readers and writers for each format."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import openpyxl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
from bioforge_tables import bioforge_readers, bioforge_writers
from excel_files import write_like_excel

from bioforge.testing import ReaderContract, WriterContract

Row = Mapping[str, Any]


def table(rows: Sequence[Row]) -> pa.Table:
    return pa.Table.from_pylist([dict(row) for row in rows])


class TestParquet(ReaderContract):
    suffix = name = "parquet"
    numbers = True
    values = ()
    wrong_options = ({"select": "artist_name"}, "select"), ({"sheet": "x"}, "sheet")
    detects_truncation = True

    def reader(self) -> Any:
        return bioforge_readers()["parquet"]

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        pq.write_table(table(rows), path)


class TestFeather(ReaderContract):
    suffix = name = "feather"
    numbers = True
    detects_truncation = True

    def reader(self) -> Any:
        return bioforge_readers()["feather"]

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        pyarrow.feather.write_feather(table(rows), path, chunksize=1_000)


class TestArrowStream(ReaderContract):
    suffix = name = "arrows"
    numbers = True

    def reader(self) -> Any:
        return bioforge_readers()["arrows"]

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        content = table(rows)
        with pa.ipc.new_stream(path, content.schema) as writer:
            writer.write_table(content, max_chunksize=1_000)


class TestExcel(ReaderContract):
    suffix = name = "xlsx"
    numbers = True
    values = ((3, 3), (2.5, 2.5), (True, True), (date(2020, 1, 2), "2020-01-02"), (None, None))
    wrong_options = ({"sheet": 3}, "sheet"), ({"header_row": 0}, "header_row")
    detects_truncation = True
    many = 4_000

    def reader(self) -> Any:
        return bioforge_readers()["xlsx"]

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        book = openpyxl.Workbook(write_only=True)
        sheet = book.create_sheet("Artists")
        if rows:
            sheet.append(list(rows[0]))
        for row in rows:
            cells = [openpyxl.cell.WriteOnlyCell(sheet, value) for value in row.values()]
            for cell in cells:
                if isinstance(cell.value, str):
                    cell.data_type = "s"  # "=1+1" as text, not as a formula
            sheet.append(cells)
        book.save(path)
        book.close()


class TestExcelWithSharedTexts(TestExcel):
    values = (3, 3), (2.5, 2.5), (None, None)

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        write_like_excel(path, [list(rows[0]) if rows else [], *(row.values() for row in rows)])


class TestSQLite(ReaderContract):
    suffix = name = "sqlite"
    numbers = True
    values = ((3, 3), (2.5, 2.5), (2**63 - 1, 2**63 - 1), (None, None), (b"\0\xff", "AP8="))
    wrong_options = ({"table": 3}, "table"), ({"query": ""}, "query")
    detects_truncation = True

    def reader(self) -> Any:
        return bioforge_readers()["sqlite"]

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        path.unlink(missing_ok=True)
        with closing(sqlite3.connect(path)) as connection, connection:
            names = list(rows[0]) if rows else ["artist_name"]
            connection.execute(f"CREATE TABLE people ({', '.join(names)})")
            marks = ", ".join("?" * len(names))
            connection.executemany(f"INSERT INTO people VALUES ({marks})", [list(row.values()) for row in rows])


class TestDuckDB(ReaderContract):
    suffix = name = "duckdb"
    numbers = True
    wrong_options = ({"table": 3}, "table"), ({"memory_limit": "much"}, "memory_limit"), ({"scan": 1}, "scan")
    detects_truncation = True

    def reader(self) -> Any:
        return bioforge_readers()["duckdb"]

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        path.unlink(missing_ok=True)
        with duckdb.connect(str(path)) as connection:
            if rows:
                connection.register("given", table(rows))
                connection.execute("CREATE TABLE people AS SELECT * FROM given")
            else:
                connection.execute("CREATE TABLE people (artist_name VARCHAR)")


class TestParquetOutput(WriterContract):
    suffix = name = "parquet"
    wrong_options = ({"compression": "zip"}, "compression"), ({"row_group_size": 0}, "row_group_size")
    held = 110
    options: Mapping[str, object] = {"row_group_size": 100}

    def writer(self) -> Any:
        return bioforge_writers()["parquet"]

    def read(self, path: Path) -> Sequence[Mapping[str, Any]]:
        found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return found


class TestSQLiteOutput(WriterContract):
    suffix = "db"
    name = "sqlite-table"
    wrong_options = ({"table": "sqlite_master"}, "sqlite_master"), ({"timeout": -1}, "timeout")

    def writer(self) -> Any:
        return bioforge_writers()["sqlite-table"]

    def read(self, path: Path) -> Sequence[Mapping[str, Any]]:
        with closing(sqlite3.connect(path)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute("SELECT * FROM results ORDER BY rowid")]

"""Tables for bioforge: Parquet, Arrow, Excel, SQLite and DuckDB as input, Parquet and SQLite as output.

Every bioforge command loads this module; format libraries are imported when the first file is read or written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, ClassVar

from bioforge.plugin import (
    AnyReader,
    AnyWriter,
    Artist,
    BadRow,
    PathReader,
    ReaderOptions,
    Record,
    hookimpl,
)
from bioforge_tables.options import (
    ArrowOptions,
    DatabaseOptions,
    DuckDBOptions,
    ExcelOptions,
    ParquetOptions,
    ParquetOutputOptions,
    SQLiteOutputOptions,
)

BIOFORGE_API = 1


@dataclass(slots=True)
class TableReader:
    """A path reader whose `module`, with the function `read`, is imported with the first file."""

    module: str
    Options: type[ReaderOptions]
    reads_path: bool = True

    def __call__(self, path: Path, source: str, options: ReaderOptions) -> Iterable[Artist | BadRow]:
        reader: PathReader = import_module(self.module).read
        return reader(path, source, options)


class ParquetOutput:
    """A writer of Parquet files; see `bioforge_tables.parquet_output`."""

    Options: ClassVar = ParquetOutputOptions

    def __call__(self, records: Iterable[Record], stream: IO[bytes], options: ParquetOutputOptions) -> None:
        from bioforge_tables.parquet_output import write

        write(records, stream, options)


class SQLiteOutput:
    """A writer of SQLite tables; see `bioforge_tables.sqlite_output`."""

    Options: ClassVar = SQLiteOutputOptions
    writes_path = True

    def __call__(self, records: Iterable[Record], path: Path, options: SQLiteOutputOptions) -> str | None:
        from bioforge_tables.sqlite_output import write

        return write(records, path, options)


@hookimpl
def bioforge_readers() -> Mapping[str, AnyReader]:
    arrow = TableReader("bioforge_tables.arrow", ArrowOptions)
    excel = TableReader("bioforge_tables.excel", ExcelOptions)
    sqlite = TableReader("bioforge_tables.sqlite", DatabaseOptions)
    return {
        "parquet": TableReader("bioforge_tables.parquet", ParquetOptions),
        "arrow": arrow,
        "arrows": arrow,
        "feather": arrow,
        "xlsx": excel,
        "xlsm": excel,
        "sqlite": sqlite,
        "sqlite3": sqlite,
        "db": TableReader("bioforge_tables.databases", DatabaseOptions),
        "duckdb": TableReader("bioforge_tables.duck", DuckDBOptions),
    }


@hookimpl
def bioforge_writers() -> Mapping[str, AnyWriter]:
    sqlite = SQLiteOutput()
    return {"parquet": ParquetOutput(), "sqlite": sqlite, "sqlite3": sqlite, "sqlite-table": sqlite, "db": sqlite}

"""Options of each reader and writer in the project file."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from bioforge.plugin import Options, ReaderOptions

_SELECT = "a list of the columns to read"


class ParquetOptions(ReaderOptions):
    """Options of `parquet`. `select`: only these columns are read and decoded."""

    select: list[str] = Field([], description=_SELECT)


class ArrowOptions(ReaderOptions):
    """Options of the Arrow readers; `select` as for Parquet."""

    select: list[str] = Field([], description=_SELECT)


class ExcelOptions(ReaderOptions):
    """Options of the Excel readers. Defaults: the first worksheet, and the first row that is not blank as header."""

    sheet: str | None = Field(None, description="the name of a sheet", min_length=1)
    header_row: int | None = Field(None, description="the number of the row that names the columns, from 1", ge=1)
    select: list[str] = Field([], description=_SELECT)


class DatabaseOptions(ReaderOptions):
    """Options of database readers: `query` or `table`, or neither if there is exactly one table."""

    query: str | None = Field(None, description="one SELECT", min_length=1)
    table: str | None = Field(None, description="the name of a table or view", min_length=1)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.query is not None and self.table is not None:
            raise ValueError("found query and table, expected only one of them")
        return self


ScanValue = bool | int | float | str | list[str]


class DuckDBOptions(DatabaseOptions):
    """Options of `duckdb`. `scan`: parameters of DuckDB's reading function for a file that is not a database.

    `memory_limit`: memory of a query before it uses temporary files.
    """

    scan: dict[str, ScanValue] = Field({}, description="a table of parameters, like { all_varchar = true }")
    memory_limit: str = Field("1GB", description='a size like "500MB"', pattern=r"^\d+(\.\d+)? ?[KMGT]i?B$")

    @field_validator("scan")
    @classmethod
    def _names(cls, scan: dict[str, ScanValue]) -> dict[str, ScanValue]:
        for name in scan:
            if not name.isidentifier():
                raise ValueError(f"{name!r} is not a parameter name")
        return scan


class ParquetOutputOptions(Options):
    """Options of the Parquet writer. A row group has up to `row_group_size` rows or 64 MB."""

    compression: Literal["zstd", "snappy", "gzip", "brotli", "lz4", "none"] = Field(
        "zstd", description='"zstd", "snappy", "gzip", "brotli", "lz4" or "none"'
    )
    row_group_size: int = Field(50_000, description="a number of rows, from 1 to 1,000,000", ge=1, le=1_000_000)


class SQLiteOutputOptions(Options):
    """Options of the SQLite writer. `timeout`: seconds to wait for another process that is writing."""

    table: str = Field("results", description="the name of a table", min_length=1)
    timeout: float = Field(10.0, description="seconds, from 0 to 3600", ge=0, le=3600)

    @field_validator("table")
    @classmethod
    def _usable(cls, table: str) -> str:
        if table.lower().startswith("sqlite_") or "\0" in table:
            raise ValueError(f"{table!r}: SQLite reserves names that start with sqlite_; choose another")
        return table

    @field_validator("timeout", mode="before")
    @classmethod
    def _seconds(cls, timeout: object) -> object:
        return float(timeout) if isinstance(timeout, int) and not isinstance(timeout, bool) else timeout

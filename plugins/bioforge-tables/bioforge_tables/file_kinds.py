"""What a file is by its first bytes, for messages about one that is not what it was taken for."""

from __future__ import annotations

import zipfile
from pathlib import Path

SQLITE = b"SQLite format 3\0"
OLE = bytes.fromhex("d0cf11e0a1b11ae1")
"""The container of .xls files, and of .xlsx files with a password."""

_KINDS = (
    (b"PAR1", "a Parquet file", 'reader = "parquet"'),
    (b"PARE", "an encrypted Parquet file", "this reader has no keys: write it again without encryption"),
    (b"ARROW1", "an Arrow file", 'reader = "arrow"'),
    (b"FEA1", "a Feather file of version 1", "write it again as version 2 (pyarrow.feather.write_feather)"),
    (SQLITE, "a SQLite database", 'reader = "sqlite"'),
    (OLE, "an old Excel file, or one with a password", "save it as .xlsx without a password"),
    (b"\x1f\x8b", "packed with gzip", "unpack it"),
)


def is_duckdb(path: Path) -> bool:
    return head(path)[8:12] == b"DUCK"


def head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


def looks_like(path: Path) -> tuple[str, str]:
    """What it seems to be and what to do about it; empty texts where its first bytes say nothing."""
    first = head(path)
    if first[8:12] == b"DUCK":
        return "a DuckDB database", 'reader = "duckdb"'
    for mark, kind, remedy in _KINDS:
        if first.startswith(mark):
            return kind, remedy
    if zipfile.is_zipfile(path):
        return "an Excel file or another zip archive", 'reader = "xlsx"'
    return "", ""


def remedy_for(path: Path, expected: str) -> str:
    """The hint for a file that could not be read as the `expected` kind."""
    kind, remedy = looks_like(path)
    if not kind:
        return f"was it written to its end, and is it {expected}?"
    if kind == expected:
        return "it begins well and is broken further on: was it written and copied to its end?"
    return f"it looks like {kind}: {remedy}"

"""Identify a file by its first bytes, for messages about files of another kind."""

from __future__ import annotations

import zipfile
from pathlib import Path

SQLITE = b"SQLite format 3\0"
OLE = bytes.fromhex("d0cf11e0a1b11ae1")
"""The container of .xls files and of .xlsx files with a password."""

_KINDS = (
    (b"PAR1", "a Parquet file", 'reader = "parquet"'),
    (b"PARE", "an encrypted Parquet file", "write it without encryption"),
    (b"ARROW1", "an Arrow file", 'reader = "arrow"'),
    (b"FEA1", "a Feather file of version 1", "write it as version 2 (pyarrow.feather.write_feather)"),
    (SQLITE, "a SQLite database", 'reader = "sqlite"'),
    (OLE, "an old Excel file, or one with a password", "save it as .xlsx without a password"),
    (b"\x1f\x8b", "compressed with gzip", "decompress it"),
)


def is_duckdb(path: Path) -> bool:
    return head(path)[8:12] == b"DUCK"


def head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


def identify(path: Path) -> tuple[str, str]:
    """Return the kind of file and a remedy; empty texts if its first bytes are unknown."""
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
    """Return the hint for a file that could not be read as the `expected` kind."""
    kind, remedy = identify(path)
    if not kind:
        return f"check that it is complete and that it is {expected}"
    if kind == expected:
        return "its start is valid, a later part is not: check that it was written and copied completely"
    return f"it looks like {kind}: {remedy}"

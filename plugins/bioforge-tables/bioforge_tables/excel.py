"""Read the rows of one Excel sheet below its header row."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from openpyxl.styles.numbers import BUILTIN_FORMATS, is_datetime
from openpyxl.utils import get_column_letter
from openpyxl.utils.exceptions import InvalidFileException

from bioforge.plugin import Artist, BadRow, InputError, RowError, artists
from bioforge_tables import column_names, file_kinds
from bioforge_tables.batches import Row
from bioforge_tables.options import ExcelOptions
from bioforge_tables.values import iso_duration
from bioforge_tables.workbooks import UNCALCULATED, LargeWorkbook

_KIND = "an Excel file"
_BRACKETS = re.compile(r"\[[^\]]*\]")
_BUILT_IN = 164
"""The first number format that is not built in."""

_EXACT = 1 << 53
_READ_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    InvalidFileException,
    ParseError,
    KeyError,
    ValueError,
    OSError,
    EOFError,
    IndexError,
    AttributeError,
    TypeError,
)
"""Exceptions of openpyxl for files that are truncated or not workbooks."""


def read(path: Path, source: str, options: ExcelOptions) -> Iterator[Artist | BadRow]:
    """Yield the rows below the header with the sheet's row numbers.

    Raises `InputError` if the file is not .xlsx, has a password or lacks the sheet.
    """
    if file_kinds.head(path).startswith(file_kinds.OLE):
        raise _unsupported(path, source)
    with path.open("rb") as file:
        try:
            book = LargeWorkbook(file)
        except _READ_ERRORS as error:
            raise _unreadable(path, source, error) from error
        with closing(book):
            sheet = _sheet(book, options.sheet, source)
            where = f"{source}, sheet {sheet!r}"
            rows = _checked_rows(book.rows(sheet), path, where)
            names = _header(rows, options.header_row, where)
            wanted = column_names.selected([name for name in names if name], options.select, where)
            keep = [name if name in wanted else "" for name in names]
            found = _numbered(rows, keep, partial(_value, book))
            yield from artists(found, source, options.columns, wanted)


def _unsupported(path: Path, source: str) -> InputError:
    if "EncryptedPackage".encode("utf-16-le") in path.read_bytes():
        return InputError(f"{source} has a password", "save a copy without a password: File, Info, Protect Workbook")
    return InputError(f"{source} is an old Excel file (.xls)", "save it as .xlsx: File, Save As, Excel Workbook")


def _unreadable(path: Path, source: str, error: Exception) -> InputError:
    kind, _ = file_kinds.identify(path)
    is_zip = zipfile.is_zipfile(path)
    hint = file_kinds.remedy_for(path, _KIND) if not is_zip else "check that it is a complete workbook"
    problem = f"it is {kind}" if kind and not is_zip else str(error) or type(error).__name__
    return InputError(f"{source} cannot be read as {_KIND}: {problem}", hint)


def _checked_rows(
    rows: Iterator[tuple[int, list[dict[str, Any]]]], path: Path, where: str
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    number = 0
    while True:
        try:
            number, cells = next(rows)
        except StopIteration:
            return
        except _READ_ERRORS as error:
            raise _unreadable(path, f"{where}: the part after row {number}", error) from error
        yield number, cells


# ----------------------------------------------------------------------------------------------- sheets and headers


def _sheet(book: LargeWorkbook, wanted: str | None, source: str) -> str:
    names = list(book.sheets)
    if not names:
        raise InputError(f"{source} has no worksheet", "add one with a row that names the columns")
    if wanted is not None and wanted not in names:
        raise column_names.missing(f"{source} has no sheet {wanted!r}", wanted, names)
    return wanted or names[0]


def _header(rows: Iterator[tuple[int, list[dict[str, Any]]]], wanted: int | None, where: str) -> list[str]:
    """Return the column names by position; an unnamed one before a named one is `column_3`."""
    for number, cells in rows:
        if wanted is not None and number < wanted:
            continue
        if wanted is not None and number > wanted:
            break
        found = {cell["column"]: str(cell["value"]).strip() for cell in cells if cell["value"] is not None}
        found = {column: name for column, name in found.items() if name}
        if found:
            names = [found.get(column, f"column_{column}") for column in range(1, max(found) + 1)]
            return column_names.checked(names, where)
        if wanted is not None:
            break
    if wanted is not None:
        raise InputError(
            f"{where}: [input] header_row is {wanted}, but this row is blank",
            "set it to the row that names the columns",
        )
    raise InputError(f"{where} is empty", "choose another under [input]: sheet = …")


# ------------------------------------------------------------------------------------------------------------- rows


def _numbered(rows: Iterator[tuple[int, list[dict[str, Any]]]], names: Sequence[str], value: Any) -> Iterator[Row]:
    width = len(names)
    blank = dict.fromkeys(name for name in names if name)
    for number, cells in rows:
        row: dict[str, Any] = dict(blank)
        is_blank = True
        try:
            for cell in cells:
                if cell["value"] is None and cell["data_type"] != UNCALCULATED:
                    continue
                column = cell["column"]
                if column > width:
                    raise RowError(f"cell {get_column_letter(column)}{number} has a value, but its column has no name")
                is_blank = False
                if names[column - 1]:
                    row[names[column - 1]] = value(cell, number)
        except RowError as error:
            yield number, error
            continue
        if not is_blank:
            yield number, row


def _value(book: LargeWorkbook, cell: dict[str, Any], number: int) -> Any:
    value = cell["value"]
    if cell["data_type"] == UNCALCULATED:
        raise RowError(f"cell {_name(cell, number)} has a formula without a value: open the file in Excel and save it")
    if cell["data_type"] == "e":
        raise RowError(f"cell {_name(cell, number)} is an error: {value}")
    if isinstance(value, datetime) and _is_date(book, cell["style_id"]):
        return value.date()
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)  # spreadsheets have one number type: 12 may be stored as 12.0
    if isinstance(value, timedelta):
        return iso_duration(nanoseconds=value // timedelta(microseconds=1) * 1_000)
    return value


def _name(cell: dict[str, Any], number: int) -> str:
    return f"{get_column_letter(cell['column'])}{number}"


def _is_date(book: LargeWorkbook, style: int) -> bool:
    """Return True if cells of this style show a date without a time."""
    known: dict[int, bool] = book.__dict__.setdefault("_shows_dates", {})
    if style not in known:
        number = book.wb._cell_styles[style].numFmtId
        formats = book.wb._number_formats
        code = BUILTIN_FORMATS.get(number, "") if number < _BUILT_IN else formats[number - _BUILT_IN]
        known[style] = is_datetime(_BRACKETS.sub("", code)) == "date"
    return known[style]

"""Reading Excel: the rows of one sheet, under the row that names its columns."""

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
from bioforge_tables import looks, naming
from bioforge_tables.batches import Row
from bioforge_tables.options import ExcelOptions
from bioforge_tables.values import iso_duration
from bioforge_tables.workbooks import UNCALCULATED, LargeWorkbook

_KIND = "an Excel file"
_BRACKETS = re.compile(r"\[[^\]]*\]")
_BUILT_IN = 164
"""Number formats below this one are Excel's own."""

_EXACT = 1 << 53
_BROKEN = (zipfile.BadZipFile, zlib.error, InvalidFileException, ParseError, KeyError, ValueError, OSError, EOFError, IndexError,
           AttributeError, TypeError)  # fmt: skip
"""What openpyxl raises for files that are none, or end too early."""


def read(path: Path, source: str, options: ExcelOptions) -> Iterator[Artist | BadRow]:
    """The rows below the header, by the sheet's own row numbers.

    Raises `InputError` when it is no .xlsx file, has a password, or has no such sheet.
    """
    if looks.head(path).startswith(looks.OLE):
        raise _old_or_secret(path, source)
    with path.open("rb") as file:
        try:
            book = LargeWorkbook(file)
        except _BROKEN as error:
            raise _broken(path, source, error) from error
        with closing(book):
            sheet = _sheet(book, options.sheet, source)
            where = f"{source}, sheet {sheet!r}"
            rows = _unbroken(book.rows(sheet), path, where)
            names = _header(rows, options.header_row, where)
            wanted = naming.selected([name for name in names if name], options.select, where)
            keep = [name if name in wanted else "" for name in names]
            found = _numbered(rows, keep, partial(_value, book))
            yield from artists(found, source, options.columns, wanted)


def _old_or_secret(path: Path, source: str) -> InputError:
    if "EncryptedPackage".encode("utf-16-le") in path.read_bytes():
        return InputError(f"{source} has a password", "save a copy without it: File, Info, Protect Workbook")
    return InputError(f"{source} is an old Excel file (.xls)", "save it as .xlsx: File, Save As, Excel Workbook")


def _broken(path: Path, source: str, error: Exception) -> InputError:
    kind, _ = looks.looks_like(path)
    is_zip = zipfile.is_zipfile(path)
    hint = looks.remedy_for(path, _KIND) if not is_zip else "is it a workbook, and was it copied to its end?"
    problem = f"it is {kind}" if kind and not is_zip else str(error) or type(error).__name__
    return InputError(f"{source} cannot be read as {_KIND}: {problem}", hint)


def _unbroken(
    rows: Iterator[tuple[int, list[dict[str, Any]]]], path: Path, where: str
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    number = 0
    while True:
        try:
            number, cells = next(rows)
        except StopIteration:
            return
        except _BROKEN as error:
            raise _broken(path, f"{where}: what follows row {number}", error) from error
        yield number, cells


# ----------------------------------------------------------------------------------------------- sheets and headers


def _sheet(book: LargeWorkbook, wanted: str | None, source: str) -> str:
    names = list(book.sheets)
    if not names:
        raise InputError(f"{source} has no worksheet", "it needs one with a row that names the columns")
    if wanted is not None and wanted not in names:
        raise naming.missing(f"{source} has no sheet {wanted!r}", wanted, names)
    return wanted or names[0]


def _header(rows: Iterator[tuple[int, list[dict[str, Any]]]], wanted: int | None, where: str) -> list[str]:
    """The names of the columns by place; one without a name that stands before others is `column_3`."""
    for number, cells in rows:
        if wanted is not None and number < wanted:
            continue
        if wanted is not None and number > wanted:
            break
        found = {cell["column"]: str(cell["value"]).strip() for cell in cells if cell["value"] is not None}
        found = {column: name for column, name in found.items() if name}
        if found:
            names = [found.get(column, f"column_{column}") for column in range(1, max(found) + 1)]
            return naming.checked(names, where)
        if wanted is not None:
            break
    if wanted is not None:
        raise InputError(
            f"{where}: row {wanted} is blank, and [input] header_row names it", "which row names the columns?"
        )
    raise InputError(f"{where} is empty", "name another under [input]: sheet = …")


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
                    raise RowError(f"cell {get_column_letter(column)}{number} has a value, and its column no name")
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
        return int(value)  # a spreadsheet has one kind of number, and writes 12.0 for 12 as it likes
    if isinstance(value, timedelta):
        return iso_duration(nanoseconds=value // timedelta(microseconds=1) * 1_000)
    return value


def _name(cell: dict[str, Any], number: int) -> str:
    return f"{get_column_letter(cell['column'])}{number}"


def _is_date(book: LargeWorkbook, style: int) -> bool:
    """Whether cells of this style show a day without a time."""
    known: dict[int, bool] = book.__dict__.setdefault("_shows_dates", {})
    if style not in known:
        number = book.wb._cell_styles[style].numFmtId
        formats = book.wb._number_formats
        code = BUILTIN_FORMATS.get(number, "") if number < _BUILT_IN else formats[number - _BUILT_IN]
        known[style] = is_datetime(_BRACKETS.sub("", code)) == "date"
    return known[style]

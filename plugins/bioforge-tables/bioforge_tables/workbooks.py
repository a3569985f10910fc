"""Read workbooks of any length in bounded memory, with openpyxl's parsers.

openpyxl keeps every shared text, and an empty element for every row read. Here many texts move to a temporary file,
and rows are freed.
"""

from __future__ import annotations

import re
import warnings
from array import array
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile
from typing import IO, Any
from xml.etree.ElementTree import Element, iterparse

from openpyxl.cell.text import Text
from openpyxl.reader.excel import ExcelReader
from openpyxl.styles.stylesheet import apply_stylesheet
from openpyxl.worksheet._reader import FORMULA_TAG, ROW_TAG, WorkSheetParser
from openpyxl.xml.constants import SHARED_STRINGS, SHEET_MAIN_NS

_STRING = f"{{{SHEET_MAIN_NS}}}si"
_PLAIN = f"{{{SHEET_MAIN_NS}}}t"
_ESCAPE = re.compile("_x([0-9A-Fa-f]{4})_")
"""Excel's escape for characters that XML does not allow, and for a literal underscore before such a pattern."""

_IN_MEMORY = 1 << 24
"""Bytes of shared texts kept in memory."""

UNCALCULATED = "uncalculated"
"""The data type of a cell whose formula has no calculated value."""


class SharedTexts:
    """Shared texts, which cells refer to by number."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - closed with the workbook
        self._ends = array("Q", [0])

    def append(self, text: str) -> None:
        content = text.encode("utf-8", "surrogatepass")
        self._file.write(content)
        self._ends.append(self._ends[-1] + len(content))

    def __getitem__(self, number: int) -> str:
        if not 0 <= number < len(self._ends) - 1:
            raise ValueError(f"a cell names shared text {number}, which does not exist")
        start, end = self._ends[number], self._ends[number + 1]
        self._file.seek(start)
        return self._file.read(end - start).decode("utf-8", "surrogatepass")

    def close(self) -> None:
        self._file.close()


class LargeWorkbook(ExcelReader):  # type: ignore[misc, unused-ignore]
    """A workbook for reading rows; close it after use. `sheets` maps worksheet names to parts of the archive."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, read_only=True, data_only=True, keep_links=False)
        self.shared_strings = SharedTexts()
        with warnings.catch_warnings():  # about styles and extensions, which are not used
            warnings.simplefilter("ignore")
            try:
                self.read()
            except BaseException:
                self.close()
                raise

    def read(self) -> None:
        """Read all parts except the sheets, which openpyxl would scan for their size."""
        self.read_manifest()
        self.read_strings()
        self.read_workbook()
        apply_stylesheet(self.archive, self.wb)
        self.sheets: dict[str, str] = {
            sheet.name: part.target
            for sheet, part in self.parser.find_sheets()
            if part.target in self.valid_files and "chartsheet" not in part.Type
        }

    def read_strings(self) -> None:
        part = self.package.find(SHARED_STRINGS)
        if part is None:
            return
        with self.archive.open(part.PartName[1:]) as stream:
            for element in _complete(stream, _STRING):
                self.shared_strings.append(_text(element))

    def rows(self, sheet: str) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Yield (row number, existing cells); cells have `column`, `value`, `data_type` and `style_id`."""
        with self.archive.open(self.sheets[sheet]) as stream:
            book = self.wb
            yield from _Rows(
                stream,
                self.shared_strings,
                data_only=True,
                epoch=book.epoch,
                date_formats=book._date_formats,
                timedelta_formats=book._timedelta_formats,
            ).parse()

    def close(self) -> None:
        self.archive.close()
        self.shared_strings.close()


class _Rows(WorkSheetParser):  # type: ignore[misc, unused-ignore]
    def parse(self) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        rows = _complete(self.source, ROW_TAG)
        while True:
            with warnings.catch_warnings():  # an invalid date becomes an error cell
                warnings.simplefilter("ignore")
                element = next(rows, None)
                if element is None:
                    return
                row = self.parse_row(element)
            yield row

    def parse_cell(self, element: Element) -> dict[str, Any]:
        cell: dict[str, Any] = super().parse_cell(element)
        if cell["value"] is None and element.find(FORMULA_TAG) is not None:
            cell["data_type"] = UNCALCULATED
        return cell


def _complete(stream: IO[bytes], tag: str) -> Iterator[Element]:
    """Yield each element with this tag; it is cleared before the next one."""
    parents: list[Element] = []
    for event, element in iterparse(stream, events=("start", "end")):
        if event == "start":
            parents.append(element)
            continue
        parents.pop()
        if element.tag == tag:
            yield element
            element.clear()
            if parents:
                parents[-1].clear()


def _text(element: Element) -> str:
    is_plain = len(element) == 1 and element[0].tag == _PLAIN
    # Other elements have runs of fonts, or phonetic readings, which are not part of the text.
    text = (element[0].text or "") if is_plain else str(Text.from_tree(element).content)
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text) if "_x" in text else text

"""Read real-life sheets: titles, dates, formulas, gaps, and files of other kinds."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from excel_files import write_like_excel

from bioforge.plugin import Artist, BadRow

Read = Callable[..., list[Artist | BadRow]]


def workbook(path: Path, rows: Iterable[Iterable[Any]], title: str = "People") -> Path:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = title
    for row in rows:
        sheet.append(list(row))
    book.save(path)
    book.close()
    return path


def test_rows_have_the_numbers_of_the_sheet(tmp_path: Path, read: Read) -> None:
    """Row numbers equal Excel's, also below a title and after blank rows."""
    path = workbook(
        tmp_path / "a.xlsx",
        [[], ["artist_id", "artist_name"], [12.0, "Björk"], [], [None, None], [7, None], ["007", "Abbey"]],
    )
    found = read(path)
    assert [(row.line, getattr(row, "artist_id", "bad")) for row in found] == [(3, "12"), (6, "bad"), (7, "007")]
    assert found[1] == BadRow("a.xlsx", 6, "no artist_name")


def test_values_are_what_the_sheet_shows(tmp_path: Path, read: Read) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["artist_name", "day", "moment", "time", "length", "whole", "part", "yes", "none"])
    sheet.append(
        ["A", date(1965, 11, 21), datetime(2020, 1, 2), time(3, 4), timedelta(hours=30, seconds=1.5), 12.0, 0.1, True]
    )
    sheet["C2"].number_format = "yyyy-mm-dd hh:mm"
    sheet["B2"].number_format = "[$-409]d\\-mmm\\-yyyy;@"
    book.save(tmp_path / "a.xlsx")
    (found,) = read(tmp_path / "a.xlsx")
    assert isinstance(found, Artist)
    assert dict(found.columns) == {
        "day": "1965-11-21",
        "moment": "2020-01-02T00:00:00",
        "time": "03:04:00",
        "length": "PT30H1.5S",
        "whole": 12,
        "part": 0.1,
        "yes": True,
        "none": None,
    }


def test_a_sheet_is_chosen_by_name(tmp_path: Path, read: Read, refused: Callable[..., str]) -> None:
    book = openpyxl.Workbook()
    book.active.title = "Notes"
    book.active.append(["remember"])
    people = book.create_sheet("People")
    people.append(["artist_name"])
    people.append(["Björk"])
    book.save(tmp_path / "a.xlsx")
    (found,) = read(tmp_path / "a.xlsx", sheet="People")
    assert isinstance(found, Artist)
    assert "no sheet 'people' | did you mean 'People'?" in refused(tmp_path / "a.xlsx", sheet="people")
    assert "no sheet 'xyz' | found: Notes, People" in refused(tmp_path / "a.xlsx", sheet="xyz")
    assert "has no column artist_name; found: remember" in refused(tmp_path / "a.xlsx")


def test_the_header_may_be_below_other_rows(tmp_path: Path, read: Read, refused: Callable[..., str]) -> None:
    path = workbook(
        tmp_path / "a.xlsx", [["Our artists"], [], ["artist_name", None, "land"], ["Björk", "x", "Iceland"]]
    )
    (found,) = read(path, header_row=3)
    assert isinstance(found, Artist)
    assert dict(found.columns) == {"column_2": "x", "land": "Iceland"}
    (only,) = read(path, header_row=3, select=["artist_name", "land"])
    assert isinstance(only, Artist)
    assert dict(only.columns) == {"land": "Iceland"}
    assert "found: Our artists" in refused(path)
    for row in (2, 99):
        assert f"[input] header_row is {row}, but this row is blank" in refused(path, header_row=row)


def test_rows_with_invalid_cells_are_skipped(tmp_path: Path, read: Read) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["artist_name", "born"])
    for row in (["A", "=1960+5"], ["B", "#DIV/0!"], ["C", 1965, "beside"], ["D", 1965]):
        sheet.append(row)
    sheet["B3"].data_type = "e"
    book.save(tmp_path / "a.xlsx")
    found = read(tmp_path / "a.xlsx")
    assert [row.message for row in found if isinstance(row, BadRow)] == [
        "cell B2 has a formula without a value: open the file in Excel and save it",
        "cell B3 is an error: #DIV/0!",
        "cell C4 has a value, but its column has no name",
    ]
    assert isinstance(found[3], Artist)


def test_a_calculated_formula_is_its_value(tmp_path: Path, read: Read) -> None:
    path = workbook(tmp_path / "plain.xlsx", [["artist_name", "born"], ["A", 1965]])
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "a.xlsx", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "xl/worksheets/sheet1.xml":
                assert b"<v>1965</v>" in content
                content = content.replace(b"<v>1965</v>", b"<f>1960+5</f><v>1965</v>")
            new.writestr(name, content)
    (found,) = read(tmp_path / "a.xlsx")
    assert isinstance(found, Artist)
    assert found.columns == {"born": 1965}


def test_texts_of_several_fonts_and_readings_are_one_text(tmp_path: Path, read: Read) -> None:
    runs = "<r><t>Bj</t></r><r><rPr><b/></rPr><t>örk</t></r><rPh sb='0' eb='1'><t>ビョーク</t></rPh>"
    (found,) = read(
        write_like_excel(tmp_path / "a.xlsx", [["artist_name", "note"], [runs, "one_x000D_\ntwo _x005F_x0041_"]])
    )
    assert isinstance(found, Artist)
    assert found.artist_name == "Björk"
    assert found.columns == {"note": "one\r\ntwo _x0041_"}


def test_many_texts_go_to_a_file_and_come_back(tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    from bioforge_tables import workbooks

    monkeypatch.setattr(workbooks, "_IN_MEMORY", 100)
    names = [f"Łempicka {n}" for n in range(500)]
    rows = [["artist_name", "again"], *([name, names[0]] for name in names)]
    found = read(write_like_excel(tmp_path / "a.xlsx", rows))
    assert [row.artist_name for row in found if isinstance(row, Artist)] == names
    assert {row.columns["again"] for row in found if isinstance(row, Artist)} == {names[0]}


def test_a_cell_with_a_missing_shared_text_is_an_error(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = write_like_excel(tmp_path / "plain.xlsx", [["artist_name"], ["A"]])
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "a.xlsx", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"<v>1</v>", b"<v>9</v>"))
    assert "the part after row 1 cannot be read as an Excel file: a cell names shared text 9" in refused(
        tmp_path / "a.xlsx"
    )


def test_a_file_that_is_not_a_workbook_is_an_error(tmp_path: Path, refused: Callable[..., str]) -> None:
    ole = bytes.fromhex("d0cf11e0a1b11ae1") + b"\0" * 600
    good = workbook(tmp_path / "good.xlsx", [["artist_name"], *([f"Artist {n * n}"] for n in range(2_000))])
    cases: list[tuple[str, bytes, str]] = [
        ("old.xlsx", ole, "is an old Excel file (.xls) | save it as .xlsx"),
        (
            "secret.xlsx",
            ole + "EncryptedPackage".encode("utf-16-le"),
            "has a password | save a copy without a password",
        ),
        ("text.xlsx", b"artist_name\nA\n", "that it is an Excel file"),
        ("short.xlsx", good.read_bytes()[:2_000], "cannot be read as an Excel file"),
        ("data.xlsx", b"PAR1....PAR1", 'reader = "parquet"'),
    ]
    for name, content, said in cases:
        (tmp_path / name).write_bytes(content)
        assert said in refused(tmp_path / name), name
    with zipfile.ZipFile(tmp_path / "other.xlsx", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "check that it is a complete workbook" in refused(tmp_path / "other.xlsx")


def test_an_empty_sheet_and_doubled_columns_are_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "sheet 'People' is empty" in refused(workbook(tmp_path / "a.xlsx", []))
    double = workbook(tmp_path / "b.xlsx", [["artist_name", "land", "land"], ["A", "x", "y"]])
    assert "more than one column 'land'" in refused(double)


def test_a_truncated_sheet_reports_the_last_row(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = workbook(tmp_path / "plain.xlsx", [["artist_name"], ["A"], ["B"]])
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "a.xlsx", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, content[: content.index(b'<row r="3"')] if name.endswith("sheet1.xml") else content)
    assert "the part after row 2 cannot be read" in refused(tmp_path / "a.xlsx")

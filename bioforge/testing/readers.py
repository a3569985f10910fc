"""The contract of readers, as tests to derive from."""

from __future__ import annotations

import gc
import json
import random
import warnings
from contextlib import suppress
from pathlib import Path

import pytest

from bioforge.core.errors import InputError, UsageError
from bioforge.core.types import Artist, BadRow
from bioforge.readers.sources import Source
from bioforge.testing import plugin_host
from bioforge.testing.fixtures import MakeProject
from bioforge.testing.reader_format import PEOPLE, ReaderBench, Row, long_file, open_files, peak

__all__ = ["ReaderContract", "Row"]


class ReaderContract(ReaderBench):
    """Derive a test class from it, say which reader and how its files are written, and pytest runs every story.

    ```python
    class TestXml(ReaderContract):
        suffix = "xml"

        def reader(self):
            return read_xml

        def write(self, path, rows):
            path.write_bytes(xml_of(rows))
    ```
    The other attributes say what a format can do; each has a default that fits a format of text.
    """

    # -------------------------------------------------------------------------------------------------- what is read

    def test_rows_come_in_order_and_whole(self, tmp_path: Path) -> None:
        """Files contain letters of every script, commas, quotes, line breaks and empty cells.

        A truncated artist is paid for too.
        """
        path = self.written(tmp_path, PEOPLE)
        found = self.read(path)
        assert all(isinstance(row, Artist) for row in found), found
        assert [_texts(row) for row in found] == [_cells(row) for row in PEOPLE]
        assert {row.source for row in found} == {path.name}

    def test_an_id_of_zero_is_an_id(self, tmp_path: Path) -> None:
        """Zero is false in Python, so an artist with the id 0 is easily lost."""
        ids: list[tuple[object, str]] = [("0", "0"), ("00", "00")]
        ids += [(0, "0"), (12.0, "12"), (7, "7")] if self.numbers else []
        for written, expected in ids:
            (found,) = self.read(self.written(tmp_path, [{"artist_id": written, "artist_name": "Abbey"}]))
            assert isinstance(found, Artist), found
            assert found.artist_id == expected, f"the id {written!r} became {found.artist_id!r}"

    def test_further_columns_keep_their_order(self, tmp_path: Path) -> None:
        """Columns are shown in the order of the file."""
        rows = [{"z": "1", "artist_name": "Björk", "a": "2", "artist_id": "1", "m": "3"}]
        (found,) = self.read(self.written(tmp_path, rows))
        assert isinstance(found, Artist)
        assert list(found.columns.items()) == [("z", "1"), ("a", "2"), ("m", "3")]

    def test_a_row_without_an_id_gets_one_of_its_name(self, tmp_path: Path) -> None:
        """A list of names is an input too. The id must be the same at each reading, or everything is sent again."""
        from bioforge.core.text import derived_id

        rows = [{"artist_name": name} for name in ("Björk", "Absalon")]
        found = self.read(self.written(tmp_path, rows))
        assert [row.artist_id for row in found if isinstance(row, Artist)] == [
            derived_id("Björk"),
            derived_id("Absalon"),
        ]

    def test_values_become_json(self, tmp_path: Path) -> None:
        """Columns are stored and hashed as JSON: a raw date or decimal would stop the run."""
        cells = [*self.values, ("text", "text")]
        rows = [{"artist_id": f"a{n}", "artist_name": "A", "value": cell} for n, (cell, _) in enumerate(cells)]
        found = self.read(self.written(tmp_path, rows))
        for row, (cell, expected) in zip(found, cells, strict=True):
            assert isinstance(row, Artist), row
            assert row.columns.get("value") == expected, f"{cell!r} became {row.columns.get('value')!r}"
            assert type(row.columns.get("value")) is type(expected)
        for row in [*found, *self.read(self.written(tmp_path, PEOPLE))]:
            assert isinstance(row, Artist)
            assert json.loads(json.dumps(dict(row.columns), allow_nan=False)) == dict(row.columns)
            assert all(isinstance(text, str) for text in (row.artist_id, row.artist_name, row.artist_data))

    def test_the_same_file_read_twice_says_the_same(self, tmp_path: Path) -> None:
        """A difference between two readings of an untouched file would be paid for again."""
        path = self.written(tmp_path, PEOPLE)
        assert self.read(path) == self.read(path)

    def test_a_file_without_rows_is_no_error(self, tmp_path: Path) -> None:
        """An empty input is reported by its count. A format that cannot be empty raises `InputError`."""
        try:
            found = self.read(self.written(tmp_path, []))
        except InputError:
            return
        assert found == []

    # ----------------------------------------------------------------------------------------------- what is wrong

    def test_a_row_without_a_name_is_kept_out_and_the_others_come(self, tmp_path: Path) -> None:
        """One bad row must not stop the others, and names its place."""
        names = ["Björk", None, "Absalon", "Abbey"]
        rows = [{"artist_id": str(n), "artist_name": name, "artist_data": "x"} for n, name in enumerate(names)]
        path = self.written(tmp_path, rows)
        found = self.read(path)
        assert [type(row) for row in found] == [Artist, BadRow, Artist, Artist], found
        bad = found[1]
        assert isinstance(bad, BadRow)
        assert "artist_name" in bad.message
        assert "\n" not in bad.message
        assert bad.source == path.name
        lines = [row.line for row in found]
        assert lines == sorted(set(lines)), f"lines are counted from 1 and each row has its own, found {lines}"
        assert lines[0] >= 1
        assert {row.source for row in found} == {path.name}

    def test_a_file_without_a_column_for_the_name_is_refused_as_a_whole(self, tmp_path: Path) -> None:
        """This is the most likely first mistake; a bad row for each would hide it."""
        rows = [{"nr": str(number), "titel": f"Artist {number}"} for number in range(3)]
        error = self.refused(self.written(tmp_path, rows))
        said = f"{error.message} {error.hint}"
        assert "artist_name" in said
        assert "titel" in said, f"the error should name the columns that were found: {said}"

    def test_a_file_with_nothing_in_it_is_refused_or_has_no_rows(self, tmp_path: Path) -> None:
        """A failed export leaves such a file. bioforge refuses an empty file; the reader sees one with only blanks."""
        path = self.path(tmp_path)
        path.write_bytes(b"")
        self.refused(path)
        for content in (b"\n", b" \r\n\r\n", b"\0" * 512):
            path.write_bytes(content)
            with suppress(InputError):
                assert not [row for row in self.read(path) if isinstance(row, Artist)]

    def test_garbage_is_refused(self, tmp_path: Path) -> None:
        """It is refused as a whole or row by row, never with an exception of a library."""
        path = self.path(tmp_path)
        for seed in range(4):
            path.write_bytes(random.Random(seed).randbytes(4096))
            try:
                found = self.read(path)
            except InputError:
                continue
            assert found, "nothing was said about a file of garbage"
            assert all(isinstance(row, BadRow) for row in found), found

    def test_half_a_file_is_refused_or_read_as_far_as_it_goes(self, tmp_path: Path) -> None:
        """An interrupted copy is refused where the format can tell.

        Its missing artists would count as removed.
        """
        path = self.written(tmp_path, long_file(200))
        whole = self.read(path)
        content = path.read_bytes()
        for part in (0.1, 0.5, 0.9):
            path.write_bytes(content[: int(len(content) * part)])
            found: list[Artist | BadRow] = []
            try:
                for row in self.rows(path):
                    found.append(row)
                refused = False
            except InputError:
                refused = True
            assert refused or not self.detects_truncation, "half a file was read as if it were whole"
            sure = max(len(found) - 1, 0)  # the row at which it breaks off may be anything
            assert found[:sure] == whole[:sure]

    def test_no_file_stays_open(self, tmp_path: Path) -> None:
        """After the end, an early exit or a refusal: some systems cannot replace an open file."""
        good, bad, short = (self.path(tmp_path, name) for name in ("good", "bad", "short"))
        self.write(good, long_file(50))
        bad.write_bytes(random.Random(1).randbytes(4096))
        short.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ResourceWarning)
            given_up = self.rows(good)
            next(given_up)
            given_up.close()
            for path in (good, bad, short):
                with suppress(InputError):
                    self.read(path)
            left = open_files(tmp_path)
            gc.collect()
        assert not left, f"still open: {left}"
        leaks = [str(one.message) for one in caught if issubclass(one.category, ResourceWarning)]
        assert not leaks, leaks

    # ------------------------------------------------------------------------------------------------------ options

    def test_an_option_it_does_not_know_is_refused(self, tmp_path: Path) -> None:
        """An ignored typing error would cost money."""
        path = self.written(tmp_path, PEOPLE)
        error = self.refused(path, UsageError, {"no_such_option": 1})
        assert "no_such_option" in f"{error.message} {error.hint}"
        if self.renames:
            near = self.refused(path, UsageError, {"colums": {}})
            assert "columns" in f"{near.message} {near.hint}", "the error should name the nearest option"

    def test_an_option_of_the_wrong_kind_is_refused(self, tmp_path: Path) -> None:
        """It is named before anything is read."""
        path = self.written(tmp_path, PEOPLE)
        wrong = [*self.wrong_options, *([({"columns": 3}, "columns")] if self.renames else [])]
        for table, word in wrong:
            error = self.refused(path, UsageError, table)
            assert word in f"{error.message} {error.hint}", f"{table}: {error.message}"

    def test_columns_are_renamed_and_computed(self, tmp_path: Path) -> None:
        """A museum's export is not edited by hand; the option is the same for every format."""
        if not self.renames:
            pytest.skip("it does not have the option columns")
        rows = [{"nr": "0", "titel": "Björk", "dates": "1965–", "land": "Iceland"}]
        columns = {"artist_id": "nr", "artist_name": "titel", "artist_data": "{{ dates }}, {{ land }}"}
        (found,) = self.read(self.written(tmp_path, rows), columns=columns)
        assert isinstance(found, Artist)
        assert (found.artist_id, found.artist_name, found.artist_data) == ("0", "Björk", "1965–, Iceland")
        assert dict(found.columns) == {"dates": "1965–", "land": "Iceland"}

    def test_a_column_to_rename_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        """A typing error would leave a field empty in every request."""
        if not self.renames:
            pytest.skip("it does not have the option columns")
        path = self.written(tmp_path, [{"nr": "1", "titel": "Björk"}])
        error = self.refused(path, InputError, {"columns": {"artist_name": "titl"}})
        assert "titel" in f"{error.message} {error.hint}"

    # ------------------------------------------------------------------------------------------------- time and room

    def test_the_first_row_is_there_before_the_last_is_read(self, tmp_path: Path) -> None:
        """Rows are stored as they arrive; reading everything first needs memory for everything."""
        reader = self.reader()
        if not self.lazy or getattr(reader, "reads_path", False):
            pytest.skip("it does not read lazily, or not from a stream; see the story of the memory")
        path = self.written(tmp_path, long_file(self.many))
        with Source(path.name, path).open() as stream:
            rows = iter(reader(stream, path.name, plugin_host.handed(reader, self.options, "input")))
            next(rows)
            read = stream.tell()
        size = path.stat().st_size
        assert read < size / 2, f"{read} of {size} bytes were read for the first row"

    def test_memory_does_not_grow_with_the_file(self, tmp_path: Path) -> None:
        """A file of a million rows is read on the same machine as one of a thousand."""
        if not self.bounded_memory:
            pytest.skip("its memory grows with the file")
        short, long = self.path(tmp_path, "short"), self.path(tmp_path, "long")
        self.write(short, long_file(self.many // 10))
        self.write(long, long_file(self.many))
        self._consume(short)  # what is imported and made once
        few, many = (peak(lambda path=path: self._consume(path)) for path in (short, long))  # type: ignore[misc]
        assert many < few * 3 + 1_000_000, f"{many:,} bytes for {self.many:,} rows, {few:,} for a tenth of them"

    def _consume(self, path: Path) -> None:
        for _ in self.rows(path):
            pass

    # ---------------------------------------------------------------------------------------------------- in a project

    def test_a_project_reads_it_once(self, tmp_path: Path, make_project: MakeProject) -> None:
        """End to end: the plugin is found, its table is validated, its rows become targets.

        And an untouched file sends nothing.
        """
        if self.name is None:
            pytest.skip("give its name to have it read by a project: name = 'xml'")
        table = {"path": self.path(Path()).name, "reader": self.name, **self.options}
        project = make_project(toml={"input": table})
        self.written(project.root, PEOPLE)
        project.age(self.path(Path()).name)
        assert project.reasons() == {"new": len(PEOPLE)}
        project.run("run").ok()
        project.assert_ledger_equals_state()
        project.age(self.path(Path()).name)
        self.written(project.root, PEOPLE)
        assert project.reasons() == {}


def _texts(row: Artist | BadRow) -> tuple[object, ...]:
    assert isinstance(row, Artist)
    return row.artist_id, row.artist_name, row.artist_data, row.columns.get("born") or ""


def _cells(row: Row) -> tuple[object, ...]:
    return row["artist_id"], row["artist_name"], row["artist_data"] or "", row["born"] or ""

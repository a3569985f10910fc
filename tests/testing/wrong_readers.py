"""Readers that are wrong, each in a way of its own. `caught_by` has the stories that have to fail, and what they say."""

# ruff: noqa: RUF012 - tables that nobody changes

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

from bioforge.core.errors import InputError
from bioforge.core.types import Artist, BadRow
from bioforge.plugin import ReaderOptions, with_options
from bioforge.readers.jsonl import jsonl_reader
from bioforge.testing import ReaderContract
from bioforge.testing.readers import Row

Found = Iterator[Artist | BadRow]


class Lines(ReaderContract):
    """JSON lines, read as they should be but for `wrong`."""

    suffix = "jsonl"
    many = 4_000
    numbers = True
    caught_by: dict[str, str]

    def reader(self) -> Any:
        return self.wrong

    def right(self, stream: Any, source: str, options: Any) -> Found:
        return jsonl_reader(stream, source, options)

    def wrong(self, stream: Any, source: str, options: Any) -> Found:
        return self.right(stream, source, options)

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        path.write_text("".join(json.dumps(row, default=str) + "\n" for row in rows), encoding="utf-8")


class TestNothingIsGiven(ReaderContract):
    caught_by = {"test_garbage_is_refused": "give the reader"}


class TestDropsTheLastRow(Lines):
    caught_by = {
        "test_rows_come_in_order_and_whole": "assert [(",
        "test_a_row_without_a_name_is_kept_out_and_the_others_come": "BadRow",
    }

    def wrong(self, stream, source, options):
        yield from list(self.right(stream, source, options))[:-1]


class TestCutsTextsAtTheLine(Lines):
    caught_by = {"test_rows_come_in_order_and_whole": "line two"}

    def wrong(self, stream, source, options):
        for row in self.right(stream, source, options):
            yield replace(row, artist_data=row.artist_data.split("\n")[0]) if isinstance(row, Artist) else row


class TestSortsColumns(Lines):
    caught_by = {"test_further_columns_keep_their_order": "('a', '2')"}

    def wrong(self, stream, source, options):
        for row in self.right(stream, source, options):
            yield replace(row, columns=dict(sorted(row.columns.items())))


class TestMakesNewIdsEachTime(Lines):
    numbers = count()
    caught_by = {
        "test_the_same_file_read_twice_says_the_same": "id-",
        "test_a_row_without_an_id_gets_one_of_its_name": "id-",
    }

    def wrong(self, stream, source, options):
        for row in self.right(stream, source, options):
            yield replace(row, artist_id=f"id-{next(self.numbers)}")


class TestTakesZeroForNothing(Lines):
    caught_by = {"test_an_id_of_zero_is_an_id": "the id '0' became 'none'"}

    def wrong(self, stream, source, options):
        for row in self.right(stream, source, options):
            yield replace(row, artist_id="none") if row.artist_id == "0" else row


class TestLeavesDatesAsTheyAre(Lines):
    values = ((date(2020, 1, 2), "2020-01-02"),)
    caught_by = {"test_values_become_json": "became datetime.date(2020, 1, 2)"}

    def wrong(self, stream, source, options):
        for row in self.right(stream, source, options):
            text = str(row.columns.get("value"))
            yield replace(row, columns={"value": date.fromisoformat(text)}) if text[:2] == "20" else row


class TestPassesOverBadRows(Lines):
    caught_by = {"test_a_row_without_a_name_is_kept_out_and_the_others_come": "assert ["}

    def wrong(self, stream, source, options):
        return (row for row in self.right(stream, source, options) if isinstance(row, Artist))


class TestDoesNotCountLines(Lines):
    caught_by = {"test_a_row_without_a_name_is_kept_out_and_the_others_come": "lines are counted from 1"}

    def wrong(self, stream, source, options):
        return (replace(row, line=0) for row in self.right(stream, source, options))


class TestCallsEachRowBadWhereAColumnIsMissing(Lines):
    caught_by = {
        "test_a_file_without_a_column_for_the_name_is_refused_as_a_whole": "DID NOT RAISE",
        "test_a_column_to_rename_that_is_not_there_is_refused": "DID NOT RAISE",
    }

    def wrong(self, stream, source, options):
        try:
            yield from self.right(stream, source, options)
        except InputError:
            yield BadRow(source, 1, "no artist_name")


class TestFallsOverGarbage(Lines):
    caught_by = {
        "test_garbage_is_refused": "KeyError",
        "test_a_file_with_nothing_in_it_is_refused_or_has_no_rows": "KeyError",
        "test_half_a_file_is_refused_or_read_as_far_as_it_goes": "KeyError",
        "test_a_file_without_rows_is_no_error": "write() should write the file",
    }

    def wrong(self, stream, source, options):
        found = 0
        for found, row in enumerate(self.right(stream, source, options), 1):  # noqa: B007
            if isinstance(row, BadRow):
                raise KeyError("artist_name")
            yield row
        if not found:
            raise KeyError("the header")

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        if rows:
            super().write(path, rows)


class TestFallsOverAFileWithoutRows(Lines):
    caught_by = {"test_a_file_without_rows_is_no_error": "KeyError"}

    def wrong(self, stream, source, options):
        return TestFallsOverGarbage.wrong(self, stream, source, options)

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        path.write_text("# nobody\n")


class TestReadsGarbage(Lines):
    caught_by = {"test_garbage_is_refused": "Artist("}

    def wrong(self, stream, source, options):
        yield Artist("1", stream.read().decode("latin-1"), "", {}, source, 1)


class TestTakesHalfAFileForAWholeOne(Lines):
    detects_truncation = True
    caught_by = {"test_half_a_file_is_refused_or_read_as_far_as_it_goes": "read as if it were whole"}


class TestMixesUpHalfAFile(Lines):
    caught_by = {"test_half_a_file_is_refused_or_read_as_far_as_it_goes": "assert ["}

    def wrong(self, stream, source, options):
        rows = list(self.right(stream, source, options))
        yield from rows if isinstance(rows[-1], Artist) else reversed(rows)


class TestLeavesFilesOpen(Lines):
    left: list[Any] = []
    caught_by = {"test_no_file_stays_open": "still open"}

    def reader(self):
        def read(path, source, options):
            self.left.append(path.open("rb"))
            return self.right(self.left[-1], source, options)

        read.reads_path = True  # type: ignore[attr-defined]
        return read


class TestDropsFilesUnclosed(Lines):
    caught_by = {"test_no_file_stays_open": "unclosed file"}

    def reader(self):
        def read(path, source, options):
            yield from list(self.right(path.open("rb", buffering=0), source, options))

        read.reads_path = True  # type: ignore[attr-defined]
        return read


class TestTakesAnyOption(Lines):
    caught_by = {
        "test_an_option_it_does_not_know_is_refused": "DID NOT RAISE",
        "test_an_option_of_the_wrong_kind_is_refused": "DID NOT RAISE",
        "test_columns_are_renamed_and_computed": "artist_name",
    }

    def wrong(self, stream, source, options):
        return self.right(stream, source, {})


class TestNamesNoOtherOption(Lines):
    caught_by = {"test_an_option_it_does_not_know_is_refused": "nearest option"}

    def wrong(self, stream, source, options):
        if options:
            raise InputError(f"[input]: cannot be: {sorted(options)}")
        return self.right(stream, source, options)


class TestHasOptionsThatAreNotUsed(Lines):
    caught_by = {"test_columns_are_renamed_and_computed": "artist_name"}

    def reader(self):
        return with_options(ReaderOptions)(lambda stream, source, options: self.right(stream, source, {}))


class TestReadsAllBeforeTheFirst(Lines):
    many = 10_000
    caught_by = {"test_the_first_row_is_there_before_the_last_is_read": "bytes were read for the first row"}

    def wrong(self, stream, source, options):
        rows = list(self.right(stream, source, options))
        yield from rows


class TestHoldsAllItHasRead(Lines):
    many = 10_000
    caught_by = {"test_memory_does_not_grow_with_the_file": "rows, "}

    def wrong(self, stream, source, options):
        held = []
        for row in self.right(stream, source, options):
            held.append(row)
            yield row


class TestIsNoPlugin(Lines):
    name = "wrong"
    caught_by = {"test_a_project_reads_it_once": "no reader 'wrong'"}

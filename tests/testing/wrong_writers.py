"""Writers that are wrong, each in a way of its own. `caught_by` has the stories that have to fail, and what they say."""

# ruff: noqa: RUF012 - tables that nobody changes

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import Field

from bioforge.plugin import Options
from bioforge.testing import WriterContract
from bioforge.writers.jsonl import jsonl_writer


class Lines(WriterContract):
    """JSON lines, written as they should be but for `wrong`."""

    suffix = "jsonl"
    caught_by: dict[str, str]

    def writer(self) -> Any:
        return self.wrong

    def wrong(self, records: Any, stream: Any, options: Any) -> Any:
        return jsonl_writer(records, stream, options)

    def read(self, path: Path):
        return [json.loads(line) for line in path.read_text("utf-8", "surrogatepass").splitlines()]


class TestNothingIsGiven(WriterContract):
    caught_by = {"test_no_records_make_an_empty_output": "give the writer"}


class TestDropsTheLastRecord(Lines):
    caught_by = {"test_records_are_written_in_order_and_whole": "assert [("}

    def wrong(self, records, stream, options):
        return super().wrong(list(records)[:-1], stream, options)


class TestPassesOverWhatFailed(Lines):
    caught_by = {"test_records_are_written_in_order_and_whole": "'a3', ''"}

    def wrong(self, records, stream, options):
        return super().wrong((one for one in records if one["error"] is None), stream, options)


class TestWantsEveryField(Lines):
    caught_by = {"test_records_are_written_in_order_and_whole": "KeyError"}

    def wrong(self, records, stream, options):
        return super().wrong(({**one, "tokens": one["usage"]} for one in records), stream, options)


class TestNeedsARecord(Lines):
    caught_by = {"test_no_records_make_an_empty_output": "StopIteration"}

    def wrong(self, records, stream, options):
        rows = iter(records)
        first = next(rows)
        return super().wrong([first, *rows], stream, options)


class TestIsStoppedByHalfACharacter(Lines):
    caught_by = {"test_half_a_character_stops_nothing": "UnicodeEncodeError"}

    def wrong(self, records, stream, options):
        for one in records:
            stream.write(f"{json.dumps(one, ensure_ascii=False)}\n".encode())


class TestHoldsAllRecords(Lines):
    caught_by = {
        "test_records_are_never_all_held": "200 records were held at once",
        "test_memory_does_not_grow_with_the_output": "bytes for 1,000 records",
    }

    def wrong(self, records, stream, options):
        return super().wrong(list(records), stream, options)


class TestTakesNoRecord(Lines):
    caught_by = {"test_records_are_never_all_held": "did not take all records"}

    def wrong(self, records, stream, options):
        return None


class TestHoldsWhatItMadeOfThem(Lines):
    caught_by = {"test_memory_does_not_grow_with_the_output": "bytes for 1,000 records"}

    def wrong(self, records, stream, options):
        lines = []
        for one in records:
            lines.append(json.dumps(one))
        stream.write("".join(f"{line}\n" for line in lines).encode())


class ToPath(Lines):
    """A writer of a path."""

    def writer(self):
        def write(records, path, options):
            return self.wrong(records, path, options)

        write.writes_path = True  # type: ignore[attr-defined]
        return write


class TestAppends(ToPath):
    caught_by = {
        "test_written_twice_it_is_the_same": "assert [(",
        "test_fewer_records_leave_nothing_of_the_others": "assert [(",
    }

    def wrong(self, records, path, options):
        with path.open("ab") as stream:
            jsonl_writer(records, stream, options)


class TestWritesInPlace(ToPath):
    caught_by = {"test_a_failure_in_the_middle_leaves_the_earlier_output": "assert [("}

    def wrong(self, records, path, options):
        with path.open("wb") as stream:
            jsonl_writer(records, stream, options)


class Adds(ToPath):
    """A log to which each record is added once."""

    replaces = False

    def wrong(self, records, path, options):
        there = path.read_bytes().splitlines() if path.exists() else []
        with path.open("ab") as stream:
            for one in records:
                line = json.dumps(one).encode()
                if self.is_new(line, there):
                    stream.write(line + b"\n")

    def is_new(self, line: bytes, there: list[bytes]) -> bool:
        return line not in there


class TestAddsAgainWhatIsThere(Adds):
    caught_by = {
        "test_fewer_records_leave_nothing_of_the_others": "assert [(",
        "test_written_twice_it_is_the_same": "assert [(",
    }

    def is_new(self, line, there):
        return True


class TestBeginsAnewAndCallsItAdding(Adds):
    caught_by = {
        "test_fewer_records_leave_nothing_of_the_others": "assert [(",
        "test_a_failure_in_the_middle_leaves_the_earlier_output": "what was delivered before is not there",
    }

    def wrong(self, records, path, options):
        path.unlink(missing_ok=True)
        super().wrong(records, path, options)


class TestHidesAFailureOfAnAddition(Adds):
    caught_by = {"test_a_failure_in_the_middle_leaves_the_earlier_output": "DID NOT RAISE"}

    def wrong(self, records, path, options):
        with suppress(Exception):
            super().wrong(records, path, options)


class TestSaysANumber(ToPath):
    caught_by = {"test_what_it_says_is_a_text_or_nothing": "expected a text or None, found 6"}

    def wrong(self, records, path, options):
        return len(list(records))


class TestHidesAFailure(ToPath):
    caught_by = {"test_a_failure_in_the_middle_leaves_the_earlier_output": "DID NOT RAISE"}

    def wrong(self, records, path, options):
        try:
            return f"{len(list(records))} records"
        except Exception:
            return "some records"


class TestTakesAnyOption(Lines):
    wrong_options = (({"indent": "two"}, "indent"),)
    caught_by = {
        "test_an_option_it_does_not_know_is_refused": "DID NOT RAISE",
        "test_an_option_of_the_wrong_kind_is_refused": "DID NOT RAISE",
    }

    def wrong(self, records, stream, options):
        return super().wrong(records, stream, {})


class Indent(Options):
    model_config = {"extra": "allow"}
    indent: int = Field(2, description="a number of spaces")


class TestHasOptionsThatAreOpen(Lines):
    caught_by = {"test_an_option_it_does_not_know_is_refused": "DID NOT RAISE"}

    def writer(self):
        def write(records, stream, options):
            return jsonl_writer(records, stream, {})

        write.Options = Indent  # type: ignore[attr-defined]
        return write


class Files(Lines):
    """A folder with a file for each record."""

    ordered = False

    def writer(self):
        def write(records, options):
            return self.files(records)

        write.writes_folder = True  # type: ignore[attr-defined]
        return write

    def files(self, records):
        return ((self.name_of(one), self.content(one)) for one in records)

    def name_of(self, record):
        return f"{record['artist_id']}.json"

    def content(self, record):
        return json.dumps(record).encode()

    def read(self, path):
        return [json.loads(file.read_text("utf-8")) for file in path.rglob("*.json")]


class TestNamesFilesByTheId(Files):
    caught_by = {
        "test_names_of_files_stay_in_the_folder": "etc/passwd",
        "test_records_are_written_in_order_and_whole": "outside of its folder",
    }


class TestNamesFilesTheSame(Files):
    caught_by = {
        "test_names_of_files_stay_in_the_folder": "casefold",
        "test_records_are_written_in_order_and_whole": "assert [(",
    }

    def name_of(self, record):
        return "one.json"


class TestWritesTexts(Files):
    caught_by = {"test_contents_are_bytes": "isinstance('{"}

    def content(self, record):
        return json.dumps(record)


class TestIsWrittenEachTime(Lines):
    """The plugin is not what its name stands for."""

    name = "csv"
    caught_by = {"test_a_project_writes_it_once": "JSONDecodeError"}

"""The contract of writers, as tests to derive from."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest

from bioforge.core.errors import OutputError, UsageError
from bioforge.core.interfaces import Record
from bioforge.testing import plugin_host
from bioforge.testing.fixtures import MakeProject
from bioforge.testing.reader_format import peak
from bioforge.testing.records import HALF_A_CHARACTER, RECORDS, record


class WriterContract:
    """Derive a test class from it, say which writer and how its outputs are read, and pytest runs every story.

    ```python
    class TestXml(WriterContract):
        suffix = "xml"

        def writer(self):
            return write_xml

        def read(self, path):
            return [{"artist_id": node.get("id"), "response_text": node.text} for node in nodes(path)]
    ```
    It fits all three kinds of writers. Of a writer of folders (`writes_folder = True`), `path` is the folder.
    """

    suffix: str = "out"
    """Suffix of the outputs' names, without the dot."""

    name: str | None = None
    """Name for `[[output]] writer`. With a name, a project writes with it too, so the plugin must be installed
    (`pip install -e .`).
    """

    options: Mapping[str, object] = {}
    """Options in the table `[[output]]` of every story."""

    wrong_options: Sequence[tuple[Mapping[str, object], str]] = ()
    """Tables that are refused, each with a word of the error: `[({"sheet": 3}, "sheet")]`."""

    held: int = 10
    """Records that it may hold at once; more for a format that is written in groups of rows."""

    many: int = 1_000
    """Records of a long output; a short one has a tenth."""

    bounded_memory: bool = True
    """True if a long output takes no more memory than a short one."""

    key: str = "artist_id"
    """The field that an output always has and that identifies its records: `artist_id` or `artist_name`."""

    ordered: bool = True
    """True if `read` can tell the order of records. Files of a folder have none."""

    replaces: bool = True
    """True if an output replaces the earlier one. False for a writer that only appends: deliveries, messages, a log.

    Then each record must appear once, and what was delivered must stay.
    """

    # ------------------------------------------------------------------------------------------------------- to give

    def writer(self) -> Any:
        """Return the writer that `bioforge_writers()` returns."""
        raise NotImplementedError(
            "give the writer: def writer(self): return write_xml   (what bioforge_writers() has under its name)"
        )

    def read(self, path: Path) -> Sequence[Mapping[str, Any]]:
        """Return the content of an output.

        For each record at least `artist_id` and `response_text` (None or empty without one).
        """
        raise NotImplementedError(
            "say how an output is read back: def read(self, path): return [{'artist_id': …, 'response_text': …}, …]"
        )

    # ------------------------------------------------------------------------------------------------------- helpers

    def path(self, folder: Path) -> Path:
        """Return the place of an output below the test's folder."""
        return folder / "out" / ("files" if self._is_folder() else f"records.{self.suffix}")

    def deliver(self, records: Iterable[Record], path: Path, **options: object) -> str:
        """Write an output as a run does. Return the note of a writer of a path."""
        return plugin_host.deliver(self.writer(), records, path, {**self.options, **options})

    def found(self, path: Path) -> list[tuple[str, str]]:
        """Return identity and text of each record of an output."""
        return self.expected(self.read(path))

    def expected(self, records: Iterable[Record]) -> list[tuple[str, str]]:
        """Return what `found` must return for these records."""
        wanted = [(str(one[self.key]), str(one.get("response_text") or "")) for one in records]
        return wanted if self.ordered else sorted(wanted)

    def _is_folder(self) -> bool:
        return bool(getattr(self.writer(), "writes_folder", False))

    def _is_path(self) -> bool:
        return bool(getattr(self.writer(), "writes_path", False))

    @pytest.fixture(autouse=True)
    def _what_is_given(self) -> None:
        assert callable(self.writer()), "writer() should return what is called to write, or an instance of its class"

    # ---------------------------------------------------------------------------------------------- what is written

    def test_records_are_written_in_order_and_whole(self, tmp_path: Path) -> None:
        """No record is missing, cut or mixed up, whatever it contains; a failed one has its place too."""
        path = self.path(tmp_path)
        self.deliver(iter(RECORDS), path)
        assert self.found(path) == self.expected(RECORDS)

    def test_no_records_make_an_empty_output(self, tmp_path: Path) -> None:
        """Before the first answer, programs that read the output must find one."""
        path = self.path(tmp_path)
        self.deliver(iter(()), path)
        if self._is_folder() and not path.exists():
            return
        assert self.found(path) == []

    def test_fewer_records_leave_nothing_of_the_others(self, tmp_path: Path) -> None:
        """A removed artist must not stay in the output. A writer that cannot take back must not add the others again."""
        if self._is_folder():
            pytest.skip("files of a folder that are not written again are removed by bioforge")
        path = self.path(tmp_path)
        self.deliver(iter(RECORDS), path)
        self.deliver(iter(RECORDS[:2]), path)
        assert self.found(path) == self.expected(RECORDS[:2] if self.replaces else RECORDS)

    def test_written_twice_it_is_the_same(self, tmp_path: Path) -> None:
        """An interrupted output is written again: nothing may appear twice."""
        path = self.path(tmp_path)
        for _ in range(2):
            self.deliver(iter(RECORDS), path)
        assert self.found(path) == self.expected(RECORDS)

    def test_half_a_character_stops_nothing(self, tmp_path: Path) -> None:
        """A model can return half of a surrogate pair, which no file can hold. The other answers must still be written."""
        records = [record(1), record(2, HALF_A_CHARACTER), record(3)]
        path = self.path(tmp_path)
        self.deliver(iter(records), path)
        found = dict(self.found(path))
        first, second, third = (str(one[self.key]) for one in records)
        assert set(found) == {first, second, third}
        assert (found[first], found[third]) == ("A life.", "A life.")

    # ----------------------------------------------------------------------------------------------- one at a time

    def test_records_are_never_all_held(self, tmp_path: Path) -> None:
        """A million answers are written on the same machine as ten."""
        alive: weakref.WeakSet[_Record] = weakref.WeakSet()
        most = 0

        def records() -> Iterator[Record]:
            nonlocal most
            for number in range(max(200, self.held * 4)):
                one = _Record(record(number))
                alive.add(one)
                most = max(most, len(alive))
                yield one
                del one

        self.deliver(records(), self.path(tmp_path))
        assert most, "not one record was taken"
        assert most <= self.held, f"{most} records were held at once, at most {self.held} were expected"

    def test_memory_does_not_grow_with_the_output(self, tmp_path: Path) -> None:
        """Products of the records must not be held either: the lines of a file, the nodes of a tree."""
        if not self.bounded_memory:
            pytest.skip("its memory grows with the output")
        path = self.path(tmp_path)
        self.deliver(_long(self.many // 10), path)  # what is imported and made once
        few, many = (peak(lambda n=n: self.deliver(_long(n), path)) for n in (self.many // 10, self.many))  # type: ignore[misc]
        assert many < few * 3 + 500_000, f"{many:,} bytes for {self.many:,} records, {few:,} for a tenth of them"

    # --------------------------------------------------------------------------------------------- when it goes wrong

    def test_a_failure_in_the_middle_leaves_the_earlier_output(self, tmp_path: Path) -> None:
        """Readers find the old or the new output, never half of one; the failure is reported."""
        path = self.path(tmp_path)
        self.deliver(iter(RECORDS), path)
        before = _files(path)

        def broken() -> Iterator[Record]:
            yield record(100, "Half of it.")
            yield record(1, "Another life.")
            raise _Broken

        with pytest.raises((_Broken, OutputError)):
            self.deliver(broken(), path)
        if self._is_folder():
            assert set(before) <= set(_files(path)), "a file of the earlier output is gone"
        elif self.replaces:
            assert self.found(path) == self.expected(RECORDS)
        else:
            assert self.found(path)[: len(RECORDS)] == self.expected(RECORDS), "what was delivered before is not there"
        if not self._is_path():
            after = {name for name in _files(path) if name not in before}
            assert not [name for name in after if name.endswith(".tmp")], after

    # ------------------------------------------------------------------------------------------------------- options

    def test_an_option_it_does_not_know_is_refused(self, tmp_path: Path) -> None:
        """An ignored typing error gives another file than expected."""
        error = self._refused(tmp_path, {"no_such_option": 1})
        assert "no_such_option" in f"{error.message} {error.hint}"
        for known in getattr(getattr(self.writer(), "Options", None), "model_fields", {}):
            if len(known) > 3:
                error = self._refused(tmp_path, {f"{known}x": 1})
                assert known in f"{error.message} {error.hint}".replace(f"{known}x", ""), "name the nearest option"
                break

    def test_an_option_of_the_wrong_kind_is_refused(self, tmp_path: Path) -> None:
        """It is named before anything is paid for, at the start of a run."""
        for table, word in self.wrong_options:
            error = self._refused(tmp_path, table)
            assert word in f"{error.message} {error.hint}", f"{table}: {error.message}"

    def _refused(self, folder: Path, table: Mapping[str, object]) -> UsageError:
        with pytest.raises(UsageError) as caught:
            self.deliver(iter(()), self.path(folder), **table)
        return caught.value

    # ------------------------------------------------------------------------------------------------------- folders

    def test_names_of_files_stay_in_the_folder(self) -> None:
        """An id like `../../x` must not become a path, and two artists never share a file, also without regard to case."""
        if not self._is_folder():
            pytest.skip("it does not write a folder")
        ids = [
            "../../etc/passwd",
            "/etc/passwd",
            "a/b",
            "a\\b",
            "C:\\x",
            "..",
            ".",
            "CON",
            "A",
            "a",
            "ä",
            "x" * 300,
            "\n",
        ]
        records = [record(n, artist_id=name, artist_name=name) for n, name in enumerate(ids)]
        names = [
            name for name, _ in self.writer()(iter(records), plugin_host.handed(self.writer(), self.options, "output"))
        ]
        for name in names:
            for kind in (PurePosixPath, PureWindowsPath):
                path = kind(name)
                assert not path.is_absolute(), name
                assert not path.drive, name
                assert ".." not in path.parts, name
            assert PurePosixPath(name).name not in ("", "."), name
            assert all(len(part.encode()) <= 255 for part in PurePosixPath(name).parts), name
            assert not any(ord(letter) < 32 for letter in name), repr(name)
        assert len({name.casefold() for name in names}) == len(names), names

    def test_contents_are_bytes(self) -> None:
        """They are written unchanged."""
        if not self._is_folder():
            pytest.skip("it does not write a folder")
        for name, content in self.writer()(iter(RECORDS), plugin_host.handed(self.writer(), self.options, "output")):
            assert isinstance(name, str)
            assert isinstance(content, bytes)

    def test_what_it_says_is_a_text_or_nothing(self, tmp_path: Path) -> None:
        """It is shown in place of the number of records."""
        if not self._is_path():
            pytest.skip("what it says is shown of a writer of a path alone")
        path = self.path(tmp_path)
        path.parent.mkdir(parents=True)
        said = self.writer()(iter(RECORDS), path, plugin_host.handed(self.writer(), self.options, "output"))
        assert said is None or isinstance(said, str), f"expected a text or None, found {said!r}"

    # ---------------------------------------------------------------------------------------------------- in a project

    def test_a_project_writes_it_once(self, make_project: MakeProject) -> None:
        """End to end.

        The plugin is found, its table is validated, its output has every answer and stays untouched without
        changes.
        """
        if self.name is None:
            pytest.skip("give its name to have it used by a project: name = 'xml'")
        where = "out/" if self._is_folder() else f"out/records.{self.suffix}"
        project = make_project(toml={"output": [{"path": where, "writer": self.name, **self.options}]})
        project.run("run").ok()
        project.assert_ledger_equals_state()
        path = project.root / where
        assert self.found(path) == self.expected(project.records())
        before = _files(path)
        project.run("run").ok()
        assert _files(path) == before, "it was written again although nothing had changed"


class _Broken(Exception):
    """An exception in the middle of the records."""


class _Record(dict[str, object]):
    """A record whose deletion can be observed."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def _long(number: int) -> Iterator[Record]:
    for place in range(number):
        yield record(place, f"A life, number {place}. " * 100)


def _files(path: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of the files of an output, and of those beside it."""
    folder = path if path.is_dir() else path.parent
    found = (one for one in folder.rglob("*") if one.is_file())
    return {str(one.relative_to(folder)): (one.stat().st_size, one.stat().st_mtime_ns) for one in found}

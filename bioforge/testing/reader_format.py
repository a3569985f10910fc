"""The description of a reader and its format, and helpers for stories."""

from __future__ import annotations

import gc
import os
import tracemalloc
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bioforge.core.errors import InputError, UsageError
from bioforge.core.types import Artist, BadRow
from bioforge.testing import plugin_host

Row = Mapping[str, Any]
"""Values by column. None is an empty cell."""

PEOPLE: Sequence[Row] = (
    {"artist_id": "7", "artist_name": "Björk", "artist_data": "Icelandic singer", "born": "1965"},
    {
        "artist_id": "b-2",
        "artist_name": "Łempicka, Tamara",
        "artist_data": 'a "quoted", text; with | marks',
        "born": "?",
    },
    {"artist_id": "c", "artist_name": "日本 太郎", "artist_data": "line one\nline two", "born": "0042"},
    {"artist_id": "d", "artist_name": "Zoë 🎨", "artist_data": None, "born": None},
    {"artist_id": "0", "artist_name": "O'Keeffe & Söhne <tag>", "artist_data": "{{ not a template }}", "born": "=1+1"},
)


class ReaderBench:
    """Attributes and methods that a test class of a reader overrides."""

    suffix: str = "data"
    """Suffix of the format's file names, without the dot."""

    name: str | None = None
    """Name for `[input] reader`. With a name, a project reads with it too, so the plugin must be installed (`pip
    install -e .`).
    """

    options: Mapping[str, object] = {}
    """Options in the table `[input]` of every story."""

    wrong_options: Sequence[tuple[Mapping[str, object], str]] = ()
    """Tables that are refused, each with a word of the error: `[({"sheet": 3}, "sheet")]`."""

    values: Sequence[tuple[object, object]] = ()
    """Values of a cell, each with the JSON value it becomes: `[(date(2020, 1, 2), "2020-01-02"), (3, 3)]`.

    Text stays as it is and need not be listed.
    """

    numbers: bool = False
    """True if a cell can be a number; `values` has an example then."""

    renames: bool = True
    """True if it has the option `columns`, like every reader that uses `artists()`."""

    lazy: bool = True
    """True if the first row arrives before the whole file was read."""

    bounded_memory: bool = True
    """True if a long file takes no more memory than a short one."""

    detects_truncation: bool = False
    """True if half a file can be told from a whole one. Half a text is a text."""

    many: int = 10_000
    """Rows of a long file; a short one has a tenth. Reduce it if they take too long to write."""

    # ------------------------------------------------------------------------------------------------------- to give

    def reader(self) -> Any:
        """Return the reader that `bioforge_readers()` returns."""
        raise NotImplementedError(
            "give the reader: def reader(self): return read_xml   (what bioforge_readers() has under its name)"
        )

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        """Write a file of the format. All rows have the same columns, in one order; None is an empty cell."""
        raise NotImplementedError(
            "say how a file of the format is written: def write(self, path, rows): …   "
            "(rows: mappings of column to value, all with the same columns; None is an empty cell)"
        )

    # ------------------------------------------------------------------------------------------------------- helpers

    def path(self, folder: Path, name: str = "artists") -> Path:
        return folder / f"{name}.{self.suffix}"

    def read(self, path: Path, **options: object) -> list[Artist | BadRow]:
        """Return all rows of a file, read as a run does."""
        return list(self.rows(path, **options))

    def rows(self, path: Path, **options: object) -> Generator[Artist | BadRow]:
        """Yield all rows of a file, read as a run does."""
        yield from plugin_host.read(self.reader(), path, {**self.options, **options})

    def written(self, folder: Path, rows: Sequence[Row]) -> Path:
        path = self.path(folder)
        self.write(path, rows)
        assert path.exists(), f"write() should write the file that it is given: {path.name}"
        return path

    @pytest.fixture(autouse=True)
    def _what_is_given(self) -> None:
        assert callable(self.reader()), "reader() should return what is called to read, or an instance of its class"

    def refused(
        self, path: Path, kind: type[UsageError] = InputError, table: Mapping[str, object] | None = None
    ) -> UsageError:
        """Return the error that refuses a file or its table."""
        with pytest.raises(kind) as caught:
            self.read(path, **(table or {}))
        assert caught.value.message
        return caught.value


def long_file(number: int) -> list[Row]:
    return [
        {"artist_id": f"a{n}", "artist_name": f"Artist {n}", "artist_data": f"painter {n} of {n * n}", "born": f"{n}"}
        for n in range(number)
    ]


def peak(work: Callable[[], object]) -> int:
    """Return the highest number of bytes that Python allocated during some work."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def open_files(folder: Path) -> list[str]:
    """Return the files below a folder that this process has open, where the system can tell."""
    try:
        names = [os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd") if _exists(number)]
    except OSError:
        return []
    return [name for name in names if name.startswith(str(folder))]


def _exists(number: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{number}")

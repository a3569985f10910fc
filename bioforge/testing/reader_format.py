"""What `ReaderContract` has to be told of a reader and its format, and what its stories are told with."""

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
    """What the names of files of this format end in, without the dot."""

    name: str | None = None
    """What `[input] reader` takes for it. With a name it is read by a project too, for which the plugin has to be
    installed (`pip install -e .`)."""

    options: Mapping[str, object] = {}
    """What the table `[input]` has for every story."""

    wrong_options: Sequence[tuple[Mapping[str, object], str]] = ()
    """Tables that are refused, each with a word of the error: `[({"sheet": 3}, "sheet")]`."""

    values: Sequence[tuple[object, object]] = ()
    """Values that a cell can have, each with what becomes of it: `[(date(2020, 1, 2), "2020-01-02"), (3, 3)]`. Text
    comes as it is, and need not be named."""

    numbers: bool = False
    """Whether a cell can be a number, and not only a text of digits. `values` has an example then."""

    renames: bool = True
    """Whether it has the option `columns`, as every reader of rows does that uses `artists()`."""

    lazy: bool = True
    """Whether the first row is there before the file was read to its end. False for a format that does not permit it."""

    bounded_memory: bool = True
    """Whether a long file takes no more memory than a short one."""

    detects_truncation: bool = False
    """Whether half a file can be told from a whole one. Of a text, each part is a text again."""

    many: int = 10_000
    """Rows of a long file, of which a tenth is a short one. Fewer where they take too long to write."""

    # ------------------------------------------------------------------------------------------------------- to give

    def reader(self) -> Any:
        """The reader: what `bioforge_readers()` returns under its name."""
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
        """All rows of a file, read as a run does it."""
        return list(self.rows(path, **options))

    def rows(self, path: Path, **options: object) -> Generator[Artist | BadRow]:
        """The same, one by one."""
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
        """The error with which a file, or a table for it, is refused."""
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
    """The most bytes that Python had at once for some work, beyond what it had before."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def open_files(folder: Path) -> list[str]:
    """The files below a folder that this process has open, where the system says so."""
    try:
        names = [os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd") if _exists(number)]
    except OSError:
        return []
    return [name for name in names if name.startswith(str(folder))]


def _exists(number: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{number}")

"""The fixtures of bioforge's kit, and how a table of rows is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bioforge_tables import bioforge_readers

from bioforge.plugin import Artist, BadRow, InputError

pytest_plugins = ["bioforge.testing"]

Read = Callable[..., list[Artist | BadRow]]


@pytest.fixture
def read() -> Read:
    """`read(path, sheet="People")`: the rows of a file, by the reader of its suffix or the one that is named."""

    def read(path: Path, reader: str = "", **options: Any) -> list[Artist | BadRow]:
        found = bioforge_readers()[reader or path.suffix[1:]]
        return list(found(path, path.name, found.Options(**options)))  # type: ignore[arg-type, union-attr]

    return read


@pytest.fixture
def refused(read: Read) -> Callable[..., str]:
    """`refused(path)`: the message and the hint with which a file is refused, in one text."""

    def refused(path: Path, reader: str = "", **options: Any) -> str:
        with pytest.raises(InputError) as caught:
            read(path, reader, **options)
        return f"{caught.value.message} | {caught.value.hint}"

    return refused

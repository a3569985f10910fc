"""Fixtures that read tables, beside those of bioforge.testing."""

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
    """Read all rows of a file, as in `read(path, sheet="People")`, with the reader of its suffix or a named one."""

    def read(path: Path, reader: str = "", **options: Any) -> list[Artist | BadRow]:
        found = bioforge_readers()[reader or path.suffix[1:]]
        return list(found(path, path.name, found.Options(**options)))  # type: ignore[arg-type, union-attr]

    return read


@pytest.fixture
def refused(read: Read) -> Callable[..., str]:
    """Return the message and hint of the error for a file, as one text: `refused(path)`."""

    def refused(path: Path, reader: str = "", **options: Any) -> str:
        with pytest.raises(InputError) as caught:
            read(path, reader, **options)
        return f"{caught.value.message} | {caught.value.hint}"

    return refused

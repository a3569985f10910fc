"""Check the options of a writer and open its stream for text."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO

from bioforge.core.errors import ConfigError, nearest


def check_options(options: Mapping[str, object], known: Sequence[str]) -> None:
    for name in options:
        if name not in known:
            hint = f"its options are {', '.join(known)}" if known else "it has no options"
            if name == "split":
                hint = 'for one file per artist: writer = "markdown-folder", or a path that ends in "/"'
            raise ConfigError(f"[[output]] {name}: this writer has no such option", nearest(name, known) or hint)


@contextmanager
def open_text(stream: IO[bytes], encoding: str = "utf-8") -> Iterator[io.TextIOWrapper]:
    """Open `stream` for text; it is left open. Lone surrogates become `?`."""
    text = io.TextIOWrapper(stream, encoding=encoding, errors="replace", newline="")
    try:
        yield text
        text.flush()
    finally:
        text.detach()

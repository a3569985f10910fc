"""Write records as JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import IO

from bioforge.core.hashing import encoder
from bioforge.core.interfaces import Record
from bioforge.writers.options import check_options


def jsonl_writer(records: Iterable[Record], stream: IO[bytes], options: Mapping[str, object]) -> None:
    """Write one record per line, in UTF-8. No options."""
    check_options(options, ())
    readable = encoder(separators=(", ", ": "))
    for record in records:
        line = readable(record)
        try:
            stream.write(f"{line}\n".encode())
        except UnicodeEncodeError:  # lone surrogates are written as escapes, since UTF-8 has none
            stream.write(f"{json.dumps(record)}\n".encode())

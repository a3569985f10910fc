"""Python's search for garbage, while millions of values are made that hold no circles."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_PYTHONS = gc.get_threshold()
_SELDOM = (20_000, 50, 50)


@contextmanager
def relaxed_gc() -> Iterator[None]:
    """Circles among new values are looked for less often than Python does by itself, which takes up to a fifth of the
    time; nothing is kept longer that is not part of one. What a person has set, or turned off, stays."""
    before = gc.get_threshold()
    if before != _PYTHONS:
        yield
        return
    gc.set_threshold(*_SELDOM)
    try:
        yield
    finally:
        gc.set_threshold(*before)

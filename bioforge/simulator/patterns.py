"""Example texts for regular expressions, for the `pattern` keyword of JSON Schema."""

from __future__ import annotations

import re
from random import Random
from string import ascii_letters, digits
from typing import Any

from rstr.xeger import Xeger

_PRINTABLE = "".join(map(chr, range(32, 127)))
_WORD = f"{ascii_letters}{digits}_"
_ALPHABETS = {
    "printable": _WORD,
    "word": _WORD,
    "digits": digits,
    "whitespace": " ",
    "nonword": "".join(character for character in _PRINTABLE if character not in _WORD),
    "nondigits": "".join(character for character in _PRINTABLE if character not in digits),
    "nonwhitespace": _PRINTABLE.strip(),
}
"""Alphabets in a fixed order: some of rstr's are sets, whose order changes with every process."""

MAX_EXTRA = 3
"""Repetitions of an open quantifier (`*`, `+`, `{2,}`) beyond its minimum."""

MAX_REPETITIONS = 1000
"""The largest number of repetitions that a quantifier may require."""


class _Generator(Xeger):
    """Adds short repetitions and reproducible negated classes to rstr."""

    def _handle_in(self, value: Any) -> Any:
        if value[0][0].name != "NEGATE":
            return super()._handle_in(value)
        excluded = {character for item in value[1:] for character in self._handle_state(item)}
        return self._random.choice([character for character in _PRINTABLE if character not in excluded])

    def _handle_repeat(self, start_range: int, end_range: int, value: Any) -> str:
        if start_range > MAX_REPETITIONS:
            raise ValueError(f"a quantifier of {start_range} exceeds {MAX_REPETITIONS} repetitions")
        minimum, maximum = int(start_range), int(end_range)
        if maximum > MAX_REPETITIONS:
            maximum = min(maximum, minimum + MAX_EXTRA)
        return super()._handle_repeat(minimum, maximum, value)


def example(pattern: str, seed: int) -> str:
    """Return a text for a pattern: the same text for the same seed; look-around may make it miss the pattern.

    Raise ValueError for a pattern that Python's `re` cannot read or that needs features beyond rstr.
    """
    try:
        return _Generator(Random(seed), **_ALPHABETS).xeger(pattern)
    except (re.error, KeyError, IndexError, RecursionError, OverflowError) as error:
        raise ValueError(f"pattern {pattern!r} is not supported: {error}") from error

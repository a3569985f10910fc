"""How places and values are written in messages: `works[2].year`, and what was found there in a few characters."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

Steps = tuple[str | int, ...]
"""The way to a part of a schema or of an answer: names and positions."""

LONGEST = 60
"""Characters of a value, a name or a pattern that a message quotes."""


def shown(steps: Iterable[str | int]) -> str:
    """`properties.born.anyOf[1]`; a name that is none of a variable stands in quotes: `works["à la carte"]`."""
    text = ""
    for step in steps:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step.replace("$", "").replace("-", "").isidentifier() and len(step) <= LONGEST:
            text += f".{step}" if text else step
        else:
            text += f"[{quoted(step)}]"
    return text


def quoted(value: object) -> str:
    """A value as JSON, cut where it is long. What is no JSON is shown as Python shows it."""
    if isinstance(value, str):
        value = value if len(value) <= LONGEST else f"{value[: LONGEST - 1]}…"
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return one_line(text, LONGEST + 2)


def found(value: Any) -> str:
    """A value as it was found: texts and numbers quoted, the rest by its kind."""
    if isinstance(value, dict):
        return "an object" if value else "an empty object"
    if isinstance(value, list):
        return f"a list of {len(value)} item{'s' if len(value) > 1 else ''}" if value else "an empty list"
    return quoted(value)


def one_line(text: str, longest: int = 300) -> str:
    # the cut comes first: a text may have megabytes
    line = " ".join(text[: 4 * longest].split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def alternatives(words: Iterable[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last

"""An answer's text as JSON, or why it is none."""

from __future__ import annotations

import json
from typing import Any


class NotJson(Exception):
    """The text is no JSON; the message says why, for people and for the model that wrote it."""


def read_json(text: str) -> Any:
    """JSON alone: what stands in a Markdown fence or among other words is `NotJson`, as are NaN and Infinity."""
    if not text.strip():
        raise NotJson("the answer is empty, expected JSON")
    try:
        data = json.loads(text, parse_constant=_no_number, parse_float=_finite)
        if "\\u" in text:
            json.dumps(data, ensure_ascii=False).encode()
        return data
    except json.JSONDecodeError as problem:
        if "```" in text:
            raise NotJson("the JSON stands in a Markdown fence (```), expected JSON alone") from None
        raise NotJson(f"not JSON: {problem.msg} (line {problem.lineno}, column {problem.colno})") from None
    except UnicodeEncodeError:
        raise NotJson("not JSON that can be kept: half of a surrogate pair (\\ud800 to \\udfff)") from None
    except RecursionError:
        raise NotJson("not JSON that can be read: nested too deeply") from None
    except ValueError as problem:  # a whole number of thousands of digits
        raise NotJson(f"not JSON that can be read: {problem}") from None


def _finite(digits: str) -> float:
    number = float(digits)
    if number - number != 0:
        raise NotJson(f"not JSON that can be read: {digits[:60]} is too large a number")
    return number


def _no_number(word: str) -> None:
    raise NotJson(f"not JSON: {word} is no number of JSON")

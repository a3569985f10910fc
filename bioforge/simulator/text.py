"""Texts of requests and answers, and their estimated tokens: four characters each, rounded up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

CHARACTERS_PER_TOKEN = 4
EXCERPT = 80

_SENTENCES = (
    "No model was asked, and no statement in this text is about a real person.",
    "The works, the dates and the cities a biography would name are left out.",
    "Born in a test and trained on nothing, the subject lives in memory only.",
    "An exhibition of this text was held on the loopback interface this year.",
    "Critics praised its steady length, its honest tone and its low price.",
    "Early studies in plain text were followed by mature work in JSON objects.",
    "It is kept in no museum, it hangs on no wall, and nobody has paid for it.",
    "The same request gets the same words again, on any machine and any day.",
    "A later period, marked by larger batches, is not documented in the files.",
    "Replace the base URL in the project file to get an answer from a model.",
    "The artist's own notes on this subject have never been sent or received.",
    "Every sentence was chosen by the hash of the request, not by its meaning.",
)


def count_tokens(text: str) -> int:
    """Return the estimated tokens of a text."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def cut(text: str, tokens: int) -> str:
    """Return the longest prefix of a text within a number of tokens."""
    return text[: tokens * CHARACTERS_PER_TOKEN]


def parts(body: Mapping[str, Any]) -> Iterator[str]:
    """Yield all texts that a model would read, in order, for both endpoints."""
    if isinstance(instructions := body.get("instructions"), str):
        yield instructions
    yield from _texts(list(_variables(body).values()))
    yield from _texts(body.get("input"))
    yield from _texts(body.get("messages"))


def _variables(body: Mapping[str, Any]) -> dict[str, Any]:
    prompt = body.get("prompt")
    variables = prompt.get("variables") if isinstance(prompt, dict) else None
    return variables if isinstance(variables, dict) else {}


def _texts(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for item in content:
            yield from _texts(item)
    elif isinstance(content, dict):
        yield from _texts(content.get("content"))
        yield from _texts(content.get("text"))


def input_tokens(body: Mapping[str, Any]) -> int:
    """Return the tokens of all parts, at least 1."""
    characters = sum(map(len, parts(body)))
    return max(1, -(-characters // CHARACTERS_PER_TOKEN))


def excerpt(body: Mapping[str, Any]) -> str:
    """Return the first line of the last message, or the prompt's `artist_name`."""
    asked = body.get("messages") or body.get("input")
    if isinstance(asked, list):
        asked = asked[-1] if asked else None
    if not asked:
        variables = _variables(body)
        asked = variables.get("artist_name") or list(variables.values())[:1]
    for text in _texts(asked):
        line = text.strip().partition("\n")[0].strip()
        if line:
            return line if len(line) <= EXCERPT else line[:EXCERPT].rstrip() + "…"
    return "an empty request"


def compose_text(digest: bytes, about: str) -> str:
    """Return the simulated answer: a mark, an excerpt, then two to four sentences; 40 to 100 tokens."""
    mark = digest[:4].hex()
    stop = "" if about.endswith((".", "!", "?", "…")) else "."
    head = f"Simulated answer {mark} for: {about}{stop}"
    chosen = [_SENTENCES[(digest[5] + step * 5) % len(_SENTENCES)] for step in range(2 + digest[6] % 3)]
    return " ".join([head, *chosen])


def halves(text: str) -> tuple[str, str]:
    """Split a text near its middle, before a space if possible."""
    middle = text.find(" ", len(text) // 2)
    if middle < 0:
        middle = len(text) // 2
    return text[:middle], text[middle:]

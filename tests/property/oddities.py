"""Values that nobody expects, put in any place of a tree that is as it should be."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

Path = tuple[str | int, ...]


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


NUMBERS = (0, 1, -1, 2**31, 2**53, 2**63 - 1, 2**63, 10**30, 0.5, -0.0, 1e308)
NOT_FINITE = (math.inf, -math.inf, math.nan)
TEXTS = (
    "", " ", "x", "ja", "0", "é" * 3, "a\0b", "a\nb", "\x7f", "\u202e", "\ufeffx", "x" * 5000, "{{ artist_name }}",
    "{{ nobody }}", "{% for", "{{ 1/0 }}", "{{ artist_name.x.y }}", "{{ ''.__class__ }}", "nobody", "facts", "bio", "csv",
    "jsonl", "batch", "auto", "json:loads", "nobody:nothing", ":", "module:", "gpt-6-luna", "/v1/responses",
    "/v1/chat/completions", "simulator", "artists.csv", "*", "[", "~", ".", "out", "completed", "incomplete", "refusal",
    "message", "output_text", "length", "utf-16", "tab",
)  # fmt: skip

scalars: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(TEXTS),
    st.sampled_from(NUMBERS),
    st.booleans(),
    st.text(max_size=8),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
)


def trees(*more: Any) -> st.SearchStrategy[Any]:
    """Any value of JSON or TOML; `more` are further scalars, for what only one of them has."""
    leaves = st.one_of(scalars, st.sampled_from(more)) if more else scalars
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(TEXTS), inner, max_size=3),
        max_leaves=6,
    )


def places(tree: Any, path: Path = ()) -> Iterator[Path]:
    """Every place of a tree, its root first."""
    yield path
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from places(value, (*path, name))
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from places(value, (*path, number))


GONE = object()
"""In place of a value: nothing."""


def put(tree: Any, path: Path, value: Any) -> Any:
    """The tree with another value in a place, or without it; as it was where the place is gone itself."""
    if not path:
        return tree if value is GONE else value
    changed = copy.deepcopy(tree)
    inner = changed
    try:
        for step in path[:-1]:
            inner = inner[step]
        if value is GONE:
            del inner[path[-1]]
        elif isinstance(inner, dict | list):
            inner[path[-1]] = value
    except (LookupError, TypeError):
        return tree
    return changed


@st.composite
def mutated(
    draw: st.DrawFn, valid: Any, values: st.SearchStrategy[Any], *, most: int = 3, names: Sequence[str] = TEXTS
) -> Any:
    """A tree with up to so many of its places changed, emptied, or given a neighbour they should not have."""
    tree = valid
    for _ in range(draw(st.integers(1, most))):
        path = draw(st.sampled_from(list(places(tree))))
        match draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"])):
            case "replace":
                tree = put(tree, path, draw(values))
            case "remove":
                tree = put(tree, path, GONE)
            case _:
                tree = put(tree, (*path, draw(st.sampled_from(names))), draw(values))
    return tree

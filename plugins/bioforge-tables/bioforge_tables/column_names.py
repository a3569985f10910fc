"""Names of columns and tables: which exist, which are wanted, and what comes closest to one that is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bioforge.plugin import InputError, nearest

_MOST_SHOWN = 20
_OWN = ("artist_id", "artist_name", "artist_data")


def own_columns(columns: Mapping[str, str]) -> frozenset[str]:
    """The input's columns that become id, name and data, where bytes would be nonsense."""
    return frozenset(columns.get(name, name) for name in _OWN)


def checked(names: Sequence[str], source: str) -> list[str]:
    """`names`, when each stands there once. Upper and lower case make different columns."""
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{source} has more than one column {name!r}", "give each column a name of its own")
    return list(names)


def selected(names: Sequence[str], wanted: Sequence[str], source: str) -> list[str]:
    """The columns to read, in the order of the file: all of them where none is `wanted`."""
    known = checked(names, source)
    for name in wanted:
        if name not in known:
            raise missing(f"{source} has no column {name!r}, which [input] select names", name, known)
    return [name for name in known if name in wanted] if wanted else known


def missing(problem: str, name: str, known: Sequence[str]) -> InputError:
    return InputError(problem, nearest(name, known) or f"found: {listed(known)}")


def listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_SHOWN
    return ", ".join(names[:_MOST_SHOWN]) + (f" and {more} more" if more > 0 else "") or "none"

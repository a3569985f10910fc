"""Select and check column names, and suggest names for missing ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bioforge.plugin import InputError, nearest

_MAX_LISTED = 20
_ARTIST_COLUMNS = ("artist_id", "artist_name", "artist_data")


def own_columns(columns: Mapping[str, str]) -> frozenset[str]:
    """Return the input columns for id, name and data, which cannot be bytes."""
    return frozenset(columns.get(name, name) for name in _ARTIST_COLUMNS)


def checked(names: Sequence[str], source: str) -> list[str]:
    """Return `names`. Raises `InputError` for a repeated name; case matters."""
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{source} has more than one column {name!r}", "give each column a different name")
    return list(names)


def selected(names: Sequence[str], wanted: Sequence[str], source: str) -> list[str]:
    """Return the columns to read in file order; all if `wanted` is empty."""
    known = checked(names, source)
    for name in wanted:
        if name not in known:
            raise missing(f"{source} has no column {name!r}, which is in [input] select", name, known)
    return [name for name in known if name in wanted] if wanted else known


def missing(problem: str, name: str, known: Sequence[str]) -> InputError:
    return InputError(problem, nearest(name, known) or f"found: {listed(known)}")


def listed(names: Sequence[str]) -> str:
    more = len(names) - _MAX_LISTED
    return ", ".join(names[:_MAX_LISTED]) + (f" and {more} more" if more > 0 else "") or "none"

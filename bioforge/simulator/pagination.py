"""Pagination of lists: query parameters and the API's list object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bioforge.simulator.errors import ApiError, wrong_value


def limit_of(query: Mapping[str, str], default: int, maximum: int) -> int:
    """Return the size of a page: the query's `limit`, from 1 to `maximum`, or `default`."""
    text = query.get("limit")
    if text is None:
        return default
    try:
        limit = int(text)
    except ValueError:
        raise wrong_value("limit", f"expected an integer, but got '{text}' instead.", "invalid_type") from None
    if not 1 <= limit <= maximum:
        raise wrong_value("limit", f"expected a value from 1 to {maximum}, but got {limit} instead.")
    return limit


def page(names: Sequence[str], query: Mapping[str, str], limit: int) -> tuple[list[str], bool]:
    """Return at most `limit` ids after the query's `after`, and True if more follow."""
    start = 0
    if after := query.get("after"):
        try:
            start = names.index(after) + 1
        except ValueError:
            raise ApiError(404, f"No entry with id '{after}' to list after.", param="after") from None
    return list(names[start : start + limit]), start + limit < len(names)


def listed(data: list[dict[str, Any]], more: bool) -> dict[str, Any]:
    """Return the API's list object for a page."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": more,
    }

"""Faults of batches: their names, how they are written, and which lines of a batch they hit. Pure.

One text holds the faults of a batch, joined by "+": `lines_missing=0.1+wrong_counts`; `ok` or nothing for none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

from bioforge.simulator.faults import NONE, uniform

_Value = Literal["none", "share", "count", "count or none"]

_VALUES: Mapping[str, _Value] = {
    # The calls of the client.
    "upload_lost": "none",
    "create_lost": "none",
    "create_refused": "none",
    "token_limit": "none",
    "download_truncated": "count or none",
    # The course of a batch.
    "failed_validation": "count",
    "expired": "share",
    "cancelled": "share",
    "stuck": "none",
    # What becomes of its lines.
    "lines_missing": "share",
    "lines_lost": "share",
    "lines_duplicated": "share",
    "row_errors": "share",
    "errors_only": "none",
    # What its files look like.
    "lines_shuffled": "none",
    "unknown_lines": "count",
    "string_bodies": "none",
    "keys_missing": "none",
    "several_items": "none",
    "empty_error_file": "none",
    # What is said about it.
    "wrong_counts": "none",
    "no_usage": "none",
}

BATCH_FAULTS = tuple(_VALUES)
"""Every name. What each does: `docs/simulator.md`."""

BatchFaults = Mapping[str, float]
"""Names with their values; 1 where none was given."""


@lru_cache(maxsize=1024)
def parse_batch_faults(text: str) -> BatchFaults:
    """The faults in `name+name=value+…`. ValueError for an unknown name or a value it cannot have."""
    if text.strip() in ("", NONE):
        return MappingProxyType({})
    faults: dict[str, float] = {}
    for item in text.split("+"):
        name, given, value = item.strip().partition("=")
        if name not in _VALUES:
            near = get_close_matches(name, BATCH_FAULTS, n=1, cutoff=0.5)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"unknown batch fault {name!r}{hint} (batch faults: {', '.join(BATCH_FAULTS)}, {NONE})")
        if name in faults:
            raise ValueError(f"batch fault {name!r} stands twice in {text!r}")
        faults[name] = _value(name, value if given else None)
    return MappingProxyType(faults)


def check_batch_faults(script: Sequence[str], always: str) -> None:
    """ValueError for a script or a text that `parse_batch_faults` would refuse."""
    if isinstance(script, str):
        raise ValueError(f"batch_script must be a list of texts, not the text {script!r}")
    for text in (*script, always):
        if not isinstance(text, str):
            raise ValueError(f"faults of a batch must be a text like 'lines_lost=0.1+stuck', not {text!r}")
        parse_batch_faults(text)


def faults_at(position: int, script: Sequence[str], always: str) -> str:
    """The faults of the batch, or the upload, in this place, from 1: the script's, or beyond it those of all."""
    return script[position - 1] if position <= len(script) else always


def hits(name: str, faults: BatchFaults, seed: int, digest: bytes, occurrence: int) -> bool:
    """Whether a fault with a share hits this try of a body; another draw for each name."""
    share = faults.get(name, 0.0)
    return share > 0 and uniform(seed, digest + name.encode(), occurrence)[0] < share


def _value(name: str, text: str | None) -> float:
    kind = _VALUES[name]
    if kind == "none":
        if text is not None:
            raise ValueError(f"batch fault {name!r} takes no value, found {text!r}")
        return 1.0
    if kind == "count or none" and text is None:
        return 1.0
    try:
        number = float(text or "")
    except ValueError:
        number = -1.0
    if kind == "share":
        if not 0 <= number <= 1:
            raise ValueError(f"batch fault {name!r} needs a share from 0 to 1, like {name}=0.5, not {text!r}")
    elif number < 1 or number != int(number):
        raise ValueError(f"batch fault {name!r} needs a whole number from 1, like {name}=2, not {text!r}")
    return number

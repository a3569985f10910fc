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
    # Calls of the client.
    "upload_lost": "none",  # the upload in this place is stored, and its answer lost
    "create_lost": "none",  # the batch is created, and its answer lost
    "create_refused": "none",  # 500, nothing is created
    "token_limit": "none",  # refused for half as many enqueued tokens as it has; the same content passes later
    "download_truncated": "count or none",  # so many downloads of each result file end halfway
    # The course of a batch.
    "failed_validation": "count",  # this line is taken for invalid JSON
    "expired": "share",  # expires with this share of its lines answered
    "cancelled": "share",  # as if somebody cancelled it with this share of its lines answered
    "stuck": "none",  # stays in progress with half of its lines answered
    # What becomes of its lines.
    "lines_missing": "share",  # answered by nobody: in neither file, not charged
    "lines_lost": "share",  # answered and charged, and in neither file
    "lines_duplicated": "share",  # twice in their file, charged once
    "row_errors": "share",  # answered 500
    "errors_only": "none",  # all answered 400: completed without an output file
    # What its files look like.
    "lines_shuffled": "none",  # in another order, in both
    "unknown_lines": "count",  # so many more in the output file, with custom_ids nobody sent
    "string_bodies": "none",  # the body of a good answer is a string of JSON
    "keys_missing": "none",  # lines without `id` and `error`
    "several_items": "none",  # responses with a reasoning item first and the text in two parts
    "empty_error_file": "none",  # the error file is there and has 0 bytes, whatever failed
    # What is said about it.
    "wrong_counts": "none",  # request_counts are zeros
    "no_usage": "none",  # usage is null
}

BATCH_FAULTS = tuple(_VALUES)
"""Every name."""

_MOST = 1_000_000

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
    elif not 1 <= number <= _MOST or number != int(number):
        raise ValueError(f"batch fault {name!r} needs a whole number from 1, like {name}=2, not {text!r}")
    return number

"""Faults of batches: names, syntax, and the lines they hit. Pure.

The faults of a batch are one text, joined by "+": `lines_missing=0.1+wrong_counts`; `ok` or empty for none.
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
    # calls of the client
    "upload_lost": "none",  # this upload is stored, and its answer lost
    "create_lost": "none",  # the batch is created, and its answer lost
    "create_refused": "none",  # 500, nothing is created
    "token_limit": "none",  # refused with a limit of half its tokens; the same content passes later
    "download_truncated": "count or none",  # number of downloads of each result file that end halfway
    # statuses of a batch
    "failed_validation": "count",  # this line is treated as invalid JSON
    "expired": "share",  # expires with this share of its lines answered
    "cancelled": "share",  # cancelled with this share of its lines answered
    "stuck": "none",  # stays in progress with half of its lines answered
    # lines
    "lines_missing": "share",  # unanswered: in neither file, not charged
    "lines_lost": "share",  # answered and charged, and in neither file
    "lines_duplicated": "share",  # twice in their file, charged once
    "row_errors": "share",  # answered 500
    "errors_only": "none",  # all answered 400: completed without an output file
    # result files
    "lines_shuffled": "none",  # both files are in another order
    "unknown_lines": "count",  # number of extra lines in the output file, with unknown custom_ids
    "string_bodies": "none",  # the body of a good answer is a string of JSON
    "keys_missing": "none",  # lines without `id` and `error`
    "several_items": "none",  # responses with a reasoning item first and the text in two parts
    "empty_error_file": "none",  # the error file exists and has 0 bytes
    # the batch object
    "wrong_counts": "none",  # request_counts are zeros
    "no_usage": "none",  # usage is null
}

BATCH_FAULTS = tuple(_VALUES)
"""All names."""

_MOST = 1_000_000

BatchFaults = Mapping[str, float]
"""Values by name; 1 for faults without a value."""


@lru_cache(maxsize=1024)
def parse_batch_faults(text: str) -> BatchFaults:
    """Parse `name+name=value+…`. Raise ValueError for unknown names and invalid values."""
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
            raise ValueError(f"batch fault {name!r} appears twice in {text!r}")
        faults[name] = _value(name, value if given else None)
    return MappingProxyType(faults)


def check_batch_faults(script: Sequence[str], always: str) -> None:
    """Raise ValueError for a script or a text that `parse_batch_faults` refuses."""
    if isinstance(script, str):
        raise ValueError(f"batch_script must be a list of texts, not the text {script!r}")
    for text in (*script, always):
        if not isinstance(text, str):
            raise ValueError(f"faults of a batch must be a text like 'lines_lost=0.1+stuck', not {text!r}")
        parse_batch_faults(text)


def faults_at(position: int, script: Sequence[str], always: str) -> str:
    """Return the faults of the batch or upload at a position, from 1: the script's, and beyond it `always`."""
    return script[position - 1] if position <= len(script) else always


def hits(name: str, faults: BatchFaults, seed: int, digest: bytes, occurrence: int) -> bool:
    """Return True if a fault with a share hits this attempt at a body; each name has its own draw."""
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

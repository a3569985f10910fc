"""Fit the calls in flight into the files that this process may have open."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from bioforge.backends.connection import is_loopback
from bioforge.core.events import Event, Notice
from bioforge.core.interfaces import Limits

SPARE = 64
"""Open files left for databases, outputs, logs and plugins; at most a quarter of a small limit."""


def fit_open_files(limits: Limits, base_url: str) -> tuple[Limits, Sequence[Event]]:
    """Raise the soft limit of open files as needed, and return the limits of a run that fits into it, with a notice."""
    if sys.platform == "win32":
        return limits, ()
    import resource

    # the embedded simulator has the other end of each connection
    each = 2 if is_loopback(base_url) else 1
    taken = _open_files()
    wanted = taken + SPARE + each * limits.concurrency
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return limits, ()
    fitting = max(1, (soft - taken - min(SPARE, soft // 4)) // each)
    if fitting >= limits.concurrency:
        return limits, ()
    message = (
        f"this process may have {soft} open files: concurrency {limits.concurrency} -> {fitting}; raise `ulimit -n`"
    )
    return replace(limits, concurrency=fitting), [
        Notice("concurrency", message, {"from": limits.concurrency, "to": fitting})
    ]


def _open_files() -> int:
    """Return the number of open files, or the usual one where the system does not list them."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return len(os.listdir(folder))
    return SPARE

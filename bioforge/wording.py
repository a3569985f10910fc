"""How numbers are written for people. Pure."""

from __future__ import annotations

import math


def money(usd: float | None) -> str:
    """`$12.30`, `$0.0042` (two digits that say something below ten cents), `unknown price`."""
    if usd is None:
        return "unknown price"
    if usd == 0 or abs(usd) >= 0.1:
        return f"${usd:,.2f}"
    rounded = float(f"{usd:.1e}")
    return f"${rounded:.{1 - math.floor(math.log10(abs(rounded)))}f}"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `2 min 3 s`, `1 h 2 min`, `3 d 4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole % 3600 == 0 and whole <= 3 * 86_400:
        return f"{whole // 3600} h"  # `24 h` is what is promised and asked for, not a day
    for size, name, part, part_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {name}" + (f" {rest} {part_name}" if rest else "")
    return f"{whole} s"


def compact(number: float) -> str:
    """`950`, `12.3k`, `1.2M`."""
    for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        # From 999.95 on, rounding to one digit would show a thousand of the smaller unit.
        if number >= size * 0.99995:
            return f"{number / size:.1f}{name}"
    return f"{number:.0f}"


def counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"

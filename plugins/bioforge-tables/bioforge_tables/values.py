"""Convert values without a JSON form to text: timestamps to the nanosecond, durations, bytes."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import cache
from zoneinfo import ZoneInfo

from bioforge.plugin import InputError

UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
"""Parts of a second by Arrow's unit name."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)")


def iso_timestamp(value: int, unit: str, zone: tzinfo | None) -> str:
    """Format `value` units since 1970 as ISO text, with the offset of `zone` if given.

    Keeps all digits; a fraction of zero is left out. OverflowError outside the years 1 to 9999.
    """
    seconds, parts = divmod(value, UNITS[unit])
    moment = _EPOCH + timedelta(seconds=seconds)
    moment = moment.replace(tzinfo=None) if zone is None else moment.astimezone(zone)
    micro, nano = divmod(parts * (1_000_000_000 // UNITS[unit]), 1_000)
    text = moment.replace(microsecond=micro).isoformat(timespec="microseconds" if micro or nano else "seconds")
    return f"{text[:26]}{nano:03}{text[26:]}" if nano else text


def iso_time(value: int, unit: str) -> str:
    """Format `value` units since midnight as ISO text."""
    return iso_timestamp(value, unit, None).partition("T")[2]


def iso_duration(months: int = 0, days: int = 0, nanoseconds: int = 0) -> str:
    """Format an ISO 8601 duration, like `P1M2DT3H4M5.5S`; each part has its own sign."""
    sign = "-" if nanoseconds < 0 else ""
    seconds, fraction = divmod(abs(nanoseconds), 1_000_000_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    date = (f"{months}M" if months else "") + (f"{days}D" if days else "")
    digits = f"{seconds}.{fraction:09}".rstrip("0").rstrip(".") if fraction else str(seconds)
    time = (f"{sign}{hours}H" if hours else "") + (f"{sign}{minutes}M" if minutes else "")
    time += f"{sign}{digits}S" if seconds or fraction else ""
    return f"P{date}{'T' if time else ''}{time}" if date or time else "PT0S"


@cache
def zone_of(name: str) -> tzinfo:
    """Return the zone of an Arrow schema: a tz database name or an offset like `+02:00`."""
    if found := _OFFSET.fullmatch(name):
        sign = -1 if found[1] == "-" else 1
        return timezone(sign * timedelta(hours=int(found[2]), minutes=int(found[3])))
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        raise InputError(
            f"the time zone {name!r} is not installed", "install all zones: `pip install tzdata`"
        ) from None


def base64_text(value: bytes) -> str:
    return base64.b64encode(value).decode()

"""Format numbers, identifiers and file names for people, and escape text for terminals. Pure."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata


def money(usd: float | None) -> str:
    """Return `$12.30`, `$0.0042` (two significant digits below ten cents) or `unknown price`."""
    if usd is None:
        return "unknown price"
    if usd == 0 or abs(usd) >= 0.1:
        return f"${usd:,.2f}"
    rounded = float(f"{usd:.1e}")
    return f"${rounded:.{1 - math.floor(math.log10(abs(rounded)))}f}"


def format_amount(usd: float) -> str:
    """Return US dollars as a plain decimal of at most ten places, for files: `0.0000408`, `4.0`."""
    text = f"{usd:.10f}".rstrip("0")
    return text + "0" if text.endswith(".") else text


def duration(seconds: float) -> str:
    """Return `0.4 s`, `12 s`, `2 min 3 s`, `1 h 2 min` or `3 d 4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole % 3600 == 0 and whole <= 3 * 86_400:
        return f"{whole // 3600} h"  # `24 h` is the usual batch window
    for size, name, part, part_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {name}" + (f" {rest} {part_name}" if rest else "")
    return f"{whole} s"


def compact(number: float) -> str:
    """Return `950`, `12.3k` or `1.2M`."""
    for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        # from 999.95 on, rounding to one digit would give 1000.0
        if number >= size * 0.99995:
            return f"{number / size:.1f}{name}"
    return f"{number:.0f}"


def plural(number: int, what: str, many: str | None = None) -> str:
    """Return `1 batch` or `2 batches`; `many` is an irregular plural."""
    return f"{number:,} {what if number == 1 else many or what + 's'}"


_UNSAFE = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
"""Characters besides C0 that a terminal obeys or cannot show: C1, line and bidi controls, lone surrogates."""
_CONTROL = re.compile(f"[\x00-\x1f{_UNSAFE}]")
_CONTROL_IN_LINES = re.compile(f"[\x00-\x08\x0b-\x1f{_UNSAFE}]")
_CONTROL_IN_JSON = re.compile(f"[{_UNSAFE}]")


def printable(text: str, *, lines: bool = False) -> str:
    """Return `text` with control characters escaped, since a terminal would obey them; `lines` keeps breaks and tabs."""
    return _CONTROL_IN_LINES.sub(_escape, text.replace("\r\n", "\n")) if lines else _CONTROL.sub(_escape, text)


def printable_json(text: str) -> str:
    """Return JSON with the same value, in which C1, line and bidi controls and lone surrogates are escaped."""
    return _CONTROL_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


_LONGEST = 40
_CLEAN_ID = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_ACCENTS = dict.fromkeys(range(0x300, 0x370))


def slug(name: str) -> str:
    """Return lower-case letters and digits of any script, joined by `-`, at most 40 characters; may be empty.

    Accents are dropped (`björk` becomes `bjork`); other scripts are kept.
    """
    plain = unicodedata.normalize("NFC", unicodedata.normalize("NFKD", name).translate(_ACCENTS)).lower()
    words = "".join(letter if letter.isalnum() else " " for letter in plain).split()
    return "-".join(words)[:_LONGEST].strip("-")


def derived_id(name: str) -> str:
    """Return the id of an artist whose row has none: slug and 10 hexadecimal digits of the name's SHA-256.

    Spellings that Unicode treats as equal (NFC and NFD) give the same id.
    """
    return f"{slug(name) or 'artist'}-{_digest(unicodedata.normalize('NFC', name), 10)}"


def file_stem(artist_id: str, name: str) -> str:
    """Return a file name without suffix; different ids give different names, even on case-insensitive file systems.

    No separator, no leading dot, no name that an operating system reserves; at most 255 bytes with a short suffix. A
    slug never contains `_`, so the part after the first `_` is the id, or the id's slug and a hash of it.
    """
    if artist_id == derived_id(name):
        return artist_id
    clean = len(artist_id) <= _LONGEST and _CLEAN_ID.fullmatch(artist_id)
    tail = artist_id if clean else f"{slug(artist_id) or 'id'}-{_digest(artist_id, 10)}"
    return f"{slug(name) or 'artist'}_{tail}"


def _digest(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:digits]

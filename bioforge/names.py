"""Readable, stable names made from people's names: ids for artists without one, and safe file names."""

from __future__ import annotations

import hashlib
import re
import unicodedata

_LONGEST = 40
_CLEAN_ID = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_ACCENTS = dict.fromkeys(range(0x300, 0x370))


def slug(name: str) -> str:
    """Lower-case letters and digits of any script, joined by `-`, at most 40 characters; may be empty.

    Accents are dropped (`björk` becomes `bjork`), other scripts stay as they are.
    """
    plain = unicodedata.normalize("NFC", unicodedata.normalize("NFKD", name).translate(_ACCENTS)).lower()
    words = "".join(letter if letter.isalnum() else " " for letter in plain).split()
    return "-".join(words)[:_LONGEST].strip("-")


def derived_id(name: str) -> str:
    """The id of an artist whose row has none: slug and 10 hexadecimal digits of the name's SHA-256.

    The same for every spelling that Unicode calls equal (NFC and NFD), on every machine.
    """
    return f"{slug(name) or 'artist'}-{_digest(unicodedata.normalize('NFC', name), 10)}"


def file_stem(artist_id: str, name: str) -> str:
    """A file name without suffix, different for different ids even where upper and lower case are the same.

    No separator, no leading dot, no name an operating system reserves; at most 255 bytes with a short suffix.
    A slug never has `_`, so what stands behind the first `_` is the id, or the id's slug and a hash of it.
    """
    if artist_id == derived_id(name):
        return artist_id
    clean = len(artist_id) <= _LONGEST and _CLEAN_ID.fullmatch(artist_id)
    tail = artist_id if clean else f"{slug(artist_id) or 'id'}-{_digest(artist_id, 10)}"
    return f"{slug(name) or 'artist'}_{tail}"


def _digest(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:digits]

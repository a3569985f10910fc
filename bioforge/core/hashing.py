"""Canonical JSON, and the hashes of requests, rows and definitions.

A hash carries the version of its algorithm (`v1:`), so that a new version does not make paid answers stale.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from bioforge.core.types import PLAIN_DIALECT, Artist


def encoder(*, separators: tuple[str, str] = (",", ":"), **options: Any) -> Callable[[object], str]:
    """Return a faster `json.JSONEncoder(ensure_ascii=False, …).encode` for many small values.

    The standard encoder builds a C encoder for each value, which takes longer than encoding it. This one builds it
    once; on a Python without that C function, the standard one is returned.
    """
    plain = json.JSONEncoder(ensure_ascii=False, separators=separators, **options)
    make_encoder: Any = getattr(json.encoder, "c_make_encoder", None)
    try:
        # no cycle check: a value that contains itself raises RecursionError
        encode = make_encoder(
            None,
            plain.default,
            json.encoder.encode_basestring,
            None,
            plain.key_separator,
            plain.item_separator,
            plain.sort_keys,
            plain.skipkeys,
            plain.allow_nan,
        )
        if "".join(encode({"b": [1.5, None, "é"], "a": {}}, 0)) != plain.encode({"b": [1.5, None, "é"], "a": {}}):
            return plain.encode
    except TypeError:
        return plain.encode
    join = "".join
    return lambda value: join(encode(value, 0))


_canonical = encoder(sort_keys=True, allow_nan=False)
_compact = encoder()
_quoted = json.encoder.encode_basestring


def canonical(value: object) -> bytes:
    """Return JSON in UTF-8 with sorted keys and no spaces.

    Raises ValueError for NaN, TypeError for values that JSON cannot hold.
    """
    return _canonical(value).encode("utf-8", "surrogatepass")


def request_hash(endpoint: str, body: bytes, dialect: str = PLAIN_DIALECT, sample: int = 1) -> str:
    """Return the identity of a request: `v1:` and the sha256 (hex) of endpoint, a newline, and the canonical body.

    Any other than the plain dialect is prefixed to the endpoint with a colon: its answers are not shared. From the
    second `sample` on, its number follows the endpoint after a `#`.
    """
    return request_hasher(endpoint, dialect, sample)(body)


def request_hasher(endpoint: str, dialect: str = PLAIN_DIALECT, sample: int = 1) -> Callable[[bytes], str]:
    """Return `request_hash` as a function of the body, for many bodies."""
    place = endpoint if dialect == PLAIN_DIALECT else f"{dialect}:{endpoint}"
    before = (place if sample == 1 else f"{place}#{sample}").encode() + b"\n"
    sha256 = hashlib.sha256
    return lambda body: "v1:" + sha256(before + body).hexdigest()


def row_hash(artist: Artist) -> str:
    """Return the hash of a row's content, independent of its file and line: 32 hex digits."""
    return row_text(artist)[0]


def row_text(artist: Artist) -> tuple[str, str | None]:
    """Return the hash of a row, and its further columns as JSON (None if it has none)."""
    columns = artist.columns
    further = _compact(columns if type(columns) is dict else dict(columns)) if columns else "{}"
    text = f"[{_quoted(artist.artist_id)},{_quoted(artist.artist_name)},{_quoted(artist.artist_data)},{further}]"
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return digest, further if columns else None


def definition_hash(definition: Mapping[str, object]) -> str:
    """Return `v1:` and the sha256 (hex) of the canonical JSON."""
    return f"v1:{hashlib.sha256(canonical(definition)).hexdigest()}"

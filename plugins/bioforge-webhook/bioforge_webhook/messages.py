"""Build signed messages from records and their delivery ids, following Standard Webhooks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass

from bioforge.plugin import Record

_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
_readable = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class Content:
    """A record for one receiver. `target` (receiver and result) and `digest` (whole record) are SHA-256 in hex."""

    target: str
    digest: str
    record: Record


@dataclass(frozen=True, slots=True)
class Delivery:
    """One record to post. `body` is the posted JSON object: the record with its `id` as `delivery_id`.

    `revision` is the number of earlier deliveries for the target.
    """

    id: str
    target: str
    digest: str
    revision: int
    artist_id: str
    recipe: str
    variant: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """One request. `body` is a JSON object, or an array of objects if `batch` is above 1."""

    id: str
    body: bytes
    deliveries: tuple[Delivery, ...]


def make_content(receiver: str, record: Record) -> Content:
    """Hash a record for a receiver. Raises ValueError for numbers without a JSON form (NaN, infinity)."""
    return Content(_digest("v1", receiver, *_named(record)), _digest(dict(record)), record)


def make_delivery(content: Content, revision: int) -> Delivery:
    """Build a delivery whose id is a hash of target, digest and revision.

    A changed answer gets a new id, even if it equals an older answer. A repeat after an unclear attempt keeps its id.
    """
    identifier = _digest(content.target, content.digest, revision)
    posted = {"delivery_id": identifier, **content.record}
    try:
        body = _readable(posted).encode()
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8 form; an escape preserves it
        body = json.dumps(posted).encode()
    return Delivery(identifier, content.target, content.digest, revision, *_named(content.record), body)


def _named(record: Record) -> tuple[str, str, str]:
    artist_id, recipe, variant = (str(record.get(key, "")) for key in ("artist_id", "recipe", "variant"))
    return artist_id, recipe, variant


def _digest(*parts: object) -> str:
    return hashlib.sha256(_canonical(parts).encode()).hexdigest()


def make_message(deliveries: Sequence[Delivery], *, array: bool) -> Message:
    """Build one request for at least one delivery. The id of an array is a hash of its delivery ids."""
    if not array:
        (only,) = deliveries
        return Message(only.id, only.body, (only,))
    together = hashlib.sha256("\n".join(one.id for one in deliveries).encode()).hexdigest()
    body = b"[" + b",".join(one.body for one in deliveries) + b"]"
    return Message(together, body, tuple(deliveries))


def signature(keys: Sequence[bytes], identifier: str, timestamp: int, body: bytes) -> str:
    """Return the header `webhook-signature`: `v1,` and a base64 HMAC-SHA256 for each key, separated by spaces.

    The signed bytes are `identifier.timestamp.body`; identifier and timestamp contain no full stop.
    """
    signed = b"%s.%d.%s" % (identifier.encode(), timestamp, body)
    made = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(one).decode()}" for one in made)

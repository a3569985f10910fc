"""What is posted: records with their delivery ids, as signed messages after the Standard Webhooks conventions."""

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
    """A record for a receiver. `target` (who is told, about what) and `digest` (all that is said) are sha256 in hex."""

    target: str
    digest: str
    record: Record


@dataclass(frozen=True, slots=True)
class Delivery:
    """One record on its way. `body` is the JSON object that is posted: the record, and its `id` as `delivery_id`.

    `revision` counts from 0 what was delivered about the target before.
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
    """One request: `body` is an object, or where several go in one request, an array of objects."""

    id: str
    body: bytes
    deliveries: tuple[Delivery, ...]


def content(receiver: str, record: Record) -> Content:
    """Raises ValueError for numbers that JSON has not (nan)."""
    return Content(_digest("v1", receiver, *_named(record)), _digest(dict(record)), record)


def delivery(told: Content, revision: int) -> Delivery:
    """What is said with its identity, made of the target, all that is posted, and the revision.

    So an answer that changed has another id, also where it is one that was delivered long ago, and what is posted once
    more because nobody knows whether it arrived keeps its own.
    """
    identifier = _digest(told.target, told.digest, revision)
    posted = {"delivery_id": identifier, **told.record}
    try:
        body = _readable(posted).encode()
    except UnicodeEncodeError:  # half of a surrogate pair: an escape keeps what UTF-8 cannot
        body = json.dumps(posted).encode()
    return Delivery(identifier, told.target, told.digest, revision, *_named(told.record), body)


def _named(record: Record) -> tuple[str, str, str]:
    artist_id, recipe, variant = (str(record.get(key, "")) for key in ("artist_id", "recipe", "variant"))
    return artist_id, recipe, variant


def _digest(*parts: object) -> str:
    return hashlib.sha256(_canonical(parts).encode()).hexdigest()


def message(deliveries: Sequence[Delivery], *, array: bool) -> Message:
    """One request for all of `deliveries`, at least one. Its id is the record's own, or made of all of them."""
    if not array:
        (only,) = deliveries
        return Message(only.id, only.body, (only,))
    together = hashlib.sha256("\n".join(one.id for one in deliveries).encode()).hexdigest()
    body = b"[" + b",".join(one.body for one in deliveries) + b"]"
    return Message(together, body, tuple(deliveries))


def signature(keys: Sequence[bytes], identifier: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`: for each key `v1,` and the base64 of an HMAC-SHA256, separated by spaces.

    What is signed is `identifier.timestamp.body`; neither of the first two has a full stop in it.
    """
    signed = b"%s.%d.%s" % (identifier.encode(), timestamp, body)
    made = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(one).decode()}" for one in made)

"""Check ids, bodies and signatures of messages."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from bioforge_webhook.messages import Delivery, make_content, make_delivery, make_message, signature
from bioforge_webhook.options import signing_keys
from conftest import SECRET, bios
from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError

from bioforge.plugin import Record

URL = "https://example.org/hooks/bios"


def headers(identifier: str, timestamp: int, signed: str) -> dict[str, str]:
    return {"webhook-id": identifier, "webhook-timestamp": str(timestamp), "webhook-signature": signed}


def deliver(record: Record, receiver: str = URL, revision: int = 0) -> Delivery:
    return make_delivery(make_content(receiver, record), revision)


def test_the_id_changes_with_the_record_only() -> None:
    (record,) = bios(1)
    first = deliver(record)
    assert len(first.id) == 64
    assert deliver(dict(reversed(list(record.items())))).id == first.id, "the order of keys says nothing"
    others = [
        deliver(record, URL + "/2"),
        deliver(record, revision=1),
        deliver({**record, "artist_id": "2"}),
        deliver({**record, "recipe": "motto"}),
        deliver({**record, "variant": "t=0.9"}),
        deliver({**record, "response_text": "A sculptor."}),
    ]
    assert len({first.id, *(one.id for one in others)}) == 7


def test_the_body_is_the_record_with_its_delivery_id() -> None:
    (record,) = bios(1, "Björk — singer")
    one = deliver(record)
    assert json.loads(one.body) == {"delivery_id": one.id, **record}
    assert "Björk — singer".encode() in one.body


def test_a_lone_surrogate_is_posted_as_an_escape() -> None:
    (record,) = bios(1, "broken \ud83d")
    one = deliver(record)
    assert b"\\ud83d" in one.body
    assert json.loads(one.body)["response_text"] == "broken \ud83d"


def test_a_number_without_a_json_form_is_an_error() -> None:
    with pytest.raises(ValueError, match="JSON"):
        deliver({**bios(1)[0], "parsed": float("nan")})


def test_one_record_is_an_object_and_several_are_an_array_with_its_own_id() -> None:
    first, second = (deliver(record) for record in bios(2))
    alone = make_message([first], array=False)
    assert (alone.id, alone.body) == (first.id, first.body)
    both = make_message([first, second], array=True)
    assert [one["delivery_id"] for one in json.loads(both.body)] == [first.id, second.id]
    assert both.id not in (first.id, second.id)
    assert isinstance(json.loads(make_message([first], array=True).body), list), (
        "a single record in a batch is an array too"
    )


def test_the_published_library_verifies_the_signature_and_refuses_a_changed_body() -> None:
    now = int(datetime.now(UTC).timestamp())
    one = make_message([deliver(bios(1, "Björk")[0])], array=False)
    signed = signature(signing_keys(SecretStr(SECRET)), one.id, now, one.body)
    assert Webhook(SECRET).verify(one.body, headers(one.id, now, signed))["artist_id"] == "1"
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(one.body.replace(b"Bj", b"Bx"), headers(one.id, now, signed))
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(one.body, headers("another", now, signed))


def test_both_secrets_sign_during_a_rotation() -> None:
    now = int(datetime.now(UTC).timestamp())
    newer = "whsec_" + "bmV3IHNlY3JldCBvZiB0aGlydHktdHdvIGJ5dGVzISE="
    signed = signature(signing_keys(SecretStr(f"{newer} {SECRET}")), "id", now, b"{}")
    assert len(signed.split()) == 2
    for secret in (SECRET, newer):
        Webhook(secret).verify(b"{}", headers("id", now, signed))

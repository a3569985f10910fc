"""Fixtures: a receiver on loopback, and the writer with options that do not wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bioforge_webhook import WebhookWriter
from bioforge_webhook.options import WebhookOptions
from receiver import Receiver

from bioforge.plugin import Record

pytest_plugins = ["bioforge.testing"]

SECRET = "whsec_" + "c2VjcmV0IG9mIHRoaXJ0eS10d28gYnl0ZXMgZm9yIHU="
Deliver = Callable[..., str]


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture
def deliver(receiver: Receiver, tmp_path: Path) -> Deliver:
    """Call the writer, as in `deliver(records, batch=2)`, with the record of deliveries in `tmp_path`."""

    def call(records: list[Record], path: Path = tmp_path / "deliveries.db", **options: object) -> str:
        given = {"url": receiver.url, "first_delay": 0, "timeout": 10, **options}
        return WebhookWriter()(iter(records), path, WebhookOptions.model_validate(given))

    return call


def bios(number: int, text: str = "A painter.") -> list[Record]:
    """Make records as a writer receives them; artist_id from 1."""
    return [
        {
            "artist_id": str(artist),
            "artist_name": f"Artist {artist}",
            "recipe": "bio",
            "response_text": text,
            "model": "gpt-6-luna",
            "usage": {"input_tokens": 10, "output_tokens": 4},
            "cost_usd": 0.0001,
            "error": None,
        }
        for artist in range(1, number + 1)
    ]

"""The writer `webhook`: posts finished results to an HTTP endpoint, each at least once, with a record of deliveries."""

from __future__ import annotations

from collections.abc import Mapping

from bioforge.plugin import PathWriter, hookimpl
from bioforge_webhook.delivering import WebhookWriter

BIOFORGE_API = 1


@hookimpl
def bioforge_writers() -> Mapping[str, PathWriter]:
    return {"webhook": WebhookWriter()}

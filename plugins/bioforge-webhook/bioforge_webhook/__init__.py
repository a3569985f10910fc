"""The writer `webhook`: posts finished results to an HTTP endpoint, each at least once, with a record of deliveries.

Every command of bioforge loads this module, so it imports nothing that posts: that waits until something is delivered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from bioforge.plugin import PathWriter, Record, hookimpl
from bioforge_webhook.options import WebhookOptions

BIOFORGE_API = 1


class WebhookWriter:
    """Posts each record at least once. `path` is the record of deliveries.

    Returns a sentence like `delivered 3, 47 before`. Raises OutputError when some could not be delivered, after all
    others were; the next call posts only those.
    """

    writes_path = True
    Options = WebhookOptions

    def __call__(self, records: Iterable[Record], path: Path, options: WebhookOptions) -> str:
        from bioforge_webhook.delivering import deliver

        return deliver(records, path, options)


@hookimpl
def bioforge_writers() -> Mapping[str, PathWriter]:
    return {"webhook": WebhookWriter()}

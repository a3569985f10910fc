"""The writer `webhook`: posts finished results to an HTTP endpoint, each at least once, with a record of deliveries.

Every bioforge command loads this module; HTTP libraries are imported when the first delivery starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from bioforge.plugin import PathWriter, Record, hookimpl
from bioforge_webhook.options import WebhookOptions

BIOFORGE_API = 1


class WebhookWriter:
    """Post each record at least once. `path` is the record of deliveries.

    Returns a summary like `delivered 3, 47 before`. Raises OutputError after all other records were delivered when some
    could not be; the next call posts only those.
    """

    writes_path = True
    Options = WebhookOptions

    def __call__(self, records: Iterable[Record], path: Path, options: WebhookOptions) -> str:
        from bioforge_webhook.writer import deliver

        return deliver(records, path, options)


@hookimpl
def bioforge_writers() -> Mapping[str, PathWriter]:
    return {"webhook": WebhookWriter()}

"""Names of batches and of the requests in them, at the provider and in the state."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from bioforge.backends.batch.service import BatchService, FileBatchService, InlineBatchService
from bioforge.core.types import Request

Name = Callable[[Request, int, str], str]
"""Returns the `custom_id` of a request's n-th attempt in the batch with a key."""


def new_key(now: float) -> str:
    """Return a unique key: `bf-20260131-0123456789abcdef`, with the day of `now` (seconds since 1970)."""
    return f"bf-{time.strftime('%Y%m%d', time.gmtime(now))}-{secrets.token_hex(8)}"


def naming(service: BatchService) -> Name:
    """Return the naming function of a service."""
    if isinstance(service, InlineBatchService):
        return service.custom_id_in
    assert isinstance(service, FileBatchService), f"{type(service).__name__} is no service of either kind"
    named = service.custom_id
    return lambda request, number, key: named(request, number)

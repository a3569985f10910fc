"""Common parts of vendors' HTTP clients: headers, bodies and keys."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bioforge.backends.connection import no_certificates
from bioforge.core.interfaces import BackendContext, Outcome
from bioforge.core.types import Failure, Paid

if TYPE_CHECKING:
    import httpx2

    from bioforge.backends.batch.service import CallError

CONNECT_SECONDS = 15.0
"""Time limit for a connection; the project's `timeout` is the limit for an answer."""

KEEP_ALIVE_SECONDS = 15.0
"""Seconds for which an idle connection is reused.

Servers close connections silently, and a request sent into a closed one may have been charged.
"""

MAX_BODY = 64 << 20
"""Bytes of an answer, decompressed; a longer one is not read further."""

HEAD = 64 << 10
"""Bytes that are kept of an answer that is too long."""

SHORTEST_SECRET = 8
"""Characters below which a key is taken for a placeholder (`any`, `test`) that may occur in any text."""

PLACEHOLDER_KEY = "no-key-needed"
"""The key for an SDK that requires one, when the server does not."""


# ------------------------------------------------------------------------------------------------ headers and bodies


def sdk_headers(opened: Callable[[httpx2.Client], Any]) -> dict[str, str]:
    """Return the headers that a vendor's SDK sends with each call. `opened` creates the SDK's client from an HTTP client."""
    import httpx2

    unused = httpx2.Client(verify=no_certificates(), trust_env=False)  # sends nothing
    with opened(unused) as client:
        headers = {**client.default_headers, **client.auth_headers}
    headers.pop("X-Stainless-Async", None)
    # the SDK's `Omit` marks headers without a value
    return {name: value for name, value in headers.items() if isinstance(value, str)}


def client_timeout(seconds: float, total: float | None = None) -> httpx2.Timeout:
    """Return the timeout of httpx2: at most `seconds` without progress, and less for a connection.

    `total` (by default `seconds`) is the limit of the whole call in a client with `total_timeout`, and is stored as the
    time limit for a place in the pool.
    """
    import httpx2

    return httpx2.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds), pool=total or seconds)


def total_timeout(opened: Callable[[Any], None] = lambda stream: None) -> dict[str, list[Callable[..., Any]]]:
    """Return the event hooks of an `httpx2.Client` that limit each call as a whole, by its `client_timeout`.

    httpx2 itself limits the time between two bytes, so that a server that sends one now and then holds a call for ever.
    `opened` is called with each new connection.
    """
    local = threading.local()

    def limited(act: Callable[..., Any]) -> Callable[..., Any]:
        def call(data: Any, timeout: float | None = None) -> Any:
            left = max(0.001, getattr(local, "until", math.inf) - monotonic())
            return act(data, timeout=left if timeout is None else min(left, timeout))

        return call

    def trace(event: str, info: Mapping[str, Any]) -> None:
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            stream = info["return_value"]
            stream.read, stream.write = limited(stream.read), limited(stream.write)
            opened(stream)

    def begin(request: httpx2.Request) -> None:
        # a call is sent and read on one thread
        local.until = monotonic() + (request.extensions["timeout"]["pool"] or math.inf)
        traces = [*filter(None, [request.extensions.get("trace")]), trace]
        request.extensions["trace"] = lambda event, info: [each(event, info) for each in traces]

    return {"request": [begin]}


class BodyTooLarge(Exception):
    """A body of more than `MAX_BODY` bytes, decompressed."""

    def __init__(self) -> None:
        super().__init__(f"the answer has more than {MAX_BODY >> 20} MB; only its start was kept")


class BodyPieces(list[bytes]):
    """The pieces of a body as they arrive, decompressed. `append` raises `BodyTooLarge`, and then only the head is kept."""

    size = 0

    def append(self, piece: bytes) -> None:
        self.size += len(piece)
        super().append(piece)
        if self.size > MAX_BODY:
            self[:] = [b"".join(self)[:HEAD]]
            raise BodyTooLarge


def lower_headers(headers: httpx2.Headers) -> dict[str, str]:
    """Return headers by lower-case name; a look-up in httpx2's own object walks through all of them."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers.raw}


def remove_key(received: Sequence[bytes], context: BackendContext) -> bytes:
    """Join received bytes without the API key, which a provider may repeat, as it is or escaped."""
    content = b"".join(received)
    for form in _forms(context.api_key or ""):
        content = content.replace(form, b"[key]")
    return content


@lru_cache(maxsize=16)
def _forms(key: str) -> tuple[bytes, ...]:
    """Return the key as texts show it: as it is, in Python and JSON strings, and in URLs. None for a placeholder."""
    if len(key) < SHORTEST_SECRET:
        return ()
    forms = (key, repr(key)[1:-1], json.dumps(key)[1:-1], key.replace("/", r"\/"), quote(key, safe=""))
    return tuple(dict.fromkeys(form.encode("utf-8", "surrogateescape") for form in forms))


def mask_key(outcome: Outcome, context: BackendContext) -> Outcome:
    """Return an outcome without the API key in its texts, which headers and errors may quote."""

    def masked(text: str | None) -> str | None:
        return text and remove_key([text.encode("utf-8", "replace")], context).decode("utf-8", "replace")

    failure = outcome.failure
    if failure is not None:
        failure = replace(failure, message=masked(failure.message) or "", code=masked(failure.code))
        return replace(outcome, failure=failure, request_id=masked(outcome.request_id), hint=masked(outcome.hint) or "")
    request_id = masked(outcome.request_id)
    return outcome if request_id == outcome.request_id else replace(outcome, request_id=request_id)


def read_json_object(content: bytes) -> dict[str, Any]:
    """Parse the JSON object in an answer. Raises `CallError` for anything else."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise malformed_answer(f"the answer is not JSON: {error}", content) from error
    if not isinstance(body, dict):
        raise malformed_answer(f"the answer is not a JSON object: {type(body).__name__}", content)
    return body


def require_id(body: Mapping[str, Any], what: str) -> str:
    """Return the id in an answer. Raises `CallError` if it has none."""
    found = body.get("id")
    if not isinstance(found, str) or not found:
        raise malformed_answer(f"the answer is not a {what}: it has no id", json.dumps(body).encode())
    return found


def malformed_answer(message: str, content: bytes) -> CallError:
    """Return the error for a success that cannot be read; the requested action may have been done."""
    from bioforge.backends.batch.service import CallError

    return CallError(Outcome(failure=Failure("malformed", message), paid=Paid.MAYBE, retryable=True, body=content))

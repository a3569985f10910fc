"""Common parts of vendors' HTTP clients: TLS, proxies, headers, bodies and keys."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from bioforge.core.interfaces import BackendContext, Outcome
from bioforge.core.types import Failure, Paid

if TYPE_CHECKING:
    import ssl

    import httpx2

    from bioforge.backends.batch.service import CallError

CONNECT_SECONDS = 15.0
"""Time limit for a connection; the project's `timeout` is the limit for an answer."""

KEEP_ALIVE_SECONDS = 15.0
"""Seconds for which an idle connection is reused.

Servers close connections silently, and a request sent into a closed one may have been charged.
"""

SHORTEST_SECRET = 8
"""Characters below which a key is taken for a placeholder (`any`, `test`) that may occur in any text."""

PLACEHOLDER_KEY = "no-key-needed"
"""The key for an SDK that requires one, when the server does not."""


# ------------------------------------------------------------------------------------------------ TLS and proxies


def is_loopback(base_url: str) -> bool:
    """Return True if the host is this machine."""
    from urllib.parse import urlsplit

    host = (urlsplit(base_url).hostname or "").lower()
    return host in ("localhost", "::1", "0.0.0.0") or host.startswith("127.")


def tls_verification(base_url: str) -> ssl.SSLContext | bool:
    """Return the `verify` argument of httpx2.

    Without https in the address and the proxies, no certificates are loaded, which takes longer than many local calls;
    a later https connection is then refused.
    """
    from urllib.parse import urlsplit
    from urllib.request import getproxies

    ways = (base_url, *getproxies().values())
    return _no_certificates() if not any(urlsplit(way).scheme == "https" for way in ways) else True


def _no_certificates() -> ssl.SSLContext:
    import ssl

    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def proxy(base_url: str) -> str | None:
    """Return the proxy that the environment names for this address, as httpx2 finds it.

    aiohttp could find it too, but asks a thread for each request, which costs more than the request.
    """
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    address = urlsplit(base_url)
    if is_loopback(base_url) or proxy_bypass(address.netloc):
        return None
    proxies = getproxies()
    found = proxies.get(address.scheme) or proxies.get("all")
    return f"http://{found}" if found and "://" not in found else found


# ------------------------------------------------------------------------------------------------ headers and bodies


def sdk_headers(opened: Callable[[httpx2.Client], Any]) -> dict[str, str]:
    """Return the headers that a vendor's SDK sends with each call. `opened` creates the SDK's client from an HTTP client."""
    import httpx2

    unused = httpx2.Client(verify=_no_certificates())  # sends nothing
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


def lower_headers(headers: httpx2.Headers) -> dict[str, str]:
    """Return headers by lower-case name; a look-up in httpx2's own object walks through all of them."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers.raw}


def remove_key(received: Sequence[bytes], context: BackendContext) -> bytes:
    """Join received bytes without the API key, which a provider may repeat in an error."""
    content = b"".join(received)
    if context.api_key and len(context.api_key) >= SHORTEST_SECRET:
        return content.replace(context.api_key.encode(), b"[key]")
    return content


def mask_key(outcome: Outcome, context: BackendContext) -> Outcome:
    """Return a failed outcome without the API key in its message; errors about an illegal header quote it."""
    assert outcome.failure is not None
    message = remove_key([outcome.failure.message.encode("utf-8", "replace")], context).decode("utf-8", "replace")
    return replace(outcome, failure=replace(outcome.failure, message=message))


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

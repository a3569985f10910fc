"""Common parts of vendors' HTTP clients: TLS, proxies, keys, and the meaning of transport errors.

error of the transport                                              money        next
connect: refused, DNS, TLS, proxy, timeout                          not paid     retried, an outage
no request: invalid URL, unknown protocol, illegal header           not paid     final
timeout, reset or invalid HTTP after sending                        maybe paid   retried
body cut off                                                        maybe paid   retried, the received part is kept
anything else: a fault in the client                                maybe paid   final
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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


# ------------------------------------------------------------------------------------------------ transport errors


@dataclass(frozen=True, slots=True)
class ErrorMeaning:
    """The reading of a transport error: class, money, retried or not, outage or not."""

    error_class: str
    paid: Paid
    retryable: bool = True
    outage: bool = False


_NOT_REACHED = ErrorMeaning("connection", Paid.NO, outage=True)
_NOT_SENT = ErrorMeaning("connection", Paid.NO)
_IMPOSSIBLE = ErrorMeaning("invalid_request", Paid.NO, retryable=False)
_TIMEOUT = ErrorMeaning("timeout", Paid.MAYBE)
_BROKEN = ErrorMeaning("connection", Paid.MAYBE)
_CUT_OFF = ErrorMeaning("truncated_body", Paid.MAYBE)
_MISTAKE = ErrorMeaning("internal", Paid.MAYBE, retryable=False)

MEANINGS: Mapping[str, ErrorMeaning] = {
    # httpx2
    "ConnectTimeout": _NOT_REACHED,
    "ConnectError": _NOT_REACHED,
    "ProxyError": _NOT_REACHED,
    "PoolTimeout": _NOT_SENT,
    "TimeoutException": _TIMEOUT,
    "RemoteProtocolError": _BROKEN,
    "LocalProtocolError": _IMPOSSIBLE,
    "UnsupportedProtocol": _IMPOSSIBLE,
    "TooManyRedirects": _IMPOSSIBLE,
    "InvalidURL": _IMPOSSIBLE,
    "CookieConflict": _IMPOSSIBLE,
    "DecodingError": _CUT_OFF,
    "HTTPStatusError": _BROKEN,
    "HTTPError": _BROKEN,
    "StreamError": _BROKEN,
    "SSEError": _BROKEN,
    # aiohttp
    "ClientConnectorError": _NOT_REACHED,
    "ConnectionTimeoutError": _NOT_REACHED,
    "ServerTimeoutError": _TIMEOUT,
    "ClientHttpProxyError": _NOT_REACHED,
    "ServerFingerprintMismatch": _NOT_REACHED,
    "ClientPayloadError": _CUT_OFF,
    "ClientError": _BROKEN,
    # the interpreter
    "TimeoutError": _TIMEOUT,
    "OSError": _BROKEN,
}
"""Meanings by the name of an exception's class, so that no transport has to be imported."""


def error_meaning(error: BaseException) -> ErrorMeaning:
    """Return the meaning of an exception by its nearest known class."""
    for kind in type(error).__mro__:
        if (found := MEANINGS.get(kind.__name__)) is not None:
            return found
    return _MISTAKE


@dataclass(frozen=True, slots=True)
class FailureReader:
    """Reads outcomes of calls without an answer. The vendor provides the reading of HTTP errors."""

    read_failure: Callable[[int, Mapping[str, str], bytes], Outcome]
    """Reads status, headers (by lower-case name) and body of an HTTP error."""
    request_id_of: Callable[[Mapping[str, str]], str | None]

    def from_exception(
        self, error: Exception, seconds: float, status: int | None, headers: Mapping[str, str], received: bytes
    ) -> Outcome:
        """Return the outcome of a call that raised; `status` and `headers` as far as they had arrived."""
        if status is not None and not 200 <= status < 300:
            # the status says it all; the rest of the body would only add text
            return replace(self.read_failure(status, headers, received), seconds=seconds)
        found = error_meaning(error)
        if status is not None and found is _BROKEN:
            found = _CUT_OFF
        if found is _TIMEOUT:
            message = f"no answer within {seconds:.{0 if seconds >= 9.95 else 1}f} s (setting: timeout)"
        else:
            message = ": ".join(filter(None, (type(error).__name__, str(error).strip())))
        return Outcome(
            failure=Failure(found.error_class, message, http_status=status),
            paid=found.paid,
            retryable=found.retryable,
            outage=found.outage,
            request_id=self.request_id_of(headers),
            seconds=seconds,
            body=received or None,
        )

    def from_refusal(self, response: httpx2.Response, seconds: float, context: BackendContext) -> Outcome:
        """Return the outcome of an HTTP error for which an SDK raised."""
        content = remove_key([response.content], context)
        return replace(
            self.read_failure(response.status_code, lower_headers(response.headers), content), seconds=seconds
        )

    def from_sdk_error(
        self,
        error: Exception,
        hides: type[Exception],
        seconds: float,
        answer: httpx2.Response | None,
        context: BackendContext,
    ) -> Outcome:
        """Return the outcome of a call for which an SDK raised.

        `hides` is the SDK's wrapper, whose `__cause__` is the transport's error; `answer` the response as far as it arrived.
        """
        hidden = error.__cause__ if isinstance(error, hides) else None
        cause = hidden if isinstance(hidden, Exception) else error
        status, headers = (None, {}) if answer is None else (answer.status_code, lower_headers(answer.headers))
        return mask_key(self.from_exception(cause, seconds, status, headers, b""), context)


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
        request.extensions["trace"] = trace

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

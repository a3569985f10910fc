"""What clients of vendors have in common: whom they trust, what they keep to themselves, and what the exceptions of their
transports mean.

what a transport raises                                             money        next
connect: refused, DNS, TLS, proxy, timeout                          not paid     retried, an outage
no request: invalid URL, unknown protocol, illegal header           not paid     final
timeout, reset or nonsense after sending                            maybe paid   retried
body cut off                                                        maybe paid   retried, what arrived is kept
anything else: a mistake in here                                    maybe paid   final
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bioforge.core.interfaces import BackendContext, Outcome
from bioforge.core.types import Failure, Paid

if TYPE_CHECKING:
    import ssl

    import httpx2

    from bioforge.backends.batch.service import CallError

CONNECT_SECONDS = 15.0
"""Longest time for a connection; the time for an answer is the project's `timeout`."""

KEEP_ALIVE_SECONDS = 15.0
"""How long an idle connection is used again. Servers close theirs silently, and a request sent into a closed one is
one whose fate nobody knows."""

SHORTEST_SECRET = 8
"""Characters below which a key is a placeholder that may stand in any text (`any`, `test`)."""

PLACEHOLDER_KEY = "no-key-needed"
"""What an SDK is given that wants a key, for a server that wants none."""


# ------------------------------------------------------------------------------------------------ the meanings


@dataclass(frozen=True, slots=True)
class Meaning:
    error_class: str
    paid: Paid
    retryable: bool = True
    outage: bool = False


_NOT_REACHED = Meaning("connection", Paid.NO, outage=True)
_NOT_SENT = Meaning("connection", Paid.NO)
_IMPOSSIBLE = Meaning("invalid_request", Paid.NO, retryable=False)
_TIMEOUT = Meaning("timeout", Paid.MAYBE)
_BROKEN = Meaning("connection", Paid.MAYBE)
_CUT_OFF = Meaning("truncated_body", Paid.MAYBE)
_MISTAKE = Meaning("internal", Paid.MAYBE, retryable=False)

MEANINGS: Mapping[str, Meaning] = {
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
"""By the name of an exception's nearest class: so nothing needs to be imported to read it."""


def meaning(error: BaseException) -> Meaning:
    for kind in type(error).__mro__:
        if (found := MEANINGS.get(kind.__name__)) is not None:
            return found
    return _MISTAKE


@dataclass(frozen=True, slots=True)
class Endings:
    """What came of calls that ended otherwise than in an answer. How a refusal reads is the vendor's to say."""

    read_failure: Callable[[int, Mapping[str, str], bytes], Outcome]
    """Status, headers by lower-case name and body of an HTTP error."""
    request_id_of: Callable[[Mapping[str, str]], str | None]

    def broken_off(
        self, error: Exception, seconds: float, status: int | None, headers: Mapping[str, str], received: bytes
    ) -> Outcome:
        """The outcome of a call that ended in an exception. `status` and `headers` where they had arrived."""
        if status is not None and not 200 <= status < 300:
            # A refusal is known by its status; the rest of its body adds nothing but words.
            return replace(self.read_failure(status, headers, received), seconds=seconds)
        found = meaning(error)
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

    def refused(self, response: httpx2.Response, seconds: float, context: BackendContext) -> Outcome:
        """The outcome of a call for whose refusal an SDK has raised."""
        content = without_key([response.content], context)
        return replace(self.read_failure(response.status_code, lowered(response.headers), content), seconds=seconds)

    def behind(
        self,
        error: Exception,
        hides: type[Exception],
        seconds: float,
        answer: httpx2.Response | None,
        context: BackendContext,
    ) -> Outcome:
        """The outcome of a call of an SDK that ended in an exception. `hides`: the SDK's own exception, which only says
        that something happened and has what did as its cause. `answer` where it had begun to arrive."""
        hidden = error.__cause__ if isinstance(error, hides) else None
        cause = hidden if isinstance(hidden, Exception) else error
        status, headers = (None, {}) if answer is None else (answer.status_code, lowered(answer.headers))
        return masked(self.broken_off(cause, seconds, status, headers, b""), context)


# ------------------------------------------------------------------------------------------------ whom to trust


def is_loopback(base_url: str) -> bool:
    from urllib.parse import urlsplit

    host = (urlsplit(base_url).hostname or "").lower()
    return host in ("localhost", "::1", "0.0.0.0") or host.startswith("127.")


def trust(base_url: str) -> ssl.SSLContext | bool:
    """Whom a client trusts, as the `verify` of httpx2. To read a machine's certificates takes longer than many a call to
    a server nearby; where nothing is encrypted none are read, and whatever asks for encryption after all is refused."""
    from urllib.parse import urlsplit
    from urllib.request import getproxies

    ways = (base_url, *getproxies().values())
    return _trusting_nobody() if not any(urlsplit(way).scheme == "https" for way in ways) else True


def _trusting_nobody() -> ssl.SSLContext:
    import ssl

    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def proxy(base_url: str) -> str | None:
    """The proxy that the environment names for this address, as `httpx2` finds it by itself.

    `aiohttp` would too, but asks a thread for each request, which costs more than the request.
    """
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    address = urlsplit(base_url)
    if is_loopback(base_url) or proxy_bypass(address.netloc):
        return None
    proxies = getproxies()
    found = proxies.get(address.scheme) or proxies.get("all")
    return f"http://{found}" if found and "://" not in found else found


# ------------------------------------------------------------------------------------------------ what is sent and read


def sdk_headers(opened: Callable[[httpx2.Client], Any]) -> dict[str, str]:
    """The headers that a vendor's SDK sends with each call. `opened` makes the SDK's client over an HTTP client."""
    import httpx2

    silent = httpx2.Client(verify=_trusting_nobody())  # it is only asked what it would send
    with opened(silent) as client:
        headers = {**client.default_headers, **client.auth_headers}
    headers.pop("X-Stainless-Async", None)
    # An `Omit` stands where there is nothing to send.
    return {name: value for name, value in headers.items() if isinstance(value, str)}


def timeouts(seconds: float) -> httpx2.Timeout:
    """At most so long without progress, and less for a connection."""
    import httpx2

    return httpx2.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds))


def lowered(headers: httpx2.Headers) -> dict[str, str]:
    """Headers by lower-case name; looking up one in httpx2's own object walks through all of them."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers.raw}


def without_key(received: Sequence[bytes], context: BackendContext) -> bytes:
    """What was received as one piece; a provider that repeats the key in a refusal does not get it stored or shown."""
    content = b"".join(received)
    if context.api_key and len(context.api_key) >= SHORTEST_SECRET:
        return content.replace(context.api_key.encode(), b"[key]")
    return content


def masked(outcome: Outcome, context: BackendContext) -> Outcome:
    """A failed outcome whose words do not have the key: those about an illegal header quote it."""
    assert outcome.failure is not None
    words = without_key([outcome.failure.message.encode("utf-8", "replace")], context).decode("utf-8", "replace")
    return replace(outcome, failure=replace(outcome.failure, message=words))


def read_object(content: bytes) -> dict[str, Any]:
    """The JSON object that a call was answered with; `CallError` where it is something else."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise malformed(f"the answer is not JSON: {error}", content) from error
    if not isinstance(body, dict):
        raise malformed(f"the answer is JSON without an object: {type(body).__name__}", content)
    return body


def id_in(body: Mapping[str, Any], what: str) -> str:
    """The id of what was made or found; `CallError` where there is none."""
    found = body.get("id")
    if not isinstance(found, str) or not found:
        raise malformed(f"the answer is no {what}: it has no id", json.dumps(body).encode())
    return found


def malformed(words: str, content: bytes) -> CallError:
    """A success that cannot be read: whatever was asked for may have been done."""
    from bioforge.backends.batch.service import CallError

    return CallError(Outcome(failure=Failure("malformed", words), paid=Paid.MAYBE, retryable=True, body=content))

"""What came of one attempt: a response that arrived whole, or an exception of a transport, to an `Outcome`. Pure.

what a transport raises                                             money        next
connect: refused, DNS, TLS, proxy, timeout                          not paid     retried, an outage
no request: invalid URL, unknown protocol, illegal header           not paid     final
timeout, reset or nonsense after sending                            maybe paid   retried
body cut off                                                        maybe paid   retried, what arrived is kept
anything else: a mistake in here                                    maybe paid   final
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bioforge.interfaces import Outcome
from bioforge.model import Failure, Paid, Request
from bioforge.openai.failures import read_failure, read_rate_limits, request_id_of
from bioforge.openai.wire import Price, read_answer


@dataclass(frozen=True, slots=True)
class _Meaning:
    error_class: str
    paid: Paid
    retryable: bool = True
    outage: bool = False


_NOT_REACHED = _Meaning("connection", Paid.NO, outage=True)
_NOT_SENT = _Meaning("connection", Paid.NO)
_IMPOSSIBLE = _Meaning("invalid_request", Paid.NO, retryable=False)
_TIMEOUT = _Meaning("timeout", Paid.MAYBE)
_BROKEN = _Meaning("connection", Paid.MAYBE)
_CUT_OFF = _Meaning("truncated_body", Paid.MAYBE)
_MISTAKE = _Meaning("internal", Paid.MAYBE, retryable=False)

MEANINGS: Mapping[str, _Meaning] = {
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


def meaning(error: BaseException) -> _Meaning:
    for kind in type(error).__mro__:
        if (found := MEANINGS.get(kind.__name__)) is not None:
            return found
    return _MISTAKE


def broken_off(
    error: Exception, seconds: float, status: int | None, headers: Mapping[str, str], received: bytes
) -> Outcome:
    """The outcome of an attempt that ended in an exception. `status` and `headers` where they had arrived."""
    if status is not None and not 200 <= status < 300:
        # A refusal is known by its status; the rest of its body adds nothing but words.
        return replace(read_failure(status, headers, received), seconds=seconds)
    found = meaning(error)
    if status is not None and found is _BROKEN:
        found = _CUT_OFF
    words = str(error).strip() or "no details"
    return Outcome(
        failure=Failure(found.error_class, f"{type(error).__name__}: {words}", http_status=status),
        paid=found.paid,
        retryable=found.retryable,
        outage=found.outage,
        request_id=request_id_of(headers),
        seconds=seconds,
        body=received or None,
    )


def interpret(
    request: Request, status: int, headers: Mapping[str, str], content: bytes, seconds: float, price: Price
) -> Outcome:
    """The outcome of an attempt whose response arrived whole."""
    if not 200 <= status < 300:
        return replace(read_failure(status, headers, content), seconds=seconds)
    answer = read_answer(request.endpoint, content, request.model, price)
    request_id = request_id_of(headers)
    limits = read_rate_limits(headers)
    if answer.problem is not None and answer.problem.error_class == "malformed":
        # Something was delivered, and whether it was charged for nobody can tell from here.
        return Outcome(
            failure=answer.problem,
            paid=Paid.MAYBE,
            retryable=True,
            rate_limits=limits,
            request_id=request_id,
            seconds=seconds,
            body=content,
        )
    return Outcome(
        answer=answer,
        paid=Paid.YES,
        rate_limits=limits,
        request_id=request_id,
        seconds=seconds,
    )

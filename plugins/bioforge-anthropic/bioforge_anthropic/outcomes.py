"""What came of one attempt: a response that arrived whole, or an exception of the transport, to an `Outcome`. Pure.

what the transport raises                                           money        next
connect: refused, DNS, TLS, proxy, timeout                          not paid     retried, an outage
no request: invalid URL, unknown protocol, illegal header           not paid     final
timeout, reset or nonsense after sending                            maybe paid   retried
body cut off                                                        maybe paid   retried, what arrived is kept
anything else: a mistake in here                                    maybe paid   final
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bioforge.plugin import Failure, Outcome, Paid, Request
from bioforge_anthropic.failures import read_failure, read_rate_limits, request_id_of
from bioforge_anthropic.wire import read_answer


@dataclass(frozen=True, slots=True)
class _Meaning:
    error_class: str
    paid: Paid
    retryable: bool = True
    outage: bool = False


_NOT_REACHED = _Meaning("connection", Paid.NO, outage=True)
_IMPOSSIBLE = _Meaning("invalid_request", Paid.NO, retryable=False)
_TIMEOUT = _Meaning("timeout", Paid.MAYBE)
_BROKEN = _Meaning("connection", Paid.MAYBE)
_CUT_OFF = _Meaning("truncated_body", Paid.MAYBE)
_MISTAKE = _Meaning("internal", Paid.MAYBE, retryable=False)

_MEANINGS: Mapping[str, _Meaning] = {
    "ConnectTimeout": _NOT_REACHED,
    "ConnectError": _NOT_REACHED,
    "ProxyError": _NOT_REACHED,
    "PoolTimeout": _Meaning("connection", Paid.NO),
    "TimeoutException": _TIMEOUT,
    "LocalProtocolError": _IMPOSSIBLE,
    "UnsupportedProtocol": _IMPOSSIBLE,
    "TooManyRedirects": _IMPOSSIBLE,
    "InvalidURL": _IMPOSSIBLE,
    "CookieConflict": _IMPOSSIBLE,
    "DecodingError": _CUT_OFF,
    "HTTPError": _BROKEN,
    "StreamError": _BROKEN,
    "TimeoutError": _TIMEOUT,
    "OSError": _BROKEN,
}
"""By the name of an exception's nearest class in httpx2 and the interpreter."""


def broken_off(
    error: Exception, seconds: float, status: int | None, headers: Mapping[str, str], received: bytes
) -> Outcome:
    """The outcome of a call that ended in an exception. `status` and `headers` where they had arrived."""
    if status is not None and not 200 <= status < 300:
        # A refusal is known by its status; the rest of its body adds nothing but words.
        return replace(read_failure(status, headers, received), seconds=seconds)
    names = (kind.__name__ for kind in type(error).__mro__)
    found = next((_MEANINGS[name] for name in names if name in _MEANINGS), _MISTAKE)
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


def interpret(request: Request, status: int, headers: Mapping[str, str], content: bytes, seconds: float) -> Outcome:
    """The outcome of an attempt whose response arrived whole."""
    if not 200 <= status < 300:
        return replace(read_failure(status, headers, content), seconds=seconds)
    answer = read_answer(content, request.model)
    common = Outcome(rate_limits=read_rate_limits(headers), request_id=request_id_of(headers), seconds=seconds)
    if answer.problem is not None and answer.problem.error_class == "malformed":
        # Something was delivered, and whether it was charged for nobody can tell from here.
        return replace(common, failure=answer.problem, paid=Paid.MAYBE, retryable=True, body=content)
    return replace(common, answer=answer, paid=Paid.YES)

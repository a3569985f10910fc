"""Map a complete response or an exception to an `Outcome`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bioforge.backends.openai.errors import (
    BROKEN,
    CUT_OFF,
    INTERNAL,
    NOT_SENT,
    TIMEOUT,
    Next,
    read_failure,
    rule_of_exception,
    without_answer,
)
from bioforge.backends.openai.headers import read_rate_limits, request_id_of
from bioforge.backends.openai.wire import Price, read_answer
from bioforge.backends.transport import lower_headers, mask_key, remove_key
from bioforge.core.interfaces import BackendContext, Outcome
from bioforge.core.types import Failure, Paid, Request

if TYPE_CHECKING:
    import httpx2


@dataclass(frozen=True, slots=True)
class FailureReader:
    """Reads outcomes of calls without an answer. The vendor provides the reading of HTTP errors."""

    read_failure: Callable[[int, Mapping[str, str], bytes], Outcome]
    """Reads status, headers (by lower-case name) and body of an HTTP error."""
    request_id_of: Callable[[Mapping[str, str]], str | None]

    def from_exception(
        self,
        error: Exception,
        seconds: float,
        status: int | None,
        headers: Mapping[str, str],
        received: bytes,
        *,
        written: bool = True,
    ) -> Outcome:
        """Return the outcome of a call that raised; `status` and `headers` as far as they had arrived.

        `written` is False if certainly no byte of the request was written. Then it is not paid.
        """
        if status is not None and not 200 <= status < 300:
            # the status says it all; the rest of the body would only add text
            return replace(self.read_failure(status, headers, received), seconds=seconds)
        found = rule_of_exception(error)
        if status is not None and found is BROKEN:
            found = CUT_OFF
        elif not written and found.paid is Paid.MAYBE:
            found = INTERNAL if found is INTERNAL else NOT_SENT
        if found is TIMEOUT:
            message = f"no answer within {seconds:.{0 if seconds >= 9.95 else 1}f} s (setting: timeout)"
        else:
            message = ": ".join(filter(None, (type(error).__name__, str(error).strip())))
        return Outcome(
            failure=Failure(found.error_class, message, http_status=status),
            paid=found.paid if written else Paid.NO,
            retryable=found.retryable,
            stops_run=found.then is Next.STOPS,
            outage=found.outage,
            hint=found.hint,
            request_id=self.request_id_of(headers),
            seconds=seconds,
            body=received or None,
        )

    def from_refusal(self, response: httpx2.Response, seconds: float, context: BackendContext) -> Outcome:
        """Return the outcome of an HTTP error for which an SDK raised."""
        content = remove_key([response.content], context)
        outcome = self.read_failure(response.status_code, lower_headers(response.headers), content)
        return mask_key(replace(outcome, seconds=seconds), context)

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


FAILURES = FailureReader(read_failure, request_id_of)


def interpret(
    request: Request, status: int, headers: Mapping[str, str], content: bytes, seconds: float, price: Price
) -> Outcome:
    """Return the outcome of an attempt whose response arrived completely."""
    if not 200 <= status < 300:
        return replace(read_failure(status, headers, content), seconds=seconds)
    answer = read_answer(request.endpoint, content, request.model, price)
    if (failed := without_answer(answer, headers)) is not None:
        return replace(failed, seconds=seconds)
    return Outcome(
        answer=answer,
        paid=Paid.YES,
        rate_limits=read_rate_limits(headers),
        request_id=request_id_of(headers),
        seconds=seconds,
    )

"""Map a complete response to an `Outcome`; `FAILURES` maps the others. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bioforge.backends.openai.errors import read_failure, read_rate_limits, request_id_of
from bioforge.backends.openai.wire import Price, read_answer
from bioforge.backends.transport import FailureReader
from bioforge.core.interfaces import Outcome
from bioforge.core.types import Paid, Request

FAILURES = FailureReader(read_failure, request_id_of)


def interpret(
    request: Request, status: int, headers: Mapping[str, str], content: bytes, seconds: float, price: Price
) -> Outcome:
    """Return the outcome of an attempt whose response arrived completely."""
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

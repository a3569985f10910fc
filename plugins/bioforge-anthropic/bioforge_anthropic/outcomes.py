"""What came of one attempt whose response arrived whole, to an `Outcome`; of the others, `FAILURES`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bioforge.plugin import FailureReader, Outcome, Paid, Request
from bioforge_anthropic.failures import read_failure, read_rate_limits, request_id_of
from bioforge_anthropic.wire import read_answer

FAILURES = FailureReader(read_failure, request_id_of)


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

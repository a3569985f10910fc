"""Map a complete response to an `Outcome`; `FAILURES` maps the others. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bioforge.plugin import FailureReader, Outcome, Paid, Request, without_answer
from bioforge_anthropic.failures import read_failure, read_rate_limits, request_id_of, with_headers
from bioforge_anthropic.wire import read_answer

FAILURES = FailureReader(read_failure, request_id_of)


def interpret(request: Request, status: int, headers: Mapping[str, str], content: bytes, seconds: float) -> Outcome:
    """Return the outcome of an attempt whose response arrived completely."""
    if not 200 <= status < 300:
        return replace(read_failure(status, headers, content), seconds=seconds)
    answer = read_answer(content, request.model)
    common = Outcome(rate_limits=read_rate_limits(headers), request_id=request_id_of(headers), seconds=seconds)
    if (failed := without_answer(answer, headers)) is not None:
        return replace(with_headers(failed, headers), seconds=seconds)
    return replace(common, answer=answer, paid=Paid.YES)

"""What a caller is told: from what came back, or did not, to an answer or a typed error. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from bioforge.api.request import PreparedRequest
from bioforge.api.types import Answer
from bioforge.core.errors import (
    AuthenticationError,
    BudgetError,
    CallFacts,
    ClosedError,
    GenerationError,
    HaltedError,
    OutageError,
    QuotaError,
    RefusedError,
    SchemaValidationError,
    TransportError,
    TruncatedError,
    UnusableError,
)
from bioforge.core.events import Failed, Stopped
from bioforge.core.reasons import SCHEMA
from bioforge.core.text import money, plural
from bioforge.core.types import Failure, Paid, Request, Response, Usage
from bioforge.recipes.schema import Invalid, Schema, SchemaError, Valid

_UNUSABLE: dict[str, tuple[type[UnusableError], str]] = {
    "refusal": (RefusedError, "ask differently; the same request is likely to be refused again"),
    "content_filter": (RefusedError, "ask differently; the same request is likely to be refused again"),
    "truncated": (TruncatedError, "raise max_output_tokens"),
}
"""Error classes of answers that cannot be used, with what to do."""

_HALTED: dict[str, tuple[type[HaltedError], str]] = {
    "budget": (BudgetError, "raise LimitsConfig(max_cost_usd=…) and open another client"),
    "quota": (QuotaError, "add credit or raise the spend limit, then call again"),
    "key": (AuthenticationError, "set a valid key, in the environment or in ProviderConfig"),
    "outage": (OutageError, "check the network and the provider's status page, then call again"),
    "interrupted": (ClosedError, "calls in flight were awaited; open another client for the rest"),
    "deadline": (ClosedError, "open another client for the rest"),
}


@dataclass(frozen=True, slots=True)
class Received:
    """An answer with where it comes from. `cached`: it was there before; nothing was paid for it now."""

    received: Response
    number: int
    seconds: float
    request_id: str | None = None
    cached: bool = False


@dataclass(frozen=True, slots=True)
class CostSoFar:
    """What one call has paid for so far, beside the answer that it is about to get."""

    cost_usd: float | None = 0.0
    usage: Usage | None = None

    def with_answer(self, arrival: Received) -> CostSoFar:
        cost = 0.0 if arrival.cached else arrival.received.cost_usd
        both = None if self.cost_usd is None or cost is None else self.cost_usd + cost
        return CostSoFar(both, _sum(self.usage, arrival.received.usage))


@dataclass(frozen=True, slots=True)
class NeedsRepair:
    """The answer does not fit its schema, and is to be sent back once."""

    text: str
    errors: tuple[SchemaError, ...]
    paying: CostSoFar


class Verdicts:
    """The verdict of each schema on one text, given once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._known: dict[str, Valid | Invalid] = {}

    def of(self, schema: Schema) -> Valid | Invalid:
        # equal hashes are equal verdicts, and still another model: another class of the same source
        key = f"{schema.validation_hash} {id(schema.model)}"
        if key not in self._known:
            self._known[key] = schema.validate(self._text)
        return self._known[key]


def judge(
    question: PreparedRequest, arrival: Received, verdicts: Verdicts, before: CostSoFar
) -> Answer[Any] | GenerationError | NeedsRepair:
    """What an answer is to one call. `before`: what the call paid for earlier answers."""
    received, paying = arrival.received, before.with_answer(arrival)
    problem, text = received.problem, received.text or ""
    if problem is not None and problem.error_class != SCHEMA:
        return _unusable(question, arrival, problem, paying)
    value: Any = text
    parsed = None
    if question.schema is not None:
        verdict = verdicts.of(question.schema)
        if isinstance(verdict, Invalid):
            if question.repairs and verdict.repairable:
                return NeedsRepair(text, verdict.errors, paying)
            return _misfit(question, arrival, verdict, paying)
        value, parsed = verdict.value, verdict.parsed
    return Answer(
        text=text,
        value=value,
        parsed=parsed,
        usage=paying.usage or Usage(),
        cost_usd=paying.cost_usd,
        model=received.model,
        request_id=arrival.request_id,
        response_id=received.response_id,
        request_hash=question.request.request_hash,
        attempts=arrival.number,
        seconds=arrival.seconds,
        cached=arrival.cached,
        repaired=question.mends,
    )


def failed(event: Failed) -> TransportError:
    """The last word on a request that got no answer."""
    return no_answer(event.failure, event.attempt.number, _facts(event), event.paid, event.retry_after)


def no_answer(
    failure: Failure, number: int, facts: CallFacts, paid: Paid = Paid.NO, retry_after: float | None = None
) -> TransportError:
    details = [f"HTTP {failure.http_status}"] if failure.http_status else []
    details += [plural(number, "attempt")] if number > 1 else []
    maybe = paid is Paid.MAYBE
    return TransportError(
        failure.message + (f" ({', '.join(details)})" if details else ""),
        "it may have been paid for; RetryConfig(maybe_paid=…) says whether such a call is made again" if maybe else "",
        status_code=failure.http_status,
        retry_after=retry_after,
        maybe_paid=maybe,
        **facts,
    )


def _facts(event: Failed) -> CallFacts:
    return CallFacts(
        error_class=event.failure.error_class,
        code=event.failure.code,
        request_hash=event.attempt.request.request_hash,
        request_id=event.request_id,
        attempts=event.attempt.number,
    )


def halted(stopped: Stopped, status_code: int | None = None) -> Callable[[], HaltedError]:
    """Makes the error of everybody who still waits. `status_code` is of the refusal that stopped everything."""
    kind, hint = _HALTED.get(stopped.kind, (HaltedError, stopped.hint))
    status = status_code if kind in (AuthenticationError, QuotaError) else None
    return lambda: kind(stopped.message, hint, status_code=status, error_class=stopped.kind)


def too_dear(request: Request, limit: float, spent: float, price: float) -> BudgetError:
    """For a request that does not fit into what is left of a budget, all in US dollars."""
    return BudgetError(
        f"the budget is {money(limit)}: {money(spent)} spent, and this request may cost {money(price)}",
        "lower max_output_tokens, or raise LimitsConfig(max_cost_usd=…) and open another client",
        error_class="budget",
        request_hash=request.request_hash,
    )


def _unusable(question: PreparedRequest, arrival: Received, problem: Failure, paying: CostSoFar) -> UnusableError:
    kind, hint = _UNUSABLE.get(problem.error_class, (UnusableError, ""))
    return kind(
        problem.message,
        hint,
        raw_output=arrival.received.text or "",
        cost_usd=paying.cost_usd,
        **_of_answer(question, arrival, problem.error_class, problem.code),
    )


def _misfit(question: PreparedRequest, arrival: Received, verdict: Invalid, paying: CostSoFar) -> SchemaValidationError:
    assert question.schema is not None
    return SchemaValidationError(
        f"the answer does not fit {question.schema.name}: {verdict.summary()}",
        "" if question.mends else "repair=True sends such an answer back once, with what is wrong with it",
        schema_name=question.schema.name,
        errors=verdict.errors,
        repaired=question.mends,
        raw_output=arrival.received.text or "",
        cost_usd=paying.cost_usd,
        **_of_answer(question, arrival, SCHEMA, None),
    )


def _of_answer(question: PreparedRequest, arrival: Received, error_class: str, code: str | None) -> CallFacts:
    return CallFacts(
        error_class=error_class,
        code=code,
        request_hash=question.request.request_hash,
        request_id=arrival.request_id,
        attempts=arrival.number,
    )


def as_recorded(received: Response, schema: Schema | None, verdicts: Verdicts) -> Response:
    """The answer as a state keeps it: with its data, or with what is wrong with it."""
    from bioforge.recipes.validate import as_text, complaint

    if schema is None or received.problem is not None:
        return received
    verdict = verdicts.of(schema)
    if isinstance(verdict, Valid):
        return replace(received, parsed=as_text(verdict), validation=schema.validation_hash)
    return replace(received, problem=Failure(SCHEMA, complaint(verdict, schema)), validation=schema.validation_hash)


def _sum(one: Usage | None, other: Usage | None) -> Usage | None:
    if one is None or other is None:
        return one or other
    return Usage(
        one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens,
        one.cached_tokens + other.cached_tokens,
        one.cache_write_tokens + other.cache_write_tokens,
        one.reasoning_tokens + other.reasoning_tokens,
    )

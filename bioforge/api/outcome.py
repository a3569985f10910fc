"""From a received answer, or its absence, to what a call returns: an `Answer` or a typed error. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bioforge.api.request import PreparedRequest
from bioforge.api.types import Answer
from bioforge.core.errors import (
    AuthenticationError,
    BudgetError,
    CallFacts,
    ClosedError,
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
    "refusal": (RefusedError, "change the prompt; the same request is likely to be refused again"),
    "content_filter": (RefusedError, "change the prompt; the same request is likely to be refused again"),
    "truncated": (TruncatedError, "raise max_output_tokens"),
}
"""Exception class and hint by error class of an unusable answer."""

_HALTED: dict[str, tuple[type[HaltedError], str]] = {
    "budget": (BudgetError, "raise LimitsConfig(max_cost_usd=…) and open another client"),
    "quota": (QuotaError, "add credit or raise the spend limit, then call again"),
    "key": (AuthenticationError, "set a valid key, in the environment or in ProviderConfig"),
    "outage": (OutageError, "check the network and the provider's status page, then call again"),
    "interrupted": (ClosedError, "calls in flight were awaited; open another client for the rest"),
    "deadline": (ClosedError, "open another client for the rest"),
    "refused": (HaltedError, "check Config(model=…, endpoint=…) and ProviderConfig(base_url=…)"),
}
"""Exception class and hint by `Stopped.kind`."""


@dataclass(frozen=True, slots=True)
class Received:
    """An answer and the attempt that brought it. `cached`: it was stored before, so nothing was paid for it now."""

    response: Response
    number: int
    seconds: float
    request_id: str | None = None
    cached: bool = False
    _validations: dict[str, Valid | Invalid] = field(default_factory=dict, repr=False, compare=False)

    @property
    def text(self) -> str:
        return self.response.text or ""

    @property
    def problem(self) -> Failure | None:
        """Return the problem that makes the answer unusable with any schema, or None."""
        problem = self.response.problem
        return None if problem is not None and problem.error_class == SCHEMA else problem

    def validate(self, schema: Schema) -> Valid | Invalid:
        """Validate the text, once for each schema."""
        # models with an equal hash agree on the text, and still make instances of different classes
        key = f"{schema.validation_hash} {id(schema.model)}"
        if key not in self._validations:
            self._validations[key] = schema.validate(self.text)
        return self._validations[key]


@dataclass(frozen=True, slots=True)
class CostSoFar:
    """Cost and usage of one call's answers. `cost_usd` is None if a price is unknown."""

    cost_usd: float | None = 0.0
    usage: Usage | None = None

    def with_answer(self, received: Received) -> CostSoFar:
        cost = 0.0 if received.cached else received.response.cost_usd
        total = None if self.cost_usd is None or cost is None else self.cost_usd + cost
        return CostSoFar(total, _add(self.usage, received.response.usage))


def repair_errors(prepared: PreparedRequest, received: Received) -> tuple[SchemaError, ...]:
    """Return the schema errors to send back to the model; empty if the answer fits or is not to be repaired."""
    if prepared.schema is None or not prepared.repairs or received.problem is not None:
        return ()
    validation = received.validate(prepared.schema)
    return validation.errors if isinstance(validation, Invalid) and validation.repairable else ()


def judge(prepared: PreparedRequest, received: Received, cost: CostSoFar) -> Answer[Any] | UnusableError:
    """Return what a call gets for a received answer. `cost` includes this answer."""
    problem, text = received.problem, received.text
    if problem is not None:
        kind, hint = _UNUSABLE.get(problem.error_class, (UnusableError, ""))
        facts = _facts_of(prepared, received, problem.error_class, problem.code)
        return kind(problem.message, hint, raw_output=text, cost_usd=cost.cost_usd, **facts)
    value: Any = text
    parsed = None
    if prepared.schema is not None:
        validation = received.validate(prepared.schema)
        if isinstance(validation, Invalid):
            return _schema_error(prepared, prepared.schema, received, validation, cost)
        value, parsed = validation.value, validation.parsed
    return Answer(
        text=text,
        value=value,
        parsed=parsed,
        usage=cost.usage or Usage(),
        cost_usd=cost.cost_usd,
        model=received.response.model,
        request_id=received.request_id,
        response_id=received.response.response_id,
        request_hash=prepared.request.request_hash,
        attempts=received.number,
        seconds=received.seconds,
        cached=received.cached,
        repaired=prepared.is_repair,
    )


def _schema_error(
    prepared: PreparedRequest, schema: Schema, received: Received, invalid: Invalid, cost: CostSoFar
) -> SchemaValidationError:
    return SchemaValidationError(
        f"the answer does not fit {schema.name}: {invalid.summary()}",
        "" if prepared.is_repair else "repair=True sends such an answer back once with its errors",
        schema_name=schema.name,
        errors=invalid.errors,
        repaired=prepared.is_repair,
        raw_output=received.text,
        cost_usd=cost.cost_usd,
        **_facts_of(prepared, received, SCHEMA, None),
    )


def _facts_of(prepared: PreparedRequest, received: Received, error_class: str, code: str | None) -> CallFacts:
    return CallFacts(
        error_class=error_class,
        code=code,
        request_hash=prepared.request.request_hash,
        request_id=received.request_id,
        attempts=received.number,
    )


def failed(event: Failed) -> TransportError:
    """Return the error of a request whose last attempt failed."""
    attempt = event.attempt
    facts = CallFacts(
        error_class=event.failure.error_class,
        code=event.failure.code,
        request_hash=attempt.request.request_hash,
        request_id=event.request_id,
        attempts=attempt.number,
    )
    return no_answer(event.failure, attempt.number, facts, event.paid, event.retry_after)


def no_answer(
    failure: Failure, number: int, facts: CallFacts, paid: Paid = Paid.NO, retry_after: float | None = None
) -> TransportError:
    """Return the error of a request without an answer after attempt `number`."""
    details = [f"HTTP {failure.http_status}"] if failure.http_status else []
    details += [plural(number, "attempt")] if number > 1 else []
    maybe = paid is Paid.MAYBE
    return TransportError(
        failure.message + (f" ({', '.join(details)})" if details else ""),
        "it may have been charged; RetryConfig(maybe_paid=…) decides if such a request is resent" if maybe else "",
        status_code=failure.http_status,
        retry_after=retry_after,
        maybe_paid=maybe,
        **facts,
    )


def halted(stopped: Stopped, status_code: int | None = None) -> Callable[[], HaltedError]:
    """Return a factory for the error of every waiting call. `status_code`: of the refusal that stopped the client."""
    kind, hint = _HALTED.get(stopped.kind, (HaltedError, stopped.hint))
    status = status_code if kind in (AuthenticationError, QuotaError) else None
    return lambda: kind(stopped.message, hint, status_code=status, error_class=stopped.kind)


def over_budget(request: Request, limit: float, spent: float, price: float) -> BudgetError:
    """Return the error of a request that does not fit into the rest of the budget; amounts in US dollars."""
    return BudgetError(
        f"the budget is {money(limit)}: {money(spent)} spent, and this request may cost {money(price)}",
        "lower max_output_tokens, or raise LimitsConfig(max_cost_usd=…) and open another client",
        error_class="budget",
        request_hash=request.request_hash,
    )


def _add(one: Usage | None, other: Usage | None) -> Usage | None:
    if one is None or other is None:
        return one or other
    return Usage(
        one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens,
        one.cached_tokens + other.cached_tokens,
        one.cache_write_tokens + other.cache_write_tokens,
        one.reasoning_tokens + other.reasoning_tokens,
    )

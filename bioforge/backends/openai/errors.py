"""The table of outcomes: status, headers and body of a response, or an exception, to an `Outcome`. Pure; reads any bytes.

Calls, lines of batches, errors in a 200 and the plugins of other vendors read it; docs/outcomes.md is generated from it.
A call is not paid if its exception came before the first byte was written, and maybe paid after that.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from bioforge.backends.connection import CERTIFICATE_HINT, PROXY_HINT, setup_fault
from bioforge.backends.openai.error_body import (
    EMBEDDED,
    ErrorBody,
    embedded_error,
    error_in,
    excerpt,
    read_error,
    readable,
)
from bioforge.backends.openai.headers import read_rate_limits, read_retry_after, request_id_of
from bioforge.core.interfaces import Outcome
from bioforge.core.reasons import CONTENT_FILTER
from bioforge.core.types import Failure, Paid, Response


class Next(StrEnum):
    """Treatment of a request after an outcome."""

    USED = "used"
    RETRIED = "retried"
    FAILS = "fails; sent again by the next run"
    HELD = "held back"
    STOPS = "stops the run"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table. `received` and `why` are Markdown, for docs/outcomes.md.

    A rule for HTTP errors matches one of `statuses` (empty: any), and if it has `codes` or `phrases`, one of the error's codes
    or the start of its message. `errors` are names of exceptions, `endings` the provider's words for the end of an answer.
    """

    received: str
    error_class: str
    then: Next
    paid: Paid = Paid.NO
    why: str = ""
    hint: str = ""
    statuses: Collection[int] = ()
    codes: frozenset[str] = frozenset()
    phrases: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    endings: frozenset[str] = frozenset()
    outage: bool = False
    overloaded: bool = False

    @property
    def retryable(self) -> bool:
        return self.then is Next.RETRIED

    def matches(self, status: int, error: ErrorBody) -> bool:
        """Return True for an HTTP error that this rule is about."""
        if self.errors or self.endings or (self.statuses and status not in self.statuses):
            return False
        if not self.codes and not self.phrases:
            return bool(self.statuses)
        start = error.message[:SEARCHED].lower()
        return not self.codes.isdisjoint(error.codes) or any(phrase in start for phrase in self.phrases)


SEARCHED = 100
"""Characters of a message in which phrases are searched; a longer one may quote the row."""

_REFUSED = (400, 401, 402, 403, 429)
"""Statuses of refusals whose codes and words say more than the status."""

_QUOTA = "add credit or raise the spend limit of the account or project, then run again: nothing is lost"
_KEY = "set a valid key in the variable that api_key_env names (default: OPENAI_API_KEY)"
_ACCESS = "this key may not use the model or the endpoint: check the project's permissions"

HTTP_ERRORS: tuple[Rule, ...] = (
    Rule("402", "quota", Next.STOPS, hint=_QUOTA, statuses=(402,)),
    Rule(
        "a code or message about credit or a spend limit: `insufficient_quota`, `budget_exceeded`, *Insufficient Balance*",
        "quota", Next.STOPS, why="waiting does not help", hint=_QUOTA, statuses=_REFUSED,
        codes=frozenset({
            "insufficient_quota", "credit_balance_exhausted", "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded", "organization_usage_limit_exceeded", "billing_hard_limit_reached",
            "billing_not_active", "budget_exceeded", "insufficient_balance", "insufficient_credits",
            "insufficient_funds", "payment_required", "billing_error", "contract_spend_limit_reached",
            "enforced_spend_limit_reached", "linked_organization_billing_unavailable",
            "linked_organization_spend_limit_reached",
        }),
        phrases=(
            "insufficient balance", "insufficient credit", "budget has been exceeded", "credit balance is too low",
            "reached your specified api usage limits",
        ),
    ),
    Rule("401", "authentication", Next.STOPS, hint=_KEY, statuses=(401,)),
    Rule(
        "a code or message about an invalid key, in any format", "authentication", Next.STOPS, hint=_KEY, statuses=(400, 403),
        codes=frozenset(["invalid_api_key", "api_key_invalid", "authentication_error", "unauthenticated"]),
        phrases=("invalid api key", "api key not valid", "incorrect api key", "api key is invalid"),
    ),
    Rule(
        "Azure's content filter: 400 `content_filter`", CONTENT_FILTER, Next.HELD, Paid.MAYBE,
        "Azure charges for the filtered prompt; it would be filtered again",
        statuses=(400, 403, 422), codes=frozenset({"content_filter", "responsibleaipolicyviolation"}),
    ),
    Rule(
        "moderation: a code such as `content_policy_violation`, or `error.metadata.reasons`", CONTENT_FILTER, Next.HELD,
        why="it is about the row's text", statuses=(400, 403, 422),
        codes=frozenset(
            ["content_policy_violation", "flagged_input", "moderation_blocked", "data_inspection_failed"]
        ),
        phrases=("was flagged", "requires moderation on"),
    ),
    Rule("an organization on hold", "permission", Next.STOPS, hint=_ACCESS, codes=frozenset({"organization_on_hold"})),
    Rule(
        "403", "permission", Next.STOPS, hint=_ACCESS, statuses=(403,),
        why="after an answer of the same model in the same run: `row_refused`, held back",
    ),
    Rule("3xx", "redirect", Next.FAILS, why="not followed, so the key reaches no other host", statuses=range(300, 400)),
    Rule("404", "not_found", Next.FAILS, statuses=(404,)),
    Rule(
        "408, 499, 504, 522, 524, 598", "timeout", Next.RETRIED, Paid.MAYBE,
        "a gateway gave up waiting; the provider may have gone on", statuses=(408, 499, 504, 522, 524, 598),
    ),
    Rule("407", "proxy", Next.STOPS, hint=PROXY_HINT, statuses=(407,)),
    Rule("409", "conflict", Next.RETRIED, statuses=(409,)),
    Rule("413", "too_large", Next.FAILS, statuses=(413,)),
    Rule("422", "unprocessable", Next.FAILS, statuses=(422,)),
    Rule("424", "server_error", Next.RETRIED, why="a server behind the gateway failed before answering", statuses=(424,)),
    Rule("425", "conflict", Next.RETRIED, why="too early: not processed", statuses=(425,)),
    Rule("429 `slow_down`", "slow_down", Next.RETRIED, statuses=(429,), codes=frozenset({"slow_down"}), overloaded=True),
    Rule(
        "429 `resource_unavailable`", "overloaded", Next.RETRIED, statuses=(429,),
        codes=frozenset({"resource_unavailable"}), phrases=("resource unavailable",), overloaded=True,
    ),
    Rule("429", "rate_limit", Next.RETRIED, statuses=(429,), overloaded=True),
    Rule("498", "overloaded", Next.RETRIED, why="no capacity (Groq)", statuses=(498,), overloaded=True),
    Rule("503, 529", "overloaded", Next.RETRIED, why="refused for its load", statuses=(503, 529), overloaded=True),
    Rule(
        "502, 520", "server_error", Next.RETRIED, Paid.MAYBE,
        "a gateway got no readable answer; the provider may have worked", statuses=(502, 520),
    ),
    Rule(
        "other 5xx", "server_error", Next.RETRIED,
        why="the provider says that it failed, or (521, 523, 525, 526) was not reached", statuses=range(500, 1000),
    ),
    Rule("any other status", "bad_request", Next.FAILS, statuses=range(500)),
)  # fmt: skip
"""Responses without a success, by the first rule that matches."""

STATUS_OF_CODE: Mapping[str, int] = {
    "authentication_error": 401, "invalid_api_key": 401, "unauthenticated": 401, "billing_error": 402,
    "insufficient_quota": 429, "permission_error": 403, "permission_denied": 403, "not_found_error": 404,
    "model_not_found": 404, "conflict_error": 409, "request_too_large": 413, "invalid_request_error": 400,
    "invalid_argument": 400, "content_filter": 400, "rate_limit_error": 429, "rate_limit_exceeded": 429,
    "resource_exhausted": 429, "api_error": 500, "server_error": 500, "internal": 500, "internal_error": 500,
    "unavailable": 503, "timeout_error": 504, "deadline_exceeded": 504, "overloaded_error": 529,
}  # fmt: skip
"""Statuses of errors that come without one, in a batch or in a 200."""

NOT_SENT = Rule("no byte was written, for any reason", "connection", Next.RETRIED)
INTERNAL = Rule(
    "any other exception", "internal", Next.FAILS, Paid.MAYBE, "a fault in the client, after it began to send"
)
CUT_OFF = Rule(
    "a 200 whose body breaks off", "truncated_body", Next.RETRIED, Paid.MAYBE, "the part that arrived is kept",
    errors=("DecodingError", "ClientPayloadError"),
)  # fmt: skip
BROKEN = Rule(
    "a connection that breaks after sending, or an invalid HTTP response", "connection", Next.RETRIED, Paid.MAYBE,
    errors=(
        "RemoteProtocolError", "HTTPStatusError", "HTTPError", "StreamError", "SSEError", "ClientError", "OSError",
    ),
)  # fmt: skip
TIMEOUT = Rule(
    "no answer within `timeout`", "timeout", Next.RETRIED, Paid.MAYBE,
    errors=("TimeoutException", "ServerTimeoutError", "TimeoutError"),
)  # fmt: skip
SETUP_FAULTS: Mapping[str, Rule] = {
    "certificate": Rule("a certificate that is not trusted", "certificate", Next.STOPS, hint=CERTIFICATE_HINT),
    "proxy": Rule("a proxy that refuses the connection: 403, 407", "proxy", Next.STOPS, hint=PROXY_HINT),
}
EXCEPTIONS: tuple[Rule, ...] = (
    Rule(
        "no connection: refused, unknown host, TLS, proxy, timeout", "connection", Next.RETRIED, outage=True,
        errors=(
            "ConnectTimeout", "ConnectError", "ProxyError", "ClientConnectorError", "ConnectionTimeoutError",
            "ClientHttpProxyError", "ServerFingerprintMismatch",
        ),
    ),
    Rule("no free connection in time", "connection", Next.RETRIED, errors=("PoolTimeout",)),
    Rule(
        "no request: an invalid URL, an unknown protocol, an illegal header", "invalid_request", Next.FAILS,
        errors=("LocalProtocolError", "UnsupportedProtocol", "TooManyRedirects", "InvalidURL", "CookieConflict"),
    ),
    Rule(
        "a body of more than 64 MB, decompressed", "too_large", Next.FAILS, Paid.MAYBE, "its start is kept",
        errors=("BodyTooLarge",),
    ),
    TIMEOUT,
    BROKEN,
    CUT_OFF,
    INTERNAL,
)  # fmt: skip
"""Exceptions of the transport, by the nearest known class. One that comes before the first byte was written is not paid."""

UNREADABLE = Rule(
    "a 200 that is not in the API's form: a page, an empty body, a stream", "malformed", Next.RETRIED, Paid.MAYBE,
    "retried once; 15 in a row stop the run",
)  # fmt: skip
ANSWERS: tuple[Rule, ...] = (
    Rule("an answer with text", "", Next.USED, Paid.YES),
    Rule(
        "an answer cut off at its token limit", "truncated", Next.HELD, Paid.YES,
        hint="the answer was cut off at its token limit; raise max_output_tokens",
        endings=frozenset({"max_output_tokens", "length", "max_tokens", "model_length"}),
    ),
    Rule(
        "an answer cut off by the content filter", CONTENT_FILTER, Next.HELD, Paid.YES,
        hint="the answer was cut off by the content filter",
        endings=frozenset({"content_filter", "safety", "recitation", "sensitive"}),
    ),
    Rule("a refusal by the model", "refusal", Next.HELD, Paid.YES),
    Rule("an answer without text", "empty", Next.HELD, Paid.YES),
    Rule(
        "an answer that ended for an unknown reason", "incomplete", Next.HELD, Paid.YES,
        "it may be cut off, so it is kept and not used",
    ),
    Rule("a response whose status is not `completed`, with usage", "failed", Next.HELD, Paid.YES),
    Rule(
        "an error in a 200: an `error` object, `choices[0].error`, `{\"type\": \"error\"}`", "as for its code", Next.RETRIED,
        Paid.MAYBE, "read like an HTTP error with that status; maybe paid if there is text or usage, or no known code",
    ),
    UNREADABLE,
)  # fmt: skip
"""Responses with a 2xx status."""

BATCH_REFUSED = Rule(
    "`unsupported_endpoint`, and other codes about the request itself", "bad_request", Next.FAILS,
    codes=frozenset({
        "unsupported_endpoint", "unsupported_model", "unsupported_parameter", "unsupported_value", "model_not_supported",
        "invalid_request", "invalid_body", "invalid_json", "invalid_json_line", "invalid_method", "invalid_url",
        "invalid_custom_id", "invalid_type", "invalid_value", "invalid_prompt", "missing_required_parameter",
        "url_mismatch", "endpoint_mismatch", "model_mismatch", "context_length_exceeded", "string_above_max_length",
    }),
)  # fmt: skip
BATCH_ERRORS: tuple[Rule, ...] = (
    BATCH_REFUSED,
    Rule("`batch_expired`", "expired", Next.RETRIED, codes=frozenset({"batch_expired"})),
    Rule("`batch_cancelled`", "cancelled", Next.FAILS, codes=frozenset({"batch_cancelled"})),
    Rule("`request_timeout`", "timeout", Next.RETRIED, codes=frozenset({"request_timeout"})),
    Rule("an error with another known code", "as for its code", Next.RETRIED),
    Rule("an error with an unknown code", "batch_error", Next.RETRIED),
    Rule("neither an answer nor an error", "batch_error", Next.RETRIED, Paid.MAYBE),
)
"""Lines of a batch without a response; lines with one are read like calls."""

TABLE: Mapping[str, tuple[Rule, ...]] = {
    "answers": ANSWERS,
    "errors": HTTP_ERRORS,
    "exceptions": (NOT_SENT, *SETUP_FAULTS.values(), *EXCEPTIONS),
    "batches": BATCH_ERRORS,
}

CODES: Mapping[str, Rule] = {code: rule for rule in BATCH_ERRORS for code in rule.codes}
ENDINGS: Mapping[str, Rule] = {ending: rule for rule in ANSWERS for ending in rule.endings}
_BY_EXCEPTION = {name: rule for rule in EXCEPTIONS for name in rule.errors}


def rule_of_exception(error: BaseException) -> Rule:
    """Return the rule for an exception by its nearest known class, whose name spares importing its module."""
    found = next((found for kind in type(error).__mro__ if (found := _BY_EXCEPTION.get(kind.__name__))), INTERNAL)
    return SETUP_FAULTS.get(setup_fault(error), found) if found.outage else found


def read_failure(status: int, headers: Mapping[str, str], content: bytes) -> Outcome:
    """Return the outcome of an attempt that got an HTTP error; `headers` by lower-case name. Its body is kept."""
    return _outcome(status, headers, read_error(content), content)


def read_error_object(error: object, headers: Mapping[str, str], content: bytes) -> Outcome | None:
    """Return the outcome of an error without an HTTP status, by its codes; None if none is known."""
    found = error_in(error)
    status = found.status or next((known for code, known in STATUS_OF_CODE.items() if code in found.codes), None)
    if status is None:
        return None
    outcome = _outcome(status, headers, found, content)
    assert outcome.failure is not None
    return replace(outcome, failure=replace(outcome.failure, http_status=found.status))


def without_answer(answer: Response, headers: Mapping[str, str]) -> Outcome | None:
    """Return the outcome of a 200 with an error, or not in the API's form; None for an answer."""
    problem, content = answer.problem, answer.body
    if problem is None or problem.error_class not in (UNREADABLE.error_class, EMBEDDED):
        return None
    code = None
    if problem.error_class == EMBEDDED:
        error = embedded_error(json.loads(content), answer.text)
        outcome = read_error_object(error, headers, content)
        if outcome is not None:
            return replace(outcome, paid=Paid.MAYBE) if answer.text or answer.usage else outcome
        found = error_in(error)
        message, code = found.message or problem.message, found.code
    else:
        kind = headers.get("content-type")
        received = excerpt(content) or "an empty body"
        message = f"{problem.message}; received{f' {readable(kind)}' if kind else ''}: {received}"
    return Outcome(
        failure=Failure(UNREADABLE.error_class, message, code, 200),
        paid=UNREADABLE.paid,
        retryable=UNREADABLE.retryable,
        rate_limits=read_rate_limits(headers),
        request_id=request_id_of(headers),
        body=content,
    )


def _outcome(status: int, headers: Mapping[str, str], error: ErrorBody, content: bytes) -> Outcome:
    rule = next((rule for rule in HTTP_ERRORS if rule.matches(status, error)), HTTP_ERRORS[-1])
    message = error.message or f"HTTP {status}"
    if rule.error_class == "redirect" and (target := headers.get("location")):
        message = f"redirected to {readable(target)}"
    retryable = rule.retryable
    asked = headers.get("x-should-retry", "").strip().lower()
    if asked in ("true", "false") and rule.then in (Next.RETRIED, Next.FAILS):
        retryable = asked == "true"
    return Outcome(
        failure=Failure(rule.error_class, message, error.code, status),
        paid=rule.paid,
        retryable=retryable,
        stops_run=rule.then is Next.STOPS,
        # A request that is never to be sent again, such as one larger than the limit, says nothing about traffic.
        overloaded=retryable and rule.overloaded,
        outage=status >= 500,
        retry_after=read_retry_after(headers) if retryable else None,
        rate_limits=read_rate_limits(headers),
        request_id=request_id_of(headers),
        body=content,
        hint=rule.hint,
    )

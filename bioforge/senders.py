"""Between a vendor and the drivers in `backends/`: who sends an attempt, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from bioforge.model import Answer, Failure, Paid, Request


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Rate limits as the provider reports them with an answer; reset in seconds from now; None where not said."""

    limit_requests: int | None = None
    remaining_requests: int | None = None
    reset_requests: float | None = None
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    reset_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended, in words without a vendor. Exactly one of `answer` and `failure` is set.

    `retryable`: the same request may succeed later. `stops_run`: the cause lies with key, quota or spend limit, so
    no request can succeed now. `overloaded`: the provider asked for less traffic. `outage`: it was not reachable or
    broken (connection errors, 5xx). `retry_after` in seconds, as the provider asked.
    """

    answer: Answer | None = None
    failure: Failure | None = None
    paid: Paid = Paid.NO
    retryable: bool = False
    stops_run: bool = False
    overloaded: bool = False
    outage: bool = False
    retry_after: float | None = None
    rate_limits: RateLimits | None = None
    request_id: str | None = None
    seconds: float = 0.0
    body: bytes | None = None
    hint: str = ""


class Sender(Protocol):
    """A vendor's synchronous client: safe to call from several threads. Never raises for a failed request."""

    def send(self, request: Request, client_request_id: str) -> Outcome: ...
    def close(self) -> None: ...


class AsyncSender(Protocol):
    """A vendor's asynchronous client, used on one event loop. Never raises for a failed request."""

    async def send(self, request: Request, client_request_id: str) -> Outcome: ...
    async def close(self) -> None: ...

"""Post one message: sign each attempt, retry transient errors, classify the result."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum
from importlib.metadata import version

import requests
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_result,
    sleep_using_event,
    stop_after_attempt,
    stop_any,
    stop_when_event_set,
    wait_random_exponential,
)

from bioforge_webhook.messages import Message, signature
from bioforge_webhook.options import WebhookOptions

GONE = 410
_RETRYABLE = frozenset((408, 425, 429))
_REJECTED = frozenset((400, 409, 413, 422))
_READ_LIMIT = 65_536  # bytes read of an answer, so that its connection can be reused
_TEXT_LIMIT = 200  # characters of an answer in a message


class Result(Enum):
    DELIVERED = "delivered"
    REFUSED = "refused"
    """The receiver rejected this content; other records may be accepted."""
    FAILED = "failed"
    """The endpoint is unreachable, failing or wrongly configured."""
    HALT = "halt"
    """The endpoint accepts nothing more in this run."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a message. `retryable`: a later attempt may succeed. `retry_after`: seconds, or None."""

    result: Result
    error: str = ""
    status: int | None = None
    attempts: int = 1
    retryable: bool = False
    retry_after: float | None = None


class Sender:
    """A sender of messages, usable from several threads.

    Once `stop` is set, nothing more is posted and waits between attempts end. `clock` is wall time in seconds.
    """

    def __init__(self, options: WebhookOptions, stop: threading.Event, clock: Callable[[], float] = time.time) -> None:
        self._options = options
        self._address = options.address
        self._keys = options.keys
        self._secrets = sorted(options.secrets, key=len, reverse=True)
        self._headers = {
            "User-Agent": f"bioforge-webhook/{version('bioforge-webhook')}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            **options.all_headers,
            "Content-Type": "application/json",
        }
        self._stop = stop
        self._clock = clock
        self._local = threading.local()
        self._sessions: list[requests.Session] = []
        self._paused_until = 0.0
        # Full jitter with a doubling bound, so that requests that failed together retry apart.
        self._backoff = wait_random_exponential(multiplier=options.first_delay, max=options.max_delay)

    def close(self) -> None:
        for session in self._sessions:
            session.close()

    def send(self, message: Message) -> Outcome:
        """Post until delivered, rejected or out of attempts. HTTP errors become an Outcome, never an exception."""
        retrying = Retrying(
            retry=retry_if_result(lambda outcome: outcome.retryable),
            stop=stop_any(stop_after_attempt(self._options.max_attempts), stop_when_event_set(self._stop)),
            wait=self._backoff,
            sleep=sleep_using_event(self._stop),
            retry_error_callback=_last_outcome,
        )
        last: list[Outcome] = []

        def attempt() -> Outcome:
            self._wait_while_paused()
            if self._stop.is_set():
                unsent = Outcome(Result.FAILED, "not tried", attempts=0)
                return replace(last[-1], retryable=False) if last else unsent
            outcome = self._post(message)
            last.append(replace(outcome, attempts=len(last) + 1))
            return last[-1]

        return retrying(attempt)

    def _wait_while_paused(self) -> None:
        """Wait until the endpoint's last `Retry-After` has passed, plus jitter so that waiting requests resume apart."""
        while (left := self._paused_until - time.monotonic()) > 0:
            if self._stop.wait(left + random.uniform(0, min(1.0, self._options.first_delay))):
                return

    def _post(self, message: Message) -> Outcome:
        timestamp = int(self._clock())
        headers = {**self._headers, "webhook-id": message.id, "webhook-timestamp": str(timestamp)}
        headers["Idempotency-Key"] = message.id
        if self._keys:
            headers["webhook-signature"] = signature(self._keys, message.id, timestamp, message.body)
        try:
            with self._session().post(
                self._address,
                data=message.body,
                headers=headers,
                timeout=self._options.timeout,
                allow_redirects=False,
                stream=True,
            ) as response:
                return self._classify(response, _read_start(response))
        except (requests.RequestException, ValueError) as error:  # ValueError: invalid host name
            return self._no_answer(error)

    def _session(self) -> requests.Session:
        """Return this thread's session: sessions of requests are not documented as thread-safe."""
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            session.auth = _no_auth  # ignore ~/.netrc
            self._sessions.append(session)
        return session

    def _classify(self, response: requests.Response, text: str) -> Outcome:
        status = response.status_code
        if 200 <= status < 300:
            return Outcome(Result.DELIVERED, status=status)
        said = self._redact(f"{status} {response.reason or ''}".strip() + (f": {text}" if text else ""))
        if status == GONE:
            return Outcome(Result.HALT, f"the endpoint is gone ({said})", status)
        if 300 <= status < 400:
            return Outcome(Result.FAILED, f"{said} (redirects are not followed: use the final url)", status)
        if status in _RETRYABLE or status >= 500:
            wait = retry_after(response.headers.get("Retry-After"), response.headers.get("Date"), self._clock())
            if wait is not None and wait > self._options.max_delay:
                asked = f"{said} (Retry-After is {wait:,.0f} s, longer than max_delay)"
                return Outcome(Result.HALT, asked, status, retry_after=wait)
            if wait is not None:
                self._paused_until = max(self._paused_until, time.monotonic() + wait)
            return Outcome(Result.FAILED, said, status, retryable=True, retry_after=wait)
        return Outcome(Result.REFUSED if status in _REJECTED else Result.FAILED, said, status)

    def _no_answer(self, error: Exception) -> Outcome:
        """Classify a missing answer by its root cause: texts of requests contain the url, which may be secret."""
        if isinstance(error, requests.exceptions.SSLError):
            return Outcome(Result.FAILED, f"its certificate is not trusted: {self._redact(_root_cause(error))}")
        if isinstance(error, requests.Timeout):
            return Outcome(Result.FAILED, f"no answer within {self._options.timeout:g} s", retryable=True)
        passing = requests.ConnectionError | requests.exceptions.ChunkedEncodingError
        return Outcome(Result.FAILED, self._redact(_root_cause(error)), retryable=isinstance(error, passing))

    def _redact(self, text: str) -> str:
        """Return the text on one line, shortened, without control characters and secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
        return text if len(text) <= _TEXT_LIMIT else f"{text[:_TEXT_LIMIT]}…"


def retry_after(value: str | None, date: str | None, now: float) -> float | None:
    """Parse the header `Retry-After` into seconds; None if it is neither a number nor a date.

    A date is compared with the answer's own `Date` header if present, since clocks may differ.
    """
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    until, sent = _date(value), _date(date)
    return None if until is None else max(0.0, until - (now if sent is None else sent))


def _date(value: str | None) -> float | None:
    if value is None:
        return None
    with suppress(ValueError, OverflowError):
        found = parsedate_to_datetime(value)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    return None


def _last_outcome(state: RetryCallState) -> Outcome:
    assert state.outcome is not None  # called after an attempt
    outcome: Outcome = state.outcome.result()
    return outcome


def _read_start(response: requests.Response) -> str:
    """Read the start of the body for a message; errors while reading are ignored. Empty for HTML."""
    content = b""
    with suppress(requests.RequestException):
        for chunk in response.iter_content(8192):
            content += chunk
            if len(content) >= _READ_LIMIT:
                break
    return (
        content[:2_000].decode(errors="replace") if "text/html" not in response.headers.get("Content-Type", "") else ""
    )


def _root_cause(error: BaseException) -> str:
    """Return the text of the innermost OSError among the causes."""
    found = "no connection"
    one: BaseException | None = error
    seen: set[int] = set()
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        if isinstance(one, OSError) and not isinstance(one, requests.RequestException):
            found = str(getattr(one, "verify_message", "") or one.strerror or one) or found
        one = one.__cause__ or one.__context__
    return found


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request

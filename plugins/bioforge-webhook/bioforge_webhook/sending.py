"""Posting one message: signed anew for each attempt, tried again where that can help, and what came of it."""

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
_AGAIN = frozenset((408, 425, 429))
_ABOUT_THE_CONTENT = frozenset((400, 409, 413, 422))
_READ = 65_536  # bytes of an answer that are read, so that its connection can be used again
_SHOWN = 200  # characters of an answer that are shown


class Verdict(Enum):
    DELIVERED = "delivered"
    REFUSED = "refused"
    """What was posted is not taken; that says nothing about other records."""
    FAILED = "failed"
    """The endpoint cannot be reached, is broken, or is another one than was meant."""
    HALT = "halt"
    """It wants nothing more, now or ever."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a message. `again`: the same may be taken later; `retry_after` in seconds, where it said so."""

    verdict: Verdict
    error: str = ""
    status: int | None = None
    attempts: int = 1
    again: bool = False
    retry_after: float | None = None


class Sender:
    """Posts messages from any number of threads.

    `stop` is an event: once it is set, nothing more is posted, and who waits for a next attempt is woken. Times
    in seconds; `clock` is the one on the wall.
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
        self._quiet_until = 0.0
        # Drawn from 0 to a bound that doubles each time: what failed together does not come back together.
        self._backoff = wait_random_exponential(multiplier=options.first_delay, max=options.max_delay)

    def close(self) -> None:
        for session in self._sessions:
            session.close()

    def send(self, message: Message) -> Outcome:
        """Post until it is taken, refused for good, or was tried often enough. Raises nothing that HTTP can cause."""
        retrying = Retrying(
            retry=retry_if_result(lambda outcome: outcome.again),
            stop=stop_any(stop_after_attempt(self._options.max_attempts), stop_when_event_set(self._stop)),
            wait=self._backoff,
            sleep=sleep_using_event(self._stop),
            retry_error_callback=_last_outcome,
        )
        last: list[Outcome] = []

        def attempt() -> Outcome:
            self._keep_quiet()
            if self._stop.is_set():
                unsent = Outcome(Verdict.FAILED, "not tried", attempts=0)
                return replace(last[-1], again=False) if last else unsent
            outcome = self._post(message)
            last.append(replace(outcome, attempts=len(last) + 1))
            return last[-1]

        return retrying(attempt)

    def _keep_quiet(self) -> None:
        """Wait until the time the endpoint asked for, whichever message it answered with that; and a little longer.

        Or all that wait for it come back together.
        """
        while (left := self._quiet_until - time.monotonic()) > 0:
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
                return self._judge(response, _beginning(response))
        except (requests.RequestException, ValueError) as error:  # ValueError: a host that no resolver takes
            return self._broken(error)

    def _session(self) -> requests.Session:
        """One a thread: requests does not promise that they can be shared."""
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            session.auth = _as_it_is  # nothing out of ~/.netrc
            self._sessions.append(session)
        return session

    def _judge(self, response: requests.Response, text: str) -> Outcome:
        status = response.status_code
        if 200 <= status < 300:
            return Outcome(Verdict.DELIVERED, status=status)
        said = self._shown(f"{status} {response.reason or ''}".strip() + (f": {text}" if text else ""))
        if status == GONE:
            return Outcome(Verdict.HALT, f"the endpoint wants nothing more ({said})", status)
        if 300 <= status < 400:
            return Outcome(Verdict.FAILED, f"{said} (redirects are not followed: give the final url)", status)
        if status in _AGAIN or status >= 500:
            wait = retry_after(response.headers.get("Retry-After"), response.headers.get("Date"), self._clock())
            if wait is not None and wait > self._options.max_delay:
                asked = f"{said} (it asks to come back in {wait:,.0f} s, longer than max_delay)"
                return Outcome(Verdict.HALT, asked, status, retry_after=wait)
            if wait is not None:
                self._quiet_until = max(self._quiet_until, time.monotonic() + wait)
            return Outcome(Verdict.FAILED, said, status, again=True, retry_after=wait)
        return Outcome(Verdict.REFUSED if status in _ABOUT_THE_CONTENT else Verdict.FAILED, said, status)

    def _broken(self, error: Exception) -> Outcome:
        """No answer. What requests says holds the url, which may be a secret: told in other words."""
        if isinstance(error, requests.exceptions.SSLError):
            return Outcome(Verdict.FAILED, f"no trust in its certificate: {self._shown(_cause(error))}")
        if isinstance(error, requests.Timeout):
            return Outcome(Verdict.FAILED, f"no answer within {self._options.timeout:g} s", again=True)
        passing = requests.ConnectionError | requests.exceptions.ChunkedEncodingError
        return Outcome(Verdict.FAILED, self._shown(_cause(error)), again=isinstance(error, passing))

    def _shown(self, text: str) -> str:
        """On one line, short, without what would move a terminal's cursor, and without a secret that came back."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def retry_after(value: str | None, date: str | None, now: float) -> float | None:
    """Seconds to wait, from either form of the header: a number, or a date. None where it is neither.

    A date is compared with the answer's own `date`, where it has one: the two clocks may differ.
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
    assert state.outcome is not None  # it is called after an attempt
    outcome: Outcome = state.outcome.result()
    return outcome


def _beginning(response: requests.Response) -> str:
    """Read what was answered, to a limit. Its status has said everything: what breaks off here changes nothing."""
    content = b""
    with suppress(requests.RequestException):
        for chunk in response.iter_content(8192):
            content += chunk
            if len(content) >= _READ:
                break
    return (
        content[:2_000].decode(errors="replace") if "text/html" not in response.headers.get("Content-Type", "") else ""
    )


def _cause(error: BaseException) -> str:
    """The operating system's word for it, where there is one among the causes; else the innermost cause's own."""
    found = "no connection"
    one: BaseException | None = error
    seen: set[int] = set()
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        if isinstance(one, OSError) and not isinstance(one, requests.RequestException):
            found = str(getattr(one, "verify_message", "") or one.strerror or one) or found
        one = one.__cause__ or one.__context__
    return found


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request

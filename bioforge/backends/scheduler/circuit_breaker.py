"""The circuit breaker: nothing is sent while the provider is down, except probes.

Closed, everything may be sent. After ten failures in a row it opens; after a delay, one probe is sent. An answer to the
probe closes it, another failure opens it for twice as long. After failures of only one or two requests, it holds up just
their retries; every other request is a probe. Sans I/O: `now` in seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable

from bioforge.core.events import Notice
from bioforge.core.interfaces import RetryPolicy
from bioforge.core.text import plural

IN_A_ROW = 10
FIRST_DELAY = 1.0
LONGEST_DELAY = 30.0
DOUBT_AFTER = 90.0
"""Seconds after which failures of only one or two requests count against those requests."""

FEW = 3


class CircuitBreaker:
    """Decides whether anything may be sent, from the failures and answers of attempts."""

    def __init__(self, policy: RetryPolicy, random: Callable[[], float]) -> None:
        self._patience = policy.outage_seconds
        # A run with one request left must survive an outage too, without ten failures of that request.
        self._each = min(3, max(1, policy.max_attempts - 1))
        self._random = random
        self._in_a_row = 0
        self._suspects: set[str] = set()
        self._since: float | None = None
        self._delay = FIRST_DELAY
        self._opens_at: float | None = None
        self._probing = False

    @property
    def closed(self) -> bool:
        """Return True while everything may be sent."""
        return self._opens_at is None

    @property
    def suspicion(self) -> bool:
        """Return True while only one or two requests have failed: others are sent, and show whether the provider is up."""
        return not self.closed and len(self._suspects) < FEW

    def wait(self, now: float) -> float | None:
        """Return the seconds until something may be sent: 0 for now, None while a probe is in flight."""
        if self._opens_at is None:
            return 0.0
        return None if self._probing else max(0.0, self._opens_at - now)

    def record_sent(self) -> bool:
        """Record an attempt that is sent; return True if it is the probe."""
        if self._opens_at is None:
            return False
        self._probing = True
        return True

    def counts(self, now: float) -> bool:
        """Return True if a failure uses up one of its request's attempts."""
        if self.closed:
            return True
        since = now if self._since is None else self._since
        return len(self._suspects) < FEW and now - since > DOUBT_AFTER

    def exhausted(self, now: float) -> bool:
        """Return True when there were only failures for as long as the run may wait."""
        return not self.closed and self._since is not None and now - self._since >= self._patience

    def record_failure(self, request: str, probe: bool, now: float) -> Notice | None:
        """Record a failure of the provider. `request` is a hash: ten failures of one request mean less than one of ten."""
        self._since = now if self._since is None else self._since
        self._in_a_row += 1
        if len(self._suspects) < FEW + 1:
            self._suspects.add(request)
        if probe:
            return self.reopen(now)
        if not self.closed or self._in_a_row < min(IN_A_ROW, self._each * len(self._suspects)):
            return None
        self._delay = FIRST_DELAY
        wait = self._open(now)
        whose = (
            f"of {plural(len(self._suspects), 'request')}, retried"
            if self.suspicion
            else "the provider is down, next try"
        )
        message = f"{self._in_a_row} failures in a row: {whose} in {wait:.1f} s"
        return Notice("breaker", message, {"state": "open", "outages": self._in_a_row, "seconds": wait})

    def reopen(self, now: float) -> Notice:
        """Open for twice as long, after a probe without an answer."""
        self._delay = min(self._delay * 2, LONGEST_DELAY)
        wait = self._open(now)
        message = f"the provider is still down; next try in {wait:.1f} s"
        return Notice("breaker", message, {"state": "open", "outages": self._in_a_row, "seconds": wait})

    def record_success(self, probe: bool, now: float) -> Notice | None:
        """Record an answer of any kind; a refusal also shows that the provider is up.

        While open, only the probe's answer closes the breaker: late answers to earlier attempts say nothing about now.
        """
        if not self.closed and not probe:
            self._since = now
            return None
        was_closed = self.closed
        seconds = 0.0 if self._since is None else now - self._since
        self._in_a_row, self._since, self._opens_at, self._probing = 0, None, None, False
        self._suspects.clear()
        if was_closed:
            return None
        message = f"the provider is back after {seconds:.0f} s"
        return Notice("breaker", message, {"state": "closed", "seconds": seconds})

    def _open(self, now: float) -> float:
        """Open and return the seconds until the next probe, with jitter, so that processes do not probe together."""
        wait = self._delay * (0.75 + 0.5 * self._random())
        self._opens_at, self._probing = now + wait, False
        return wait

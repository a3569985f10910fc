"""The circuit breaker: stops sending while the provider is down, and finds out when it is back.

Closed, everything may be sent. After ten outages in a row it opens and nothing is sent; when its delay has passed, one
probe is. An answer to the probe closes it, another outage opens it for twice as long. Pure: `now` in seconds.
"""

from __future__ import annotations

from collections.abc import Callable

from bioforge.core.events import Notice
from bioforge.core.interfaces import RetryPolicy

IN_A_ROW = 10
FIRST_DELAY = 1.0
LONGEST_DELAY = 30.0
DOUBT_AFTER = 90.0
"""Seconds after which one or two requests that fail alone are suspected themselves, and their attempts count."""

FEW = 3


class CircuitBreaker:
    def __init__(self, policy: RetryPolicy, random: Callable[[], float]) -> None:
        self._patience = policy.outage_seconds
        # A run with one request left must live through an outage too: it must not take ten failures of that one.
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
        return self._opens_at is None

    def wait(self, now: float) -> float | None:
        """Seconds until something may be sent: 0 now, None when that depends on the probe under way."""
        if self._opens_at is None:
            return 0.0
        return None if self._probing else max(0.0, self._opens_at - now)

    def launched(self) -> bool:
        """Called for each attempt that is sent; true for the probe."""
        if self._opens_at is None:
            return False
        self._probing = True
        return True

    def counts(self, now: float) -> bool:
        """Whether an outage uses up an attempt of the request that met it."""
        if self.closed:
            return True
        since = now if self._since is None else self._since
        return len(self._suspects) < FEW and now - since > DOUBT_AFTER

    def exhausted(self, now: float) -> bool:
        """Whether nothing but outages has come back for as long as the run is ready to wait."""
        return not self.closed and self._since is not None and now - self._since >= self._patience

    def outage(self, request: str, probe: bool, now: float) -> Notice | None:
        """`request` tells requests apart: ten failures of one say less than one failure of ten."""
        self._since = now if self._since is None else self._since
        self._in_a_row += 1
        if len(self._suspects) < FEW + 1:
            self._suspects.add(request)
        if probe:
            return self.unclear(now)
        if not self.closed or self._in_a_row < min(IN_A_ROW, self._each * len(self._suspects)):
            return None
        self._delay = FIRST_DELAY
        wait = self._open(now)
        message = f"the provider is down: {self._in_a_row} outages in a row; trying again in {wait:.1f} s"
        return Notice("breaker", message, {"state": "open", "outages": self._in_a_row, "seconds": wait})

    def unclear(self, now: float) -> Notice:
        """The probe brought no answer: open again, for longer."""
        self._delay = min(self._delay * 2, LONGEST_DELAY)
        wait = self._open(now)
        message = f"the provider is still down; trying again in {wait:.1f} s"
        return Notice("breaker", message, {"state": "open", "outages": self._in_a_row, "seconds": wait})

    def answered(self, probe: bool, now: float) -> Notice | None:
        """An answer of any kind, a refusal too: the provider is there.

        While open only the probe's answer closes: late answers to what was sent before say nothing about now.
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
        """Opens; returns the seconds until the next probe. Jitter: other processes wait for the same provider."""
        wait = self._delay * (0.75 + 0.5 * self._random())
        self._opens_at, self._probing = now + wait, False
        return wait

"""Adaptive concurrency: halved while the provider is overloaded, slowly raised to the configured value.

And reduced while answers arrive faster than this process records them: a kill would lose those that wait.
"""

from __future__ import annotations

from bioforge.core.events import Notice

OVERLOAD_SHARE = 0.2
"""Share of recent answers that report overload from which on concurrency is reduced.

Below it they are chance (one busy node), and slowing down would cost throughput and help nobody.
"""

MEMORY = (20.0, 64.0)
"""Lowest and highest number of answers over which the share is averaged."""

STEPS = 16.0
"""Rounds of answers that an increase from zero to the configured number takes."""


class AdaptiveConcurrency:
    """The number of attempts that may be in flight: multiplicative decrease, additive increase."""

    def __init__(self, configured: int) -> None:
        self.configured = configured
        self._limit = float(configured)
        self._share = 0.0
        self._ignored = 0
        self._target = float(configured)

    @property
    def limit(self) -> int:
        """Return how many attempts may be in flight."""
        return int(self._limit)

    @property
    def overloaded(self) -> bool:
        """Return True while many answers report overload."""
        return self._share > OVERLOAD_SHARE

    def record_answer(self, overloaded: bool, in_flight: int) -> Notice | None:
        """Adjust the limit after one answer; `in_flight` counts the other attempts."""
        memory = min(max(self._limit, MEMORY[0]), MEMORY[1])
        self._share += (float(overloaded) - self._share) / memory
        self._ignored = max(0, self._ignored - 1)
        if overloaded:
            return self._decrease(in_flight) if self.overloaded and not self._ignored else None
        return self._increase()

    def restart(self) -> None:
        """Start low after a pause or an outage, and double with each round up to the last limit."""
        self._target = max(self._target, self._limit)
        self._limit = max(1.0, min(self._limit, self.configured / 8))
        self._share = 0.0

    def _decrease(self, in_flight: int) -> Notice | None:
        before = self.limit
        self._limit = self._target = max(1.0, self._limit / 2)
        # Attempts in flight were sent at the old limit: ignore what they report.
        self._ignored = in_flight
        if self.limit == before:
            return None
        share = round(self._share, 3)
        message = f"{share:.0%} of answers report overload: concurrency {before} -> {self.limit}"
        return Notice("concurrency", message, {"from": before, "to": self.limit, "share": share})

    def _increase(self) -> Notice | None:
        if self._limit >= self.configured:
            return None
        # One step per answer doubles the limit in each round of answers.
        step = 1.0 if self._limit < self._target else max(1.0, self.configured / STEPS) / self._limit
        self._limit = min(float(self.configured), self._limit + step)
        if self._limit < self.configured:
            return None
        self._target = self._limit
        return Notice("concurrency", f"concurrency back at {self.configured}", {"to": self.configured})


INTAKE_START = 256
"""Attempts in flight at the start; their number doubles with each round of answers while those are recorded at once."""

MOST_WAITING = 256
"""Answers that may wait to be recorded before fewer calls are started."""

INTAKE_STEPS = 4.0
"""Rounds of answers in which the number doubles again after answers had to wait."""


class IntakeLimit:
    """The number of attempts in flight whose answers this process can record as they arrive."""

    def __init__(self, configured: int) -> None:
        self._configured = configured
        self._limit = float(min(configured, INTAKE_START))
        self._reached = False
        """True once answers had to wait: the number is then raised slowly."""
        self._ignored = 0

    @property
    def limit(self) -> int:
        """Return how many attempts may be in flight."""
        return int(self._limit)

    def record(self, recorded: int, backlog: int, in_flight: int) -> Notice | None:
        """Adjust the limit after answers were recorded, while `backlog` others wait; return a notice the first time."""
        self._ignored = max(0, self._ignored - recorded)
        if backlog <= MOST_WAITING:
            if self._limit < self._configured and backlog <= MOST_WAITING // 2:
                step = recorded / INTAKE_STEPS if self._reached else float(recorded)
                self._limit = min(float(self._configured), self._limit + step)
            return None
        if self._ignored or self._limit <= INTAKE_START:
            return None
        # attempts in flight were sent at the old limit
        self._ignored = in_flight
        self._limit = max(float(INTAKE_START), self._limit * 0.75)
        if self._reached:
            return None
        self._reached = True
        message = f"answers arrive faster than this machine records them: about {self.limit} calls in flight are useful"
        return Notice("concurrency", f"{message}, {self._configured} are configured", {"to": self.limit})

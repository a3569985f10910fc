"""Adaptive concurrency: halved while the provider asks for less, slowly raised to what was configured."""

from __future__ import annotations

from bioforge.core.events import Notice

STORM = 0.2
"""Share of recent answers asking for less traffic from which on they are meant for us. Below it they are chance
(a busy node, one request out of line), and slowing down for chance would cost throughput and cure nothing."""

MEMORY = (20.0, 64.0)
"""How many answers the share looks back, at least and at most."""

STEPS = 16.0
"""Windows of answers that an increase from nothing to the configured number takes."""


class AdaptiveConcurrency:
    def __init__(self, configured: int) -> None:
        self.configured = configured
        self._limit = float(configured)
        self._share = 0.0
        self._deaf = 0
        self._target = float(configured)

    @property
    def limit(self) -> int:
        """How many attempts may be in flight."""
        return int(self._limit)

    @property
    def storm(self) -> bool:
        return self._share > STORM

    def answered(self, overloaded: bool, in_flight: int) -> Notice | None:
        """Learns from one answer; `in_flight` counts the others."""
        memory = min(max(self._limit, MEMORY[0]), MEMORY[1])
        self._share += (float(overloaded) - self._share) / memory
        self._deaf = max(0, self._deaf - 1)
        if overloaded:
            return self._decrease(in_flight) if self.storm and not self._deaf else None
        return self._increase()

    def restart(self) -> None:
        """After a pause or an outage: begin with few, double each window up to where it was."""
        self._target = max(self._target, self._limit)
        self._limit = max(1.0, min(self._limit, self.configured / 8))
        self._share = 0.0

    def _decrease(self, in_flight: int) -> Notice | None:
        before = self.limit
        self._limit = self._target = max(1.0, self._limit / 2)
        # Those in flight were sent before this: what they say is old news.
        self._deaf = in_flight
        if self.limit == before:
            return None
        share = round(self._share, 3)
        message = f"{share:.0%} of answers ask for less traffic: concurrency {before} -> {self.limit}"
        return Notice("concurrency", message, {"from": before, "to": self.limit, "share": share})

    def _increase(self) -> Notice | None:
        if self._limit >= self.configured:
            return None
        # One for each answer doubles the number in each window of answers.
        step = 1.0 if self._limit < self._target else max(1.0, self.configured / STEPS) / self._limit
        self._limit = min(float(self.configured), self._limit + step)
        if self._limit < self.configured:
            return None
        self._target = self._limit
        return Notice("concurrency", f"concurrency back at {self.configured}", {"to": self.configured})

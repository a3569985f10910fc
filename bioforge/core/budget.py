"""The budget of a run: money is reserved before a request is sent, and settled when its price is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bioforge.core.types import Paid, Request

Price = Callable[[Request], float | None]
"""Returns the most that a request is expected to cost, in US dollars; None where that is unknown."""

ROUNDING = 1e-9
"""Share of the limit by which sums of floating-point amounts may exceed it."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Money reserved for one attempt: its estimated price, and the amount with a margin."""

    estimate: float
    amount: float


FREE = Reservation(0.0, 0.0)


class Budget:
    """What a run may spend, has spent and has reserved, in US dollars. One object serves all backends of the run.

    `limit` None means no limit, and nothing is reserved. Unknown prices count as 0.
    """

    def __init__(self, limit: float | None = None) -> None:
        self.limit = limit
        self.spent = 0.0
        self.reserved = 0.0
        self._margin = 1.0
        """The highest ratio of a price to its estimate so far."""
        self._calibrated = False

    @property
    def used_up(self) -> bool:
        """Return True when nothing is left that could be reserved."""
        return self.limit is not None and self.spent + self.reserved >= self.limit

    def quote(self, request: Request, price: Price, *, calibrate: bool = True) -> Reservation:
        """Return what a request would reserve.

        With `calibrate`, the first request whose answer has no limit reserves the whole rest: it goes alone and shows how
        long answers are.
        """
        if self.limit is None:
            return FREE
        estimate = price(request) or 0.0
        if calibrate and request.max_output_tokens is None and not self._calibrated:
            return Reservation(estimate, max(estimate, self.limit - self.spent))
        return Reservation(estimate, estimate * self._margin)

    def allows(self, quote: Reservation) -> bool:
        """Return True when the reservation fits into the rest of the budget."""
        return self.limit is None or self.spent + self.reserved + quote.amount <= self.limit * (1.0 + ROUNDING)

    def reserve(self, quote: Reservation) -> None:
        """Reserve the amount of a quote."""
        self.reserved += quote.amount

    def settle(self, reservation: Reservation, cost: float | None, paid: Paid) -> None:
        """Turn a reservation into money spent, or free it. An attempt that may have been charged counts as spent."""
        self.reserved = max(0.0, self.reserved - reservation.amount)
        if paid is Paid.NO:
            return
        estimate = reservation.estimate
        self.spent += max(estimate, min(reservation.amount, estimate * self._margin)) if cost is None else cost
        self._calibrated = self._calibrated or cost is not None
        if cost is not None and estimate > 0.0:
            self._margin = max(self._margin, cost / estimate)

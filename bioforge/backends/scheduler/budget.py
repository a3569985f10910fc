"""The budget of a run: money is reserved before a request is sent, and settled when its price is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bioforge.core.types import Paid, Request

Price = Callable[[Request], float | None]
"""The most a request is expected to cost, in US dollars; None where that is unknown."""

ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Reservation:
    """Money set aside for one attempt: `estimate` is the price as expected, `amount` what is kept back for it."""

    estimate: float
    amount: float


FREE = Reservation(0.0, 0.0)


class Budget:
    """Amounts in US dollars. `limit` None is no limit, and nothing is reserved; unknown prices are taken as 0."""

    def __init__(self, limit: float | None, price: Price, *, calibrate: bool = True) -> None:
        """`calibrate`: where nothing bounds an answer, the first request goes alone to show how long answers are."""
        self.limit = limit
        self.spent = 0.0
        self.reserved = 0.0
        self._price = price
        self._margin = 1.0
        self._seen = not calibrate

    def quote(self, request: Request) -> Reservation:
        """What a request would need: its estimate, raised by the worst miss of an estimate so far."""
        if self.limit is None:
            return FREE
        estimate = self._price(request) or 0.0
        if request.max_output_tokens is None and not self._seen:
            # nothing bounds the answer and none has been seen: the first one goes alone, and teaches the margin
            return Reservation(estimate, max(estimate, self.limit - self.spent))
        return Reservation(estimate, estimate * self._margin)

    def allows(self, quote: Reservation) -> bool:
        if self.limit is None:
            return True
        return self.spent + self.reserved + quote.amount <= self.limit * (1.0 + ROUNDING)

    def reserve(self, quote: Reservation) -> None:
        self.reserved += quote.amount

    def settle(self, held: Reservation, cost: float | None, paid: Paid) -> None:
        """Turns a reservation into money spent, or frees it. What may have been paid counts as spent."""
        self.reserved = max(0.0, self.reserved - held.amount)
        if paid is Paid.NO:
            return
        self.spent += max(held.estimate, min(held.amount, held.estimate * self._margin)) if cost is None else cost
        self._seen = self._seen or cost is not None
        if cost is not None and held.estimate > 0.0:
            self._margin = max(self._margin, cost / held.estimate)

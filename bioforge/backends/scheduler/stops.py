"""Messages of a scheduler: why it stops a run, and how long it waits."""

from __future__ import annotations

from datetime import datetime

from bioforge.core.budget import Budget, Reservation
from bioforge.core.events import Notice, Stopped
from bioforge.core.interfaces import Outcome
from bioforge.core.text import duration

KEY_CLASSES = ("authentication", "permission")
"""Error classes of a key that is refused."""

ANNOUNCED = 5.0
"""Seconds of a wait from which on it is announced."""


def for_budget(budget: Budget, quote: Reservation) -> Stopped:
    return Stopped(
        "budget",
        f"the budget of {_usd(budget.limit)} is used up: {_usd(budget.spent)} spent, and the next request may "
        f"cost {_usd(quote.amount)}",
        "raise [limits] max_cost_usd or --max-cost and run again: it goes on where this run stopped",
    )


def for_outage(outcome: Outcome, seconds: float) -> Stopped:
    last = outcome.failure.message if outcome.failure else "no answer"
    return Stopped(
        "outage",
        f"the provider has been down for {seconds:.0f} s; last error: {last}",
        outcome.hint or "check the network and the provider's status page, then run again",
    )


def for_account(outcome: Outcome) -> Stopped:
    failure = outcome.failure
    key = failure is not None and failure.error_class in KEY_CLASSES
    message = failure.message if failure else "the provider refuses all requests"
    kind = "key" if key else "setup" if failure and failure.error_class in ("certificate", "proxy") else "quota"
    return Stopped(kind, message, outcome.hint)


def for_long_wait(seconds: float, until: float) -> Stopped:
    """Return the stop for a wait longer than an outage may last; `until` in seconds since 1970."""
    return Stopped(
        "outage",
        f"the provider asks to wait {duration(seconds)}, until {_clock(until, seconds)}",
        "run again after that, or raise [retry] outage_seconds to wait: it goes on where this run stopped",
    )


def pause(seconds: float, until: float, reason: str) -> Notice:
    """Return the notice of a time in which nothing is sent; `until` in seconds since 1970."""
    message = f"nothing is sent for {duration(seconds)}, until {_clock(until, seconds)}: {reason}"
    return Notice("pause", message, {"seconds": seconds})


def _clock(moment: float, seconds: float) -> str:
    """Format a moment so many seconds from now as local time, with the date if it is not soon."""
    try:
        local = datetime.fromtimestamp(moment).astimezone()
    except (OverflowError, ValueError, OSError):
        return "an unknown time"
    return local.strftime("%H:%M:%S" if seconds < 43_200 else "%Y-%m-%d %H:%M")


def _usd(amount: float | None) -> str:
    """Format an amount without rounding a small one to zero."""
    return f"${amount or 0.0:.4g}"

"""Choose batch, flex or standard for a job, with the numbers behind the choice.

Pure: prices are a function, times are numbers. `batch` has half the price and up to a day; `flex` is a call at the
same price, slower, and may be refused for lack of capacity; `standard` is the normal call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from bioforge.core.errors import ConfigError, nearest
from bioforge.core.interfaces import Load, PurchaseDecision, PurchaseJob, PurchaseOption
from bioforge.core.text import duration, money

BATCH = "batch"
FLEX = "flex"
STANDARD = "standard"

TIERS: Mapping[str, str | None] = {BATCH: "batch", FLEX: "flex", STANDARD: None}
"""The price tier of each option, in display order."""

STANDARD_CALL_SECONDS = 5.0
"""Estimate of a call's duration until one was measured: an answer of a few hundred tokens."""

FLEX_CALL_SECONDS = 15.0
"""Estimate for flex, which waits for spare capacity."""

EQUAL = 1e-9
"""Relative difference up to which two prices are equal, since they are sums of products."""

Price = Callable[[Load, str | None], float | None]
"""Returns US dollars for a whole load at a tier of `TIERS`; None if unknown."""


@dataclass(frozen=True, slots=True)
class ChoiceOptions:
    """The table `[backend.auto]`: US dollars and seconds.

    `min_saving_usd`: what a slower option must save at least. `flex_seconds`: how long flex may take before a
    batch at the same price is preferred. `batch_seconds`: assumed duration of a batch for a deadline. `flex` and
    `batch`: whether these options may be used.
    """

    min_saving_usd: float = 0.10
    flex_seconds: float = 3600.0
    batch_seconds: float = 86_400.0
    flex: bool = True
    batch: bool = True

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> Self:
        """Return the options of a table. `ConfigError` names the key, the value, and what is expected."""
        given: dict[str, Any] = {}
        for name, value in options.items():
            if name not in _EXPECTED:
                hint = nearest(name, _EXPECTED) or f"known keys: {', '.join(_EXPECTED)}"
                raise ConfigError(f"backend.auto.{name}: unknown key", hint)
            if not _valid(name, value):
                found = str(value).lower() if isinstance(value, bool) else repr(value)
                raise ConfigError(f"backend.auto.{name}: expected {_EXPECTED[name]}, found {found:.60}")
            given[name] = value
        return cls(**given)


_EXPECTED: Mapping[str, str] = {
    "min_saving_usd": "US dollars, from 0",
    "flex_seconds": "seconds, from 0",
    "batch_seconds": "seconds, above 0",
    "flex": "true or false",
    "batch": "true or false",
}


def _valid(name: str, value: object) -> bool:
    if name in (FLEX, BATCH):
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return False
    return value > 0 if name == "batch_seconds" else value >= 0


# ----------------------------------------------------------------------------------------------------- the decision


@dataclass(frozen=True, slots=True)
class _Offer:
    """An option under consideration.

    `sure` is its time for a deadline; `offered`: the models have a price for it and the options allow it.
    """

    way: PurchaseOption
    sure: float
    offered: bool
    affordable: bool
    punctual: bool

    @property
    def name(self) -> str:
        return self.way.name

    @property
    def cost(self) -> float:
        """Return the cost; unknown is infinite, which only a sole standard offer can be."""
        return math.inf if self.way.cost_usd is None else self.way.cost_usd

    @property
    def possible(self) -> bool:
        return self.offered and self.affordable and self.punctual


def choose(job: PurchaseJob, price: Price, options: ChoiceOptions) -> PurchaseDecision:
    """Return the cheapest option within budget and deadline, if its saving is worth the wait.

    One option for the whole job: an option that one of several models lacks is excluded.
    """
    if not job.requests:
        return PurchaseDecision(STANDARD, "nothing to ask", tuple(PurchaseOption(name, 0.0, 0.0) for name in TIERS))
    offers = [_offer(name, job, price, options) for name in TIERS]
    if any(offer.possible for offer in offers):
        pick, reason = _worthwhile(offers, job, options)
    elif any(offer.offered and offer.affordable for offer in offers):
        pick, reason = _late(offers, job)
    else:
        pick, reason = _overspending(offers, job, options)
    ways = tuple(offer.way for offer in offers)
    return PurchaseDecision(pick.name, reason, ways, TIERS[pick.name], _then(pick, offers, job, options))


def _worthwhile(offers: Sequence[_Offer], job: PurchaseJob, options: ChoiceOptions) -> tuple[_Offer, str]:
    """Return the cheapest option, unless a faster one costs hardly more."""
    possible = [offer for offer in offers if offer.possible]
    pick = _cheapest(possible, options)
    refused = ""
    while faster := _little_more(pick, possible, options):
        refused = (
            f"{pick.name} would save only {money(faster.cost - pick.cost)} of {money(faster.cost)}, "
            f"less than the {money(options.min_saving_usd)} worth waiting for"
        )
        pick = faster
    return pick, refused or "; ".join([_merit(pick, offers), *_others(pick, offers, job, options)])


def _little_more(pick: _Offer, possible: Sequence[_Offer], options: ChoiceOptions) -> _Offer | None:
    """Return the fastest option that is faster than `pick` and costs less more than a slower option must save."""
    faster = [
        offer
        for offer in possible
        if offer.way.seconds < pick.way.seconds
        and _less(pick.cost, offer.cost)
        and _less(offer.cost - pick.cost, options.min_saving_usd)
    ]
    return min(faster, key=lambda offer: offer.way.seconds, default=None)


def _late(offers: Sequence[_Offer], job: PurchaseJob) -> tuple[_Offer, str]:
    """Return the fastest option within the budget, if none meets the deadline."""
    offered = [offer for offer in offers if offer.offered]
    affordable = [offer for offer in offered if offer.affordable]
    pick = min(affordable, key=lambda offer: (offer.sure, offer.cost))
    budget = job.limits.max_cost_usd
    within = f" within the budget of {money(budget)}" if budget is not None and affordable != offered else ""
    return pick, f"{pick.name} is the fastest way{within}, and {_miss(pick, pick.sure, job)}"


def _overspending(offers: Sequence[_Offer], job: PurchaseJob, options: ChoiceOptions) -> tuple[_Offer, str]:
    """Return the cheapest option, if the budget suffices for none; preferably one within the deadline."""
    budget, deadline = job.limits.max_cost_usd or 0.0, job.deadline
    offered = [offer for offer in offers if offer.offered]
    shares = {offer.name: budget / offer.cost if offer.way.cost_usd else 1.0 for offer in offered}
    times = {offer.name: offer.sure if offer.name == BATCH else offer.sure * shares[offer.name] for offer in offered}
    in_time = [offer for offer in offered if deadline is None or times[offer.name] <= deadline]
    pick = _cheapest(in_time or offered, options)
    if pick.way.cost_usd is None:
        reason = f"standard, at an unknown price: {pick.way.note}"
    else:
        cheapest = "the cheapest way in time" if 0 < len(in_time) < len(offered) else "the cheapest way"
        reason = (
            f"{pick.name} is {cheapest} at {money(pick.cost)}, and the budget of {money(budget)} will stop it: "
            f"it pays for about {math.floor(job.requests * shares[pick.name]):,} of {_requests(job)}"
        )
    return pick, reason if in_time else f"{reason}; it {_miss(pick, times[pick.name], job)}"


def _then(pick: _Offer, offers: Sequence[_Offer], job: PurchaseJob, options: ChoiceOptions) -> str | None:
    """Return the option for what the first one leaves over. A batch can leave everything, after its whole window."""
    _, flex, standard = offers
    if pick.name == BATCH:
        # Flex is asked for no price here: it always costs less than standard, the only other way to go on.
        in_time = job.deadline is None or flex.sure <= job.deadline - options.batch_seconds
        return FLEX if flex.offered and in_time else STANDARD
    return STANDARD if pick.name == FLEX and standard.affordable else None


def _cheapest(offers: Sequence[_Offer], options: ChoiceOptions) -> _Offer:
    """Return flex for batch at the same price, as long as it does not take too long."""
    lowest = min(offer.cost for offer in offers)
    equal = {offer.name: offer for offer in offers if not _less(lowest, offer.cost)}
    if BATCH in equal and FLEX in equal:
        return equal[FLEX] if equal[FLEX].way.seconds <= options.flex_seconds else equal[BATCH]
    return next(iter(equal.values()))


# --------------------------------------------------------------------------------------------------------- the ways


def _offer(name: str, job: PurchaseJob, price: Price, options: ChoiceOptions) -> _Offer:
    cost, missing = _cost(name, job, price)
    seconds, worth = _time(name, job, options)
    sure = options.batch_seconds if name == BATCH else seconds
    budget, deadline = job.limits.max_cost_usd, job.deadline
    barred = ""
    if (name == FLEX and not options.flex) or (name == BATCH and not options.batch):
        barred = f"{name} = false in [backend.auto]"
    elif missing and name != STANDARD:
        barred = f"no {name} price for {missing}"
    affordable = budget is None or (cost is not None and not _less(budget, cost))
    punctual = deadline is None or sure <= deadline
    against = []
    if not affordable and budget is not None:
        costs = f"unknown price for {missing}" if cost is None else f"costs {_over(money(cost), money(budget))}"
        against.append(f"{costs}, the budget is {money(budget)}")
    if not punctual and deadline is not None:
        up_to = "up to " if name == BATCH else ""
        against.append(
            f"needs {up_to}{_over(duration(sure), duration(deadline))}, the deadline is {duration(deadline)}"
        )
    unknown = f"unknown price for {missing}" if missing else ""
    note = barred or ", and ".join(against) or "; ".join(filter(None, (unknown, worth)))
    return _Offer(PurchaseOption(name, cost, seconds, note), sure, not barred, affordable, punctual)


def _cost(name: str, job: PurchaseJob, price: Price) -> tuple[float | None, str]:
    """Return US dollars for the job, or None and the models without a price at this option.

    A tier price that is not below standard counts as missing: that is how an unknown tier is priced.
    """
    total, missing = 0.0, []
    for load in job.loads:
        if not load.requests:
            continue
        found = standard = price(load, None)
        if name != STANDARD:
            found = price(load, TIERS[name])
            if found is not None and (standard is None or not _less(found, standard)):
                found = None
        if found is None:
            missing.append(load.model or "the prompt's own model")
        else:
            total += found
    return (None if missing else total), ", ".join(dict.fromkeys(missing))


def _time(name: str, job: PurchaseJob, options: ChoiceOptions) -> tuple[float, str]:
    """Return the expected seconds of an option, and a note on that estimate."""
    if name == BATCH:
        promise = f"up to {duration(options.batch_seconds)}"
        if job.batch_seconds is None:
            return options.batch_seconds, promise
        return job.batch_seconds, f"as batches took so far, {promise}"
    limits, tokens = job.limits, sum(load.input_tokens + load.output_tokens for load in job.loads)
    observed = job.call_seconds.get(name)
    guess = FLEX_CALL_SECONDS if name == FLEX else STANDARD_CALL_SECONDS
    call = guess if observed is None else observed
    # Not more than there are can be in flight, so no job is over before its first call.
    bounds = [(call * job.requests / max(1, min(limits.concurrency, job.requests)), "")]
    if observed is None:
        bounds = [(bounds[0][0], f"a guess: {call:g} s a call")]
    for amount, rate, unit in (
        (job.requests, limits.requests_per_minute, "requests"),
        (tokens, limits.tokens_per_minute, "tokens"),
    ):
        if rate is not None:
            bounds.append((60.0 * amount / rate, f"held to {rate:,.10g} {unit} a minute"))
    return max(bounds, key=lambda bound: bound[0])


# -------------------------------------------------------------------------------------------------------- sentences


def _merit(pick: _Offer, offers: Sequence[_Offer]) -> str:
    standard = offers[-1]
    if pick is not standard:
        return f"{pick.name} saves {money(standard.cost - pick.cost)} of {money(standard.cost)}"
    return f"standard costs {money(pick.cost)}" if pick.way.cost_usd is not None else "standard at an unknown price"


def _others(pick: _Offer, offers: Sequence[_Offer], job: PurchaseJob, options: ChoiceOptions) -> list[str]:
    """Describe why the other options were not chosen."""
    _, flex, _ = offers
    found = []
    for other in offers:
        if other is pick:
            continue
        if not other.possible:
            found.append(f"{other.name} is out: {other.way.note}")
        elif other.name == FLEX and pick.name == BATCH and not _less(pick.cost, other.cost):
            busy, most = duration(flex.way.seconds), duration(options.flex_seconds)
            found.append(
                f"{_requests(job)} would keep flex busy for {_over(busy, most)}, more than the {most} it may take"
            )
        elif other.name == BATCH and pick.name == FLEX and not _less(pick.cost, other.cost):
            found.append(f"it needs {duration(flex.way.seconds)} of the {duration(options.flex_seconds)} it may take")
    return found


def _miss(pick: _Offer, seconds: float, job: PurchaseJob) -> str:
    """Describe the risk for the deadline if `pick` takes `seconds`."""
    deadline = job.deadline or 0.0
    late = duration(seconds - deadline)
    if pick.name != BATCH:
        return f"is expected to miss the deadline of {duration(deadline)} by {late}"
    verb = "is expected to" if pick.way.seconds > deadline else "may"
    return f"{verb} miss the deadline of {duration(deadline)} by up to {late}"


def _requests(job: PurchaseJob) -> str:
    return f"{job.requests:,} request" if job.requests == 1 else f"{job.requests:,} requests"


def _less(one: float, other: float) -> bool:
    """Return True if a price is lower by more than rounding."""
    return one < other and not math.isclose(one, other, rel_tol=EQUAL)


def _over(number: str, bound: str) -> str:
    """Format a number above a limit so that the two differ."""
    return f"just over {bound}" if number == bound else number

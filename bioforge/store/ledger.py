"""The money: what was paid, what may have been charged, and whether anything was paid twice or lost."""

from __future__ import annotations

from dataclasses import dataclass

from bioforge.core.types import Usage
from bioforge.store import batches
from bioforge.store.database import Store
from bioforge.store.reason_sql import RESENT_ON_PURPOSE


@dataclass(frozen=True, slots=True)
class Outcomes:
    outcome: str
    error_class: str | None
    paid: str
    attempts: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class BatchUsage:
    """Tokens that a provider billed for a collected batch (None: not reported), and the sum over its answers."""

    batch: str
    billed: Usage | None
    collected: Usage

    @property
    def differs(self) -> bool:
        return self.billed is not None and (self.billed.input_tokens, self.billed.output_tokens) != (
            self.collected.input_tokens,
            self.collected.output_tokens,
        )


@dataclass(frozen=True, slots=True)
class CostLedger:
    """Money in US dollars. `cost_usd` is the known part; `unpriced` answers have no known price.

    `paid_twice`: answers paid for a request that already had one, without a request to resend. `forced_again`:
    the same with `--always-make` or after `forget`. `lost`: paid attempts without their answer. `maybe_paid`:
    attempts that may have been charged; `asked_again` of them were resent. `imported`: answers paid elsewhere, in
    no other number. `in_batches`: members of open batches.
    """

    outcomes: list[Outcomes]
    paid: int
    cost_usd: float
    unpriced: int
    maybe_paid: int
    asked_again: int
    maybe_cost_usd: float | None
    paid_twice: int
    forced_again: int
    lost: int
    forgotten: int
    forgotten_cost_usd: float
    in_flight: int
    imported: int
    imported_cost_usd: float
    in_batches: int
    batches: list[BatchUsage]


_EARLIER = "SELECT 1 FROM attempts y WHERE y.request_hash = x.request_hash AND y.id < x.id AND y.paid = 'yes'"
_ON_PURPOSE = f"""EXISTS (
    SELECT 1 FROM attempts z WHERE z.request_hash = x.request_hash AND z.id <= x.id
    AND z.reason IN {RESENT_ON_PURPOSE}
    AND z.id > (SELECT max(y.id) FROM attempts y WHERE y.request_hash = x.request_hash AND y.id < x.id AND y.paid = 'yes'))"""
"""Condition: a resend was requested after the earlier answer; the paid attempt may be a retry of it."""


_BOUGHT = "NOT EXISTS (SELECT 1 FROM attempts x WHERE x.id = forgotten.attempt AND x.outcome = 'imported')"
"""Condition: paid by this state. Imported answers stay out of the money, also when they are forgotten."""


def ledger(store: Store) -> CostLedger:
    outcomes = [
        Outcomes(*row)
        for row in store.rows(
            "SELECT CASE WHEN x.outcome = 'started' AND x.batch IS NOT NULL THEN 'in batch' ELSE x.outcome END,"
            " x.error_class, CASE WHEN x.outcome = 'started' AND x.batch IS NOT NULL THEN '-' ELSE x.paid END,"
            " count(*), sum(r.cost_usd) FROM attempts x"
            " LEFT JOIN responses r ON r.attempt = x.id GROUP BY 1, 2, 3 ORDER BY count(*) DESC, 1, 2"
        )
    ]
    paid, cost, unpriced = store.row(
        "SELECT count(*), coalesce(sum(cost_usd), 0), coalesce(sum(cost_usd IS NULL), 0) FROM responses"
        " WHERE imported = 0"
    )
    imported = store.row("SELECT count(*), coalesce(sum(cost_usd), 0) FROM responses WHERE imported = 1")
    maybe, again = store.row(
        "SELECT count(*), coalesce(sum(EXISTS (SELECT 1 FROM attempts y WHERE y.request_hash = x.request_hash"
        " AND y.id > x.id)), 0) FROM attempts x WHERE x.paid = 'maybe' AND x.outcome <> 'started'"
    )
    average = average_cost(store)
    twice = store.value(
        f"SELECT count(*) FROM attempts x WHERE x.paid = 'yes' AND NOT {_ON_PURPOSE} AND EXISTS ({_EARLIER})"
    )
    forced = store.value(
        f"SELECT count(*) FROM attempts x WHERE x.paid = 'yes' AND {_ON_PURPOSE} AND EXISTS ({_EARLIER})"
    )
    lost = store.value(
        "SELECT count(*) FROM attempts x WHERE x.paid = 'yes'"
        " AND NOT EXISTS (SELECT 1 FROM responses r WHERE r.attempt = x.id)"
        " AND NOT EXISTS (SELECT 1 FROM forgotten f WHERE f.attempt = x.id)"
    )
    forgotten, forgotten_cost = store.row(f"SELECT count(*), coalesce(sum(cost_usd), 0) FROM forgotten WHERE {_BOUGHT}")
    return CostLedger(
        outcomes=outcomes,
        paid=paid + forgotten,
        cost_usd=cost + forgotten_cost,
        unpriced=unpriced,
        maybe_paid=maybe,
        asked_again=again,
        maybe_cost_usd=None if average is None else average * maybe,
        paid_twice=twice,
        forced_again=forced,
        lost=lost,
        forgotten=forgotten,
        forgotten_cost_usd=forgotten_cost,
        in_flight=store.value("SELECT count(*) FROM attempts WHERE outcome = 'started' AND batch IS NULL"),
        imported=imported[0],
        imported_cost_usd=imported[1],
        in_batches=store.value("SELECT count(*) FROM attempts WHERE outcome = 'started' AND batch IS NOT NULL"),
        batches=[
            BatchUsage(shown.batch.name, shown.batch.usage, shown.collected_usage)
            for shown in batches.newest(store)
            if shown.collected_usage is not None
        ],
    )


@dataclass(frozen=True, slots=True)
class Money:
    """Money spent, in US dollars; `unpriced` answers have no known price."""

    paid: int
    cost_usd: float
    unpriced: int
    maybe_paid: int


def money_of(store: Store) -> Money:
    row = store.row(
        "SELECT count(*), coalesce(sum(cost_usd), 0), coalesce(sum(cost_usd IS NULL), 0) FROM responses"
        " WHERE imported = 0"
    )
    gone = store.row(f"SELECT count(*), coalesce(sum(cost_usd), 0) FROM forgotten WHERE {_BOUGHT}")
    maybe = store.value("SELECT count(*) FROM attempts WHERE paid = 'maybe' AND outcome <> 'started'")
    return Money(row[0] + gone[0], row[1] + gone[1], row[2], maybe)


def average_cost(store: Store) -> float | None:
    """Return the average price in US dollars of the newest thousand answers; None before the first one with a price."""
    return store.limited_average("SELECT cost_usd FROM responses ORDER BY id DESC LIMIT 1000")


def average_seconds(store: Store) -> dict[str, float]:
    """Return the average seconds of a call by service tier (`standard`, `flex`).

    Uses up to a thousand of the newest answers each, and looks at a bounded number of attempts, since a state has
    millions of them and plans are frequent.
    """
    found = {}
    oldest = store.next_id("attempts") - 20_000
    for tier, like in (("standard", "NOT LIKE"), ("flex", "LIKE")):
        value = store.value(
            "SELECT avg(seconds) FROM (SELECT seconds FROM attempts WHERE outcome = 'succeeded' AND batch IS NULL"
            f" AND seconds IS NOT NULL AND coalesce(backend, '') {like} '%(flex)' AND id >= ? ORDER BY id DESC LIMIT 1000)",
            (oldest,),
        )
        if value is not None:
            found[tier] = float(value)
    return found

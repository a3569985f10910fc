"""How `auto` buys: batch, flex or standard, and the sentence that says why."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioforge.backends import strategy
from bioforge.backends.strategy import ChoiceOptions, choose
from bioforge.core.errors import ConfigError, UsageError
from bioforge.core.interfaces import Limits, Load, PurchaseDecision, PurchaseJob

HOUR = 3600.0

CENTS: Mapping[str, Mapping[str | None, float]] = {
    "luna": {None: 1.0, "batch": 0.5, "flex": 0.5},
    "terra": {None: 10.0, "batch": 5.0, "flex": 5.0},
    "no-flex": {None: 1.0, "batch": 0.5, "flex": 1.0},  # an unknown tier is answered with the standard price
    "no-batch": {None: 1.0, "batch": 1.0, "flex": 0.5},
    "one-price": {None: 1.0, "batch": 1.0, "flex": 1.0},
    "flex-unknown": {None: 1.0, "batch": 0.5},
    "dearer-flex": {None: 1.0, "batch": 0.5, "flex": 0.6},
    "costly-flex": {None: 1.0, "batch": 0.5, "flex": 2.0},
    "free": {None: 0.0, "batch": 0.0, "flex": 0.0},
}
"""Prices of a request, in cents. Models that are not here have none."""


def price(load: Load, tier: str | None) -> float | None:
    cents = CENTS.get(load.model, {}).get(tier)
    return None if cents is None else cents * load.requests / 100


def load(requests: int, model: str = "luna") -> Load:
    return Load(model, requests, 120 * requests, 300 * requests)


def job(
    requests: int,
    model: str = "luna",
    *,
    hours: float | None = None,
    budget: float | None = None,
    calls: Mapping[str, float] | None = None,
    batches: float | None = None,
    **limits: float,
) -> PurchaseJob:
    return PurchaseJob(
        (load(requests, model),),
        Limits(max_cost_usd=budget, **limits),  # type: ignore[arg-type]
        None if hours is None else hours * HOUR,
        calls or {},
        batches,
    )


def chosen(job: PurchaseJob, **options: object) -> PurchaseDecision:
    return choose(job, price, ChoiceOptions.from_options(options))


def bought(choice: PurchaseDecision) -> tuple[str, str | None, str | None]:
    return choice.way, choice.tier, choice.then


def notes(choice: PurchaseDecision) -> dict[str, str]:
    return {way.name: way.note for way in choice.ways}


def costs(choice: PurchaseDecision) -> dict[str, float | None]:
    return {way.name: way.cost_usd for way in choice.ways}


def seconds(choice: PurchaseDecision) -> dict[str, float]:
    return {way.name: way.seconds for way in choice.ways}


class TestNothingToAsk:
    @pytest.mark.parametrize("loads", [(), (load(0),), (load(0, "unheard-of"), load(0))])
    def test_is_standard_for_nothing(self, loads):
        found = choose(PurchaseJob(loads, Limits(max_cost_usd=1.0), 1.0), price, ChoiceOptions())
        assert bought(found) == ("standard", None, None)
        assert found.reason == "nothing to ask"
        assert [(way.name, way.cost_usd, way.seconds, way.note) for way in found.ways] == [
            ("batch", 0.0, 0.0, ""),
            ("flex", 0.0, 0.0, ""),
            ("standard", 0.0, 0.0, ""),
        ]

    def test_a_model_that_is_asked_nothing_bars_no_way(self):
        found = choose(PurchaseJob((load(5000), load(0, "unheard-of"))), price, ChoiceOptions())
        assert found.way == "flex"
        assert costs(found) == {"batch": 25.0, "flex": 25.0, "standard": 50.0}


class TestAllTheTimeInTheWorld:
    def test_a_few_requests_are_not_worth_a_wait(self):
        found = chosen(job(15))
        assert bought(found) == ("standard", None, None)
        assert found.reason == "flex would save only $0.075 of $0.15, less than the $0.10 worth waiting for"

    def test_a_hundred_go_by_flex(self):
        found = chosen(job(100))
        assert bought(found) == ("flex", "flex", "standard")
        assert found.reason == "flex saves $0.50 of $1.00; it needs 23 s of the 1 h it may take"

    def test_five_thousand_go_by_flex(self):
        found = chosen(job(5000))
        assert bought(found) == ("flex", "flex", "standard")
        assert found.reason == "flex saves $25.00 of $50.00; it needs 19 min 32 s of the 1 h it may take"

    def test_a_hundred_thousand_go_as_a_batch(self):
        found = chosen(job(100_000))
        assert bought(found) == ("batch", "batch", "flex")
        assert found.reason == (
            "batch saves $500.00 of $1,000.00; "
            "100,000 requests would keep flex busy for 6 h 30 min, more than the 1 h it may take"
        )

    def test_the_ways_are_always_three_in_one_order(self):
        found = chosen(job(5000))
        assert [way.name for way in found.ways] == ["batch", "flex", "standard"]
        assert costs(found) == {"batch": 25.0, "flex": 25.0, "standard": 50.0}
        assert seconds(found) == {"batch": 86_400.0, "flex": 5000 * 15 / 64, "standard": 5000 * 5 / 64}
        assert notes(found) == {
            "batch": "up to 24 h",
            "flex": "a guess: 15 s a call",
            "standard": "a guess: 5 s a call",
        }

    def test_exactly_as_long_as_flex_may_take_is_not_too_long(self):
        count = 64 * 240  # at 15 s a call, 64 at a time
        assert chosen(job(count)).way == "flex"
        longer = chosen(job(count + 1))
        assert longer.way == "batch"
        assert "would keep flex busy for just over 1 h, more than the 1 h" in longer.reason

    def test_how_long_flex_may_take_is_an_option(self):
        assert chosen(job(5000), flex_seconds=600).way == "batch"
        assert chosen(job(100_000), flex_seconds=8 * HOUR).way == "flex"


class TestWorthWaitingFor:
    def test_exactly_enough_is_saved(self):
        assert chosen(job(20)).way == "flex"
        assert chosen(job(19)).way == "standard"

    def test_how_much_is_enough_is_an_option(self):
        assert chosen(job(5000), min_saving_usd=25).way == "flex"
        found = chosen(job(5000), min_saving_usd=25.01)
        assert found.way == "standard"
        assert found.reason == "flex would save only $25.00 of $50.00, less than the $25.01 worth waiting for"
        assert chosen(job(1), min_saving_usd=0).way == "flex"

    def test_a_batch_has_to_save_as_much(self):
        found = chosen(job(15, "no-flex"))
        assert found.way == "standard"
        assert found.reason == "batch would save only $0.075 of $0.15, less than the $0.10 worth waiting for"

    def test_a_cheaper_way_that_is_faster_needs_to_save_nothing(self):
        found = chosen(job(15, calls={"standard": 20.0, "flex": 10.0}))
        assert bought(found) == ("flex", "flex", "standard")

    def test_a_saving_too_small_is_taken_where_the_faster_way_is_out(self):
        found = chosen(job(15, budget=0.1))
        assert bought(found) == ("flex", "flex", None)
        assert found.reason == (
            "flex saves $0.075 of $0.15; it needs 15 s of the 1 h it may take; "
            "standard is out: costs $0.15, the budget is $0.10"
        )

    def test_a_batch_a_little_cheaper_than_flex(self):
        found = chosen(job(50, "dearer-flex"))  # $0.25, $0.30, $0.50
        assert found.way == "flex"
        assert found.reason == "batch would save only $0.050 of $0.30, less than the $0.10 worth waiting for"

    def test_a_batch_much_cheaper_than_flex(self):
        found = chosen(job(5000, "dearer-flex"))
        assert bought(found) == ("batch", "batch", "flex")
        assert found.reason == "batch saves $25.00 of $50.00"

    def test_from_a_batch_over_flex_to_standard(self):
        found = chosen(job(22, "dearer-flex"))  # $0.11, $0.132, $0.22
        assert found.way == "standard"
        assert found.reason == "flex would save only $0.088 of $0.22, less than the $0.10 worth waiting for"


class TestDeadline:
    def test_two_hours_leave_no_time_for_a_batch(self):
        found = chosen(job(5000, hours=2))
        assert bought(found) == ("flex", "flex", "standard")
        assert notes(found)["batch"] == "needs up to 24 h, the deadline is 2 h"
        assert found.reason == ("flex saves $25.00 of $50.00; batch is out: needs up to 24 h, the deadline is 2 h")

    def test_flex_in_time_is_taken_however_long_it_takes(self):
        found = chosen(job(100_000, hours=7))
        assert found.way == "flex"

    def test_only_standard_is_fast_enough(self):
        found = chosen(job(100_000, hours=3))
        assert bought(found) == ("standard", None, None)
        assert found.reason == (
            "standard costs $1,000.00; batch is out: needs up to 24 h, the deadline is 3 h; "
            "flex is out: needs 6 h 30 min, the deadline is 3 h"
        )

    def test_batches_seen_to_be_fast_promise_nothing(self):
        found = chosen(job(100_000, hours=20, batches=600.0))
        assert found.way == "flex"
        assert seconds(found)["batch"] == 600.0
        assert notes(found)["batch"] == "needs up to 24 h, the deadline is 20 h"

    def test_the_whole_window_is_enough(self):
        assert chosen(job(100_000, hours=24)).way == "batch"

    def test_how_long_a_batch_needs_is_an_option(self):
        assert chosen(job(100_000, hours=7, calls={"flex": 30.0}), batch_seconds=6 * HOUR).way == "batch"
        found = chosen(job(100_000, hours=30, calls={"flex": 15.0}), batch_seconds=36 * HOUR)
        assert found.way == "flex"
        assert notes(found)["batch"] == "needs up to 36 h, the deadline is 30 h"

    def test_a_batch_in_time_where_flex_and_standard_are_not(self):
        found = chosen(job(100_000, hours=25, requests_per_minute=60))
        assert bought(found) == ("batch", "batch", "standard")
        assert found.reason == (
            "batch saves $500.00 of $1,000.00; flex is out: needs 1 d 3 h, the deadline is 25 h; "
            "standard is out: needs 1 d 3 h, the deadline is 25 h"
        )


class TestNothingInTime:
    def test_the_fastest_says_by_how_much_it_will_be_late(self):
        found = chosen(job(100_000, hours=2))
        assert bought(found) == ("standard", None, None)
        assert found.reason == (
            "standard is the fastest way, and is expected to miss the deadline of 2 h by 10 min 12 s"
        )
        assert notes(found)["standard"] == "needs 2 h 10 min, the deadline is 2 h"

    def test_a_little_late_does_not_read_as_in_time(self):
        found = chosen(job(64 * 720 + 1, hours=1))
        assert notes(found)["standard"] == "needs just over 1 h, the deadline is 1 h"

    def test_the_fastest_within_the_budget(self):
        found = chosen(job(100_000, hours=3, budget=600.0))
        assert bought(found) == ("flex", "flex", None)
        assert found.reason == (
            "flex is the fastest way within the budget of $600.00, "
            "and is expected to miss the deadline of 3 h by 3 h 30 min"
        )
        assert notes(found)["standard"] == "costs $1,000.00, the budget is $600.00"

    def test_only_a_batch_within_the_budget(self):
        found = chosen(job(5000, "no-flex", hours=2, budget=30.0))
        assert bought(found) == ("batch", "batch", "standard")
        assert found.reason == (
            "batch is the fastest way within the budget of $30.00, "
            "and is expected to miss the deadline of 2 h by up to 22 h"
        )

    def test_a_batch_that_may_yet_be_in_time(self):
        found = chosen(job(5000, "no-flex", hours=2, budget=30.0, batches=HOUR))
        assert found.way == "batch"
        assert found.reason.endswith("and may miss the deadline of 2 h by up to 22 h")

    def test_a_budget_that_all_ways_keep_decides_nothing(self):
        found = chosen(job(100_000, hours=2, budget=5000.0))
        assert found.reason.startswith("standard is the fastest way, and ")

    def test_a_batch_where_limits_make_calls_slower_still(self):
        found = chosen(job(100_000, hours=20, requests_per_minute=60))
        assert found.way == "batch"
        assert found.reason == "batch is the fastest way, and is expected to miss the deadline of 20 h by up to 4 h"


class TestBudget:
    def test_standard_over_it(self):
        found = chosen(job(5000, budget=40.0))
        assert bought(found) == ("flex", "flex", None)
        assert found.reason == (
            "flex saves $25.00 of $50.00; it needs 19 min 32 s of the 1 h it may take; "
            "standard is out: costs $50.00, the budget is $40.00"
        )

    def test_exactly_enough(self):
        assert notes(chosen(job(5000, budget=50.0)))["standard"] == "a guess: 5 s a call"
        assert chosen(job(5000, budget=50.0)).then == "standard"

    def test_the_same_sum_in_another_order_is_not_over_it(self):
        loads = tuple(load(1) for _ in range(10))  # ten times 0.01 is a little less than 0.1, other sums a little more
        total = sum([0.01] * 10)
        found = choose(PurchaseJob(loads, Limits(max_cost_usd=math.nextafter(total, 0))), price, ChoiceOptions())
        assert found.way == "standard"
        assert "budget" not in notes(found)["standard"]

    def test_a_little_over_it_does_not_read_as_equal(self):
        assert notes(chosen(job(5000, budget=49.999)))["standard"] == "costs just over $50.00, the budget is $50.00"

    def test_over_it_and_too_late(self):
        found = chosen(job(100_000, hours=2, budget=999.0))
        assert notes(found)["standard"] == (
            "costs $1,000.00, the budget is $999.00, and needs 2 h 10 min, the deadline is 2 h"
        )

    def test_not_even_the_cheapest_within_it(self):
        found = chosen(job(5000, budget=10.0))
        assert bought(found) == ("flex", "flex", None)
        assert found.reason == (
            "flex is the cheapest way at $25.00, and the budget of $10.00 will stop it: "
            "it pays for about 2,000 of 5,000 requests"
        )

    def test_not_even_a_batch_within_it(self):
        found = chosen(job(100_000, budget=100.0))
        assert bought(found) == ("batch", "batch", "flex")
        assert found.reason == (
            "batch is the cheapest way at $500.00, and the budget of $100.00 will stop it: "
            "it pays for about 20,000 of 100,000 requests"
        )

    def test_no_money_at_all(self):
        found = chosen(job(5000, budget=0.0))
        assert found.reason.endswith("it pays for about 0 of 5,000 requests")

    def test_what_costs_nothing_is_within_any(self):
        found = chosen(job(5000, "free", budget=0.0))
        assert bought(found) == ("standard", None, None)
        assert found.reason.startswith("standard costs $0.00; batch is out: no batch price for free")


class TestBudgetAndDeadlineTogether:
    def test_what_the_budget_pays_for_is_in_time(self):
        """All of it by flex would take 6 h 30 min; a fifth of that is bought."""
        found = chosen(job(100_000, hours=2, budget=100.0))
        assert bought(found) == ("flex", "flex", None)
        assert found.reason == (
            "flex is the cheapest way in time at $500.00, and the budget of $100.00 will stop it: "
            "it pays for about 20,000 of 100,000 requests"
        )

    def test_fewer_in_time_rather_than_more_too_late(self):
        found = chosen(job(5000, "no-flex", hours=2, budget=10.0))
        assert bought(found) == ("standard", None, None)
        assert found.reason == (
            "standard is the cheapest way in time at $50.00, and the budget of $10.00 will stop it: "
            "it pays for about 1,000 of 5,000 requests"
        )

    def test_too_little_of_both(self):
        found = chosen(job(100_000, hours=0.1, budget=400.0))
        assert found.way == "batch"
        assert found.reason == (
            "batch is the cheapest way at $500.00, and the budget of $400.00 will stop it: "
            "it pays for about 80,000 of 100,000 requests; "
            "it is expected to miss the deadline of 6 min by up to 23 h 54 min"
        )


class TestPricesThatAreNotThere:
    def test_an_unknown_model_is_bought_at_standard(self):
        found = chosen(job(5000, "unheard-of"))
        assert bought(found) == ("standard", None, None)
        assert found.reason == (
            "standard at an unknown price; batch is out: no batch price for unheard-of; "
            "flex is out: no flex price for unheard-of"
        )
        assert costs(found) == {"batch": None, "flex": None, "standard": None}
        assert notes(found)["standard"] == "unknown price for unheard-of; a guess: 5 s a call"

    def test_a_budget_cannot_be_held_against_an_unknown_price(self):
        found = chosen(job(5000, "unheard-of", budget=10.0))
        assert bought(found) == ("standard", None, None)
        assert notes(found)["standard"] == "unknown price for unheard-of, the budget is $10.00"
        assert found.reason == ("standard, at an unknown price: unknown price for unheard-of, the budget is $10.00")

    def test_nor_a_deadline_be_kept_by_it(self):
        found = chosen(job(100_000, "unheard-of", budget=10.0, hours=2))
        assert found.way == "standard"
        assert found.reason.endswith("; it is expected to miss the deadline of 2 h by 10 min 12 s")

    def test_the_model_of_a_stored_prompt_has_no_name(self):
        assert notes(chosen(job(5, "")))["flex"] == "no flex price for the prompt's own model"

    @pytest.mark.parametrize("model", ["no-flex", "flex-unknown", "costly-flex"])
    def test_without_a_flex_price_there_is_no_flex(self, model):
        found = chosen(job(5000, model))
        assert bought(found) == ("batch", "batch", "standard")
        assert found.reason == f"batch saves $25.00 of $50.00; flex is out: no flex price for {model}"
        assert costs(found)["flex"] is None

    def test_without_a_batch_price_there_is_no_batch(self):
        found = chosen(job(100_000, "no-batch"))
        assert bought(found) == ("flex", "flex", "standard")
        assert found.reason == "flex saves $500.00 of $1,000.00; batch is out: no batch price for no-batch"

    def test_one_price_for_all_is_standard(self):
        found = chosen(job(100_000, "one-price"))
        assert bought(found) == ("standard", None, None)
        assert notes(found)["batch"] == "no batch price for one-price"


class TestSeveralModels:
    def test_prices_and_requests_add_up(self):
        found = choose(PurchaseJob((load(2000), load(3000, "terra"))), price, ChoiceOptions())
        assert costs(found) == {"batch": 160.0, "flex": 160.0, "standard": 320.0}
        assert found.reason == "flex saves $160.00 of $320.00; it needs 19 min 32 s of the 1 h it may take"

    def test_what_one_of_them_lacks_is_out_for_all(self):
        loads = (load(2000), load(10, "no-flex"), load(5, "flex-unknown"), load(5, "no-flex"))
        found = choose(PurchaseJob(loads), price, ChoiceOptions())
        assert found.way == "batch"
        assert notes(found)["flex"] == "no flex price for no-flex, flex-unknown"

    def test_one_unknown_price_makes_the_whole_unknown(self):
        found = choose(PurchaseJob((load(2000), load(10, "unheard-of"))), price, ChoiceOptions())
        assert costs(found)["standard"] is None
        assert notes(found)["standard"].startswith("unknown price for unheard-of; ")


class TestTimes:
    def test_calls_as_they_were_seen(self):
        found = chosen(job(6400, calls={"standard": 2.0, "flex": 40.0}))
        assert seconds(found) == {"batch": 86_400.0, "flex": 4000.0, "standard": 200.0}
        assert notes(found) == {"batch": "up to 24 h", "flex": "", "standard": ""}
        assert found.way == "batch"
        assert "6,400 requests would keep flex busy for 1 h 6 min" in found.reason

    def test_one_seen_and_one_guessed(self):
        found = chosen(job(6400, calls={"standard": 2.0}))
        assert notes(found)["flex"] == "a guess: 15 s a call"
        assert seconds(found)["flex"] == 1500.0

    def test_calls_that_take_no_time(self):
        assert seconds(chosen(job(6400, calls={"standard": 0.0})))["standard"] == 0.0

    def test_batches_as_they_were_seen(self):
        found = chosen(job(100_000, batches=2 * HOUR))
        assert seconds(found)["batch"] == 2 * HOUR
        assert notes(found)["batch"] == "as batches took so far, up to 24 h"

    def test_no_job_is_over_before_its_first_call(self):
        assert seconds(chosen(job(1))) == {"batch": 86_400.0, "flex": 15.0, "standard": 5.0}

    def test_concurrency_divides(self):
        assert seconds(chosen(job(5000, concurrency=1)))["standard"] == 25_000.0
        assert seconds(chosen(job(5000, concurrency=500)))["standard"] == 50.0

    def test_requests_a_minute_bound_them(self):
        found = chosen(job(5000, requests_per_minute=50))
        assert seconds(found)["standard"] == seconds(found)["flex"] == 6000.0
        assert notes(found)["standard"] == "held to 50 requests a minute"
        assert found.way == "batch"
        assert "would keep flex busy for 1 h 40 min" in found.reason

    def test_tokens_a_minute_bound_them_by_input_and_output(self):
        found = chosen(job(5000, tokens_per_minute=210_000.0))
        assert seconds(found)["standard"] == 600.0
        assert notes(found)["standard"] == "held to 210,000 tokens a minute"
        assert notes(found)["flex"] == "a guess: 15 s a call"  # slower than the limit anyway

    def test_wide_limits_bound_nothing(self):
        found = chosen(job(5000, requests_per_minute=1e6, tokens_per_minute=1e9))
        assert seconds(found)["standard"] == 5000 * 5 / 64

    def test_limits_can_cost_the_deadline_and_of_two_as_late_the_cheaper_is_taken(self):
        found = chosen(job(5000, hours=1, requests_per_minute=50))
        assert found.way == "flex"
        assert found.reason == "flex is the fastest way, and is expected to miss the deadline of 1 h by 40 min"


class TestWhatIsLeftOver:
    def test_of_a_batch_goes_by_flex(self):
        assert chosen(job(100_000)).then == "flex"
        assert chosen(job(100_000, hours=31)).then == "flex"

    def test_of_a_batch_goes_by_standard_where_flex_would_be_late(self):
        assert bought(chosen(job(100_000, hours=30))) == ("batch", "batch", "standard")
        assert bought(chosen(job(100_000, hours=24))) == ("batch", "batch", "standard")

    def test_of_a_batch_goes_by_standard_where_there_is_no_flex(self):
        assert chosen(job(100_000, "no-flex")).then == "standard"
        assert chosen(job(100_000), flex=False).then == "standard"

    def test_of_flex_goes_by_standard_where_the_budget_allows(self):
        assert chosen(job(5000)).then == "standard"
        assert chosen(job(5000, budget=50.0)).then == "standard"
        assert chosen(job(5000, budget=49.0)).then is None

    def test_of_standard_goes_nowhere(self):
        assert chosen(job(5)).then is None


class TestOptions:
    def test_without_flex(self):
        found = chosen(job(5000), flex=False)
        assert bought(found) == ("batch", "batch", "standard")
        assert found.reason == "batch saves $25.00 of $50.00; flex is out: flex = false in [backend.auto]"
        assert costs(found)["flex"] == 25.0

    def test_without_batch(self):
        found = chosen(job(100_000), batch=False)
        assert bought(found) == ("flex", "flex", "standard")
        assert found.reason == "flex saves $500.00 of $1,000.00; batch is out: batch = false in [backend.auto]"

    def test_with_neither(self):
        found = chosen(job(100_000), batch=False, flex=False)
        assert bought(found) == ("standard", None, None)
        assert found.reason == (
            "standard costs $1,000.00; batch is out: batch = false in [backend.auto]; "
            "flex is out: flex = false in [backend.auto]"
        )

    def test_a_way_that_may_not_be_used_is_not_taken_for_its_price(self):
        assert chosen(job(5000, budget=1.0), batch=False, flex=False).way == "standard"

    def test_of_an_empty_table_are_the_defaults(self):
        assert ChoiceOptions.from_options({}) == ChoiceOptions(0.10, 3600.0, 86_400.0, True, True)

    def test_are_read_from_the_table(self):
        table = {"min_saving_usd": 1, "flex_seconds": 600.5, "batch_seconds": 43_200, "flex": False, "batch": True}
        assert ChoiceOptions.from_options(table) == ChoiceOptions(1.0, 600.5, 43_200.0, False, True)

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("flex_second", "did you mean 'flex_seconds'?"),
            ("min_savings", "did you mean 'min_saving_usd'?"),
            ("batches", "did you mean 'batch'?"),
            ("zzz", "known keys: min_saving_usd, flex_seconds, batch_seconds, flex, batch"),
        ],
    )
    def test_an_unknown_key_names_the_nearest(self, name, hint):
        with pytest.raises(ConfigError) as raised:
            ChoiceOptions.from_options({name: 1})
        assert raised.value.message == f"backend.auto.{name}: unknown key"
        assert raised.value.hint == hint

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("flex", "yes", "expected true or false, found 'yes'"),
            ("batch", 1, "expected true or false, found 1"),
            ("min_saving_usd", "0.10", "expected US dollars, from 0, found '0.10'"),
            ("min_saving_usd", -0.1, "expected US dollars, from 0, found -0.1"),
            ("flex_seconds", True, "expected seconds, from 0, found true"),
            ("flex_seconds", float("inf"), "expected seconds, from 0, found inf"),
            ("flex_seconds", float("nan"), "expected seconds, from 0, found nan"),
            ("batch_seconds", 0, "expected seconds, above 0, found 0"),
            ("batch_seconds", [1], "expected seconds, above 0, found [1]"),
        ],
    )
    def test_a_wrong_value_says_what_is_expected(self, name, value, message):
        with pytest.raises(UsageError) as raised:
            ChoiceOptions.from_options({name: value})
        assert raised.value.message == f"backend.auto.{name}: {message}"

    def test_a_long_value_is_not_told_whole(self):
        with pytest.raises(ConfigError) as raised:
            ChoiceOptions.from_options({"flex": "y" * 10_000})
        assert len(raised.value.message) < 120

    def test_are_frozen(self):
        with pytest.raises(FrozenInstanceError):
            ChoiceOptions().flex = False  # type: ignore[misc]


class TestWhateverTheJob:
    @settings(max_examples=300, deadline=None)
    @given(
        loads=st.lists(st.builds(load, st.integers(0, 200_000), st.sampled_from([*CENTS, "unheard-of"])), max_size=3),
        budget=st.none() | st.floats(0, 2000),
        deadline=st.none() | st.floats(1, 200_000),
        rpm=st.none() | st.floats(1, 1e5),
        flex=st.booleans(),
        batch=st.booleans(),
        observed=st.dictionaries(st.sampled_from(["standard", "flex"]), st.floats(0, 100)),
        batches=st.none() | st.floats(1, 90_000),
    )
    def test_the_rules_hold(self, loads, budget, deadline, rpm, flex, batch, observed, batches):
        limits = Limits(requests_per_minute=rpm, max_cost_usd=budget)
        options = ChoiceOptions(flex=flex, batch=batch)
        found = choose(PurchaseJob(tuple(loads), limits, deadline, observed, batches), price, options)
        ways = {way.name: way for way in found.ways}
        assert list(ways) == ["batch", "flex", "standard"]
        assert found.tier == {"batch": "batch", "flex": "flex", "standard": None}[found.way]
        assert found.reason
        assert "inf" not in found.reason
        assert "nan" not in found.reason
        assert flex or "flex" not in (found.way, found.then)
        assert batch or found.way != "batch"

        def within(name: str) -> bool:
            cost = ways[name].cost_usd
            return budget is None or (cost is not None and cost <= budget * (1 + 1e-9))

        def offered(name: str) -> bool:
            return name == "standard" or ({"flex": flex, "batch": batch}[name] and ways[name].cost_usd is not None)

        def in_time(name: str) -> bool:
            return deadline is None or (86_400 if name == "batch" else ways[name].seconds) <= deadline

        possible = [name for name in ways if offered(name) and within(name) and in_time(name)]
        assert offered(found.way)
        if possible:
            assert found.way in possible
            cheapest = min(ways[name].cost_usd or 0.0 for name in possible)
            cost = ways[found.way].cost_usd or 0.0
            assert cost <= cheapest + 2 * options.min_saving_usd
        elif any(offered(name) and within(name) for name in ways):
            assert within(found.way)
            assert "miss the deadline" in found.reason


class TestTheModule:
    def test_imports_nothing_but_values(self):
        tree = ast.parse(Path(strategy.__file__).read_text(encoding="utf-8"))
        ours = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {name for name in ours if name and name.startswith("bioforge")} == {
            "bioforge.core.errors",
            "bioforge.core.interfaces",
            "bioforge.core.text",
        }

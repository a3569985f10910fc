"""Statistics of variants: intervals, clustering by artist, paired differences."""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Iterable

import pytest

from bioforge.evaluation.compare import (
    SORTS,
    Comparison,
    Estimate,
    Quantiles,
    Spread,
    Summary,
    share,
    sort_summaries,
    t_quantile,
)
from bioforge.store.variants import MeasuredState, Measurement

# ------------------------------------------------------------------------------------------------------- statistics


@pytest.mark.parametrize(
    ("degrees", "printed"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (10, 2.228), (30, 2.042), (10**9, 1.960)],
)
def test_quantiles_match_printed_tables(degrees: int, printed: float) -> None:
    assert t_quantile(degrees) == pytest.approx(printed, abs=6e-4)


def mass_within(t: float, degrees: int) -> float:
    """Return the probability between -t and t of Student's t: the finite series for integer degrees of freedom."""
    angle = math.atan(t / math.sqrt(degrees))
    odd = degrees % 2
    if degrees == 1:
        return 2 * angle / math.pi
    term = total = math.cos(angle) if odd else 1.0
    for number in range(3 if odd else 2, degrees - 1, 2):
        term *= math.cos(angle) ** 2 * (number - 1) / number
        total += term
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


@pytest.mark.parametrize("degrees", [*range(1, 41), 99, 1000])
def test_95_percent_lie_within_the_quantile(degrees: int) -> None:
    assert mass_within(t_quantile(degrees), degrees) == pytest.approx(0.95, abs=1e-4)


def estimate_of(values: Iterable[float]) -> Estimate | None:
    spread = Spread()
    for value in values:
        spread.add(value)
    return spread.estimate


def test_a_mean_with_its_interval() -> None:
    # by hand: deviation 2, error 2 / √4, and 3.182446 of them with 3 degrees of freedom
    found = estimate_of([3, 7, 3, 7])
    assert found is not None
    assert (found.mean, found.artists) == (5.0, 4)
    assert found.half_width == pytest.approx(3.182446 * math.sqrt(16 / 3) / 2)


def test_one_artist_has_no_interval_and_none_has_no_mean() -> None:
    assert estimate_of([0.5]) == Estimate(0.5, None, 1)
    assert estimate_of([]) is None


def test_digits_are_not_lost_to_a_large_mean() -> None:
    found = estimate_of([1e9 + 1, 1e9 + 2, 1e9 + 3])
    assert found is not None
    assert found.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


@pytest.mark.parametrize(
    ("successes", "tries", "low", "high"),
    [(0, 10, 0.0, 0.2775), (1, 10, 0.0179, 0.4042), (50, 100, 0.4038, 0.5962), (10, 10, 0.7225, 1.0)],
)
def test_shares_have_wilsons_interval(successes: int, tries: int, low: float, high: float) -> None:
    found = share(successes, tries)
    assert found is not None
    assert found.value == successes / tries
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_no_tries_have_no_share() -> None:
    assert share(0, 0) is None


@pytest.mark.parametrize("part", [0.5, 0.95])
@pytest.mark.parametrize("count", [1, 2, 20, 5000])
def test_quantiles_of_times_are_within_one_percent(part: float, count: int) -> None:
    chance = random.Random(count)
    times = sorted(chance.lognormvariate(0, 1.5) for _ in range(count))
    quantiles = Quantiles()
    for seconds in times:
        quantiles.add(seconds)
    assert quantiles.at(part) == pytest.approx(times[math.ceil(part * count) - 1], rel=0.01)


def test_a_time_of_zero_counts() -> None:
    quantiles = Quantiles()
    assert quantiles.at(0.5) is None
    quantiles.add(0.0)
    assert quantiles.at(0.5) == pytest.approx(0, abs=1e-5)


# -------------------------------------------------------------------------------------------------------- comparison


def answer(artist: int, variant: str, **numbers: float) -> Measurement:
    return Measurement(artist, str(artist), variant, MeasuredState.ANSWERED, **numbers)  # type: ignore[arg-type]


def compared(variants: list[str], scores: dict[int, dict[str, float]]) -> dict[str, Summary]:
    """Return a comparison of scores by artist and variant, each of an answer."""
    comparison = Comparison(variants)
    for artist, found in scores.items():
        comparison.add([answer(artist, variant) for variant in found], found)
    return {summary.variant: summary for summary in comparison.summaries()}


def test_samples_of_an_artist_count_once() -> None:
    samples = ["", "sample=2", "sample=3"]
    found = compared(samples, {1: dict.fromkeys(samples, 0.0), 2: {"": 1.0}})[""]
    assert found.answers == 4
    assert found.score is not None
    assert (found.score.mean, found.score.artists) == (0.5, 2)


def test_the_interval_covers_the_true_mean_95_times_of_100() -> None:
    """Five artists differ much more than their samples: 5 independent values, not 50."""
    chance, samples = random.Random(7), ["", *(f"sample={number}" for number in range(2, 11))]
    held, held_if_samples_counted, experiments = 0, 0, 2000
    for _ in range(experiments):
        talents = {artist: chance.gauss(0, 1) for artist in range(5)}
        scores = {artist: {one: chance.gauss(talent, 0.3) for one in samples} for artist, talent in talents.items()}
        found = compared(samples, scores)[""].score
        naive = estimate_of(score for one in scores.values() for score in one.values())
        assert found is not None
        assert found.half_width is not None
        assert naive is not None
        assert naive.half_width is not None
        held += abs(found.mean) <= found.half_width
        held_if_samples_counted += abs(naive.mean) <= naive.half_width
    assert 0.935 <= held / experiments <= 0.965
    assert held_if_samples_counted / experiments < 0.6


def test_variants_are_compared_artist_by_artist() -> None:
    """Artists differ by 100, the variants by about 1: only the paired differences show it."""
    scores = {
        artist: {"model=a": 100.0 * artist, "model=b": 100.0 * artist + 1 + artist % 2 / 10} for artist in range(10)
    }
    found = compared(["model=a", "model=b"], scores)
    assert found["model=b"].score is not None
    assert found["model=b"].score.half_width is not None
    assert found["model=b"].score.half_width > 100
    difference = found["model=b"].difference
    assert difference is not None
    assert difference.mean == pytest.approx(1.05)
    assert difference.half_width is not None
    assert 0 < difference.half_width < 0.1


def test_differences_are_over_the_artists_that_both_have() -> None:
    scores = {1: {"model=a": 1.0, "model=b": 2.0}, 2: {"model=b": 50.0}, 3: {"model=a": 9.0}, 4: {}}
    found = compared(["model=a", "model=b"], scores)
    assert found["model=b"].difference == Estimate(1.0, None, 1)
    assert found["model=b"].score is not None
    assert found["model=b"].score.mean == 26.0
    assert found["model=a"].difference is None, "the first is compared to nothing"


def test_only_answers_that_are_up_to_date_have_numbers() -> None:
    comparison = Comparison([""])
    comparison.add([answer(1, "", characters=100, output_tokens=25, cost_usd=0.5)])
    comparison.add([Measurement(2, "2", "", MeasuredState.STALE, characters=9999, cost_usd=9.0)])
    comparison.add([Measurement(3, "3", "", MeasuredState.FAILED, held=True)])
    comparison.add([Measurement(4, "4", "", MeasuredState.FAILED)])
    (found,) = comparison.summaries()
    assert (found.targets, found.answers, found.failed, found.held, found.stale) == (4, 1, 2, 1, 1)
    assert (found.characters, found.output_tokens, found.cost_usd) == (100, 25, 0.5)
    assert found.success == share(1, 3), "what was not asked for has neither failed nor succeeded"
    assert comparison.artists == 4


def test_unknown_values_are_left_out_of_means_and_counted() -> None:
    comparison = Comparison([""])
    comparison.add([answer(1, "", seconds=2.0)], {"": 1.0})
    comparison.add([answer(2, "", cost_usd=0.25)], {})
    (found,) = comparison.summaries()
    assert (found.cost_usd, found.unpriced, found.unscored, found.input_tokens) == (0.25, 1, 1, None)
    assert found.latency is not None
    assert (found.latency.mean, found.latency.answers) == (2.0, 1)
    assert found.latency.p50 == pytest.approx(2.0, rel=0.01)
    assert found.score == Estimate(1.0, None, 1)


def test_variants_keep_their_order_with_samples_merged() -> None:
    comparison = Comparison(["model=b", "model=b,sample=2", "model=a", "model=a,facts.sample=2", "model=c"])
    comparison.add([answer(1, "model=a,facts.sample=2"), answer(1, "model=b,sample=2"), answer(1, "model=old")])
    assert comparison.variants == ["model=b", "model=a", "model=c"]
    assert [(found.variant, found.answers) for found in comparison.summaries()] == [
        ("model=b", 1),
        ("model=a", 1),
        ("model=c", 0),
    ]
    assert comparison.others == {"model=old"}, "no longer in the file"


def test_models_that_answered_are_counted() -> None:
    comparison = Comparison([""])
    for artist, model in enumerate(["terra", "luna", "luna"]):
        comparison.add([Measurement(artist, str(artist), "", MeasuredState.ANSWERED, model=model)])
    assert list(comparison.summaries()[0].models.items()) == [("luna", 2), ("terra", 1)]


def test_memory_does_not_grow_with_artists() -> None:
    def size(artists: int) -> int:
        comparison = Comparison(["", "sample=2", "model=b"])
        for artist in range(artists):
            answers = [
                answer(artist, variant, seconds=1 + artist % 50, characters=500)
                for variant in ("", "sample=2", "model=b")
            ]
            comparison.add(answers, {"": artist % 3, "model=b": 1.0})
        return len(pickle.dumps(comparison))

    assert size(20_000) < 1.1 * size(200)


ORDERS = {
    "score": ["good", "bad", "none"],
    "success": ["bad", "good", "none"],
    "cost": ["bad", "good", "none"],
    "latency": ["good", "bad", "none"],
    "length": ["good", "bad", "none"],
    "tokens": ["bad", "good", "none"],
}


@pytest.mark.parametrize("by", SORTS)
def test_sort_orders(by: str) -> None:
    comparison = Comparison(["model=none", "model=bad", "model=good"])
    good = answer(1, "model=good", seconds=1, cost_usd=0.2, characters=10, output_tokens=9)
    bad = answer(1, "model=bad", seconds=2, cost_usd=0.1, characters=20, output_tokens=8)
    failed = Measurement(2, "2", "model=good", MeasuredState.FAILED)
    comparison.add([good, bad], {"model=good": 1.0, "model=bad": 0.0})
    comparison.add([failed])
    found = [summary.variant.removeprefix("model=") for summary in sort_summaries(comparison.summaries(), by)]
    assert found == ORDERS[by]

"""Comparison of variants: means, shares and differences with their confidence intervals. Pure.

Samples of one artist are not independent: an artist's score is the mean of its samples, and the standard error of a
variant's mean is taken over artists (clustered). Variants are compared artist by artist (paired), so that hard artists
do not favour a variant.

All intervals are 95% intervals: Student's t for means and differences, Wilson's for the share of successes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bioforge.recipes.variants import without_samples
from bioforge.store.variants import MeasuredState, Measurement

CONFIDENCE = 0.95
_Z = 1.959963984540054
"""The 0.975 quantile of the normal distribution: 95% lie within this many standard errors on both sides."""
_T = (12.706205, 4.302653, 3.182446, 2.776445, 2.570582)
"""The 0.975 quantiles of Student's t with 1 to 5 degrees of freedom."""

Number = int | float


# -------------------------------------------------------------------------------------------------------- statistics


def t_quantile(degrees: int) -> float:
    """Return the 0.975 quantile of Student's t. From 6 degrees of freedom: Cornish-Fisher expansion, within 0.005%."""
    if degrees <= len(_T):
        return _T[degrees - 1]
    z = _Z
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / float(degrees) ** power for power, term in enumerate(terms, start=1))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over artists and half the width of its interval; None with one artist."""

    mean: float
    half_width: float | None
    artists: int


@dataclass(frozen=True, slots=True)
class Share:
    """A proportion from 0 to 1, with the ends of its interval."""

    value: float
    low: float
    high: float


def share(successes: int, tries: int) -> Share | None:
    """Return the share of successes with Wilson's interval, which is valid near 0 and 1; None without tries.

    Samples of one artist count as independent tries, since most failures (limits, outages, truncation) are. If an
    artist's samples fail together, the interval is too narrow.
    """
    if not tries:
        return None
    value, weight = successes / tries, _Z**2 / tries
    middle = (value + weight / 2) / (1 + weight)
    half = _Z * math.sqrt(value * (1 - value) / tries + weight / (4 * tries)) / (1 + weight)
    return Share(value, low=0.0 if not successes else middle - half, high=1.0 if successes == tries else middle + half)


class Mean:
    """A running mean that skips unknown values."""

    __slots__ = ("count", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total: Number = 0

    def add(self, value: Number | None) -> None:
        if value is not None:
            self.count += 1
            self.total += value

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


class Spread:
    """A running mean and deviation of one number per artist, by Welford's algorithm."""

    __slots__ = ("_mean", "_squares", "artists")

    def __init__(self) -> None:
        self.artists = 0
        self._mean = 0.0
        self._squares = 0.0

    def add(self, value: float) -> None:
        self.artists += 1
        step = value - self._mean
        self._mean += step / self.artists
        self._squares += step * (value - self._mean)

    @property
    def estimate(self) -> Estimate | None:
        if not self.artists:
            return None
        half_width = None
        if (degrees := self.artists - 1) > 0:
            half_width = t_quantile(degrees) * math.sqrt(self._squares / degrees / self.artists)
        return Estimate(self._mean, half_width, self.artists)


class Quantiles:
    """Quantiles of times within 1%, in constant memory: a histogram of logarithms."""

    _RATIO = 1.02
    _LEAST = 1e-6
    """Seconds; shorter times count as this."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        self._counts[math.ceil(math.log(max(seconds, self._LEAST), self._RATIO))] += 1

    def at(self, part: float) -> float | None:
        """Return the smallest time that `part` of all times (0 to 1) do not exceed; None before the first."""
        rank = max(1, math.ceil(part * self._counts.total()))
        passed = 0
        for number in sorted(self._counts):
            passed += self._counts[number]
            if passed >= rank:
                return float(2 * self._RATIO**number / (self._RATIO + 1))
        return None


# -------------------------------------------------------------------------------------------------------- comparison


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds per answer; the quantiles are within 1%."""

    mean: float
    p50: float
    p95: float
    answers: int


@dataclass(frozen=True, slots=True)
class Summary:
    """A variant with its samples merged.

    Means are over answers, in characters, tokens and US dollars. The score is over artists; `difference` is the score
    minus that of the first variant, over the artists that have both. `targets` is the sum of `answers`, `failed` and
    `stale`; `held` counts failures that are held back. `unpriced` and `unscored` count answers; `models` counts answers by
    model.
    """

    variant: str
    targets: int
    answers: int
    failed: int
    held: int
    stale: int
    success: Share | None
    characters: float | None
    input_tokens: float | None
    output_tokens: float | None
    cost_usd: float | None
    unpriced: int
    latency: Latency | None
    models: Mapping[str, int]
    score: Estimate | None
    difference: Estimate | None
    unscored: int


class Comparison:
    """Running sums for every variant, fed artist by artist in constant memory."""

    def __init__(self, variants: Iterable[str]) -> None:
        """`variants`: in display order; samples of one are merged, and other variants are ignored."""
        self._tallies = {name: _Tally() for name in map(without_samples, variants)}
        self._names: dict[str, str] = {}
        self.artists = 0
        self.others: set[str] = set()
        """Variants that were ignored."""

    @property
    def variants(self) -> list[str]:
        """Return the names without samples; the others are compared to the first."""
        return list(self._tallies)

    def add(self, measurements: Sequence[Measurement], scores: Mapping[str, float] | None = None) -> None:
        """Add all targets of one artist, and the scores of its answers by variant."""
        scored: dict[str, Mean] = {}
        for measurement in measurements:
            name = self._name(measurement.variant)
            if name not in self._tallies:
                self.others.add(name)
                continue
            score = None
            if measurement.state == MeasuredState.ANSWERED and scores is not None:
                score = scores.get(measurement.variant)
                scored.setdefault(name, Mean()).add(score)
            self._tallies[name].add(measurement, score)
        self.artists += 1
        first = next(iter(self._tallies), "")
        means = {name: mean.value for name, mean in scored.items() if mean.value is not None}
        for name, mean in means.items():
            self._tallies[name].score.add(mean)
            if name != first and first in means:
                self._tallies[name].difference.add(mean - means[first])

    def _name(self, variant: str) -> str:
        if variant not in self._names:
            self._names[variant] = without_samples(variant)
        return self._names[variant]

    def summaries(self) -> list[Summary]:
        return [tally.summary(name) for name, tally in self._tallies.items()]


class _Tally:
    """The running sums of one variant."""

    def __init__(self) -> None:
        self.states: Counter[MeasuredState] = Counter()
        self.held = 0
        self.unpriced = 0
        self.scored = 0
        self.models: Counter[str] = Counter()
        self.characters, self.input_tokens, self.output_tokens = Mean(), Mean(), Mean()
        self.cost_usd, self.seconds, self.quantiles = Mean(), Mean(), Quantiles()
        self.score, self.difference = Spread(), Spread()

    def add(self, measurement: Measurement, score: float | None) -> None:
        self.states[measurement.state] += 1
        self.held += measurement.held
        if measurement.state != MeasuredState.ANSWERED:
            return
        self.scored += score is not None
        self.unpriced += measurement.cost_usd is None
        if measurement.model is not None:
            self.models[measurement.model] += 1
        self.characters.add(measurement.characters)
        self.input_tokens.add(measurement.input_tokens)
        self.output_tokens.add(measurement.output_tokens)
        self.cost_usd.add(measurement.cost_usd)
        if measurement.seconds is not None:
            self.seconds.add(measurement.seconds)
            self.quantiles.add(measurement.seconds)

    def summary(self, name: str) -> Summary:
        answers, failed = self.states[MeasuredState.ANSWERED], self.states[MeasuredState.FAILED]
        return Summary(
            variant=name,
            targets=self.states.total(),
            answers=answers,
            failed=failed,
            held=self.held,
            stale=self.states[MeasuredState.STALE],
            success=share(answers, answers + failed),
            characters=self.characters.value,
            input_tokens=self.input_tokens.value,
            output_tokens=self.output_tokens.value,
            cost_usd=self.cost_usd.value,
            unpriced=self.unpriced,
            latency=self._latency(),
            models=dict(self.models.most_common()),
            score=self.score.estimate,
            difference=self.difference.estimate,
            unscored=answers - self.scored,
        )

    def _latency(self) -> Latency | None:
        mean, p50, p95 = self.seconds.value, self.quantiles.at(0.5), self.quantiles.at(0.95)
        if mean is None or p50 is None or p95 is None:
            return None
        return Latency(mean, p50, p95, self.seconds.count)


SORTS: Mapping[str, Callable[[Summary], float | None]] = {
    "score": lambda summary: None if summary.score is None else -summary.score.mean,
    "success": lambda summary: None if summary.success is None else -summary.success.value,
    "cost": lambda summary: summary.cost_usd,
    "latency": lambda summary: None if summary.latency is None else summary.latency.mean,
    "length": lambda summary: summary.characters,
    "tokens": lambda summary: summary.output_tokens,
}
"""Sort keys of variants: best, cheapest, fastest or shortest first."""


def sort_summaries(summaries: Iterable[Summary], by: str) -> list[Summary]:
    """Sort by one of `SORTS`. Variants without a value come last; the sort is stable."""

    def key(summary: Summary) -> tuple[bool, float]:
        value = SORTS[by](summary)
        return value is None, 0.0 if value is None else value

    return sorted(summaries, key=key)

"""Results of `compare`, as lines for people and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from bioforge.core.text import duration, money, plural
from bioforge.evaluation.compare import CONFIDENCE, Estimate, Share, Summary
from bioforge.recipes.variants import parse
from bioforge.report.console import PLAIN, Screen, table

_HEADS = ("variant", "answers", "success", "chars", "tokens out", "cost", "in all", "latency", "p50", "p95")
_MOST_DECIMALS = 4


@dataclass(frozen=True, slots=True)
class TableRow:
    """A variant with its number of samples and its cost in US dollars: unusable answers included, None if unknown."""

    summary: Summary
    samples: int
    spent_usd: float | None


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison.

    `artists` is None for a recipe over all artists. Differences are to the variant `first`. `others` counts variants that
    the project file no longer has. `scored_by` is None without a scorer.
    """

    project: str
    recipe: str
    artists: int | None
    first: str
    rows: Sequence[TableRow]
    others: int
    scored_by: str | None
    problems: int
    first_problem: str
    simulated: bool

    @property
    def shared(self) -> dict[str, str]:
        """Return the settings that are the same in every variant."""
        settings = [parse(row.summary.variant) for row in self.rows]
        return {key: value for key, value in settings[0].items() if all(one.get(key) == value for one in settings)}

    def label(self, variant: str) -> str:
        """Return the settings that distinguish a variant."""
        shared = self.shared
        return ", ".join(f"{key}={value}" for key, value in parse(variant).items() if key not in shared) or self.recipe


# -------------------------------------------------------------------------------------------------------------- JSON


def as_json(found: Compared) -> dict[str, object]:
    return {
        "project": found.project,
        "recipe": found.recipe,
        "simulated": found.simulated,
        "artists": found.artists,
        "confidence": CONFIDENCE,
        "score": found.scored_by,
        "problems": found.problems,
        "first_problem": found.first_problem or None,
        "first": found.first,
        "variants": [_row_as_json(row) for row in found.rows],
    }


def _row_as_json(row: TableRow) -> dict[str, object]:
    numbers = asdict(row.summary)
    name = numbers.pop("variant")
    return {
        "variant": name,
        "settings": parse(name),
        "samples": row.samples,
        **{key: numbers.pop(key) for key in ("targets", "answers", "failed", "held", "stale")},
        "spent_usd": row.spent_usd,
        **numbers,
    }


# -------------------------------------------------------------------------------------------------------------- text


def lines(found: Compared, screen: Screen = PLAIN) -> Iterator[str]:
    samples = {row.samples for row in found.rows}
    artists = "all artists together" if found.artists is None else plural(found.artists, "artist")
    heading = [artists, plural(len(found.rows), "variant")]
    if samples != {1}:
        heading.append(f"{'–'.join(map(str, sorted({min(samples), max(samples)})))} samples of each")
    settings = ", ".join(f"{key}={value}" for key, value in found.shared.items())
    all_with = "; all with " if len(found.rows) > 1 else "; with "
    yield f"{found.recipe}: {', '.join(heading)}{all_with + settings if settings else ''}"
    cells = _cells(found)
    yield from table(cells, right=range(1, len(cells[0])), screen=screen, drop=(9, 8, 6, 3, 4, 7, 2))
    yield from _explain_numbers(found)
    yield from _left_out(found)


def _cells(found: Compared) -> list[list[str]]:
    columns = [
        [_HEADS[0], *(found.label(row.summary.variant) for row in found.rows)],
        *([head, *cells] for head, cells in zip(_HEADS[1:], zip(*map(_numbers, found.rows), strict=True), strict=True)),
    ]
    if found.scored_by is not None:
        scores = [row.summary.score for row in found.rows]
        differences = [row.summary.difference for row in found.rows]
        decimals = _decimals([one for one in (*scores, *differences) if one is not None])
        columns.append(["score", *_estimates(scores, decimals)])
        columns.append(["Δ", *_estimates(differences, decimals, "+")])
    return [list(row) for row in zip(*columns, strict=True)]


def _numbers(row: TableRow) -> tuple[str, ...]:
    one, latency = row.summary, row.summary.latency
    times = (None,) * 3 if latency is None else (latency.mean, latency.p50, latency.p95)
    return (
        f"{one.answers:,}/{one.targets:,}",
        _share(one.success),
        _whole(one.characters),
        _whole(one.output_tokens),
        _money(one.cost_usd),
        _money(row.spent_usd),
        *("-" if seconds is None else duration(seconds) for seconds in times),
    )


def _money(usd: float | None) -> str:
    return "-" if usd is None else money(usd)


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _share(share: Share | None) -> str:
    if share is None:
        return "-"
    low, high = math.floor(100 * share.low), math.ceil(100 * share.high)
    return f"{_percent(share.value)} ({low}–{high}%)"


def _percent(value: float) -> str:
    """Return 0% and 100% only for exactly none and all."""
    text = f"{100 * value:.0f}%"
    return f"{100 * value:.1f}%" if (text == "100%" and value < 1) or (text == "0%" and value > 0) else text


def _decimals(estimates: Sequence[Estimate]) -> int:
    """Return the decimals that show two significant digits of the narrowest interval."""
    widths = [found.half_width for found in estimates if found.half_width]
    if not widths:
        return 2
    return min(max(0, 1 - math.floor(math.log10(min(widths)))), _MOST_DECIMALS)


def _estimates(found: Sequence[Estimate | None], decimals: int, sign: str = "") -> list[str]:
    """Return `0.81 ± 0.03`, aligned at the ±; without the half-width for a single artist."""
    halves = [
        f" ± {one.half_width:,.{decimals}f}" if one is not None and one.half_width is not None else "" for one in found
    ]
    width = max(map(len, halves))
    means = ["-" if one is None else f"{one.mean:{sign},.{decimals}f}" for one in found]
    return [f"{mean}{half:>{width}}" for mean, half in zip(means, halves, strict=True)]


def _explain_numbers(found: Compared) -> Iterator[str]:
    """Yield what the intervals mean, and over how many artists."""
    if found.scored_by is None:
        yield f"success: share of answered among answered and failed, with its {CONFIDENCE:.0%} interval"
        return
    scores = [row.summary.score for row in found.rows]
    if not any(scores):
        yield f"no answer has a score by {found.scored_by}"
        return
    averaged = " with their samples averaged" if any(row.samples > 1 for row in found.rows) else ""
    yield f"score by {found.scored_by}, {_over(scores)}{averaged}; ± and ranges are {CONFIDENCE:.0%} intervals"
    if len(found.rows) > 1:
        others = [row.summary.difference for row in found.rows if row.summary.variant != found.first]
        yield f"Δ: score above that of {found.label(found.first)}, artist by artist, {_over(others)}"


def _over(estimates: Sequence[Estimate | None]) -> str:
    """Return `over 50 artists` or `over 48 to 50 artists`; the samples of an artist count once."""
    numbers = sorted({0 if found is None else found.artists for found in estimates})
    if len(numbers) > 1:
        return f"over {numbers[0]:,} to {plural(numbers[-1], 'artist')}"
    return f"over {plural(numbers[0], 'artist')}"


def _left_out(found: Compared) -> Iterator[str]:
    """Yield what the numbers leave out."""
    rows = [row.summary for row in found.rows]
    targets, answers = sum(one.targets for one in rows), sum(one.answers for one in rows)
    if not targets:
        yield f"no targets yet: `bioforge run {found.recipe}` builds them"
        return
    if stale := sum(one.stale for one in rows):
        yield f"left out: {plural(stale, 'target')} without a current answer (`bioforge plan` shows why)"
    if unpriced := sum(one.unpriced for one in rows):
        yield f"left out of cost: {plural(unpriced, 'answer')} of unknown price"
    if untimed := answers - sum(one.latency.answers for one in rows if one.latency is not None):
        yield f"left out of latency: {plural(untimed, 'answer')} from batches or elsewhere"
    scored = any(one.score is not None for one in rows)
    if scored and (unscored := sum(one.unscored for one in rows)):
        yield f"left out of score: {plural(unscored, 'answer')} without one"
    if found.others:
        yield f"left out: {plural(found.others, 'variant')} that the project file no longer has"
    for one in rows:
        if len(one.models) > 1:
            by = ", ".join(f"{model} {number:,}" for model, number in one.models.items())
            yield f"several models answered for {found.label(one.variant)}: {by}"
    if found.simulated:
        yield "simulated: nothing was charged"


def warnings(found: Compared) -> Iterator[str]:
    if found.problems:
        yield f"{plural(found.problems, 'score')} failed; the first: {found.first_problem}"

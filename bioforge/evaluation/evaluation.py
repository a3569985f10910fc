"""Evaluations: samples are asked, answers are scored, the scores are summed up.

Write three methods (`items`, `request`, `score`) and call `evaluate`. With a state, every answer is a checkpoint: an
evaluation that was interrupted asks only for what is missing, and one that is only scored differently asks for nothing.
See `examples/evaluation/`.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from bioforge.api import Answer, Client, Config, Item, ItemResult, Progress
from bioforge.api.bulk import error_class_of
from bioforge.core.errors import BadArgument

Sample = TypeVar("Sample")
Value = TypeVar("Value")

SCORE = "score"
"""The class of failures of the scoring itself."""


@dataclass(frozen=True, slots=True)
class Scored(Generic[Sample]):
    """One sample: its score, None where there is none; the answer's text; the error's class and words where it failed."""

    id: str
    sample: Sample
    score: float | None = None
    text: str = ""
    error_class: str | None = None
    message: str = ""
    cost_usd: float | None = 0.0
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Report(Generic[Sample]):
    """What an evaluation came to; `rows` are in the order of the samples. The mean is over scored samples alone: look at
    `failures` beside it. `unpriced` answers have no known price, and are not in `cost_usd`."""

    name: str
    model: str | None
    rows: tuple[Scored[Sample], ...]

    @property
    def scores(self) -> list[float]:
        return [row.score for row in self.rows if row.score is not None]

    @property
    def n(self) -> int:
        """How many samples have a score."""
        return len(self.scores)

    @property
    def mean(self) -> float | None:
        scores = self.scores
        return math.fsum(scores) / len(scores) if scores else None

    @property
    def standard_error(self) -> float | None:
        """Of the mean: the sample's standard deviation by the square root of n; None below two scores."""
        scores, mean = self.scores, self.mean
        if mean is None or len(scores) < 2:
            return None
        return math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / (len(scores) - 1) / len(scores))

    @property
    def failures(self) -> Mapping[str, int]:
        """Samples without a score because something failed, by error class."""
        return dict(Counter(row.error_class for row in self.rows if row.error_class is not None))

    @property
    def unscored(self) -> int:
        """Samples with an answer for which `score` gave None."""
        return sum(row.score is None and row.error_class is None for row in self.rows)

    @property
    def cost_usd(self) -> float:
        """US dollars that this evaluation paid now."""
        return math.fsum(row.cost_usd or 0.0 for row in self.rows)

    @property
    def unpriced(self) -> int:
        return sum(row.cost_usd is None for row in self.rows)

    def __str__(self) -> str:
        mean, error = self.mean, self.standard_error
        what = "no scores" if mean is None else f"{mean:.3f}" + ("" if error is None else f" ± {error:.3f}")
        failed = "".join(f", {number} {name}" for name, number in sorted(self.failures.items()))
        model = f" ({self.model})" if self.model else ""
        return f"{self.name}{model}: {what}, n = {self.n} of {len(self.rows)}{failed}, ${self.cost_usd:.4f}"


class Evaluation(ABC, Generic[Sample, Value]):
    """`Sample` is whatever an item is made from, `Value` what an answer's `value` is: text, or the schema's model."""

    name: str = ""
    """How reports call it; the class's own name if nothing is said."""

    @abstractmethod
    def items(self) -> Iterable[Sample]:
        """The samples, the same ones in the same order each time."""

    @abstractmethod
    def request(self, sample: Sample) -> Item:
        """What is asked about a sample. `Item.id` names it in the report; without one it is its place, from 1."""

    @abstractmethod
    def score(self, sample: Sample, answer: Answer[Value]) -> float | None:
        """How good an answer is, as a finite number; None where that cannot be said. What this raises is a failure of
        the sample, not of the evaluation."""

    async def evaluate(
        self,
        client: Client | Config | None = None,
        *,
        state: str | os.PathLike[str] | None = None,
        model: str | None = None,
        progress: Callable[[Progress], object] | None = None,
    ) -> Report[Sample]:
        """Ask, score and sum up. `client` is one that is open, or the configuration of one that lives as long as this
        does, with `state`. `model` is for requests that name none.

        Raises what stops everybody (`HaltedError`, `StateError`, `ConfigError`); with a state, nothing of it is lost.
        """
        gathered = _SampleScores(self, model)
        async with _Kept(client, state) as opened:
            outcomes = opened.generate_many(gathered.requests(), model=model, progress=progress)
            async with aclosing(outcomes):
                async for outcome in outcomes:
                    gathered.add(outcome)
        return gathered.report()

    def evaluate_sync(
        self,
        client: Client | Config | None = None,
        *,
        state: str | os.PathLike[str] | None = None,
        model: str | None = None,
        progress: Callable[[Progress], object] | None = None,
    ) -> Report[Sample]:
        """`evaluate` for code without an event loop."""
        gathered = _SampleScores(self, model)
        with _Kept(client, state) as opened:
            outcomes = opened.generate_many_sync(gathered.requests(), model=model, progress=progress)
            with closing(outcomes):
                for outcome in outcomes:
                    gathered.add(outcome)
        return gathered.report()


@dataclass(slots=True)
class _SampleScores(Generic[Sample]):
    """The rows so far."""

    evaluation: Evaluation[Sample, Any]
    model: str | None
    rows: list[Scored[Sample]] = field(default_factory=list)

    def requests(self) -> Iterator[Item]:
        for place, sample in enumerate(self.evaluation.items(), start=1):
            item = self.evaluation.request(sample)
            yield replace(item, id=item.id or str(place), data=sample)

    def add(self, outcome: ItemResult[Any]) -> None:
        item, answer, error = outcome.item, outcome.answer, outcome.error
        if answer is None:
            assert error is not None
            text, cost = getattr(error, "raw_output", ""), getattr(error, "cost_usd", 0.0)
            self.rows.append(Scored(item.id, item.data, None, text, error_class_of(error), str(error), cost))
            return
        row = Scored(item.id, item.data, None, answer.text, cost_usd=answer.cost_usd, cached=answer.cached)
        try:
            row = replace(row, score=_checked(self.evaluation.score(item.data, answer)))
        except Exception as problem:
            row = replace(row, error_class=SCORE, message=f"{type(problem).__name__}: {problem}")
        self.rows.append(row)

    def report(self) -> Report[Sample]:
        return Report(self.evaluation.name or type(self.evaluation).__name__, self.model, tuple(self.rows))


def _checked(score: object) -> float | None:
    if score is None:
        return None
    if not isinstance(score, int | float) or not math.isfinite(score):
        raise ValueError(f"expected a finite number or None as a score, found {score!r}")
    return float(score)


class _Kept:
    """A client that is closed afterwards if it was made here."""

    def __init__(self, given: Client | Config | None, state: str | os.PathLike[str] | None) -> None:
        if isinstance(given, Client):
            if state is not None:
                raise BadArgument("state: the client that was given has its own, or none; leave it out")
            self._client, self._own = given, False
        else:
            self._client, self._own = Client(given, state=state), True

    def __enter__(self) -> Client:
        return self._client

    def __exit__(self, *ignored: object) -> None:
        if self._own:
            self._client.close()

    async def __aenter__(self) -> Client:
        return self._client

    async def __aexit__(self, *ignored: object) -> None:
        if self._own:
            await self._client.aclose()

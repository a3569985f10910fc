"""Evaluations: send a request for each sample, score the answers, report the mean.

Write three methods (`items`, `request`, `score`) and call `evaluate`. With a state, every answer is a checkpoint: an
interrupted evaluation sends only what is missing, and a changed `score` sends nothing. See `examples/evaluation/`.
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
"""The error class of exceptions that `score` raises."""


@dataclass(frozen=True, slots=True)
class Scored(Generic[Sample]):
    """One sample with its score (None without one), the answer's text, and the error's class and message."""

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
    """The result of an evaluation; `rows` are in the order of the samples.

    The mean is over scored samples only: read it with `failures`. Answers without a known price count as `unpriced` and
    are not in `cost_usd`.
    """

    name: str
    model: str | None
    rows: tuple[Scored[Sample], ...]

    @property
    def scores(self) -> list[float]:
        return [row.score for row in self.rows if row.score is not None]

    @property
    def n(self) -> int:
        """Return the number of samples with a score."""
        return len(self.scores)

    @property
    def mean(self) -> float | None:
        scores = self.scores
        return math.fsum(scores) / len(scores) if scores else None

    @property
    def standard_error(self) -> float | None:
        """Return the standard error of the mean; None below two scores."""
        scores, mean = self.scores, self.mean
        if mean is None or len(scores) < 2:
            return None
        return math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / (len(scores) - 1) / len(scores))

    @property
    def failures(self) -> Mapping[str, int]:
        """Return the number of failed samples by error class."""
        return dict(Counter(row.error_class for row in self.rows if row.error_class is not None))

    @property
    def unscored(self) -> int:
        """Return the number of answers for which `score` returned None."""
        return sum(row.score is None and row.error_class is None for row in self.rows)

    @property
    def cost_usd(self) -> float:
        """Return the US dollars that this evaluation paid; stored answers cost nothing."""
        return math.fsum(row.cost_usd or 0.0 for row in self.rows)

    @property
    def unpriced(self) -> int:
        return sum(row.cost_usd is None for row in self.rows)

    def __str__(self) -> str:
        mean, error = self.mean, self.standard_error
        scores = "no scores" if mean is None else f"{mean:.3f}" + ("" if error is None else f" ± {error:.3f}")
        failed = "".join(f", {number} {name}" for name, number in sorted(self.failures.items()))
        model = f" ({self.model})" if self.model else ""
        return f"{self.name}{model}: {scores}, n = {self.n} of {len(self.rows)}{failed}, ${self.cost_usd:.4f}"


class Evaluation(ABC, Generic[Sample, Value]):
    """Base class of evaluations. `Sample`: any type; `Value`: the type of an answer's `value`."""

    name: str = ""
    """The name in reports; default: the name of the class."""

    @abstractmethod
    def items(self) -> Iterable[Sample]:
        """Return the samples, the same ones in the same order each time."""

    @abstractmethod
    def request(self, sample: Sample) -> Item:
        """Return the item to send for a sample. `Item.id` names it in the report; default: its number, from 1."""

    @abstractmethod
    def score(self, sample: Sample, answer: Answer[Value]) -> float | None:
        """Return a finite number, or None if the answer cannot be scored.

        An exception is a failure of the sample, not of the evaluation.
        """

    async def evaluate(
        self,
        client: Client | Config | None = None,
        *,
        state: str | os.PathLike[str] | None = None,
        model: str | None = None,
        progress: Callable[[Progress], object] | None = None,
    ) -> Report[Sample]:
        """Send every sample's request, score the answers and return the report.

        `client` is an open client, or the configuration of one to open with `state` for this evaluation. `model` is for
        requests that name none. Raises errors that end every call (`HaltedError`, `StateError`, `ConfigError`); a state
        keeps all answers.
        """
        scores = _SampleScores(self, model)
        async with _OpenClient(client, state) as opened:
            results = opened.generate_many(scores.requests(), model=model, progress=progress)
            async with aclosing(results):
                async for result in results:
                    scores.add(result)
        return scores.report()

    def evaluate_sync(
        self,
        client: Client | Config | None = None,
        *,
        state: str | os.PathLike[str] | None = None,
        model: str | None = None,
        progress: Callable[[Progress], object] | None = None,
    ) -> Report[Sample]:
        """Return the report, as `evaluate` does, without an event loop."""
        scores = _SampleScores(self, model)
        with _OpenClient(client, state) as opened:
            results = opened.generate_many_sync(scores.requests(), model=model, progress=progress)
            with closing(results):
                for result in results:
                    scores.add(result)
        return scores.report()


@dataclass(slots=True)
class _SampleScores(Generic[Sample]):
    """The requests of the samples, and the rows so far."""

    evaluation: Evaluation[Sample, Any]
    model: str | None
    rows: list[Scored[Sample]] = field(default_factory=list)

    def requests(self) -> Iterator[Item]:
        for number, sample in enumerate(self.evaluation.items(), start=1):
            item = self.evaluation.request(sample)
            yield replace(item, id=item.id or str(number), data=sample)

    def add(self, result: ItemResult[Any]) -> None:
        item, answer, error = result.item, result.answer, result.error
        if answer is None:
            assert error is not None
            text, cost = getattr(error, "raw_output", ""), getattr(error, "cost_usd", 0.0)
            self.rows.append(Scored(item.id, item.data, None, text, error_class_of(error), str(error), cost))
            return
        row = Scored(item.id, item.data, None, answer.text, cost_usd=answer.cost_usd, cached=answer.cached)
        try:
            row = replace(row, score=_check_score(self.evaluation.score(item.data, answer)))
        except Exception as problem:
            row = replace(row, error_class=SCORE, message=f"{type(problem).__name__}: {problem}")
        self.rows.append(row)

    def report(self) -> Report[Sample]:
        return Report(self.evaluation.name or type(self.evaluation).__name__, self.model, tuple(self.rows))


def _check_score(score: object) -> float | None:
    if score is None:
        return None
    if not isinstance(score, int | float) or not math.isfinite(score):
        raise ValueError(f"expected a finite number or None as a score, found {score!r}")
    return float(score)


class _OpenClient:
    """A context with an open client, which is closed at the end if it was opened here."""

    def __init__(self, given: Client | Config | None, state: str | os.PathLike[str] | None) -> None:
        if isinstance(given, Client):
            if state is not None:
                raise BadArgument("state: the given client has its own or none; leave it out")
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

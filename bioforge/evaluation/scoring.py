"""Scores of answers: by the user's function (`module:function`), or by a recipe that judges another one."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from bioforge.core.errors import ConfigError, UsageError, nearest
from bioforge.evaluation.compare import Mean
from bioforge.recipes.variants import as_needed, parse
from bioforge.store.variants import Judgement, MeasuredState, Measurement

Record = Mapping[str, object]
"""An exported answer: artist_id, artist_name, variant, response_text, parsed, …; see `store.export`."""
Function = Callable[[Record], object]


class Scorer(Protocol):
    """Scores answers. `problems` counts answers whose scoring failed; `first_problem` describes the first."""

    problems: int
    first_problem: str

    def scores(self, measurements: Sequence[Measurement]) -> dict[str, float]:
        """Return the scores of one artist's answers by variant, without those that cannot be scored."""


def as_score(value: object) -> float | None:
    """Return a finite number; true and false as 1 and 0, None as None. Raises `ValueError`."""
    if value is None:
        return None
    if not hasattr(type(value), "__float__"):
        raise ValueError(f"expected a number, true, false or nothing, found {_describe(value)}")
    try:
        score = float(value)  # type: ignore[arg-type]
    except OverflowError:
        score = math.inf
    if not math.isfinite(score):
        raise ValueError(f"expected a finite number, found {score}")
    return score


def _describe(value: object) -> str:
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:59] + '…'}"


def _place(measurement: Measurement) -> str:
    return f"artist {measurement.artist_id}" + (f", {measurement.variant}" if measurement.variant else "")


# ---------------------------------------------------------------------------------------------------------- function


@contextmanager
def imported(source: str, root: Path, key: str) -> Iterator[Function]:
    """Import the function `module:function`; the project's modules are importable inside the context.

    Raises `UsageError`; `key` is the flag or key in messages.
    """
    from bioforge.recipes.imports import import_object, importable

    with importable(root, source.partition(":")[0]):
        try:
            function = import_object(source, root, _functions_in)
        except ConfigError as error:
            raise UsageError(f"{key}: {error.message}", error.hint) from None
        if not callable(function):
            raise UsageError(f"{key}: {source}: found a value of type {type(function).__name__}, expected a function")
        if inspect.iscoroutinefunction(function):
            raise UsageError(
                f"{key}: {source}: an async function, expected a plain one", "write `def`, not `async def`"
            )
        yield function


def _functions_in(holder: Any) -> Iterator[str]:
    """Yield the functions that a module or class defines, without those it imports."""
    home = getattr(holder, "__module__", None) or getattr(holder, "__name__", None)
    for name, value in vars(holder).items() if hasattr(holder, "__dict__") else ():
        if inspect.isfunction(value) and value.__module__ == home and not name.startswith("_"):
            yield name


class ByFunction:
    """Calls the function with the record of each answer. An exception leaves that answer without a score."""

    def __init__(self, function: Function, records: Iterable[Record], root: Path) -> None:
        """Read `records` once: they must contain every answer passed to `scores`, in the same order."""
        self.problems = 0
        self.first_problem = ""
        self._function = function
        self._records = iter(records)
        self._root = root

    def scores(self, measurements: Sequence[Measurement]) -> dict[str, float]:
        scores = {}
        for measurement in measurements:
            if measurement.state == MeasuredState.ANSWERED:
                score = self._score(measurement)
                if score is not None:
                    scores[measurement.variant] = score
        return scores

    def _score(self, measurement: Measurement) -> float | None:
        key = (measurement.artist_id, measurement.variant)
        record = next(record for record in self._records if (record["artist_id"], record.get("variant", "")) == key)
        try:
            return as_score(self._function(record))
        except (Exception, SystemExit) as problem:  # the user's code may raise anything
            self.problems += 1
            self.first_problem = self.first_problem or f"{_place(measurement)}: {self._problem_text(problem)}"
            return None

    def _problem_text(self, problem: BaseException) -> str:
        from bioforge.recipes.imports import line_of
        from bioforge.recipes.schema.errors import one_line

        where = line_of(problem, self._root.resolve())
        text = one_line(f"{type(problem).__name__}: {problem}" if where else str(problem))
        return f"{where}: {text}" if where else text


# ------------------------------------------------------------------------------------------------------------- judge


def check_judge(judge: str, recipe: str, needs: Mapping[str, Sequence[str]], key: str) -> None:
    """Raise `UsageError` if `judge` is no recipe that needs `recipe`. `needs` has those of every recipe by name."""
    if judge not in needs:
        known = nearest(judge, needs) or "write a function as module:function"
        raise UsageError(f"{key}: there is no recipe {judge!r}", known)
    if recipe not in needs[judge]:
        raise UsageError(
            f"{key}: recipe {judge!r} does not judge {recipe!r}",
            f'write needs = ["{recipe}"] under [recipe.{judge}]',
        )


class ByJudge:
    """Reads scores from the answers of a judging recipe. Several scores of one answer (samples, judges) are averaged."""

    def __init__(
        self, recipe: str, variants: Iterable[str], judgements: Iterable[tuple[int, Sequence[Judgement]]]
    ) -> None:
        """`variants`: of the judged recipe; `judgements`: by the artists' row numbers in the state, ascending."""
        self.problems = 0
        self.first_problem = ""
        settings = {variant: parse(as_needed(recipe, variant)) for variant in variants}
        self._inherited = {key for known in settings.values() for key in known}
        self._variants = {frozenset(known.items()): variant for variant, known in settings.items()}
        self._judgements = iter(judgements)
        self._ahead: tuple[int, Sequence[Judgement]] = (-1, ())

    def scores(self, measurements: Sequence[Measurement]) -> dict[str, float]:
        answered = {item.variant: item for item in measurements if item.state == MeasuredState.ANSWERED}
        means: dict[str, Mean] = {}
        for judgement in self._of(measurements[0].artist) if measurements else ():
            variant = self.judged(judgement.variant)
            if variant is not None and (judged := answered.get(variant)) is not None:
                means.setdefault(judged.variant, Mean()).add(self._score(judgement, judged))
        return {variant: mean.value for variant, mean in means.items() if mean.value is not None}

    def judged(self, variant: str) -> str | None:
        """Return the judged recipe's variant that a variant of the judging recipe belongs to; None if it was removed."""
        inherited = ((key, value) for key, value in parse(variant).items() if key in self._inherited)
        return self._variants.get(frozenset(inherited))

    def _of(self, artist: int) -> Sequence[Judgement]:
        while self._ahead[0] < artist:
            following = next(self._judgements, None)
            if following is None:
                return ()
            self._ahead = following
        return self._ahead[1] if self._ahead[0] == artist else ()

    def _score(self, judgement: Judgement, judged: Measurement) -> float | None:
        try:
            return score_in(judgement)
        except ValueError as problem:
            self.problems += 1
            self.first_problem = self.first_problem or f"{_place(judged)}: {problem}"
            return None


def score_in(judgement: Judgement) -> float | None:
    """Return the field `score` of a JSON answer, or the text as a number. Raises `ValueError`."""
    parsed = None if judgement.parsed is None else json.loads(judgement.parsed)
    if isinstance(parsed, dict):
        if "score" not in parsed:
            raise ValueError("the judging answer has no field 'score'")
        return as_score(parsed["score"])
    if isinstance(parsed, int | float):
        return as_score(parsed)
    text = (judgement.text or "").strip()
    try:
        score = float(text)
    except ValueError:
        raise ValueError(f"the judging answer is not a number: {_describe(text).removeprefix('str ')}") from None
    return as_score(score)

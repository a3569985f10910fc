"""Scores of answers: by a function of the user's (`module:function`), or by a recipe that judges another one."""

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
"""An answer as it is exported: artist_id, artist_name, variant, response_text, parsed, …; see `store.results`."""
Function = Callable[[Record], object]


class Scorer(Protocol):
    """`problems` counts answers that something went wrong with, `first_problem` says what it was with the first."""

    problems: int
    first_problem: str

    def scores(self, measurements: Sequence[Measurement]) -> dict[str, float]:
        """Of the answers of one artist, by variant. Answers that cannot be scored are absent."""


def as_score(value: object) -> float | None:
    """A number, or true or false as 1 or 0; None says that there is nothing to score. Raises `ValueError`."""
    if value is None:
        return None
    if not hasattr(type(value), "__float__"):
        raise ValueError(f"expected a number, true, false or nothing, found {_shown(value)}")
    try:
        score = float(value)  # type: ignore[arg-type]
    except OverflowError:
        score = math.inf
    if not math.isfinite(score):
        raise ValueError(f"expected a finite number, found {score}")
    return score


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:59] + '…'}"


def _place(measurement: Measurement) -> str:
    return f"artist {measurement.artist_id}" + (f", {measurement.variant}" if measurement.variant else "")


# ---------------------------------------------------------------------------------------------------------- function


@contextmanager
def imported(source: str, root: Path, key: str) -> Iterator[Function]:
    """The function that `module:function` names; the project's modules can be imported while it is used.

    Raises `UsageError`; `key` is where the name stands.
    """
    from bioforge.recipes.imports import import_object, importable

    with importable(root, source.partition(":")[0]):
        try:
            found = import_object(source, root, _functions_in)
        except ConfigError as error:
            raise UsageError(f"{key}: {error.message}", error.hint) from None
        if not callable(found):
            raise UsageError(f"{key}: {source}: found a value of type {type(found).__name__}, expected a function")
        if inspect.iscoroutinefunction(found):
            raise UsageError(
                f"{key}: {source}: an async function, expected a plain one", "write `def`, not `async def`"
            )
        yield found


def _functions_in(holder: Any) -> Iterator[str]:
    """The functions that a module or class defines; what it imported is somebody else's."""
    home = getattr(holder, "__module__", None) or getattr(holder, "__name__", None)
    for name, value in vars(holder).items() if hasattr(holder, "__dict__") else ():
        if inspect.isfunction(value) and value.__module__ == home and not name.startswith("_"):
            yield name


class ByFunction:
    """Calls the function with the record of each answer. What it raises costs that answer its score, and no more."""

    def __init__(self, function: Function, records: Iterable[Record], root: Path) -> None:
        """`records` has every answer that is going to be asked for, in the same order, and perhaps further ones."""
        self.problems = 0
        self.first_problem = ""
        self._function = function
        self._records = iter(records)
        self._root = root

    def scores(self, measurements: Sequence[Measurement]) -> dict[str, float]:
        found = {}
        for measurement in measurements:
            if measurement.state == MeasuredState.ANSWERED:
                score = self._score(measurement)
                if score is not None:
                    found[measurement.variant] = score
        return found

    def _score(self, measurement: Measurement) -> float | None:
        wanted = (measurement.artist_id, measurement.variant)
        record = next(found for found in self._records if (found["artist_id"], found.get("variant", "")) == wanted)
        try:
            return as_score(self._function(record))
        except (Exception, SystemExit) as problem:  # the user's code can do anything
            self.problems += 1
            self.first_problem = self.first_problem or f"{_place(measurement)}: {self._said(problem)}"
            return None

    def _said(self, problem: BaseException) -> str:
        from bioforge.recipes.imports import line_of
        from bioforge.recipes.schema.describe import one_line

        where = line_of(problem, self._root.resolve())
        words = one_line(f"{type(problem).__name__}: {problem}" if where else str(problem))
        return f"{where}: {words}" if where else words


# ------------------------------------------------------------------------------------------------------------- judge


def check_judge(judge: str, recipe: str, needs: Mapping[str, Sequence[str]], key: str) -> None:
    """Raise `UsageError` where a recipe does not judge another one. `needs` of every recipe by name."""
    if judge not in needs:
        known = nearest(judge, needs) or "a function is written module:function"
        raise UsageError(f"{key}: there is no recipe {judge!r}", known)
    if recipe not in needs[judge]:
        raise UsageError(
            f"{key}: recipe {judge!r} does not judge {recipe!r}",
            f'it judges what it needs: needs = ["{recipe}"] under [recipe.{judge}]',
        )


class ByJudge:
    """Reads the answers of a judging recipe. Several about the same answer (samples, several judges) are averaged."""

    def __init__(
        self, recipe: str, variants: Iterable[str], judgements: Iterable[tuple[int, Sequence[Judgement]]]
    ) -> None:
        """`variants` of the judged recipe; `judgements` by the state's numbers of artists, in ascending order."""
        self.problems = 0
        self.first_problem = ""
        settings = {variant: parse(as_needed(recipe, variant)) for variant in variants}
        self._inherited = {key for known in settings.values() for key in known}
        self._variants = {frozenset(known.items()): variant for variant, known in settings.items()}
        self._judgements = iter(judgements)
        self._ahead: tuple[int, Sequence[Judgement]] = (-1, ())

    def scores(self, measurements: Sequence[Measurement]) -> dict[str, float]:
        answered = {found.variant: found for found in measurements if found.state == MeasuredState.ANSWERED}
        means: dict[str, Mean] = {}
        for judgement in self._of(measurements[0].artist) if measurements else ():
            variant = self.judged(judgement.variant)
            if variant is not None and (judged := answered.get(variant)) is not None:
                means.setdefault(judged.variant, Mean()).add(self._score(judgement, judged))
        return {variant: mean.value for variant, mean in means.items() if mean.value is not None}

    def judged(self, variant: str) -> str | None:
        """The variant of the judged recipe that a variant of the judging one is about; None: of none there is."""
        inherited = ((key, value) for key, value in parse(variant).items() if key in self._inherited)
        return self._variants.get(frozenset(inherited))

    def _of(self, artist: int) -> Sequence[Judgement]:
        while self._ahead[0] < artist:
            found = next(self._judgements, None)
            if found is None:
                return ()
            self._ahead = found
        return self._ahead[1] if self._ahead[0] == artist else ()

    def _score(self, judgement: Judgement, judged: Measurement) -> float | None:
        try:
            return score_in(judgement)
        except ValueError as problem:
            self.problems += 1
            self.first_problem = self.first_problem or f"{_place(judged)}: {problem}"
            return None


def score_in(judgement: Judgement) -> float | None:
    """`score` of an answer in JSON, or the text as a number. Raises `ValueError`."""
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
        raise ValueError(f"the judging answer is no number: {_shown(text).removeprefix('str ')}") from None
    return as_score(score)

"""Statistics of answers: the error of token estimates, and the length of answers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bioforge.store.database import Store, limit_outliers

NEWEST = 1_000
"""Number of answers per model that are used."""

LOOK_BACK = 10_000
"""Number of newest answers, over all models, among which those of a model are searched.

A state has millions, and plans are frequent. A model that has none among them counts as new.
"""

FEWEST = 5
"""Number of answers from which estimates are corrected: the first few may all be short."""

LOWEST, HIGHEST = 0.2, 100.0
"""What estimates are multiplied by, at most. Texts are never counted five times too high. Too low by any factor, where a
reusable prompt is kept by the provider and only its variables are counted."""


@dataclass(frozen=True, slots=True)
class Observed:
    """`input_ratio`: billed tokens per estimated token (1.0 with too few answers).

    `output_tokens`: average of an answer, without outliers.

    `answers`: the number of answers behind the ratio.
    """

    input_ratio: float
    output_tokens: float
    answers: int

    @property
    def corrects(self) -> bool:
        return self.answers >= FEWEST


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums over the answers of one recipe variant. `estimates` counts answers with a comparable estimate."""

    recipe: str | None
    variant: str | None
    answers: int
    output_tokens: float
    estimates: int
    billed: float
    estimated: int


class Answers:
    """The newest answers of one model, read once for all recipes that use it."""

    def __init__(self, store: Store, model: str | None) -> None:
        oldest = store.next_id("responses") - LOOK_BACK
        groups: dict[tuple[str | None, str | None], list[tuple[int | None, int | None, int | None]]] = {}
        for recipe, variant, *tokens in store.rows(_TOKENS, (oldest, model or "", NEWEST)):
            groups.setdefault((recipe, variant), []).append(tuple(tokens))
        self._sums = [_summed(*key, rows) for key, rows in groups.items()]

    def observed(self, recipe: str, variant: str = "") -> Observed | None:
        """Return the statistics of this recipe variant if it has enough answers, else of the recipe, else of the model.

        None before the model's first answer.
        """
        own = [sums for sums in self._sums if sums.recipe == recipe]
        circles = ([sums for sums in own if sums.variant == variant], own, self._sums)
        written = next((found for found in circles if _total(found, "answers") >= FEWEST), self._sums)
        answers = _total(written, "answers")
        if not answers:
            return None
        compared = next((found for found in circles if _total(found, "estimates") >= FEWEST), [])
        ratio = _total(compared, "billed") / _total(compared, "estimated") if compared else 1.0
        return Observed(
            min(max(ratio, LOWEST), HIGHEST),
            _total(written, "output_tokens") / answers,
            int(_total(compared, "estimates")),
        )


def _summed(recipe: str | None, variant: str | None, rows: list[tuple[int | None, int | None, int | None]]) -> _Sums:
    """Return the sums of answers with outliers limited. `rows`: output, billed input and its estimate if comparable."""
    written = [output for output, _, _ in rows if output is not None]
    compared = [(billed, estimated) for _, billed, estimated in rows if billed is not None and estimated is not None]
    # by request: long ones are no outliers
    ratios = limit_outliers([billed / estimated for billed, estimated in compared])
    billed = sum(ratio * estimated for ratio, (_, estimated) in zip(ratios, compared, strict=True))
    return _Sums(
        recipe,
        variant,
        len(written),
        sum(limit_outliers(written)),
        len(compared),
        billed,
        sum(estimated for _, estimated in compared),
    )


def _total(found: list[_Sums], name: str) -> float:
    return math.fsum(getattr(sums, name) for sums in found)


_COMPARABLE = "t.request_hash = n.request_hash AND n.input_tokens > 0 AND t.input_tokens > 0"
"""Condition: the target's current request is the one that was answered, so that estimate and usage are comparable."""

_TOKENS = f"""
    SELECT t.recipe, t.variant, n.output_tokens, CASE WHEN {_COMPARABLE} THEN n.input_tokens END,
           CASE WHEN {_COMPARABLE} THEN t.input_tokens END
    FROM (
        SELECT r.request_hash, r.attempt, r.input_tokens, r.output_tokens
        FROM responses r CROSS JOIN requests q ON q.request_hash = r.request_hash
        WHERE r.id >= ? AND coalesce(q.model, '') = ? ORDER BY r.id DESC LIMIT ?
    ) n
    LEFT JOIN attempts x ON x.id = n.attempt LEFT JOIN targets t ON t.id = x.target
"""


def counted_by(store: Store, recipe: str, variant: str) -> str | None:
    """Return how the tokens of all targets of a recipe variant were counted; None if in several ways."""
    found = store.value("SELECT value FROM facts WHERE name = ?", (_fact(recipe, variant),))
    return str(found) if found else None


def note_counting(store: Store, recipe: str, variant: str, how: str, *, whole: bool) -> None:
    """Store how tokens were counted, for all targets of a recipe variant (`whole`) or some of them."""
    known = counted_by(store, recipe, variant)
    if known == how or (known is None and not whole):
        return
    with store.transaction() as connection:
        connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (_fact(recipe, variant), how if whole else ""))


def _fact(recipe: str, variant: str) -> str:
    return f"counting {recipe} {variant}".rstrip()

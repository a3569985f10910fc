"""Estimate tokens and cost of a run before it sends anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bioforge.core.interfaces import Backend, Load
from bioforge.core.reasons import Reason
from bioforge.core.types import Batch, Usage
from bioforge.recipes.template import Definition
from bioforge.recipes.tokens import ESTIMATED, Counting, web_searches
from bioforge.store import Store
from bioforge.store.stale_counts import StaleGroup
from bioforge.store.statistics import Answers, Observed, counted_by

GUESSED_OUTPUT = 300
"""Assumed tokens of an answer if the model has not answered yet and has no limit."""

TEXT_PARAMETERS = ("response_format", "text", "tools", "functions")
"""Request parameters that the provider counts as input too, in an undocumented form."""


@dataclass(frozen=True, slots=True)
class Priced:
    """A group of stale targets with its cost in US dollars; None if the model's price is unknown.

    `counting`: how its input tokens were counted; `corrected`: the observations that corrected the count.
    """

    group: StaleGroup
    model: str
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    counting: Counting = ESTIMATED
    corrected: Observed | None = None
    unlimited_searches: bool = False
    """True where the number of web searches has no limit: the price then has the fee of one for each answer."""
    at_limit: bool = False
    """True where no answer was observed yet: the output is then counted at its limit, and the price is a ceiling."""


def output_limit(parameters: Mapping[str, object]) -> int | None:
    """Return the maximum tokens of an answer, under any endpoint's name for it; None if unlimited."""
    for name in ("max_output_tokens", "max_completion_tokens", "max_tokens"):
        value = parameters.get(name)
        if isinstance(value, int):
            return value
    return None


@dataclass(frozen=True, slots=True)
class _Basis:
    """Basis of one variant's prices. `corrected`: set if earlier answers are more exact than the count."""

    definition: Definition
    counting: Counting
    observed: Observed | None
    corrected: Observed | None


class Estimator:
    """Estimate tokens and prices, corrected by the answers of the same model so far."""

    def __init__(
        self, store: Store, backend: Backend, definitions: Iterable[Definition], tier: str | None = None
    ) -> None:
        """`tier`: service tier of the prices; None: the backend's own."""
        self.tier = tier
        self._store = store
        self._backend = backend
        self._definitions = {definition.key: definition for definition in definitions}
        self._answers: dict[str | None, Answers] = {}
        self._known: dict[tuple[str, str], _Basis] = {}

    def output_tokens(self, recipe: str, variant: str = "") -> int:
        """Return the likely tokens of an answer: the average so far, else the limit, else a guess."""
        known = self._look_up(recipe, variant)
        if known.observed is not None:
            return max(1, round(known.observed.output_tokens))
        return output_limit(known.definition.parameters) or GUESSED_OUTPUT

    def input_tokens(self, recipe: str, variant: str, counted: float) -> float:
        """Return the tokens that the provider is likely to count for a local count."""
        corrected = self._look_up(recipe, variant).corrected
        return counted if corrected is None else counted * corrected.input_ratio

    def model(self, recipe: str, variant: str = "") -> str:
        return self._definitions[recipe, variant].model or ""

    def _look_up(self, recipe: str, variant: str) -> _Basis:
        """Return the basis of a variant, read on first use: a plan with nothing stale needs none."""
        basis = self._known.get((recipe, variant))
        if basis is None:
            basis = self._known[recipe, variant] = self._learn(self._definitions[recipe, variant])
        return basis

    def _learn(self, definition: Definition) -> _Basis:
        if definition.model not in self._answers:
            self._answers[definition.model] = Answers(self._store, definition.model)
        observed = self._answers[definition.model].observed(definition.recipe, definition.variant)
        how = counted_by(self._store, definition.recipe, definition.variant)
        # the text of a reusable prompt is not known here, only its variables
        counting = ESTIMATED if definition.prompt is not None else Counting.from_text(how)
        more = definition.schema is not None or any(name in definition.parameters for name in TEXT_PARAMETERS)
        whole = counting.exact and not more
        corrected = observed if observed is not None and observed.corrects and not whole else None
        return _Basis(definition, counting, observed, corrected)

    def price(self, groups: Sequence[StaleGroup]) -> list[Priced]:
        return [self._price(group) for group in groups]

    def _price(self, group: StaleGroup) -> Priced:
        which = (group.recipe, group.variant)
        sendable = group.targets - group.held - group.unrenderable
        each = self.input_tokens(*which, group.input_tokens / sendable) if sendable else 0.0
        known, output = self._look_up(*which), self.output_tokens(*which)
        model = group.model or self.model(*which)
        searches, limited = web_searches(known.definition.parameters)
        usage = Usage(input_tokens=round(each), output_tokens=output, web_searches=searches)
        cost = self._backend.price(model, usage, self.tier) if sendable else 0.0
        return Priced(
            group=group,
            model=model,
            input_tokens=round(each * group.requests),
            output_tokens=output * group.requests,
            cost_usd=None if cost is None else cost * group.requests,
            # a target that waits for another recipe has no text to count
            counting=ESTIMATED if group.reason == Reason.UPSTREAM else known.counting,
            corrected=known.corrected,
            unlimited_searches=not limited,
            at_limit=known.observed is None and output_limit(known.definition.parameters) is not None,
        )

    def unknown_price(self, recipes: Iterable[str]) -> str | None:
        """Return the first model of these recipes without a known price; None if all are known."""
        wanted = set(recipes)
        for (recipe, _), definition in self._definitions.items():
            if recipe not in wanted:
                continue
            for model in (definition.model or "", *definition.fallback):
                if self._backend.price(model, Usage(input_tokens=1000, output_tokens=100)) is None:
                    return model or "(the prompt's own model)"
        return None


def loads(priced: Sequence[Priced], requests: int) -> tuple[Load, ...]:
    """Return the load of each model. `requests`: number of different requests over all groups, as in `total`."""
    counted = sum(item.group.requests for item in priced)
    share = requests / counted if counted else 0.0
    sums: dict[str, tuple[int, int, int]] = {}
    for item in priced:
        number, sent, received = sums.get(item.model, (0, 0, 0))
        sums[item.model] = (number + item.group.requests, sent + item.input_tokens, received + item.output_tokens)
    return tuple(Load(model, *(round(part * share) for part in parts)) for model, parts in sums.items() if parts[0])


def batch_loads(batches: Iterable[Batch]) -> Iterator[Load]:
    """Yield the loads of open batches; the tokens of their answers are guessed."""
    for batch in batches:
        yield Load(batch.model, batch.requests, batch.input_tokens, GUESSED_OUTPUT * batch.requests)


def total(priced: Sequence[Priced], requests: int) -> float | None:
    """Return the cost of all groups, or None if any part of it is unknown.

    `requests`: number of different requests over all groups; a request that several groups share is paid once.
    """
    costs = [item.cost_usd for item in priced if item.group.requests]
    if any(cost is None for cost in costs):
        return None
    counted = sum(item.group.requests for item in priced)
    return sum(cost for cost in costs if cost is not None) * (requests / counted if counted else 1.0)

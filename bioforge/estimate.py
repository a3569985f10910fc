"""What a build will cost, before anything is spent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bioforge.interfaces import Backend, Load
from bioforge.model import Batch, Usage
from bioforge.prompts import Definition
from bioforge.store import Store
from bioforge.store.ledger import average_usage
from bioforge.store.stale import StaleGroup

GUESSED_OUTPUT = 300
"""Tokens of an answer to a model that has not answered yet and has no limit set."""


@dataclass(frozen=True, slots=True)
class Priced:
    """A group of stale targets with its price in US dollars; None where the model's price is unknown."""

    group: StaleGroup
    model: str
    input_tokens: int
    output_tokens: int
    cost_usd: float | None


def output_limit(parameters: Mapping[str, object]) -> int | None:
    """The most tokens an answer can have, by whichever name the endpoint gives it."""
    for name in ("max_output_tokens", "max_completion_tokens", "max_tokens"):
        value = parameters.get(name)
        if isinstance(value, int):
            return value
    return None


class Estimator:
    """Token and price estimates; knows how long a model's answers have been so far."""

    def __init__(
        self, store: Store, backend: Backend, definitions: Iterable[Definition], tier: str | None = None
    ) -> None:
        """`tier`: at which prices are told; None: as the backend buys."""
        self.tier = tier
        self._backend = backend
        self._definitions = {definition.recipe: definition for definition in definitions}
        self._observed = {
            definition.recipe: average_usage(store, definition.model) for definition in self._definitions.values()
        }

    def output_tokens(self, recipe: str) -> int:
        """How long an answer is likely to be: as so far, else as long as it may be, else a guess."""
        observed = self._observed[recipe]
        if observed is not None:
            return max(1, round(observed[1]))
        return output_limit(self._definitions[recipe].parameters) or GUESSED_OUTPUT

    def model(self, recipe: str) -> str:
        return self._definitions[recipe].model or ""

    def price(self, groups: Sequence[StaleGroup]) -> list[Priced]:
        return [self._price(group) for group in groups]

    def _price(self, group: StaleGroup) -> Priced:
        sendable = group.targets - group.held - group.unrenderable
        each = group.input_tokens / sendable if sendable else 0.0
        output, model = self.output_tokens(group.recipe), self.model(group.recipe)
        usage = Usage(input_tokens=round(each), output_tokens=output)
        one = self._backend.price(model, usage, self.tier) if sendable else 0.0
        return Priced(
            group=group,
            model=model,
            input_tokens=round(each * group.requests),
            output_tokens=output * group.requests,
            cost_usd=None if one is None else one * group.requests,
        )

    def unknown_price(self, recipes: Iterable[str]) -> str | None:
        """The first model without a known price among these recipes, or None when all are known."""
        for recipe in recipes:
            if self._backend.price(self.model(recipe), Usage(input_tokens=1000, output_tokens=100)) is None:
                return self.model(recipe) or "(the prompt's own model)"
        return None


def loads(priced: Sequence[Priced], requests: int) -> tuple[Load, ...]:
    """What is to be asked, by model. `requests` are the different ones over all groups, as in `total`."""
    counted = sum(item.group.requests for item in priced)
    share = requests / counted if counted else 0.0
    found: dict[str, tuple[int, int, int]] = {}
    for item in priced:
        asked, given, taken = found.get(item.model, (0, 0, 0))
        found[item.model] = (asked + item.group.requests, given + item.input_tokens, taken + item.output_tokens)
    return tuple(Load(model, *(round(part * share) for part in parts)) for model, parts in found.items() if parts[0])


def batch_loads(batches: Iterable[Batch]) -> Iterator[Load]:
    """What open batches hold, as loads; how long answers are is guessed."""
    for batch in batches:
        yield Load(batch.model, batch.requests, batch.input_tokens, GUESSED_OUTPUT * batch.requests)


def total(priced: Sequence[Priced], requests: int) -> float | None:
    """The whole price, or None when any part of it is unknown. `requests` are the different ones over all groups:
    what several groups ask for alike is paid once."""
    costs = [item.cost_usd for item in priced if item.group.requests]
    if any(cost is None for cost in costs):
        return None
    counted = sum(item.group.requests for item in priced)
    return sum(cost for cost in costs if cost is not None) * (requests / counted if counted else 1.0)

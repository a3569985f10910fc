"""Which requests share a batch: one model and endpoint, within the sizes a batch may have. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from bioforge.backends.batch.options import BatchOptions
from bioforge.core.types import Batch, BatchState, Request

SHRINK = 0.8
"""A refusal says that the provider counts more tokens than were estimated, or that others use the same limit; the next
batch is smaller by this factor."""


@dataclass(slots=True)
class BatchBuilder:
    """A batch that is being filled; `batch` is as it began."""

    batch: Batch
    requests: int = 0
    bytes: int = 0
    tokens: int = 0
    cost_usd: float | None = 0.0

    def fits(self, size: int, options: BatchOptions) -> bool:
        """Whether a line of `size` bytes can still go in. A first line always can: the provider has the last word."""
        if not self.requests:
            return True
        return self.requests < options.max_requests and self.bytes + size <= options.max_bytes

    def add(self, request: Request, size: int, cost_usd: float | None) -> None:
        self.requests += 1
        self.bytes += size
        self.tokens += tokens_of(request)
        self.cost_usd = None if cost_usd is None or self.cost_usd is None else self.cost_usd + cost_usd

    def sealed(self) -> Batch:
        return replace(
            self.batch,
            state=BatchState.PREPARED,
            requests=self.requests,
            bytes=self.bytes,
            input_tokens=self.tokens,
            estimated_usd=self.cost_usd,
        )


class EnqueuedLimit:
    """How many tokens of each model may be enqueued: as configured, and as the provider's refusals have taught."""

    def __init__(self, configured: int | None, learned: Mapping[str, int]) -> None:
        self._configured = configured
        self._told = dict(learned)
        self._limits = dict(learned)

    def limit(self, model: str) -> int | None:
        known = [limit for limit in (self._configured, self._limits.get(model)) if limit is not None]
        return min(known) if known else None

    def has_room(self, model: str, tokens: int, enqueued: int) -> bool:
        """A request alone is always tried: the provider counts its tokens, and these are estimates."""
        limit = self.limit(model)
        return limit is None or enqueued == 0 or enqueued + tokens <= limit

    def refused(self, model: str, named: int, attempted: int) -> None:
        """Learn from a refusal with `attempted` tokens enqueued in all; `named` is the limit it tells, or 0.

        What is used in this run is less where the estimate was below that already.
        """
        if named:
            self._told[model] = named
        self._limits[model] = max(1, min(named or attempted, int(attempted * (SHRINK if named else 0.5))))

    def accepted(self, model: str, tokens: int) -> None:
        """A batch was taken: with room found again, the next ones may be larger, up to what was told."""
        if model in self._limits:
            grown = max(self._limits[model], 2 * tokens)
            self._limits[model] = min(self._told.get(model, grown), grown)


def tokens_of(request: Request) -> int:
    """At least one: requests without an estimate have to count for something."""
    return max(1, request.input_tokens)


def enqueued(open_batches: Iterable[Batch], model: str) -> int:
    """Estimated tokens of a model in these batches."""
    return sum(batch.input_tokens for batch in open_batches if batch.model == model and not batch.ended)

"""Group requests into batches: one model and endpoint each, within the size limits. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from bioforge.backends.batch.options import BatchOptions
from bioforge.core.types import Batch, BatchState, Request

SHRINK = 0.8
"""Factor by which the next batch is smaller after a refusal: the provider counts more tokens, or others use the limit
too.
"""


@dataclass(slots=True)
class BatchBuilder:
    """A batch that is being filled; `batch` is its initial state."""

    batch: Batch
    requests: int = 0
    bytes: int = 0
    tokens: int = 0
    cost_usd: float | None = 0.0

    def fits(self, size: int, options: BatchOptions) -> bool:
        """Return True if a line of `size` bytes fits. A first line always does: the provider decides."""
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
    """The enqueued tokens allowed for each model: as configured, and as learned from refusals."""

    def __init__(self, configured: int | None, learned: Mapping[str, int]) -> None:
        self._configured = configured
        self._told = dict(learned)
        self._limits = dict(learned)

    def limit(self, model: str) -> int | None:
        known = [limit for limit in (self._configured, self._limits.get(model)) if limit is not None]
        return min(known) if known else None

    def has_room(self, model: str, tokens: int, enqueued: int) -> bool:
        """Return True if the tokens fit. A single request is always tried, since these are estimates."""
        limit = self.limit(model)
        return limit is None or enqueued == 0 or enqueued + tokens <= limit

    def refused(self, model: str, named: int, attempted: int) -> None:
        """Learn from a refusal with `attempted` tokens enqueued; `named` is the limit in its message, or 0.

        A lower estimate of this run stays.
        """
        if named:
            self._told[model] = named
        self._limits[model] = max(1, min(named or attempted, int(attempted * (SHRINK if named else 0.5))))

    def accepted(self, model: str, tokens: int) -> None:
        """Note an accepted batch: the next ones may be larger, up to the known limit."""
        if model in self._limits:
            grown = max(self._limits[model], 2 * tokens)
            self._limits[model] = min(self._told.get(model, grown), grown)


def tokens_of(request: Request) -> int:
    """Return the estimated tokens of a request, at least 1."""
    return max(1, request.input_tokens)


def enqueued(open_batches: Iterable[Batch], model: str) -> int:
    """Return the estimated tokens of a model in these batches."""
    return sum(batch.input_tokens for batch in open_batches if batch.model == model and not batch.ended)

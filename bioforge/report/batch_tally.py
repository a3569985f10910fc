"""Count the batch members that a run waits for, from its events and gauges. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bioforge.core.events import BatchCollected
from bioforge.core.types import CLOSED, Batch, BatchState


@dataclass(slots=True)
class _Members:
    """Members of one batch: `started` and `ended` in this run; `requests` in its file, None until known."""

    requests: int | None = None
    started: int = 0
    ended: int = 0
    own: bool = False
    """True if this run prepared it."""
    awaited: bool = True
    state: BatchState = BatchState.PREPARING

    @property
    def waiting(self) -> int:
        """Return the number of open members of awaited batches."""
        if self.state in CLOSED or not (self.own or self.awaited):
            return 0
        return max(0, (self.started if self.own else self.requests or 0) - self.ended)

    @property
    def unplanned(self) -> int:
        """Return the correction of the number of requests expected at the start.

        It includes the requests of awaited batches; those that an earlier run collected are known at the end.
        """
        if self.own or self.requests is None:
            return 0
        if not self.awaited:
            return self.ended
        return self.ended - self.requests if self.state in CLOSED else 0


@dataclass(slots=True)
class BatchTally:
    """The batches that a run has seen. True if there is one."""

    missing: int = 0
    """Requests without a result in their batch."""
    _batches: dict[str, _Members] = field(default_factory=dict, repr=False)

    def __bool__(self) -> bool:
        return bool(self._batches)

    def see(self, batches: Iterable[Batch]) -> None:
        """Update batches. A closed batch stays closed even if a gauge still shows it as open."""
        for batch in batches:
            members = self._members(batch.key)
            if members.state in CLOSED:
                continue
            members.state = batch.state
            members.requests, members.awaited = batch.requests, batch.awaited
            members.own = members.own or batch.state is BatchState.PREPARING

    def start(self, key: str) -> None:
        members = self._members(key)
        members.started += 1
        members.own = True

    def end(self, key: str) -> bool:
        """Count an outcome. Return True if this run had started it."""
        members = self._members(key)
        members.ended += 1
        return members.own

    def collect(self, event: BatchCollected) -> None:
        self.see((event.batch,))
        self._members(event.batch.key).state = BatchState.COLLECTED
        self.missing += event.counts.get("missing", 0)

    @property
    def waiting(self) -> int:
        """Return the members without an outcome in open batches that this run waits for."""
        return sum(members.waiting for members in self._batches.values())

    @property
    def unplanned(self) -> int:
        """Return the collected members that were not expected at the start.

        Those of batches that were not awaited, minus members of awaited ones that an earlier run collected.
        """
        return sum(members.unplanned for members in self._batches.values())

    @property
    def collected(self) -> int:
        return sum(members.state is BatchState.COLLECTED for members in self._batches.values())

    @property
    def released(self) -> int:
        return sum(members.state is BatchState.RELEASED for members in self._batches.values())

    @property
    def open(self) -> int:
        return sum(members.state not in CLOSED for members in self._batches.values())

    def _members(self, key: str) -> _Members:
        members = self._batches.get(key)
        if members is None:
            members = self._batches[key] = _Members()
        return members

    def __str__(self) -> str:
        """Return `3 collected, 1 open, 1 released, 12 answers missing`."""
        shown = (
            (self.collected, "collected"),
            (self.open, "open"),
            (self.released, "released"),
            (self.missing, "answer missing" if self.missing == 1 else "answers missing"),
        )
        return ", ".join(f"{count:,} {word}" for count, word in shown if count)

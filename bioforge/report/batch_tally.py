"""How many members of batches a run waits for, counted from its events and gauges. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bioforge.core.events import BatchCollected
from bioforge.core.types import CLOSED, Batch, BatchState


@dataclass(slots=True)
class _Members:
    """Of one batch. `started` and `ended` are what this run has seen; `requests` of its file, None until known."""

    requests: int | None = None
    started: int = 0
    ended: int = 0
    own: bool = False
    """Whether this run has prepared it."""
    awaited: bool = True
    state: BatchState = BatchState.PREPARING

    @property
    def waiting(self) -> int:
        if self.state in CLOSED or not (self.own or self.awaited):
            return 0
        return max(0, (self.started if self.own else self.requests or 0) - self.ended)

    @property
    def unplanned(self) -> int:
        """What it adds to the requests that the run was to end with. Those of a batch that it waits for are among
        them from the start; which of them an earlier run had collected is known at the end."""
        if self.own or self.requests is None:
            return 0
        if not self.awaited:
            return self.ended
        return self.ended - self.requests if self.state in CLOSED else 0


@dataclass(slots=True)
class BatchTally:
    """Every batch that a run has seen, whoever prepared it. True when there was one."""

    missing: int = 0
    """Requests that a batch was asked and of which nothing came back."""
    _batches: dict[str, _Members] = field(default_factory=dict, repr=False)

    def __bool__(self) -> bool:
        return bool(self._batches)

    def see(self, batches: Iterable[Batch]) -> None:
        """Batches as they are now. One that was closed stays closed, whatever a gauge still shows."""
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
        """Count an outcome. Returns whether this run had started it."""
        members = self._members(key)
        members.ended += 1
        return members.own

    def collect(self, event: BatchCollected) -> None:
        self.see((event.batch,))
        self._members(event.batch.key).state = BatchState.COLLECTED
        self.missing += event.counts.get("missing", 0)

    @property
    def waiting(self) -> int:
        """Members of open batches that have no outcome yet, of the batches that this run waits for."""
        return sum(members.waiting for members in self._batches.values())

    @property
    def unplanned(self) -> int:
        """Collected members of batches this run does not wait for, minus members of awaited batches that an
        earlier run collected."""
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
        """`3 collected, 1 open, 1 released, 12 answers missing`."""
        shown = (
            (self.collected, "collected"),
            (self.open, "open"),
            (self.released, "released"),
            (self.missing, "answer missing" if self.missing == 1 else "answers missing"),
        )
        return ", ".join(f"{count:,} {word}" for count, word in shown if count)

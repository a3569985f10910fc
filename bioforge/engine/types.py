"""Options, plan and result of a run, and the interface of its observers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bioforge.core.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_STOPPED, EXIT_USAGE
from bioforge.core.events import Stopped
from bioforge.core.interfaces import Gauges, PurchaseDecision
from bioforge.core.reasons import Reason
from bioforge.engine import loop
from bioforge.engine.outputs import Written
from bioforge.planner.estimate import Priced
from bioforge.planner.refresh import RefreshResult
from bioforge.store import Selection, Store, runs
from bioforge.store.batches import Open
from bioforge.store.recovery import Recovery
from bioforge.store.stale_counts import StaleGroup


class RunObserver(loop.GroupObserver, Protocol):
    """Sees the plan of a run and then every group of events; `grown` adds requests to (negative: removes from) the plan."""

    def recovered(self, recovery: Recovery, crashed: Sequence[runs.Run]) -> None: ...
    def planned(self, plan: Plan, store: Store) -> None: ...
    def start(self, requests: int, backend: str, gauges: Callable[[], Gauges]) -> None: ...
    def grown(self, requests: int) -> None: ...
    def finish(self) -> None: ...


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of a run beyond the configuration."""

    command: str = "run"
    selection: Selection = field(default_factory=Selection)
    always_make: bool = False
    max_failures: int | None = None
    run: int | None = None
    """The run to resume, whose list of targets is taken over."""
    wait: bool = True
    """False: return once batches are submitted."""
    deadline: float | None = None
    """Seconds after which the run stops."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do.

    `requests` counts distinct requests, `cost_usd` is their price (None: unknown), `selection` the pinned one. `choice` is the
    purchase decision of a backend with several options. `batches` are open from earlier runs, `elsewhere` those at another
    provider, `unusable` those whose backend is not installed.
    """

    refreshed: RefreshResult
    selection: Selection
    priced: list[Priced]
    requests: int
    cost_usd: float | None
    choice: PurchaseDecision | None = None
    batches: tuple[Open, ...] = ()
    elsewhere: tuple[Open, ...] = ()
    unusable: tuple[Open, ...] = ()


@dataclass(slots=True)
class RunResult:
    """The result of a run. `left` are the selected targets that are still stale."""

    run: int | None
    refreshed: RefreshResult
    left: list[StaleGroup]
    stopped: Stopped | None = None
    interrupted: bool = False
    written: list[Written] = field(default_factory=list)
    output_errors: list[str] = field(default_factory=list)
    fresh: int = 0
    fresh_before: int = 0
    left_out: int = 0
    """Stale targets outside the selection."""
    saved_usd: float | None = None
    paid: bool = False

    @property
    def in_batches(self) -> int:
        """Return the number of selected targets that wait for open batches."""
        return sum(group.targets for group in self.left if group.reason == Reason.IN_BATCH)

    @property
    def exit_code(self) -> int:
        """Return the exit code of the command."""
        if self.interrupted:
            return EXIT_INTERRUPTED
        if self.stopped is not None and self.stopped.kind in ("key", "refused") and not self.paid:
            return EXIT_USAGE
        if self.stopped is not None and self.stopped.kind != "failures":
            return EXIT_STOPPED
        if self.in_batches:
            return EXIT_STOPPED
        return EXIT_FAILED if self.left or self.output_errors else EXIT_OK

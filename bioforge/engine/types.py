"""Options, plan, result and observer of a run."""

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
from bioforge.store.stale import StaleGroup


class RunObserver(loop.GroupObserver, Protocol):
    """Told what a run is about to do, and then of every group of events; `grown`: there is more to do by so many
    requests (or less, where negative) than was said at the start."""

    def recovered(self, settled: Recovery, dead: Sequence[runs.Run]) -> None: ...
    def planned(self, plan: Plan, store: Store) -> None: ...
    def start(self, requests: int, backend: str, gauges: Callable[[], Gauges]) -> None: ...
    def grown(self, requests: int) -> None: ...
    def finish(self) -> None: ...


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of one run, beyond the configuration."""

    command: str = "run"
    selection: Selection = field(default_factory=Selection)
    always_make: bool = False
    max_failures: int | None = None
    run: int | None = None
    """The run that is resumed: its list of targets is taken over."""
    wait: bool = True
    """Whether to stay until batches have ended."""
    deadline: float | None = None
    """Seconds that the run may take."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do. `requests` are the different ones it would send, `cost_usd` their price (None: unknown);
    `selection` is as it stays during the run. `choice` is how a backend with several ways would buy; `batches` are
    those that earlier runs left open; another provider has those in `elsewhere`, and the backends of those in `unusable`
    are not installed."""

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
    """What a run came to. `left` are the selected targets that are still stale afterwards."""

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
    """Stale targets that this run was not asked to build."""
    saved_usd: float | None = None
    paid: bool = False

    @property
    def in_batches(self) -> int:
        """Selected targets whose answers are still to come, in open batches."""
        return sum(group.targets for group in self.left if group.reason == Reason.IN_BATCH)

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return EXIT_INTERRUPTED
        if self.stopped is not None and self.stopped.kind in ("key", "refused") and not self.paid:
            return EXIT_USAGE
        if self.stopped is not None and self.stopped.kind != "failures":
            return EXIT_STOPPED
        if self.in_batches:
            return EXIT_STOPPED
        return EXIT_FAILED if self.left or self.output_errors else EXIT_OK

"""A project file from code: `bioforge plan`, `run` and `export` as methods that return values."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Self

from bioforge.api.types import Progress
from bioforge.core.errors import BadArgument
from bioforge.core.events import Event, Failed, Succeeded, Unusable
from bioforge.core.interfaces import Gauges, Record, Stop

if TYPE_CHECKING:
    from bioforge.config.loader import ProjectConfig
    from bioforge.engine.project import OpenProject
    from bioforge.engine.select import RecipeNames
    from bioforge.engine.types import Plan, RunResult
    from bioforge.store import Selection, Store

Names = str | Sequence[str]


class Project:
    """A project file with its state, which is open only while a method runs.

    Methods block; on an event loop, `await asyncio.to_thread(project.run)`.
    """

    def __init__(self, names: RecipeNames) -> None:
        self._names = names
        self._opened: OpenProject | None = None

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        backend: str | None = None,
        concurrency: int | None = None,
        max_cost: float | None = None,
        strict: bool | None = None,
    ) -> Self:
        """Load a project from its file or folder; default: the working folder. Arguments win over the file.

        Raises `ConfigError` with every error of the file. The backend is created by the first `plan` or `run`: `results`
        works without it.
        """
        from bioforge.config.loader import load, with_overrides
        from bioforge.engine.select import RecipeNames

        config = with_overrides(
            load(None if path is None else Path(path), os.environ),
            backend=backend,
            concurrency=concurrency,
            max_cost=max_cost,
            strict=strict,
        )
        return cls(RecipeNames(config))

    @property
    def config(self) -> ProjectConfig:
        return self._names.config

    @property
    def recipes(self) -> list[str]:
        return list(self._names.recipes)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return notes on overrides by the environment and on the file."""
        return (*self.config.overrides, *self.config.notes)

    def plan(self, recipes: Names = (), *, select: Names = (), limit: int | None = None) -> Plan:
        """Return what a run would send now, with its price. Raises `InputError`, `StateError` and `UsageError`."""
        from bioforge.store import Store

        selection = self._names.with_needs(self._selection(recipes, select, limit))
        opened = self._open()
        with Store.open(self.config.state_path) as store:
            return opened.plan(store, selection)

    def run(
        self,
        recipes: Names = (),
        *,
        select: Names = (),
        limit: int | None = None,
        always_make: bool = False,
        max_failures: int | None = None,
        wait: bool = True,
        progress: Callable[[Progress], object] | None = None,
        stop: Stop | None = None,
    ) -> RunResult:
        """Build stale targets and write the outputs. Failed targets are in the result, not raised.

        `stop.raise_level()` from another thread ends it in order; `progress` is called after each group of answers.
        Without `wait`, batches are submitted and not awaited. Raises `UsageError` and `StateError` before anything is
        sent, `StoppedError` afterwards.
        """
        from bioforge.engine.types import RunOptions

        options = RunOptions(
            command="run",
            selection=self._names.with_needs(self._selection(recipes, select, limit)),
            always_make=always_make,
            max_failures=max_failures,
            wait=wait,
        )
        return self._open().run(options, _ProgressObserver(progress), stop or Stop())

    def results(self, recipe: str | None = None, *, select: Names = (), failed: bool = False) -> Iterator[Record]:
        """Yield every target's newest answer as an export record; `failed`: only failures, with the received text.

        Works during a run. Raises `StateError` if there is no state yet.
        """
        return self._records(self._selection(recipe or (), select, None), failed)

    def _open(self) -> OpenProject:
        from bioforge.engine.project import OpenProject
        from bioforge.plugins.manager import build_manager

        if self._opened is None:
            self._opened = OpenProject(self.config, build_manager(os.environ.get("BIOFORGE_LOAD_PLUGINS")))
        return self._opened

    def _records(self, selection: Selection, failed: bool) -> Iterator[Record]:
        from bioforge.store import Store, export

        with Store.read(self.config.state_path) as store:
            yield from export.records(store, selection, failed_only=failed)

    def _selection(self, recipes: Names, select: Names, limit: int | None) -> Selection:
        if limit is not None and (type(limit) is not int or limit < 1):
            raise BadArgument(f"limit: expected a whole number from 1, found {limit!r}")
        return self._names.selection(_as_list(recipes), _as_list(select), limit)

    def __repr__(self) -> str:
        return f"<Project {self.config.project.name!r}: {self.config.path}>"


def _as_list(names: Names) -> Sequence[str]:
    return (names,) if isinstance(names, str) else names


class _ProgressObserver:
    """Counts the events of a run for `progress`."""

    def __init__(self, progress: Callable[[Progress], object] | None) -> None:
        self._progress = progress
        self._total = 0
        self._answered = 0
        self._failures: Counter[str] = Counter()
        self._tokens = [0, 0]
        self._cost = 0.0
        self._since = monotonic()

    def recovered(self, *found: object) -> None:
        """Ignore runs that crashed earlier; `bioforge status` shows them."""

    def planned(self, plan: Plan, store: Store) -> None:
        """Ignore the plan; `Project.plan` returns it."""

    def start(self, requests: int, backend: str, gauges: Callable[[], Gauges]) -> None:
        self._total = requests

    def grown(self, requests: int) -> None:
        self._total += requests

    def finish(self) -> None:
        """Ignore the end; `run` returns the result."""

    def show(self, events: Sequence[Event], gauges: Gauges) -> None:
        for event in events:
            match event:
                case Succeeded(answer=answer) | Unusable(answer=answer):
                    self._answered += isinstance(event, Succeeded)
                    self._cost += answer.cost_usd or 0.0
                    if answer.usage is not None:
                        self._tokens[0] += answer.usage.input_tokens
                        self._tokens[1] += answer.usage.output_tokens
                    if answer.problem is not None:
                        self._failures[answer.problem.error_class] += 1
                case Failed(failure=failure, final=True):
                    self._failures[failure.error_class] += 1
                case _:
                    pass
        if self._progress is not None:
            failed = sum(self._failures.values())
            self._progress(
                Progress(
                    done=self._answered + failed,
                    failed=failed,
                    total=self._total,
                    in_flight=gauges.in_flight,
                    input_tokens=self._tokens[0],
                    output_tokens=self._tokens[1],
                    cost_usd=self._cost,
                    seconds=monotonic() - self._since,
                    failures=dict(self._failures),
                )
            )

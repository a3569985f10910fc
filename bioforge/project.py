"""An opened project: its configuration, plugins, backend and recipes, and what can be done with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Protocol

from bioforge import engine, planfile
from bioforge.config import ProjectConfig
from bioforge.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_STOPPED,
    EXIT_USAGE,
    InputError,
    StateError,
    UsageError,
    nearest,
)
from bioforge.estimate import Estimator, Priced
from bioforge.events import Stopped
from bioforge.interfaces import Backend, BackendContext, Gauges, Stop, Work
from bioforge.outputs import Written, check_outputs, write_outputs
from bioforge.plugins import Plugins
from bioforge.prompts import Definition, Prompts
from bioforge.refresh import InputSpec, Refreshed, refresh
from bioforge.store import Selection, Store, inputs, runs, stale, targets
from bioforge.store.ledger import average_cost
from bioforge.store.record import Settled, settle
from bioforge.store.stale import StaleGroup

PROMPT_OBJECTS_END = "2026-11-30"


class Watcher(engine.Watcher, Protocol):
    """Told what a run is about to do, and then of every group of events."""

    def recovered(self, settled: Settled, dead: Sequence[runs.Run]) -> None: ...
    def planned(self, refreshed: Refreshed, priced: Sequence[Priced], store: Store, selection: Selection) -> None: ...
    def start(self, requests: int, backend: str, gauges: Callable[[], Gauges]) -> None: ...
    def finish(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Order:
    """What a run is asked to do, beyond the configuration."""

    command: str = "run"
    selection: Selection = field(default_factory=Selection)
    always_make: bool = False
    max_failures: int | None = None
    plan: Path | None = None
    run: int | None = None
    """The run that is resumed: its list of targets is taken over."""


@dataclass(slots=True)
class Result:
    """What a run came to. `left` are the selected targets that are still stale afterwards."""

    run: int | None
    refreshed: Refreshed
    left: list[StaleGroup]
    stopped: Stopped | None = None
    interrupted: bool = False
    written: list[Written] = field(default_factory=list)
    output_errors: list[str] = field(default_factory=list)
    fresh: int = 0
    fresh_before: int = 0
    saved_usd: float | None = None
    paid: bool = False

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return EXIT_INTERRUPTED
        if self.stopped is not None and self.stopped.kind == "key" and not self.paid:
            return EXIT_USAGE
        if self.stopped is not None and self.stopped.kind != "failures":
            return EXIT_STOPPED
        return EXIT_FAILED if self.left or self.output_errors else EXIT_OK


class OpenProject:
    """Everything that a project file names, made ready. Nothing is read or sent before a method says so."""

    def __init__(self, config: ProjectConfig, plugins: Plugins) -> None:
        self.config = config
        self.plugins = plugins
        self.backend_name = config.backend.name
        self.backend = self._backend(config.provider.base_url)
        self.prompts = [Prompts(definition) for definition in _definitions(config, self.backend.dialect)]

    def _backend(self, base_url: str) -> Backend:
        config = self.config
        return self.plugins.backend(self.backend_name)(
            BackendContext(
                base_url=base_url,
                api_key="simulator" if config.simulated else config.api_key(),
                api_key_env=config.provider.api_key_env,
                timeout=config.provider.timeout,
                options=config.backend.options.get(self.backend_name, {}),
                root=config.root,
            )
        )

    @contextmanager
    def _sending(self) -> Iterator[Backend]:
        """The backend to send with; the embedded server runs just for as long as it is needed."""
        self.backend.check()
        if not self.config.simulated:
            yield self.backend
            return
        from bioforge.simulator import Simulator, SimulatorOptions

        with Simulator(SimulatorOptions(**self.config.simulator)) as server:
            yield self._backend(server.base_url)

    @property
    def recipes(self) -> list[str]:
        return list(self.config.recipes)

    @property
    def input_spec(self) -> InputSpec:
        config = self.config
        return InputSpec(
            path=config.input.path,
            reader=config.input.reader,
            options={name: value for name, value in config.input.options.items() if name != "strict"},
            root=config.root,
            cache=config.state_path.with_name(config.state_path.name + ".inputs"),
        )

    def selection(self, recipes: Sequence[str], select: Sequence[str], limit: int | None = None) -> Selection:
        """Raises `UsageError` for a recipe that the project does not have."""
        for name in recipes:
            if name not in self.config.recipes:
                known = nearest(name, self.recipes) or f"recipes are: {', '.join(self.recipes)}"
                raise UsageError(f"no recipe {name!r} in {self.config.path.name}", known)
        return Selection.parse(tuple(recipes) or tuple(self.recipes), tuple(select), limit)

    def estimator(self, store: Store) -> Estimator:
        return Estimator(store, self.backend, [prompts.definition for prompts in self.prompts])

    def refresh(self, store: Store) -> Refreshed:
        """Bring the state up to date with input and recipes. Raises `InputError` for bad rows when strict."""
        done = refresh(store, self.input_spec, self.plugins.reader, self.prompts, self.backend)
        done.notes += _prompt_notes(self.prompts)
        if self.config.input.strict:
            count, examples = inputs.bad_rows(store, limit=5)
            if count:
                lines = "\n".join(f"  {row.source}:{row.line}: {row.message}" for row in examples)
                more = f"\n  … and {count - len(examples)} more" if count > len(examples) else ""
                raise InputError(
                    f"{count} bad {'row' if count == 1 else 'rows'} in the input, and it is read strictly:\n{lines}{more}",
                    "mend the rows, or run without --strict (and `strict = false`) to leave them out; nothing was sent",
                )
        return done

    def plan(self, store: Store, selection: Selection) -> tuple[Refreshed, list[Priced]]:
        """What a run would do now, priced."""
        refreshed = self.refresh(store)
        return refreshed, self.estimator(store).price(stale.stale_groups(store, selection))

    def run(self, order: Order, watcher: Watcher, stop: Stop) -> Result:
        """Plan, build what is stale, write the outputs. Raises `BioforgeError` before anything is sent, never after."""
        check_outputs(self.config, self.plugins)
        with Store.open(self.config.state_path) as store:
            dead = runs.close_dead(store)
            settled = settle(store)
            if settled.maybe_paid or settled.interrupted:
                watcher.recovered(settled, dead)
            run = runs.begin(store, order.command, self.backend_name, order.selection, always_make=order.always_make)
            try:
                return self._run(store, run, order, watcher, stop)
            except KeyboardInterrupt:
                settle(store)
                runs.end(store, run, "interrupted", EXIT_INTERRUPTED, "interrupted")
                raise
            except Exception as error:
                with suppress(StateError):  # where the state itself is the trouble, the next run settles this one
                    settle(store)
                    if runs.still_planning(store, run):
                        runs.discard(store, run)
                    else:
                        runs.end(store, run, "stopped", EXIT_FAILED, f"error: {error}")
                raise

    def _run(self, store: Store, run: int, order: Order, watcher: Watcher, stop: Stop) -> Result:
        refreshed = self.refresh(store)
        selection = self._freeze(store, run, order)
        estimator = self.estimator(store)
        priced = estimator.price(stale.stale_groups(store, selection))
        watcher.planned(refreshed, priced, store, selection)
        fresh_before = self._fresh(store, selection)
        retry, limits = self.config.retry, replace(self.config.limits, max_failures=order.max_failures)
        count = sum(item.group.requests for item in priced if retry.maybe_paid or item.group.reason != "maybe paid")
        stopped: Stopped | None = None
        if count:
            if limits.max_cost_usd is not None and (model := estimator.known({item.group.recipe for item in priced})):
                raise UsageError(
                    f"the price of model {model!r} is unknown, so a budget of ${limits.max_cost_usd:g} cannot be kept",
                    "leave out --max-cost and max_cost_usd, or use a model whose price is known",
                )
            work = Work(
                requests=engine.requests(
                    store,
                    {(p.definition.recipe, p.definition.variant): p for p in self.prompts},
                    self.backend,
                    estimator,
                    selection,
                    ask_again_maybe_paid=retry.maybe_paid,
                ),
                limits=limits,
                retry=retry,
                stop=stop,
            )
            with self._sending() as backend:
                runs.set_running(store, run)
                watcher.start(count, self.backend_name, lambda: work.gauges)
                try:
                    stopped = engine.build(store, run, backend, self.backend_name, work, watcher)
                finally:
                    watcher.finish()
            settle(store)
        result = Result(run if count else None, refreshed, stale.stale_groups(store, selection), stopped)
        result.paid = runs.may_have_paid(store, run)
        result.interrupted = stop.reason == "interrupted"
        result.fresh_before = fresh_before
        result.fresh = self._fresh(store, selection)
        average = average_cost(store)
        result.saved_usd = None if average is None else average * (fresh_before + refreshed.reused)
        if stop.level < 2:
            result.written, result.output_errors = write_outputs(store, self.config, self.plugins)
        self._end(store, run, result)
        return result

    def _fresh(self, store: Store, selection: Selection) -> int:
        """Targets that are up to date, over the whole input, of the selected recipes."""
        reasons = stale.counts(store, selection.recipes).values()
        return stale.total_artists(store) * len(selection.recipes) - sum(sum(counts.values()) for counts in reasons)

    def _end(self, store: Store, run: int, result: Result) -> None:
        if result.run is None:
            runs.discard(store, run)
            return
        state = "interrupted" if result.interrupted else "stopped" if result.stopped else "finished"
        runs.end(store, run, state, result.exit_code, result.stopped.kind if result.stopped else None)

    def _freeze(self, store: Store, run: int, order: Order) -> Selection:
        """The selection as it stays for this run and for resuming it.

        Reasons change while a run goes on, and a limit means "these, no others": both become a list of targets.
        """
        selection = order.selection
        if order.run is not None and selection.run is not None:
            runs.take_over_targets(store, order.run, run)
            selection = replace(selection, run=run)
        elif order.plan is not None:
            runs.set_targets(store, run, planfile.read(order.plan, store, self.config.project.name))
            selection = replace(selection, recipes=tuple(self.recipes), run=run)
        if selection.reasons or selection.limit is not None:
            chosen = targets.listed(store, selection, stale=not order.always_make, sendable=True)
            runs.set_targets(store, run, [target.id for target in islice(chosen, selection.limit)])
            selection = replace(selection, reasons=(), limit=None, run=run)
        if order.always_make:
            targets.force(store, run, selection)
        runs.update_selection(store, run, selection)
        return selection


def _definitions(config: ProjectConfig, dialect: str) -> Iterator[Definition]:
    for name, recipe in config.recipes.items():
        texts: dict[str, str] = {}
        for part, template in (("instructions", recipe.instructions), ("input", recipe.input)):
            if template is not None and template.path is not None:
                texts[part] = _shown(template.path, config.root)
        yield Definition(
            recipe=name,
            endpoint=recipe.endpoint,
            model=recipe.model,
            instructions=None if recipe.instructions is None else recipe.instructions.text,
            input=None if recipe.input is None else recipe.input.text,
            prompt=None if recipe.prompt is None else recipe.prompt.model_dump(exclude_none=True),
            parameters=recipe.parameters,
            dialect=dialect,
            sources=texts,
        )


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _prompt_notes(recipes: Sequence[Prompts]) -> list[str]:
    names = [prompts.definition.recipe for prompts in recipes if prompts.definition.prompt is not None]
    if not names:
        return []
    return [
        f"recipe {', '.join(names)}: reusable prompts (`prompt = {{ id = … }}`) end at OpenAI on {PROMPT_OBJECTS_END};"
        " write the text into `instructions` and `input` before then"
    ]

"""An opened project: its configuration, plugins, backend and recipes, and what can be done with them."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import replace
from itertools import islice
from urllib.parse import urlsplit

from bioforge.backends.connection import is_loopback
from bioforge.config.loader import ProjectConfig
from bioforge.config.plugin_options import plugin_options
from bioforge.core.budget import Budget
from bioforge.core.errors import EXIT_INTERRUPTED, EXIT_STOPPED, InputError, PluginError, StateError, UsageError
from bioforge.core.events import Stopped
from bioforge.core.gc_tuning import relaxed_gc
from bioforge.core.interfaces import PurchaseJob, RunControl, Stop, Work
from bioforge.core.progress import ProgressCallback, no_progress
from bioforge.engine.backends import BackendBuilder, bind_reader, dialect_of
from bioforge.engine.execute import Execution, no_usage_error_from_here, pin_selection
from bioforge.engine.followup import FollowUp
from bioforge.engine.outputs import check_outputs, write_outputs
from bioforge.engine.requests import RequestQueue
from bioforge.engine.select import RecipeNames
from bioforge.engine.types import Plan, RunObserver, RunOptions, RunResult
from bioforge.planner.context import PlanContext
from bioforge.planner.estimate import Estimator, batch_loads, loads, total
from bioforge.planner.planner import Planner
from bioforge.planner.refresh import InputSpec, RefreshResult, refresh
from bioforge.plugins.manager import Plugins
from bioforge.readers.reader_plugin import BoundReader
from bioforge.recipes.definition import definitions, no_data_notes, prompt_notes
from bioforge.recipes.template import RecipeVariant
from bioforge.store import Selection, Store, batches, compression, runs, stale_counts, targets
from bioforge.store import artists as artists_store
from bioforge.store.ledger import average_cost, average_seconds
from bioforge.store.queue import RequestFilter
from bioforge.store.recovery import Recovery, recover

NO_RUN = 0
"""Lists of targets are kept by run; this one is for plans, and is overwritten by the next."""


class OpenProject(RecipeNames):
    """A project with its plugins, backend and compiled recipes. Only its methods read input or send requests."""

    def __init__(self, config: ProjectConfig, plugins: Plugins) -> None:
        """Raise `PluginError` for a missing backend, `ConfigError`, or `TemplateError`."""
        super().__init__(config)
        self.plugins = plugins
        self.tell: ProgressCallback = no_progress
        """Receives progress messages of long readings and plans."""
        self.backend_name = config.backend.name
        self._backends = BackendBuilder(config, plugins)
        try:
            self.backend = self._backends.make(self.backend_name)
        except PluginError as error:
            error.hint = "; ".join(filter(None, (error.hint, _what_works_without(config))))
            raise
        self.notes = self._backends.check_tables(self.backend_name)
        dialect = dialect_of(self.backend, self.backend_name, simulated=config.simulated)
        self.recipe_variants = [
            RecipeVariant(definition) for definition in definitions(config, dialect, self.backend.endpoints)
        ]

    @property
    def provider(self) -> str:
        """Return the base URL, which the state stores with each batch."""
        return self.config.provider.base_url

    @property
    def input_spec(self) -> InputSpec:
        """Return the location, reader and options of the input."""
        config = self.config
        return InputSpec(
            path=config.input.path,
            reader=config.input.reader,
            options={name: value for name, value in config.input.options.items() if name != "strict"},
            root=config.root,
            cache=config.state_path.with_name(config.state_path.name + ".inputs"),
        )

    @property
    def chained(self) -> bool:
        """Return True if a recipe needs the answers of another one."""
        return any(variant.upstream for variant in self.recipe_variants)

    def estimator(self, store: Store) -> Estimator:
        """Return the estimator of prices at the backend's own tier."""
        return self._estimator(store, None)

    def _estimator(self, store: Store, tier: str | None) -> Estimator:
        return Estimator(store, self.backend, [variant.definition for variant in self.recipe_variants], tier)

    def refresh(self, store: Store) -> RefreshResult:
        """Bring the state up to date with input and recipes. Raises `InputError` for bad rows when strict."""
        compression.save_setting(store, self.config.project.compress_bodies)
        with store.relaxed_sync(), relaxed_gc():
            done = refresh(self._context(store), self.input_spec, self._read_by, self.tell)
        done.notes += prompt_notes(self.recipe_variants)
        if done.reading is not None and not done.reading.any_data:
            done.notes += no_data_notes(self.recipe_variants)
        if self.config.input.strict:
            count, examples = artists_store.bad_rows(store, limit=5)
            if count:
                lines = "\n".join(f"  {row.source}:{row.line}: {row.message}" for row in examples)
                more = f"\n  … and {count - len(examples)} more" if count > len(examples) else ""
                raise InputError(
                    f"{count} bad {'row' if count == 1 else 'rows'} in the input, and strict mode allows none:\n{lines}{more}",
                    "fix the rows, or run without --strict (and `strict = false`) to leave them out; nothing was sent",
                )
        return done

    def _read_by(self, name: str) -> BoundReader:
        return bind_reader(self.plugins, plugin_options(self.config), self.input_spec.options, name)

    def plan(self, store: Store, selection: Selection, deadline: float | None = None) -> Plan:
        """Return what a run would do now, with prices; `deadline` in seconds. Send nothing.

        An output that cannot be written, for which a run is refused, is only a note: its secret may not be needed to plan.
        """
        recover_state(store)
        refreshed = self.refresh(store)
        try:
            check_outputs(self.config, self.plugins)
        except UsageError as error:
            refreshed.notes.append(f"a run would be refused: {error.message}")
        if selection.limit is not None:
            chosen = targets.listed(store, selection, sendable=True)
            runs.set_targets(store, NO_RUN, (target.id for target in islice(chosen, selection.limit)))
            selection = replace(selection, reasons=(), limit=None, run=NO_RUN)
        return self._priced(store, refreshed, selection, deadline)

    def _priced(self, store: Store, refreshed: RefreshResult, selection: Selection, deadline: float | None) -> Plan:
        again = self.config.retry.maybe_paid
        groups = stale_counts.stale_groups(store, selection, resend_maybe_paid=again)
        # a request that several groups share is paid once
        requests = self._to_send(store, selection) if len(groups) > 1 else sum(group.requests for group in groups)
        places = {variant.key: n for n, variant in enumerate(self.recipe_variants)}
        # recipes in dependency options, variants in the options of the file
        groups = sorted(
            (group for group in groups if (group.recipe, group.variant) in places),
            key=lambda group: places[group.recipe, group.variant],
        )
        priced = self.estimator(store).price(groups)
        found = batches.open_batches(store, selection)
        known = self.plugins.backends() if found else {}
        unusable = tuple(item for item in found if item.backend not in known)
        elsewhere = tuple(item for item in found if item.provider != self.provider and item not in unusable)
        ours = tuple(item for item in found if item not in unusable and item not in elsewhere)
        # the decision covers open batches too: what they leave over is bought as announced
        under_way = [item.batch for item in ours if item.backend == self.backend_name]
        job = PurchaseJob(
            (*loads(priced, requests), *batch_loads(under_way)),
            self.config.limits,
            deadline,
            average_seconds(store),
            batches.average_seconds(store),
        )
        choice = self.backend.choose(job)
        if choice is not None:
            priced = self._estimator(store, choice.tier).price(groups)
        cost = total(priced, requests)
        return Plan(refreshed, selection, priced, requests, cost, choice, ours, elsewhere, unusable)

    def requests(
        self, store: Store, selection: Selection, which: RequestFilter = RequestFilter.STALE, run: int | None = None
    ) -> RequestQueue:
        """Return the requests of the selected targets in options; with `run`, also those that become ready during it."""
        return RequestQueue(self._context(store, run), self.estimator(store), selection, which)

    def check_answers(self, store: Store) -> None:
        """Validate imported answers by their schemas and plan their dependents."""
        self._planner(store, None).plan_unchecked()

    def _planner(self, store: Store, run: int | None) -> Planner:
        return Planner(self._context(store, run))

    def _context(self, store: Store, run: int | None = None) -> PlanContext:
        return PlanContext(store, self.recipe_variants, self.backend, self.config.retry.maybe_paid, run)

    def run(self, options: RunOptions, observer: RunObserver, stop: Stop) -> RunResult:
        """Plan, send what is stale, and write the outputs.

        Raise `UsageError` and `StateError` only before anything was sent, `StoppedError` afterwards.
        """
        check_outputs(self.config, self.plugins)
        if not options.wait and not self.backend.batches:
            raise UsageError(
                f"--no-wait needs batches; backend {self.backend_name!r} sends single calls",
                "use --backend batch or --backend auto",
            )
        with Store.open(self.config.state_path) as store:
            recovery, crashed = recover_state(store)
            if recovery.maybe_paid or recovery.interrupted:
                observer.recovered(recovery, crashed)
            run = runs.begin(
                store,
                options.command,
                self.backend_name,
                options.selection,
                always_make=options.always_make,
                max_cost_usd=self.config.limits.max_cost_usd,
            )
            try:
                return self._run(store, run, options, observer, stop)
            except BaseException as error:
                with suppress(StateError):  # if the state itself fails, the next run closes this one
                    self._close_failed_run(store, run, error)
                raise

    def _close_failed_run(self, store: Store, run: int, error: BaseException) -> None:
        recover(store)
        if runs.is_planning(store, run):
            runs.discard(store, run)
        elif isinstance(error, KeyboardInterrupt):
            runs.end(store, run, "interrupted", EXIT_INTERRUPTED, "interrupted")
        else:
            runs.end(store, run, "stopped", EXIT_STOPPED, f"error: {error}")

    def _run(self, store: Store, run: int, options: RunOptions, observer: RunObserver, stop: Stop) -> RunResult:
        if batches.release_elsewhere(store, self.provider):
            recover(store)
        refreshed = self.refresh(store)
        self._check_can_send(store, options)
        selection = pin_selection(store, run, options, self.config.project.name)
        if options.always_make:  # dependents of forced targets wait for them
            self._planner(store, run).replan_dependents()
        plan = self._priced(store, refreshed, selection, options.deadline)
        observer.planned(plan, store)
        fresh_before = self._fresh(store, selection)
        work = bool(plan.requests or plan.batches)
        with no_usage_error_from_here() if work else nullcontext():
            stopped = self._send(store, run, plan, options, observer, stop) if work else None
            result = RunResult(run if work else None, refreshed, stale_counts.stale_groups(store, selection), stopped)
            result.paid = runs.may_have_paid(store, run)
            result.interrupted = stop.reason == "interrupted" and (stop.level > 1 or bool(result.left))
            result.fresh_before = fresh_before
            result.fresh = self._fresh(store, selection)
            everywhere = stale_counts.counts(store, self.recipes).values()
            result.left_out = sum(sum(counts.values()) for counts in everywhere) - sum(g.targets for g in result.left)
            average = average_cost(store)
            result.saved_usd = None if average is None else average * (fresh_before + refreshed.reused)
            if stop.level < 2:
                result.written, result.output_errors = write_outputs(store, self.config, self.plugins, self.variants)
            self._end(store, run, result)
        return result

    def _check_can_send(self, store: Store, options: RunOptions) -> None:
        """Refuse a run that could not send or not keep its budget, before anything is recorded or sent."""
        selection, again = options.selection, self.config.retry.maybe_paid
        if not (options.always_make or selection.plan is not None) and not stale_counts.requests_to_send(
            store, selection, resend_maybe_paid=again
        ):
            if any(item.provider == self.provider for item in batches.open_batches(store)):
                self._check_backend(store)
            return
        store.check_pages()
        budget = self.config.limits.max_cost_usd
        if budget is not None and (model := self.estimator(store).unknown_price(selection.recipes)) is not None:
            raise UsageError(
                f"the price of model {model!r} is unknown, so a budget of ${budget:g} cannot be kept",
                "leave out --max-cost and max_cost_usd, or use a model whose price is known",
            )
        self._check_backend(store)

    def _check_backend(self, store: Store) -> None:
        """Raise `UsageError` if the backend cannot send. Name the host that gets a key for the first time."""
        self.backend.check()
        config = self.config
        host = urlsplit(config.provider.base_url).hostname
        if not host or is_loopback(config.provider.base_url) or config.api_key() is None:
            return
        name = config.environment.origin(config.provider.api_key_env)
        if not store.fact(f"key:{name}:{host}"):
            self.tell(f"key from {name} goes to {host}")
            store.set_fact(f"key:{name}:{host}")

    def _send(
        self, store: Store, run: int, plan: Plan, options: RunOptions, observer: RunObserver, stop: Stop
    ) -> Stopped | None:
        # --limit applies to new requests; requests that open batches of earlier runs leave over belong to those runs
        only_limited = not options.selection.ids and options.selection.run is None and options.selection.plan is None
        tried_again = Selection(recipes=plan.selection.recipes) if only_limited else plan.selection
        requests = self.requests(store, plan.selection, run=run)
        work = Work(
            requests=requests,
            limits=self.config.limits,
            retry=self.config.retry,
            control=RunControl(stop, Budget(self.config.limits.max_cost_usd)),
            batches=[item.batch for item in plan.batches if item.backend == self.backend_name],
            members=batches.StoredMembers(store),
            retries=lambda: self.requests(store, tried_again, RequestFilter.WAITING),
            enqueued_tokens=batches.enqueued_tokens(store, self.provider),
            wait=options.wait,
            choice=plan.choice,
            proven=lambda request: targets.is_answered(store, request.recipe, request.variant),
            folder=self.config.state_path.with_name(self.config.state_path.name + ".batches"),
            project=self.config.project.name,
        )
        follow_up = FollowUp(
            self.recipe_variants, self._planner(store, run), requests, stop, options.max_failures, observer.grown
        )
        with self._backends.reachable(batches_too=bool(plan.batches) or self.backend.batches) as make_backend:
            execution = Execution(store, run, self.config, make_backend, observer, follow_up)
            stopped = execution.execute(plan, work, requests, lambda: self._to_send(store, plan.selection))
        recover(store)
        return stopped

    def _to_send(self, store: Store, selection: Selection) -> int:
        return stale_counts.requests_to_send(store, selection, resend_maybe_paid=self.config.retry.maybe_paid)

    def _fresh(self, store: Store, selection: Selection) -> int:
        """Return the number of fresh targets of the selected recipes, over the whole input."""
        reasons = stale_counts.counts(store, selection.recipes).values()
        artists = stale_counts.total_artists(store)
        selected = [variant for variant in self.recipe_variants if variant.recipe in selection.recipes]
        whole = sum(1 if variant.for_all else artists for variant in selected)
        return whole - sum(sum(counts.values()) for counts in reasons)

    def _end(self, store: Store, run: int, result: RunResult) -> None:
        if result.run is None:
            runs.discard(store, run)
            return
        by = result.stopped.kind if result.stopped else "waiting" if result.in_batches else None
        state = "interrupted" if result.interrupted else "stopped" if by else "finished"
        runs.end(store, run, state, result.exit_code, by)


def recover_state(store: Store) -> tuple[Recovery, list[runs.Run]]:
    """Close runs that crashed or were killed, and return the state of their open requests with those runs."""
    crashed = runs.close_crashed(store)
    return recover(store), crashed


def _what_works_without(config: ProjectConfig) -> str:
    """Return a hint if earlier runs used this backend, which is missing now; else an empty text."""
    try:
        with Store.read(config.state_path) as store:
            known = any(run.backend == config.backend.name for run in runs.newest(store, limit=1000))
    except StateError:  # an unreadable state is reported where it is used
        known = False
    if not known:
        return ""
    return (
        "earlier runs used it: install or fix its plugin (`bioforge plugins` shows the problem);"
        " `bioforge export`, `status`, `why`, `compare` and `audit` work without it"
    )

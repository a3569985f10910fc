"""Progress of a run on the console, from recovered requests to the closing summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from shlex import quote
from typing import TYPE_CHECKING

from bioforge.cli.errors import echo, stderr_screen
from bioforge.cli.format import batch_lines, format_recipe, plan_lines, reading_lines, unmatched_lines
from bioforge.core.events import Event
from bioforge.core.interfaces import Gauges
from bioforge.core.reasons import Reason
from bioforge.core.text import plural
from bioforge.report.tally import Closing, summary

if TYPE_CHECKING:
    from bioforge.engine.project import OpenProject
    from bioforge.engine.types import Plan, RunOptions, RunResult
    from bioforge.report.reporter import Reporter
    from bioforge.store import Store, runs
    from bioforge.store.recovery import Recovery


class ConsoleObserver:
    """Prints what `Project.run` reports; events go to the reporter."""

    def __init__(self, project: OpenProject, order: RunOptions, reporter: Reporter, *, explain: bool) -> None:
        self._project = project
        self._order = order
        self._reporter = reporter
        self._explain = explain
        self.in_flight = False
        """True while requests may be in flight: Ctrl-C then drains the run instead of ending the command."""
        self._gauges: Callable[[], Gauges] = Gauges

    def recovered(self, recovery: Recovery, dead: Sequence[runs.Run]) -> None:
        for run in dead:
            echo(f"run {run.id} (`bioforge {run.command}`) crashed or was killed; its recorded answers are kept")
        if recovery.maybe_paid:
            resent = "resent" if self._project.config.retry.maybe_paid else "not resent (maybe_paid = false)"
            requests = plural(recovery.maybe_paid, "request")
            echo(f"  {requests} in flight at that time may have been charged: {resent}")

    def planned(self, plan: Plan, store: Store) -> None:
        if not plan.priced:
            for line in (*reading_lines(plan.refreshed), *unmatched_lines(store, plan.selection), *batch_lines(plan)):
                echo(line)
            return
        for line in plan_lines(store, self._project, plan, stderr_screen()):
            echo(line)
        self._warn_of_budget(plan)
        if self._explain:
            from bioforge.store import targets

            for target in targets.listed(store, plan.selection):
                why = f" ({target.detail})" if target.detail else ""
                echo(f"explain: {target.recipe} {target.artist_id} {target.artist_name}: {target.reason}{why}")

    def _warn_of_budget(self, plan: Plan) -> None:
        budget, cost = self._project.config.limits.max_cost_usd, plan.cost_usd
        if budget is not None and cost is not None and cost > budget:
            echo(f"warning: the plan costs more than the budget of ${budget:g}; the run stops before exceeding it")

    def start(self, requests: int, backend: str, gauges: Callable[[], Gauges]) -> None:
        config = self._project.config
        self.in_flight = True
        self._gauges = gauges
        self._reporter.start(
            requests,
            backend=backend,
            provider=config.provider.base_url,
            concurrency=config.backend.concurrency,
            watch=gauges,
        )

    def grown(self, requests: int) -> None:
        self._reporter.grow(requests)

    def stopping(self) -> str:
        """Return the message for the first Ctrl-C."""
        gauges = self._gauges()
        if gauges.batches:
            return "stopping: no new requests; open batches continue at the provider. Ctrl-C again leaves now"
        return "stopping: no new requests; waiting for those in flight (they are paid for). Ctrl-C again leaves now"

    def show(self, events: Sequence[Event], gauges: Gauges) -> None:
        self._reporter.show(events, gauges)

    def finish(self) -> None:
        self.in_flight = False
        self._reporter.finish()

    def summarise(self, result: RunResult) -> None:
        """Print the closing lines: results, cost, what is left and what to do about it."""
        name = self._project.config.project.name
        if result.run is None:
            if not result.left and not self._order.selection.everything:
                echo(f"{name}: nothing to do for this selection")
            elif not result.left:
                echo(f"{name}: everything is up to date ({plural(result.fresh, 'target')}); nothing was sent")
            else:
                echo(
                    f"{name}: nothing was sent, {plural(sum(g.targets for g in result.left), 'target')} cannot be built:"
                )
        else:
            closing = Closing(
                fresh=result.fresh_before,
                cached=result.refreshed.reused,
                saved_usd=result.saved_usd,
                simulated=self._project.config.simulated,
            )
            for line in summary(self._reporter.tally, closing, time.monotonic()):
                echo(line)
        held = sum(group.held for group in result.left if Reason(group.reason).info.sent)
        if held:
            echo(
                f"held back: {plural(held, 'target')} (not usable);"
                " `bioforge run -B --select ID` sends them again, and may pay again"
            )
        for group in result.left:
            what = f"{plural(group.targets, 'target')} of {format_recipe(group.recipe, group.variant)}"
            if group.unrenderable:
                echo(f"cannot be rendered: {what}; `bioforge why {quote(group.example)}` says what is wrong")
            elif group.reason == Reason.SKIPPED:
                echo(f"skipped: {what}: no answer of {group.detail}")
            elif result.run is None and not group.held and group.reason != Reason.IN_BATCH:
                echo(f"not sent: {what}: {group.reason}")
        if result.in_batches and result.stopped is None:
            echo(
                f"in batches: {plural(result.in_batches, 'target')} without an answer yet; `bioforge run` collects them"
            )
        for output in result.written:
            if output.changed:
                echo(f"wrote {output.path} ({output.note or plural(output.records, 'record')})")
        if result.left_out > 0:
            echo(f"{plural(result.left_out, 'more stale target')} outside this run; `bioforge plan` lists them")
        if result.interrupted and self._project.config.outputs and not result.written:
            echo("the outputs were not written; the next run or `bioforge export` writes them")
        for error in result.output_errors:
            echo(f"error: {error}", breaks=True)

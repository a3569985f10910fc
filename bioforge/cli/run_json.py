"""Progress of a run as JSON log lines: each event is one object with typed fields."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bioforge.cli.errors import echo
from bioforge.cli.format import json_text, plan_fields, unmatched_lines, unreachable_batch_lines
from bioforge.cli.run_console import ConsoleObserver

if TYPE_CHECKING:
    from bioforge.engine.project import OpenProject
    from bioforge.engine.types import Plan, RunResult
    from bioforge.planner.refresh import RefreshResult
    from bioforge.store import Store, runs
    from bioforge.store.recovery import Recovery


Log = Callable[..., Any]
"""Logs an event with fields: a method of a structlog logger, or `bioforge.cli.errors.log`."""


class JsonObserver(ConsoleObserver):
    """Logs the plan and the result of a run as the events `input`, `plan`, `target`, `written` and `result`."""

    def recovered(self, recovery: Recovery, dead: Sequence[runs.Run]) -> None:
        warning = self._reporter.logs.logger.warning
        for run in dead:
            warning("crashed run", run=run.id, command=run.command)
        if recovery.maybe_paid:
            warning("maybe paid", requests=recovery.maybe_paid, resent=self._project.config.retry.maybe_paid)

    def planned(self, plan: Plan, store: Store) -> None:
        log: Log = self._reporter.logs.logger.info
        log_plan(log, store, self._project, plan)
        self._warn_of_budget(plan)
        if self._explain:
            from bioforge.store import targets

            for target in targets.listed(store, plan.selection):
                log(
                    "target",
                    recipe=target.recipe,
                    variant=target.variant,
                    artist=target.artist_id,
                    name=target.artist_name,
                    reason=target.reason,
                    detail=target.detail,
                )

    def summarise(self, result: RunResult) -> None:
        """Log each output, and what is left; the reporter has logged the numbers of the run as `finished`."""
        log: Log = self._reporter.logs.logger.info
        for output in result.written:
            if output.changed:
                log("written", path=output.path, records=output.records, note=output.note)
        for error in result.output_errors:
            echo(f"error: {error}", breaks=True)
        log(
            "result",
            run=result.run,
            exit_code=result.exit_code,
            interrupted=result.interrupted,
            stopped=None if result.stopped is None else result.stopped.kind,
            fresh=result.fresh,
            skipped=result.fresh_before,
            cached=result.refreshed.reused,
            saved_usd=None if result.saved_usd is None else round(result.saved_usd, 6),
            simulated=self._project.config.simulated,
            in_batches=result.in_batches,
            outside_selection=max(0, result.left_out),
            left=[
                {
                    "recipe": group.recipe,
                    "variant": group.variant,
                    "reason": group.reason,
                    "detail": group.detail,
                    "targets": group.targets,
                    "held": group.held,
                    "unrenderable": group.unrenderable,
                    "example": group.example,
                }
                for group in result.left
            ],
        )


def log_plan(log: Log, store: Store, project: OpenProject, plan: Plan) -> None:
    """Log the input that was read and the plan, with warnings about them."""
    _log_input(log, plan.refreshed)
    for line in (*unmatched_lines(store, plan.selection), *unreachable_batch_lines(plan)):
        echo(line)
    log("plan", **json.loads(json_text(plan_fields(project, plan))))  # amounts rounded as in `plan --format json`


def _log_input(log: Log, refreshed: RefreshResult) -> None:
    for note in refreshed.notes:
        echo(f"warning: {note}")
    if refreshed.checked:
        log("schema", checked=refreshed.checked, misfits=refreshed.misfits)
    if (reading := refreshed.reading) is not None:
        log(
            "input",
            artists=reading.artists,
            new=reading.new,
            changed=reading.changed,
            removed=reading.removed,
            bad_rows=reading.bad,
            examples=[asdict(row) for row in reading.examples[:5]],
        )

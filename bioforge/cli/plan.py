"""`plan` and `why`: what would be built, what it would cost, and the reason."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioforge.cli.errors import command, echo
from bioforge.cli.options import (
    FileOption,
    RecipesArgument,
    SelectOption,
    check_destination,
    check_format,
    load,
    open_project,
    parse_seconds,
)
from bioforge.core.errors import EXIT_FAILED, EXIT_OK, OutputError, TemplateError, UsageError, nearest

if TYPE_CHECKING:
    from bioforge.engine.project import OpenProject
    from bioforge.engine.types import Plan
    from bioforge.planner.diff import Change
    from bioforge.store import Selection, Store
    from bioforge.store.explain import TargetHistory


@command
def plan(
    recipes: RecipesArgument = None,
    file: FileOption = None,
    quiet: Annotated[
        bool,
        typer.Option("-q", "--quiet", help="Say nothing: exit 0 everything is fresh, 1 something is stale, 2 error."),
    ] = False,
    what_if: Annotated[
        str | None,
        typer.Option("-W", "--what-if", metavar="COLUMN", help="What would be stale if this column changed."),
    ] = None,
    select: SelectOption = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Plan at most N targets.")] = None,
    backend: Annotated[str | None, typer.Option("--backend", metavar="NAME", help="Plan for this backend.")] = None,
    concurrency: Annotated[
        int | None, typer.Option("-j", "--concurrency", metavar="N", help="Plan for this many requests at once.")
    ] = None,
    max_cost: Annotated[float | None, typer.Option("--max-cost", metavar="USD", help="Plan for this budget.")] = None,
    deadline: Annotated[
        str | None, typer.Option("--deadline", metavar="TIME", help="Plan for a run that may take this long, like 2h.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the plan, for run --plan.")] = None,
    graph: Annotated[bool, typer.Option("--graph", help="Draw which recipe builds on which.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="A bad row in the input is an error.")] = False,
    format: Annotated[str, typer.Option("--format", metavar="text|json", help="How to print it.")] = "text",
) -> int:
    """Show what a run would do: how many targets for which reason, and the price. Sends nothing."""
    from bioforge.cli.format import plan_lines
    from bioforge.core.progress import no_progress
    from bioforge.planner import plan_file
    from bioforge.store import Store

    check_format(format, ("text", "json"))
    seconds = parse_seconds(deadline)
    project = open_project(file, backend=backend, concurrency=concurrency, max_cost=max_cost, strict=strict)
    if quiet:
        project.tell = no_progress
    selection = project.with_needs(project.selection(recipes or (), select or (), limit))
    if out is not None:
        check_destination(project.config, out, "--out")
    with Store.open(project.config.state_path) as store:
        planned = project.plan(store, selection, seconds)
        if what_if is not None:
            return _what_if(store, project, selection, what_if, format)
        if out is not None:
            try:
                number = plan_file.write(out, store, project.config.project.name, planned.selection, planned.cost_usd)
            except OutputError as error:
                raise OutputError(error.message, "name another file with --out") from None
            echo(f"plan of {number:,} targets written to {out}; `bioforge run --plan {out}` does exactly this")
        if graph:
            _graph(store, project, selection, format)
        elif quiet:
            pass
        elif format == "json":
            print(json.dumps(_as_json(project, planned), ensure_ascii=False, indent=2))
        else:
            for line in plan_lines(store, project, planned):
                print(line)
    return EXIT_FAILED if planned.priced and quiet else EXIT_OK


def _graph(store: Store, project: OpenProject, selection: Selection, format: str) -> None:
    from dataclasses import asdict

    from bioforge.cli.graph import graph_lines, nodes

    found = nodes(store, project, selection.recipes)
    if format == "json":
        print(json.dumps({"recipes": [asdict(node) for node in found]}, ensure_ascii=False, indent=2))
        return
    for line in graph_lines(found):
        print(line)


def _as_json(project: OpenProject, planned: Plan) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "project": project.config.project.name,
        "fresh": not planned.priced,
        "requests": planned.requests,
        "cost_usd": planned.cost_usd,
        "estimated": True,
        "simulated": project.config.simulated,
        "choice": None if planned.choice is None else asdict(planned.choice),
        "open_batches": [
            {"batch": item.batch.name, "state": str(item.batch.state), "requests": item.batch.requests}
            for item in planned.batches
        ],
        "groups": [
            {
                "recipe": item.group.recipe,
                "variant": item.group.variant,
                "reason": item.group.reason,
                "detail": item.group.detail,
                "targets": item.group.targets,
                "requests": item.group.requests,
                "held": item.group.held,
                "unrenderable": item.group.unrenderable,
                "model": item.model,
                "input_tokens": item.input_tokens,
                "output_tokens": item.output_tokens,
                "cost_usd": item.cost_usd,
                "example": item.group.example,
            }
            for item in planned.priced
        ],
    }


def _what_if(store: Store, project: OpenProject, selection: Selection, column: str, format: str) -> int:
    """The hypothetical: every target of the recipes whose templates read the column."""
    from bioforge.cli.format import count, named, table
    from bioforge.core.text import money
    from bioforge.readers.rows import ColumnMap
    from bioforge.recipes.template import OWN_NAMES
    from bioforge.store import artists, stale

    changed = ColumnMap.of(project.input_spec.options.get("columns", {})).made_of(column)
    known = {*artists.columns(store), *OWN_NAMES} | (changed if len(changed) > 1 else set())
    if column not in known:
        raise UsageError(
            f"-W {column}: the input has no such column",
            nearest(column, known) or f"columns are: {', '.join(sorted(known))}",
        )
    estimator, rows, groups = project.estimator(store), [], []
    for prompts in project.prompts:
        recipe, variant = prompts.definition.recipe, prompts.definition.variant
        if recipe not in selection.recipes:
            continue
        used = prompts.used_columns is None or not changed.isdisjoint(prompts.used_columns)
        group = stale.as_if_changed(store, selection, recipe, variant, column) if used else None
        priced = None if group is None else estimator.price([group])[0]
        number = 0 if priced is None else priced.group.targets
        cost = 0.0 if priced is None else priced.cost_usd
        groups.append({"recipe": recipe, "variant": variant, "targets": number, "cost_usd": cost})
        rows.append(
            [
                named(recipe, variant),
                f"{number:,}",
                money(cost) if number else "-",
                "" if used else "does not read this column",
            ]
        )
    if format == "json":
        print(json.dumps({"column": column, "groups": groups}, ensure_ascii=False, indent=2))
    else:
        print(f"if {column} changed for all {count(stale.total_artists(store), 'artist')}:")
        for line in table([["recipe", "stale", "price", ""], *rows], right=(1, 2)):
            print(line)
    return EXIT_OK


@command
def why(
    artist_id: Annotated[str, typer.Argument(metavar="ID", help="The artist's id.")],
    file: FileOption = None,
    format: Annotated[str, typer.Option("--format", metavar="text|json", help="How to print it.")] = "text",
) -> int:
    """Show, for each target of an artist, whether it is fresh or why not, with old and new values and its attempts."""
    from dataclasses import asdict

    from bioforge.store import Store
    from bioforge.store.explain import history, ids_like

    check_format(format, ("text", "json"))
    config = load(file)
    with Store.read(config.state_path) as store:
        found = history(store, artist_id)
        if found is None:
            near = [f"{identity} ({name})" for identity, name in ids_like(store, artist_id)]
            raise UsageError(
                f"no artist with the id {artist_id!r}",
                f"did you mean {', '.join(near)}?"
                if near
                else "ids are in the first column of `bioforge export -F csv`",
            )
    name, source, line, removed, stories = found
    if format == "json":
        print(
            json.dumps(
                {
                    "artist_id": artist_id,
                    "artist_name": name,
                    "source": source,
                    "line": line,
                    "removed": removed is not None,
                    "targets": [asdict(target) for target in stories],
                },
                ensure_ascii=False,
                indent=2,
            )
        )
        return EXIT_OK
    from bioforge.cli.format import when

    gone = f"; removed from the input {when(removed)}" if removed is not None else ""
    place = f"  ({source}:{line}{gone})" if source else ""
    print(f"{artist_id}  {name}{place}")
    for target in stories:
        for text in _target_lines(target):
            print(text)
    if not stories:
        print("  no targets yet: `bioforge plan` or `bioforge run` plans them")
    sys.stdout.flush()
    return EXIT_OK


def _used_columns(target: TargetHistory) -> frozenset[str] | None:
    """The columns that the target's templates read, as they were planned, so that a change in others is not blamed; None
    for any."""
    from bioforge.recipes.template import Definition, RecipeVariant

    wanted = target.wanted_definition
    upstream = wanted.get("needs", {})
    try:
        return RecipeVariant(
            Definition(
                recipe=target.recipe,
                variant=target.variant,
                endpoint="",
                model=None,
                instructions=wanted.get("instructions"),
                input=wanted.get("input"),
                prompt=wanted.get("prompt"),
                parameters={},
                for_all=wanted.get("for") == "all",
                upstream=upstream,
                needs_parsed=frozenset(upstream),
            )
        ).used_columns
    except TemplateError:  # it did compile once: everything that changed is shown
        return None


def _target_lines(target: TargetHistory) -> Iterator[str]:
    from bioforge.cli.format import named, table, value, when
    from bioforge.core.reasons import Reason
    from bioforge.core.text import money
    from bioforge.planner.diff import column_changes, definition_changes

    state = "fresh" if target.reason is None else target.reason
    notes = []
    if target.reason is None and target.accepted:
        notes.append("accepted by hand")
    if target.built_at is not None:
        by = f" by {target.answered_by}" if target.answered_by else ""
        notes.append(f"answered{by} {when(target.built_at)}")
    if target.held:
        notes.append("held back: paid for and not usable, -B asks again")
    print_state = state if target.reason in (None, Reason.CHANGED) or not target.detail else f"{state}: {target.detail}"
    yield f"  {named(target.recipe, target.variant)}: {print_state}" + (f"  ({'; '.join(notes)})" if notes else "")
    if target.reason not in (None, Reason.REMOVED) and target.built_definition is not None:
        changes = list(definition_changes(target.built_definition, target.wanted_definition))
        if target.built_row is not None:
            changes += column_changes(target.built_row, target.wanted_row, _used_columns(target))
        changes += _needed_changes(target)
        for change in changes:
            if change.part == "dialect":
                yield f"    {change.short()}"
                continue
            yield f"    {change.part}"
            yield from _indented("old", value(change.old))
            yield from _indented("new", value(change.new))
    if target.attempts:
        rows = [["    attempt", "run", "started", "seconds", "worker", "outcome", "paid", "cost", "reason", ""]]
        for attempt in target.attempts:
            problem = attempt.error_class or ""
            rows.append(
                [
                    f"    {attempt.number}",
                    str(attempt.run),
                    when(attempt.started_at),
                    "-" if attempt.seconds is None else f"{attempt.seconds:.2f}",
                    attempt.worker or "-",
                    f"{attempt.outcome}: {problem}" if problem and problem != attempt.outcome else attempt.outcome,
                    attempt.paid,
                    "-" if attempt.cost_usd is None else money(attempt.cost_usd),
                    attempt.reason or "-",
                    attempt.request_id or "",
                ]
            )
        yield from table(rows, right=(3, 7))


def _needed_changes(target: TargetHistory) -> Iterator[Change]:
    """The answers of needed recipes that differ."""
    from bioforge.planner.diff import Change

    before, now = target.built_upstream or {}, target.wanted_upstream or {}
    for need in now:
        if now[need] is not None and before.get(need) != now[need]:
            yield Change(f"answer of {need}", before.get(need), now[need])


def _indented(label: str, text: str) -> Iterator[str]:
    first, *rest = text.splitlines() or [""]
    yield f"      {label}: {first}"
    for line in rest:
        yield f"           {line}"

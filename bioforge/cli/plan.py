"""`plan` and `why`: stale targets with their price, and the reason for each."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioforge.cli.errors import command, echo, show, stdout_screen
from bioforge.cli.options import (
    FileOption,
    RecipesArgument,
    SafeOption,
    SelectOption,
    check_destination,
    check_format,
    load,
    open_project,
    parse_seconds,
    recipe_order,
)
from bioforge.core.errors import EXIT_FAILED, EXIT_OK, OutputError, TemplateError, UsageError, nearest

if TYPE_CHECKING:
    from bioforge.engine.project import OpenProject
    from bioforge.planner.diff import Change
    from bioforge.report.console import Screen
    from bioforge.store import Selection, Store
    from bioforge.store.explain import TargetHistory


@command
def plan(
    recipes: RecipesArgument = None,
    file: FileOption = None,
    safe: SafeOption = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "-q",
            "--quiet",
            help="Print nothing. Exit 0: all fresh; 1: something is stale; 2: error.",
        ),
    ] = False,
    what_if: Annotated[
        str | None,
        typer.Option("-W", "--what-if", metavar="COLUMN", help="Show what would be stale if this column changed."),
    ] = None,
    select: SelectOption = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Plan at most N targets.")] = None,
    backend: Annotated[str | None, typer.Option("--backend", metavar="NAME", help="Plan for this backend.")] = None,
    concurrency: Annotated[
        int | None, typer.Option("-j", "--concurrency", metavar="N", help="Plan for this many requests at once.")
    ] = None,
    max_cost: Annotated[float | None, typer.Option("--max-cost", metavar="USD", help="Plan for this budget.")] = None,
    deadline: Annotated[
        str | None, typer.Option("--deadline", metavar="TIME", help="Plan for a run of at most this time, like 2h.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the plan for `run --plan`.")] = None,
    graph: Annotated[bool, typer.Option("--graph", help="Draw the recipes with what they need.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="A bad row in the input is an error.")] = False,
    format: Annotated[str, typer.Option("--format", metavar="text|json", help="How to print it.")] = "text",
) -> int:
    """Show what a run would send, why, and its price. Sends nothing."""
    from bioforge.cli.format import json_text, plan_fields, plan_lines
    from bioforge.core.progress import no_progress
    from bioforge.core.text import plural
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
            echo(f"plan of {plural(number, 'target')} written to {out}; `bioforge run --plan {out}` does exactly this")
        if graph:
            _graph(store, project, selection, format)
        elif quiet:
            pass
        elif format == "json":
            print(json_text(plan_fields(project, planned)))
        else:
            show(plan_lines(store, project, planned, stdout_screen()))
    return EXIT_FAILED if planned.priced and quiet else EXIT_OK


def _graph(store: Store, project: OpenProject, selection: Selection, format: str) -> None:
    from dataclasses import asdict

    from bioforge.cli.format import json_text
    from bioforge.cli.graph import graph_lines, graph_nodes

    nodes = graph_nodes(store, project, selection.recipes)
    if format == "json":
        print(json_text({"recipes": [asdict(node) for node in nodes]}))
    else:
        show(graph_lines(nodes, stdout_screen()))


def _what_if(store: Store, project: OpenProject, selection: Selection, column: str, format: str) -> int:
    """Print the targets that would be stale: all of every recipe whose templates read the column."""
    from bioforge.cli.format import format_recipe, json_text
    from bioforge.core.text import money, plural
    from bioforge.readers.rows import ColumnMap
    from bioforge.recipes.template import OWN_NAMES
    from bioforge.report.console import table
    from bioforge.store import artists, stale_counts

    changed = ColumnMap.of(project.input_spec.options.get("columns", {})).derived_names(column)
    known = {*artists.columns(store), *OWN_NAMES} | (changed if len(changed) > 1 else set())
    if column not in known:
        raise UsageError(
            f"-W {column}: the input has no such column",
            nearest(column, known) or f"columns are: {', '.join(sorted(known))}",
        )
    estimator, rows, groups = project.estimator(store), [], []
    for recipe_variant in project.recipe_variants:
        recipe, variant = recipe_variant.key
        if recipe not in selection.recipes:
            continue
        used = recipe_variant.used_columns is None or not changed.isdisjoint(recipe_variant.used_columns)
        group = stale_counts.as_if_changed(store, selection, recipe, variant, column) if used else None
        priced = None if group is None else estimator.price([group])[0]
        number = 0 if priced is None else priced.group.targets
        cost = 0.0 if priced is None else priced.cost_usd
        groups.append({"recipe": recipe, "variant": variant, "targets": number, "cost_usd": cost})
        rows.append(
            [
                format_recipe(recipe, variant),
                f"{number:,}",
                money(cost) if number else "-",
                "" if used else "does not read this column",
            ]
        )
    if format == "json":
        print(json_text({"column": column, "groups": groups}))
    else:
        show([f"if {column} changed for all {plural(stale_counts.total_artists(store), 'artist')}:"])
        heads = ["recipe", "stale", "price", ""]
        show(table([heads, *rows], right=(1, 2), screen=stdout_screen(), drop=(3,)))
    return EXIT_OK


@command
def why(
    artist_id: Annotated[str, typer.Argument(metavar="ID", help="The artist's id.")],
    file: FileOption = None,
    format: Annotated[str, typer.Option("--format", metavar="text|json", help="How to print it.")] = "text",
) -> int:
    """Show why an artist's targets are fresh or stale.

    With old and new values, and all attempts.
    """
    from dataclasses import asdict

    from bioforge.store import Store
    from bioforge.store.explain import history, ids_like

    check_format(format, ("text", "json"))
    config = load(file)
    with Store.read(config.state_path) as store:
        artist = history(store, artist_id)
        if artist is None:
            near = [f"{identity} ({name})" for identity, name in ids_like(store, artist_id)]
            raise UsageError(
                f"no artist with the id {artist_id!r}",
                f"did you mean {', '.join(near)}?"
                if near
                else "ids are in the first column of `bioforge export -F csv`",
            )
    name, source, line, removed, targets = artist
    order = {recipe: place for place, recipe in enumerate(recipe_order(config))}
    targets.sort(key=lambda target: order.get(target.recipe, len(order)))
    from bioforge.cli.format import format_time, json_text

    if format == "json":
        print(
            json_text(
                {
                    "artist_id": artist_id,
                    "artist_name": name,
                    "source": source,
                    "line": line,
                    "removed": removed is not None,
                    "targets": [asdict(target) for target in targets],
                }
            )
        )
        return EXIT_OK
    screen = stdout_screen()
    gone = f"; removed from the input {format_time(removed)}" if removed is not None else ""
    place = f"  ({source}:{line}{gone})" if source else ""
    show([f"{artist_id}  {name}{place}"])
    for target in targets:
        show(_target_lines(target, screen))
    if not targets:
        show(["  no targets yet: `bioforge plan` or `bioforge run` plans them"])
    sys.stdout.flush()
    return EXIT_OK


def _used_columns(target: TargetHistory) -> frozenset[str] | None:
    """Return the columns that the target's planned templates read; None if any column may count."""
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
    except TemplateError:  # the template compiled once; show every change
        return None


def _target_lines(target: TargetHistory, screen: Screen) -> Iterator[str]:
    from bioforge.cli.format import format_recipe, format_time, format_value
    from bioforge.core.reasons import Reason
    from bioforge.core.text import money, printable
    from bioforge.planner.diff import column_changes, definition_changes
    from bioforge.report.console import Clean, table

    state = "fresh" if target.reason is None else target.reason
    notes = []
    if target.reason is None and target.accepted:
        notes.append("accepted by hand")
    if target.built_at is not None:
        by = f" by {target.answered_by}" if target.answered_by else ""
        notes.append(f"answered{by} {format_time(target.built_at)}")
    if target.held:
        notes.append("held back: not usable; only -B sends it again")
    state = state if target.reason in (None, Reason.CHANGED) or not target.detail else f"{state}: {target.detail}"
    name, shown = format_recipe(target.recipe, target.variant), screen.paint_reason(state)
    yield Clean(f"  {printable(name)}: {shown}" + printable(f"  ({'; '.join(notes)})" if notes else ""))
    if target.reason not in (None, Reason.REMOVED) and target.built_definition is not None:
        changes = list(definition_changes(target.built_definition, target.wanted_definition))
        if target.built_row is not None:
            changes += column_changes(target.built_row, target.wanted_row, _used_columns(target))
        changes += _upstream_changes(target)
        for change in changes:
            if change.part == "dialect":
                yield f"    {change.short()}"
                continue
            yield f"    {change.part}"
            yield from _indented("old", format_value(change.old))
            yield from _indented("new", format_value(change.new))
    if target.attempts:
        rows = [["    attempt", "run", "started", "seconds", "worker", "outcome", "paid", "cost", "reason", ""]]
        for attempt in target.attempts:
            problem = attempt.error_class or ""
            rows.append(
                [
                    f"    {attempt.number}",
                    str(attempt.run),
                    format_time(attempt.started_at),
                    "-" if attempt.seconds is None else f"{attempt.seconds:.2f}",
                    attempt.worker or "-",
                    f"{attempt.outcome}: {problem}" if problem and problem != attempt.outcome else attempt.outcome,
                    attempt.paid,
                    "-" if attempt.cost_usd is None else money(attempt.cost_usd),
                    attempt.reason or "-",
                    attempt.request_id or "",
                ]
            )
        yield from table(rows, right=(3, 7), screen=screen, drop=(9, 4, 8, 3, 1, 2), reasons=(5,))


def _upstream_changes(target: TargetHistory) -> Iterator[Change]:
    """Yield the changed answers of upstream recipes."""
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

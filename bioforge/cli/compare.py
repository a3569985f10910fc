"""`compare`: the variants of a recipe side by side."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Annotated

import typer

from bioforge.cli.errors import command, echo, show, stdout_screen
from bioforge.cli.options import FileOption, SelectOption, check_format, complete_recipes, open_names
from bioforge.core.errors import EXIT_OK, UsageError, nearest

if TYPE_CHECKING:
    from bioforge.cli.compare_format import Compared, TableRow
    from bioforge.engine.select import RecipeNames
    from bioforge.evaluation.compare import Summary
    from bioforge.evaluation.scoring import Scorer
    from bioforge.store import Selection, Store


@command
def compare(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="The recipe to compare the variants of.",
            show_default="the only one that has several",
            autocompletion=complete_recipes,
        ),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            "--score",
            metavar="SCORER",
            help="Score answers by module:function, or by a recipe that judges this one.",
            show_default="`score` of the recipe",
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort",
            metavar="WORD",
            help="score, success, cost, latency, length or tokens: the best, cheapest, fastest or shortest first.",
            show_default="the file's order",
        ),
    ] = None,
    select: SelectOption = None,
    format: Annotated[str, typer.Option("--format", metavar="text|json", help="How to print it.")] = "text",
    file: FileOption = None,
) -> int:
    """Show the variants of a recipe side by side.

    The columns are success, length, tokens, cost, latency and score. Works during a run.
    """
    from bioforge.cli.compare_format import as_json, lines, warnings
    from bioforge.cli.format import json_text, unmatched_lines
    from bioforge.evaluation.compare import SORTS
    from bioforge.store import Store
    from bioforge.store.variants import read_snapshot

    check_format(format, ("text", "json"))
    if sort is not None and sort not in SORTS:
        known = nearest(sort, SORTS) or f"orders are: {', '.join(SORTS)}"
        raise UsageError(f"--sort {sort}: no such order", known)
    project = open_names(file)
    name = recipe or _only_recipe_with_variants(project, score)
    selection = project.selection((name,), select or ())
    scored_by = score or project.config.recipes[name].score
    if sort == "score" and scored_by is None:
        raise UsageError(f"--sort score: recipe {name!r} has no score", "name a scorer with --score")
    with Store.read(project.config.state_path) as store, read_snapshot(store):
        for line in unmatched_lines(store, selection):
            echo(line)
        with (
            redirect_stdout(sys.stderr),  # output of a scorer is not part of the data
            _scorer(store, project, selection, scored_by, "--score" if score else None) as scorer,
        ):
            found = _compare(store, project, selection, scored_by, scorer, sort)
    if format == "json":
        print(json_text(as_json(found)))
    else:
        show(lines(found, stdout_screen()))
    for line in warnings(found):
        echo(f"warning: {line}")
    return EXIT_OK


def _only_recipe_with_variants(project: RecipeNames, score: str | None) -> str:
    """Return the recipe with variants that judges no other one. Raises `UsageError` unless there is exactly one."""
    judges = {score, *(recipe.score for recipe in project.config.recipes.values())}
    several = [name for name in project.recipes if len(project.variants[name]) > 1 and name not in judges]
    if len(several) == 1:
        return several[0]
    if several:
        raise UsageError(
            f"several recipes have variants: {', '.join(several)}", f"name one: bioforge compare {several[0]}"
        )
    raise UsageError(
        "no recipe has variants to compare",
        "give a recipe several models or prompts: matrix = { model = [ … ] }; or name a recipe to see its numbers",
    )


@contextmanager
def _scorer(
    store: Store, project: RecipeNames, selection: Selection, scored_by: str | None, flag: str | None
) -> Iterator[Scorer | None]:
    """Yield the scorer, None without one. `flag` names the option that it comes from. Raises `UsageError`."""
    from dataclasses import replace

    from bioforge.evaluation.scoring import ByFunction, ByJudge, check_judge, imported
    from bioforge.store.export import records
    from bioforge.store.variants import judgements

    config, (name,) = project.config, selection.recipes
    key = flag or f"{config.path.name}: recipe.{name}.score"
    if scored_by is None:
        yield None
    elif ":" in scored_by:
        with imported(scored_by, config.root, key) as function:
            yield ByFunction(function, records(store, selection), config.root)
    else:
        check_judge(scored_by, name, {other: recipe.needs for other, recipe in config.recipes.items()}, key)
        judging = replace(selection, recipes=(scored_by,), reasons=(), variants=())
        yield ByJudge(name, project.variants[name], judgements(store, judging))


def _compare(
    store: Store,
    project: RecipeNames,
    selection: Selection,
    scored_by: str | None,
    scorer: Scorer | None,
    sort: str | None,
) -> Compared:
    from bioforge.cli.compare_format import Compared
    from bioforge.evaluation.compare import Comparison, sort_summaries
    from bioforge.store.variants import measured, spent

    (name,) = selection.recipes
    known, chosen = project.variants[name], set(selection.variants)
    variants = [variant for variant in known if not chosen or (name, variant) in chosen]
    if not variants:
        raise UsageError(f"--select: recipe {name!r} has no such variant", f"variants are: {'; '.join(known[:6])}")
    comparison = Comparison(variants)
    for measurements in measured(store, selection):
        comparison.add(measurements, None if scorer is None else scorer.scores(measurements))
    summaries = comparison.summaries()
    if sort is not None:
        summaries = sort_summaries(summaries, sort)
    return Compared(
        project=project.config.project.name,
        recipe=name,
        artists=None if project.config.recipes[name].scope == "all" else comparison.artists,
        first=comparison.variants[0],
        rows=_rows(summaries, variants, spent(store, selection)),
        others=len(comparison.others),
        scored_by=scored_by,
        problems=0 if scorer is None else scorer.problems,
        first_problem="" if scorer is None else scorer.first_problem,
        simulated=project.config.simulated,
    )


def _rows(summaries: Sequence[Summary], variants: Sequence[str], spent: Mapping[str, float]) -> list[TableRow]:
    """Return a row for each variant: its samples together, with the money spent on all of them."""
    from bioforge.cli.compare_format import TableRow
    from bioforge.recipes.variants import without_samples

    samples = Counter(map(without_samples, variants))
    totals: dict[str, float] = {}
    for variant, usd in spent.items():
        name = without_samples(variant)
        totals[name] = totals.get(name, 0.0) + usd
    return [TableRow(found, samples[found.variant], totals.get(found.variant)) for found in summaries]

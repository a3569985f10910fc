"""`status` and `audit`: counts by recipe, runs, batches, and the money ledger."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bioforge.cli.errors import command, show, stdout_screen
from bioforge.cli.options import FileOption, check_format, load, recipe_order
from bioforge.core.errors import EXIT_FAILED, EXIT_OK

if TYPE_CHECKING:
    from bioforge.config.loader import ProjectConfig
    from bioforge.report.console import Screen
    from bioforge.store import Store
    from bioforge.store.ledger import CostLedger

FormatOption = Annotated[str, typer.Option("--format", metavar="text|json", help="How to print it.")]


@command
def status(
    file: FileOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Repeat every 2 seconds until Ctrl-C.")] = False,
    format: FormatOption = "text",
) -> int:
    """Show counts by recipe and reason, runs and money.

    Counts are those of the last plan or run. Works during a run.
    """
    from bioforge.cli.format import json_text
    from bioforge.store import Store

    check_format(format, ("text", "json"))
    config = load(file)
    while True:
        with Store.read(config.state_path) as store:
            found = _collect(store, config)
        if format == "json":
            print(json_text(found, indent=None if watch else 2))
        else:
            if watch and sys.stdout.isatty():
                print("\x1b[H\x1b[2J", end="")
            show(_status_lines(found, stdout_screen()))
        if not watch:
            return EXIT_OK
        sys.stdout.flush()
        time.sleep(2)


def _collect(store: Store, config: ProjectConfig) -> dict[str, object]:
    from dataclasses import asdict

    from bioforge.store import artists as artists_store
    from bioforge.store import batches, runs, stale_counts
    from bioforge.store.ledger import money_of

    artists = stale_counts.total_artists(store)
    names = dict.fromkeys((*recipe_order(config), *stale_counts.recipes(store)))
    bad, _ = artists_store.bad_rows(store)
    recipes = []
    for name in names:
        known = config.recipes.get(name)
        each = 1 if known is not None and known.scope == "all" else artists
        for standing in stale_counts.variant_counts(store, name):
            recipes.append(
                {
                    "recipe": name,
                    "variant": standing.variant,
                    "in_project": known is not None,
                    "fresh": standing.planned - sum(standing.stale.values()),
                    "stale": standing.stale,
                    "held": standing.held,
                    "unplanned": max(0, each - standing.planned) if known is not None else 0,
                }
            )
    return {
        "project": config.project.name,
        "state": str(config.state_path),
        "artists": artists,
        "removed": stale_counts.removed_artists(store),
        "bad_rows": bad,
        "recipes": recipes,
        "money": asdict(money_of(store)),
        "simulated": config.simulated,
        "batches": [
            asdict(shown.batch) | {"run": shown.run, "backend": shown.backend, "provider": shown.provider}
            for shown in batches.newest(store, open_only=True)
        ],
        "runs": [
            asdict(run) | ({} if run.alive or run.ended_at is not None else {"state": "crashed"})
            for run in runs.newest(store)
        ],
    }


def _batch_state(batch: dict[str, Any]) -> str:
    """Return our state, with the provider's where it differs."""
    theirs = (batch["status"] or "").replace("_", " ")
    return str(batch["state"]) if theirs in ("", batch["state"]) else f"{batch['state']} ({theirs})"


def _status_lines(found: dict[str, object], screen: Screen) -> Iterator[str]:
    from bioforge.cli.format import format_age, format_recipe, format_time
    from bioforge.core.text import money, plural
    from bioforge.report.console import table

    artists, removed, bad = found["artists"], found["removed"], found["bad_rows"]
    assert isinstance(artists, int)
    assert isinstance(bad, int)
    extra = (f", {removed:,} removed" if removed else "") + (f", {plural(bad, 'bad row')}" if bad else "")
    yield f"{found['project']}: {plural(artists, 'artist')}{extra}"
    rows = []
    recipes = found["recipes"]
    assert isinstance(recipes, list)
    for recipe in recipes:
        stale = ", ".join(f"{number:,} {reason}" for reason, number in sorted(recipe["stale"].items())) or "-"
        notes = []
        if recipe["held"]:
            notes.append(f"{recipe['held']:,} held back (not usable)")
        if recipe["unplanned"]:
            notes.append(f"{recipe['unplanned']:,} not planned yet")
        if not recipe["in_project"]:
            notes.append("not in the project file")
        name = format_recipe(recipe["recipe"], recipe["variant"])
        rows.append([name, f"{recipe['fresh']:,}", stale, "; ".join(notes)])
    yield from table([["recipe", "fresh", "stale", ""], *rows], right=(1,), screen=screen)
    spent = found["money"]
    assert isinstance(spent, dict)
    note = ", simulated: nothing was charged" if found["simulated"] else ""
    unpriced = f", {spent['unpriced']:,} answers of unknown price" if spent["unpriced"] else ""
    yield f"spent: {money(spent['cost_usd'])} for {plural(spent['paid'], 'answer')}{unpriced}{note}"
    if spent["maybe_paid"]:
        yield f"maybe paid: {plural(spent['maybe_paid'], 'attempt')} (see `bioforge audit`)"
    runs = found["runs"]
    assert isinstance(runs, list)
    open_batches = found["batches"]
    assert isinstance(open_batches, list)
    rows = [
        [
            batch["batch_id"] or batch["key"],
            _batch_state(batch),
            f"{batch['completed'] + batch['failed']:,}/{batch['requests']:,}",
            batch["model"],
            format_age(batch["submitted_at"] or batch["prepared_at"]),
            format_time(batch["expires_at"]),
        ]
        for batch in open_batches
    ]
    if rows:
        heads = ["open batch", "state", "done", "model", "submitted", "expires"]
        yield from table([heads, *rows], right=(2,), screen=screen, drop=(3, 5, 4), reasons=(1,))
    rows = [
        [
            str(run["id"]),
            run["state"] + (f" ({run['stopped_by']})" if run["stopped_by"] not in (None, run["state"]) else ""),
            format_age(run["started_at"]),
            run["backend"] or "-",
            "-" if run["succeeded"] is None else f"{run['succeeded']:,}",
            "-" if run["failed"] is None else f"{run['failed']:,}",
            "-" if run["cost_usd"] is None else money(run["cost_usd"]),
            f"bioforge {run['command']}",
        ]
        for run in runs
    ]
    if rows:
        heads = ["run", "state", "started", "backend", "answers", "failed", "cost", "command"]
        yield from table([heads, *rows], right=(0, 4, 5, 6), screen=screen, drop=(3, 7, 2), reasons=(1,))


@command
def audit(file: FileOption = None, format: FormatOption = "text") -> int:
    """Show the money ledger.

    It has the attempts by outcome, and what was paid, maybe paid, paid twice or lost.
    """
    from dataclasses import asdict

    from bioforge.cli.format import json_text
    from bioforge.store import Store
    from bioforge.store.ledger import ledger

    check_format(format, ("text", "json"))
    config = load(file)
    with Store.read(config.state_path) as store:
        store.check_pages()
        found = ledger(store)
    if format == "json":
        print(json_text(asdict(found)))
    else:
        show(_audit_lines(found, stdout_screen(), simulated=config.simulated))
    return EXIT_FAILED if found.paid_twice or found.lost else EXIT_OK


def _batch_lines(found: CostLedger) -> Iterator[str]:
    """Yield the tokens that providers billed for batches, and the batches whose answers differ from the bill."""
    from bioforge.core.text import plural

    billed_batches = [batch for batch in found.batches if batch.billed is not None]
    if billed_batches:
        differing = [batch for batch in billed_batches if batch.differs]
        same = "the answers add up as billed" if not differing else f"the answers of {len(differing)} do not add up:"
        billed = sum(batch.billed.input_tokens + batch.billed.output_tokens for batch in billed_batches if batch.billed)
        yield f"batches: {plural(len(billed_batches), 'batch', 'batches')} collected, {billed:,} tokens billed, {same}"
        for batch in differing[:10]:
            assert batch.billed is not None
            yield (
                f"  {batch.batch}: billed {batch.billed.input_tokens:,} in + {batch.billed.output_tokens:,} out, collected"
                f" {batch.collected.input_tokens:,} + {batch.collected.output_tokens:,}"
            )
    if silent := len(found.batches) - len(billed_batches):
        yield f"batches without a bill from the provider: {silent:,}"


def _audit_lines(found: CostLedger, screen: Screen, *, simulated: bool) -> Iterator[str]:
    from bioforge.core.text import money, plural
    from bioforge.report.console import table

    rows = [
        [o.outcome, o.error_class or "-", o.paid, f"{o.attempts:,}", "-" if o.cost_usd is None else money(o.cost_usd)]
        for o in found.outcomes
    ]
    heads = ["outcome", "class", "paid", "attempts", "cost"]
    yield from table([heads, *rows], right=(3, 4), screen=screen, drop=(1,), reasons=(0,))
    unpriced = f" and {plural(found.unpriced, 'answer')} of unknown price" if found.unpriced else ""
    note = " (simulated: nothing was charged)" if simulated else ""
    yield f"paid: {plural(found.paid, 'answer')}, {money(found.cost_usd)}{unpriced}{note}"
    if found.imported:
        yield f"imported: {plural(found.imported, 'answer')} bought elsewhere for {money(found.imported_cost_usd)}"
    if found.in_batches:
        yield f"in open batches: {plural(found.in_batches, 'attempt')}; `bioforge run` collects them"
    yield from _batch_lines(found)
    if found.in_flight:
        yield f"in flight or cut off: {plural(found.in_flight, 'attempt')}; the next run closes those that were cut off"
    if found.maybe_paid:
        most = "" if found.maybe_cost_usd is None else f", at most about {money(found.maybe_cost_usd)}"
        yield f"maybe paid: {plural(found.maybe_paid, 'attempt')} may have been charged (no answer arrived){most}"
        if found.asked_again:
            yield f"  of these, resent: {found.asked_again:,} (`maybe_paid = false` in [retry] never resends them)"
    if found.forced_again:
        yield f"paid again on purpose: {plural(found.forced_again, 'answer')} (-B, forget, or a stricter schema)"
    if found.forgotten:
        yield f"forgotten on purpose: {plural(found.forgotten, 'answer')} (cost: {money(found.forgotten_cost_usd)})"
    unknown = f", maybe paid: {plural(found.maybe_paid, 'attempt')}" if found.maybe_paid else ""
    yield f"rows paid twice: {found.paid_twice:,}, paid answers lost: {found.lost:,}{unknown}"

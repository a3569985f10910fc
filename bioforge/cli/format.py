"""Lines about plans, reasons and states, for people."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from bioforge.core.reasons import Reason
from bioforge.core.text import duration, format_amount, money, plural, printable_json
from bioforge.core.types import UNSUBMITTED
from bioforge.report.console import PLAIN, Screen, table

if TYPE_CHECKING:
    from bioforge.core.interfaces import PurchaseDecision
    from bioforge.engine.project import OpenProject
    from bioforge.engine.types import Plan
    from bioforge.planner.estimate import Priced
    from bioforge.planner.refresh import RefreshResult
    from bioforge.store import Selection, Store

LONGEST_DETAIL = 100
"""Characters of a detail in one line."""

TRIAL = 20
"""Targets of a trial run that gives a real estimate of the output."""


def format_recipe(recipe: str, variant: str) -> str:
    """Return `recipe/variant`, or `recipe` without variants."""
    return f"{recipe}/{variant}" if variant else recipe


def reading_lines(refreshed: RefreshResult) -> Iterator[str]:
    """Yield notes, and the counts of an input that was read; nothing for an unchanged input."""
    for note in refreshed.notes:
        yield f"warning: {note}"
    if refreshed.checked:
        yield (
            f"schema: {plural(refreshed.checked, 'stored answer')} checked again at no cost,"
            f" {refreshed.checked - refreshed.misfits:,} fit, {refreshed.misfits:,} do not"
        )
    reading = refreshed.reading
    if reading is None:
        return
    parts = [
        f"{number:,} {word}"
        for number, word in ((reading.new, "new"), (reading.changed, "changed"), (reading.removed, "removed"))
        if number
    ]
    yield f"input: {plural(reading.artists, 'artist')}" + (f" ({', '.join(parts)})" if parts else "")
    if reading.bad:
        yield f"input: {plural(reading.bad, 'bad row')} left out:"
        for row in reading.examples[:5]:
            yield f"  {row.source}:{row.line}: {row.message}"
        if reading.bad > 5:
            yield f"  … and {reading.bad - 5:,} more (table bad_rows in the state)"


def unmatched_lines(store: Store, selection: Selection) -> Iterator[str]:
    """Yield a warning for each `--select` value that matches no artist: it is probably mistyped."""
    from dataclasses import replace

    from bioforge.store import targets

    for item in selection.ids:
        only = replace(selection, ids=(item,), reasons=(), limit=None, run=None)
        if next(targets.listed(store, only, stale=False), None) is None:
            yield f"warning: no artist of the input matches --select {item}"


def plan_lines(store: Store, project: OpenProject, plan: Plan, screen: Screen = PLAIN) -> Iterator[str]:
    """Yield a plan: the input, stale targets by recipe and reason with their prices, and a line that sums up."""
    from bioforge.store import stale_counts

    priced = plan.priced
    yield from reading_lines(plan.refreshed)
    yield from unmatched_lines(store, plan.selection)
    if not priced:
        name = project.config.project.name
        if plan.selection.everything:
            yield f"{name}: everything is up to date ({plural(stale_counts.total_artists(store), 'artist')}); nothing to send"
        else:
            yield f"{name}: nothing to do for this selection"
        return
    rows = []
    names = {item.batch.key: item.batch.name for item in plan.batches}
    for item in priced:
        group = item.group
        price = money(item.cost_usd) if group.requests else "-"
        detail = format_detail(names.get(group.detail or "", group.detail))
        rows.append([format_recipe(group.recipe, group.variant), group.reason, f"{group.targets:,}", price, detail])
    heads = ["recipe", "reason", "targets", "price", "detail"]
    yield from table([heads, *rows], right=(2, 3), screen=screen, drop=(4,), reasons=(1,))
    yield from _misfit_lines(store, plan)
    yield from _unsent_lines(plan)
    yield from batch_lines(plan)
    if plan.choice is not None and (plan.requests or plan.batches):
        requests = plan.requests + sum(item.batch.requests for item in plan.batches)
        yield from _choice_lines(plan.choice, requests, screen)
    yield _total_line(plan, simulated=project.config.simulated) if plan.requests else "nothing new to send"


def plan_fields(project: OpenProject, planned: Plan) -> dict[str, object]:
    """Return a plan as `plan --format json` prints it and JSON logs carry it."""
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


def _unsent_lines(plan: Plan) -> Iterator[str]:
    """Yield the stale targets that a run does not send, or not at once."""
    groups = [item.group for item in plan.priced]
    if held := sum(group.held for group in groups if (info := Reason(group.reason).info).sent and not info.optional):
        yield f"{plural(held, 'target')} held back (not usable); only -B sends them again, and may pay again"
    if unclear := sum(group.held for group in groups if group.reason == Reason.MAYBE_PAID):
        yield f"{plural(unclear, 'target')} may have been charged and will not be resent (`maybe_paid = false` in [retry])"
    if broken := sum(group.unrenderable for group in groups):
        yield f"{plural(broken, 'target')} cannot be rendered: fix the template or the row"
    if waiting := sum(group.requests for group in groups if group.reason == Reason.UPSTREAM):
        wait, they = ("waits", "it is") if waiting == 1 else ("wait", "they are")
        yield f"{plural(waiting, 'target')} {wait} for another recipe; {they} sent only if its answer changes"


def _total_line(plan: Plan, *, simulated: bool) -> str:
    """Return the number of requests and their price: a ceiling, where the length of answers is not known yet."""
    sent = [item for item in plan.priced if item.group.requests]
    ceiling = any(item.at_limit for item in sent)
    about = "at most about" if ceiling and not any(item.unlimited_searches for item in sent) else "about"
    price = "at an unknown price" if plan.cost_usd is None else f"for {about} {money(plan.cost_usd)}"
    tokens = f"{sum(p.input_tokens for p in sent):,} + {sum(p.output_tokens for p in sent):,} tokens"
    notes = [f"{tokens}, {counted_words(sent)}"]
    if ceiling:
        trial = f": use `run --limit {TRIAL}` for a real estimate" if plan.requests > TRIAL else ""
        notes.append(f"output at its limit{trial}")
    if any(item.unlimited_searches for item in sent):
        notes.append("web searches have no limit, one for each request is counted: set max_tool_calls")
    if simulated:
        notes.append("simulated: nothing is charged")
    return f"{plural(plan.requests, 'request')} will be sent {price} ({'; '.join(notes)})"


def _misfit_lines(store: Store, plan: Plan, most: int = 5) -> Iterator[str]:
    """Yield the answers that no longer fit a schema that became stricter, with their errors."""
    from dataclasses import replace
    from itertools import islice

    from bioforge.store import targets

    number = sum(item.group.targets for item in plan.priced if item.group.reason == Reason.INVALID)
    if not number:
        return
    yield f"{plural(number, 'answer')} no longer {'fits its' if number == 1 else 'fit their'} schema:"
    for target in islice(targets.listed(store, replace(plan.selection, reasons=(Reason.INVALID,))), most):
        recipe = format_recipe(target.recipe, target.variant)
        yield f"  {target.artist_id} ({recipe}): {format_detail(target.detail)}"
    if number > most:
        yield f"  … and {number - most:,} more: `bioforge why ID`, or `bioforge run -v` for all"


def counted_words(priced: Sequence[Priced]) -> str:
    """Return how the tokens were counted: estimated or by which encoding, and corrected by how many answers."""
    from bioforge.recipes.tokens import ESTIMATED

    sent = [item for item in priced if item.group.requests]
    used = {item.counting for item in sent}
    answers = sum(observed.answers for observed in {item.corrected for item in sent if item.corrected is not None})
    corrected = f"corrected by {plural(answers, 'answer')}" if answers else ""
    if len(used) != 1 or ESTIMATED in used:
        return f"estimated and {corrected}" if corrected else "estimated"
    (counting,) = used
    nearest = "" if counting.exact else ", the nearest known"
    words = f"input counted with {counting.name}{nearest}"
    return f"{words}, and {corrected}" if corrected else words


def batch_lines(plan: Plan) -> Iterator[str]:
    """Yield the open batches: prepared, at the provider, or out of reach."""
    unsent = [item.batch for item in plan.batches if item.batch.state in UNSUBMITTED]
    if unsent:
        known = [batch.estimated_usd for batch in unsent if batch.estimated_usd is not None]
        price = f"for about {money(sum(known))}" if len(known) == len(unsent) else "at an unknown price"
        requests = plural(sum(batch.requests for batch in unsent), "request")
        yield (
            f"{plural(len(unsent), 'batch', 'batches')} with {requests}, prepared by an earlier run and not known to have"
            f" been sent: sent now {price}"
        )
    sent = [item for item in plan.batches if item.batch not in unsent]
    if sent:
        requests = plural(sum(item.batch.requests for item in sent), "request")
        yield (
            f"{plural(len(sent), 'open batch', 'open batches')} with {requests}, not sent again; a run collects the"
            " results that are ready, and resends only requests that come back without an answer"
        )
    yield from unreachable_batch_lines(plan)


def unreachable_batch_lines(plan: Plan) -> Iterator[str]:
    """Yield warnings about open batches whose backend is not installed or that another provider has."""
    for backend, number in sorted(Counter(item.backend for item in plan.unusable).items()):
        yield (
            f"warning: {plural(number, 'open batch', 'open batches')} of the backend {backend!r}, which is not installed:"
            " install its plugin to collect the results, or give up with `bioforge batch abandon`"
        )
    for (backend, place), number in sorted(Counter((item.backend, item.provider) for item in plan.elsewhere).items()):
        yield (
            f"warning: {plural(number, 'open batch', 'open batches')} of the backend {backend!r} at {place}: set base_url"
            " back to collect the results, or give up with `bioforge batch abandon`"
        )


def _choice_lines(choice: PurchaseDecision, requests: int, screen: Screen) -> Iterator[str]:
    """Yield the options of a backend that has several, with price and time, and its decision."""
    rows = [
        [
            "→" if way.name == choice.way else "",
            way.name,
            money(way.cost_usd),
            "up to 24 h" if way.name == "batch" and way.seconds >= 86_400 else f"about {duration(way.seconds)}",
            "" if way.note.startswith("up to") else way.note,
        ]
        for way in choice.ways
    ]
    yield from table([["", "way", "price", "time", ""], *rows], right=(2,), screen=screen, drop=(4,))
    then = f"; the rest: {choice.then}" if choice.then else ""
    yield f"{choice.way} for {plural(requests, 'request')}: {choice.reason}{then}"


def format_detail(detail: str | None) -> str:
    """Return a detail as one line of at most `LONGEST_DETAIL` characters."""
    return shorten(" ".join((detail or "").split()), LONGEST_DETAIL)


def format_value(item: object) -> str:
    """Return an old or new value as text of at most 400 characters."""
    text = "(nothing)" if item is None else item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
    return shorten(text, 400)


def shorten(text: str, most: int) -> str:
    """Return at most `most` characters of a text, with … where it was cut."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def format_time(seconds: float | None) -> str:
    """Return local time to the second, `-` for None."""
    return "-" if seconds is None else datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def format_age(seconds: float | None) -> str:
    """Return `5 min ago`, `-` for None."""
    if seconds is None:
        return "-"
    age = max(0, int(time.time() - seconds))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if age >= size:
            return f"{age // size} {unit} ago"
    return f"{age} s ago"


def json_text(value: object, indent: int | None = 2) -> str:
    """Return JSON for stdout. Amounts (keys that end with `_usd`) are plain decimals, rounded to ten places."""
    text = json.dumps(_mark_amounts(value), ensure_ascii=False, indent=indent, default=repr)
    return printable_json(_AMOUNT.sub(lambda match: match[1], text))


_MARK = f"usd {os.urandom(8).hex()} "
"""Marks amounts; no text from elsewhere has it."""
_AMOUNT = re.compile(f'"{_MARK}([-0-9.]+)"')


def _mark_amounts(value: object, key: str = "") -> object:
    match value:
        case dict():
            return {name: _mark_amounts(item, str(name)) for name, item in value.items()}
        case list() | tuple():
            return [_mark_amounts(item, key) for item in value]
        case float() if key.endswith("_usd") and math.isfinite(value):
            return f"{_MARK}{format_amount(value)}"
        case _:
            return value

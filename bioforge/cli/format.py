"""Turning what is known into lines: plans, reasons, states."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from bioforge.core.reasons import Reason
from bioforge.core.text import duration, money
from bioforge.core.types import UNSUBMITTED

if TYPE_CHECKING:
    from bioforge.core.interfaces import PurchaseDecision
    from bioforge.engine.project import OpenProject
    from bioforge.engine.types import Plan
    from bioforge.planner.estimate import Priced
    from bioforge.planner.refresh import Refreshed
    from bioforge.store import Selection, Store

CUT = 100


def table(rows: Sequence[Sequence[str]], right: Iterable[int] = (), indent: str = "") -> Iterator[str]:
    """Columns aligned with two spaces between them; `right` are the numbers of right-aligned columns."""
    from rich.cells import cell_len

    rows = [list(map(str, row)) for row in rows]
    widths = [
        max((cell_len(row[i]) for row in rows if i < len(row)), default=0)
        for i in range(max(map(len, rows), default=0))
    ]
    aligned = set(right)
    for row in rows:
        cells = []
        for i, cell in enumerate(row):
            space = " " * (widths[i] - cell_len(cell))
            cells.append(space + cell if i in aligned else cell + space)
        yield (indent + "  ".join(cells)).rstrip()


def count(number: int, word: str, words: str | None = None) -> str:
    return f"{number:,} {word if number == 1 else words or word + 's'}"


def named(recipe: str, variant: str) -> str:
    """A recipe with its variant, as people find it everywhere."""
    return f"{recipe}/{variant}" if variant else recipe


def reading_lines(refreshed: Refreshed) -> Iterator[str]:
    """What reading the input found; nothing when it was untouched."""
    for note in refreshed.notes:
        yield f"warning: {note}"
    if refreshed.checked:
        fit = refreshed.checked - refreshed.misfits
        yield (
            f"schema: {count(refreshed.checked, 'stored answer')} checked again at no cost, {fit:,} fit,"
            f" {refreshed.misfits:,} do not"
        )
    reading = refreshed.reading
    if reading is None:
        return
    parts = [
        f"{number:,} {word}"
        for number, word in ((reading.new, "new"), (reading.changed, "changed"), (reading.removed, "removed"))
        if number
    ]
    yield f"input: {count(reading.artists, 'artist')}" + (f" ({', '.join(parts)})" if parts else "")
    if reading.bad:
        yield f"input: {count(reading.bad, 'bad row')} left out:"
        for row in reading.examples[:5]:
            yield f"  {row.source}:{row.line}: {row.message}"
        if reading.bad > 5:
            yield f"  … and {reading.bad - 5:,} more (table bad_rows in the state)"


def unmatched_lines(store: Store, selection: Selection) -> Iterator[str]:
    """A warning for each `--select` that no artist of the input answers to: most likely it is mistyped."""
    from dataclasses import replace

    from bioforge.store import targets

    for item in selection.ids:
        only = replace(selection, ids=(item,), reasons=(), limit=None, run=None)
        if next(targets.listed(store, only, stale=False), None) is None:
            yield f"warning: no artist of the input matches --select {item}"


def plan_lines(store: Store, project: OpenProject, plan: Plan) -> Iterator[str]:
    """A plan for people: reading, groups with reasons and prices, and one line that sums up."""
    from bioforge.store import stale

    priced = plan.priced
    yield from reading_lines(plan.refreshed)
    yield from unmatched_lines(store, plan.selection)
    if not priced:
        name = project.config.project.name
        if plan.selection.everything:
            yield f"{name}: everything is up to date ({count(stale.total_artists(store), 'artist')}); nothing to send"
        else:
            yield f"{name}: nothing that was selected is stale; nothing to send"
        return
    rows = []
    names = {item.batch.key: item.batch.name for item in plan.batches}
    for item in priced:
        group = item.group
        price = money(item.cost_usd) if group.requests else "-"
        detail = names.get(group.detail or "", group.detail)
        rows.append([named(group.recipe, group.variant), group.reason, f"{group.targets:,}", price, _detail(detail)])
    yield from table([["recipe", "reason", "targets", "price", "what"], *rows], right=(2, 3))
    yield from _misfit_lines(store, plan)
    unclear = sum(item.group.held for item in priced if item.group.reason == Reason.MAYBE_PAID)
    held = sum(
        item.group.held for item in priced if (info := Reason(item.group.reason).info).sent and not info.optional
    )
    broken = sum(item.group.unrenderable for item in priced)
    if held:
        yield f"{count(held, 'target')} held back: paid for and not usable; asking again pays again (-B does)"
    if unclear:
        yield f"{count(unclear, 'target')} not asked again: maybe paid already (`maybe_paid = false` in [retry])"
    if broken:
        yield f"{count(broken, 'target')} cannot be rendered; mend the template or the row"
    if waiting := sum(item.group.requests for item in priced if item.group.reason == Reason.UPSTREAM):
        yield f"{count(waiting, 'target')} of these need others first, and are asked only where those bring something new"
    yield from batch_lines(plan)
    if plan.choice is not None and (plan.requests or plan.batches):
        yield from choice_lines(plan.choice, plan.requests + sum(item.batch.requests for item in plan.batches))
    if not plan.requests:
        yield "nothing new to send"
        return
    price = "at an unknown price" if plan.cost_usd is None else f"for about {money(plan.cost_usd)}"
    tokens = f"{sum(p.input_tokens for p in priced):,} + {sum(p.output_tokens for p in priced):,} tokens"
    simulated = ", simulated: nothing is charged" if project.config.simulated else ""
    yield f"{count(plan.requests, 'request')} to send {price} ({tokens}, {counted_words(priced)}{simulated})"


def _misfit_lines(store: Store, plan: Plan, most: int = 5) -> Iterator[str]:
    """Answers that were good until their schema became stricter: which, and what is wrong with them."""
    from dataclasses import replace
    from itertools import islice

    from bioforge.store import targets

    number = sum(item.group.targets for item in plan.priced if item.group.reason == Reason.INVALID)
    if not number:
        return
    yield f"{count(number, 'answer')} no longer fit their schema:"
    for target in islice(targets.listed(store, replace(plan.selection, reasons=(Reason.INVALID,))), most):
        yield f"  {target.artist_id} ({named(target.recipe, target.variant)}): {_detail(target.detail)}"
    if number > most:
        yield f"  … and {number - most:,} more: `bioforge why ID`, or `bioforge run -v` for all"


def counted_words(priced: Sequence[Priced]) -> str:
    """How far the numbers of tokens can be trusted: what was counted, with what, and what else they rest on."""
    from bioforge.recipes.tokens import ESTIMATED

    asked = [item for item in priced if item.group.requests]
    used = {item.counting for item in asked}
    answers = sum(observed.answers for observed in {item.corrected for item in asked if item.corrected is not None})
    corrected = f"corrected by {count(answers, 'answer')}" if answers else ""
    if len(used) != 1 or ESTIMATED in used:
        return f"estimated and {corrected}" if corrected else "estimated"
    (counting,) = used
    nearest = "" if counting.exact else ", the nearest known"
    words = f"input counted with {counting.name}{nearest}"
    return f"{words}, and {corrected}" if corrected else words


def batch_lines(plan: Plan) -> Iterator[str]:
    """What is open at the provider: asked for, and not asked again."""
    unsent = [item.batch for item in plan.batches if item.batch.state in UNSUBMITTED]
    if unsent:
        known = [batch.estimated_usd for batch in unsent if batch.estimated_usd is not None]
        price = f"for about {money(sum(known))}" if len(known) == len(unsent) else "at an unknown price"
        yield (
            f"{count(len(unsent), 'batch', 'batches')} with {count(sum(batch.requests for batch in unsent), 'request')},"
            f" prepared by an earlier run and not known to have been sent: sent now {price}"
        )
    sent = [item for item in plan.batches if item.batch not in unsent]
    if sent:
        yield (
            f"{count(len(sent), 'open batch', 'open batches')} with"
            f" {count(sum(item.batch.requests for item in sent), 'request')}, not asked again; a run collects what is"
            " ready, and asks again only for what comes back without an answer"
        )
    for backend, number in sorted(Counter(item.backend for item in plan.unusable).items()):
        yield (
            f"warning: {count(number, 'open batch', 'open batches')} of the backend {backend!r}, which is not installed:"
            " install its plugin to collect what is there, or give it up with `bioforge batch abandon`"
        )
    for (backend, place), number in sorted(Counter((item.backend, item.provider) for item in plan.elsewhere).items()):
        yield (
            f"warning: {count(number, 'open batch', 'open batches')} of the backend {backend!r} at {place}: set base_url"
            " back to collect what is there, or give it up with `bioforge batch abandon`"
        )


def choice_lines(choice: PurchaseDecision, requests: int) -> Iterator[str]:
    """How a backend with several ways would buy, each with its price and time, and why."""
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
    yield from table([["", "way", "price", "time", ""], *rows], right=(2,))
    then = f"; what is left over: {choice.then}" if choice.then else ""
    yield f"{choice.way} for {count(requests, 'request')}: {choice.reason}{then}"


def _detail(detail: str | None) -> str:
    if not detail:
        return ""
    line = " ".join(detail.split())
    return line if len(line) <= CUT else line[: CUT - 1] + "…"


def value(item: object, cut: int = 400) -> str:
    """An old or new value in one readable piece."""
    text = "(nothing)" if item is None else item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
    return text if len(text) <= cut else f"{text[: cut - 1]}…"


def when(seconds: float | None) -> str:
    """Local time to the second."""
    return "-" if seconds is None else datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def ago(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    gone = max(0, int(time.time() - seconds))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if gone >= size:
            return f"{gone // size} {unit} ago"
    return f"{gone} s ago"

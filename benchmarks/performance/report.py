"""The page docs/performance.md from results: `python benchmarks/performance/report.py results.json > docs/performance.md`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from performance import words
from performance.answers import typical_size
from performance.comparison import BATCH_ONLY
from performance.findings import figure, goal

Table = Mapping[str, Any]

TITLES = {
    "async-zero-latency": "async, every answer durable, a server that answers at once",
    "async-slow-answers": "async, 1 s median latency, 256 in flight, 5% faults",
    "threads": "threads, a server that answers at once",
    "first-plan": "first plan",
    "nothing-changed": "nothing changed",
    "one-changed": "one row changed",
    "memory": "memory",
    "batch-lines": "batch: lines written and split",
    "batch-submitted": "batch: created from an untouched CSV",
    "batch-collected": "batch: one result collected",
    "batch-memory": "batch: memory",
    "export": "export as JSONL",
    "start-up": "start",
    "library-default": "library: as it comes",
    "library-64": "library: 64 at once",
    "library-zero-latency": "library: a server that answers at once",
    "library-kept": "library: answers that are known",
    "library-memory": "library: memory",
    "library-start-up": "library: start",
}

REASONS = {
    "async-zero-latency": "All Python runs on one core in either. Of a row's time aiohttp takes about half here, as much as the"
    " whole bare loop; the rest is shared by rendering and hashing the request again, the scheduler, reading, checking and"
    " pricing the answer, and the events. SQLite writes on the other core, beside nginx.",
    "async-slow-answers": "The time of a fault and of the wait after it stands in the denominator; with few rows, so do the"
    " beginning and the end.",
    "threads": "Both are bound by Python's lock; the SDK's part of a call is the larger one in either.",
    "first-plan": "Start and imports count, which a bare script does not have; for few rows they are most of it.",
    "nothing-changed": "Start and imports are most of it.",
    "batch-lines": "Start and imports count, which a bare script does not have; for few rows they are most of it.",
    "batch-collected": "A line is matched with its intent, checked, priced, and written with its attempt, request and target, and"
    " the batch's usage is reconciled with what was billed; the bare script trusts every line and writes one row. Imports, the"
    " SDK's among them, are a sixth of it.",
    "export": "Start and imports count, and each record says what was asked for; for few rows the start is most of it.",
    "library-64": "64 is the most there can be; each answer takes its time on the one core that Python uses.",
}
"""Why a goal was missed, by row; shown only where it was. What has no reason here says so on the page."""


def page(results: Table) -> str:
    return "\n".join(_page(results)).rstrip() + "\n"


def _page(results: Table) -> Iterator[str]:
    yield words.HEAD
    yield from _measured(results)
    if rows := results.get("rows"):
        yield "\n## Numbers to reach\n"
        yield words.GOALS
        yield from _goals(rows)
        yield from _missed(rows)
        yield words.FIGURES
        yield from _figures(rows)
    if sizes := {int(size): jobs for size, jobs in results.get("scale", {}).items() if size.isdigit()}:
        yield words.SCALE
        yield from _scale(sizes)
        yield from _state(sizes)
    if "growth" in results.get("soak", {}):
        yield from _soak(results["soak"])
    if compared := {name: one for name, one in results.get("comparison", {}).items() if isinstance(one, dict)}:
        yield from _comparison(compared)
    yield words.NOT_SAID


def _measured(results: Table) -> Iterator[str]:
    machine, versions = results["machine"], results["versions"]
    yield f"Measured on {machine['date']}:"
    yield ""
    yield f"- {machine['processor']}, {machine['memory']} of memory, {machine['system']}, load {machine['load']} before it began"
    yield f"- disk: {machine['disk']}"
    if machine.get("note"):  # written by hand
        yield f"- {machine['note']}"
    yield f"- {', '.join(f'{name} {text}' for name, text in versions.items())}"
    tools = results.get("comparison", {}).items()
    yield from (f"- {name}: {one['versions']}" for name, one in tools if isinstance(one, dict) and one.get("versions"))
    others: dict[str, list[str]] = {}
    for name, record in _records(results.get("rows", {})):
        if record.get("bioforge", versions["bioforge"]) != versions["bioforge"]:
            others.setdefault(record["bioforge"], []).append(f"`{name}`")
    yield from (f"- with bioforge {version}: {', '.join(dict.fromkeys(names))}" for version, names in others.items())


def _records(rows: Table) -> Iterator[tuple[str, Table]]:
    """Name and record, as in the table of titles, small before large."""
    for name in TITLES:
        yield from ((name, rows[name][size]) for size in sorted(rows.get(name, {}), key=int))


def _goals(rows: Table) -> Iterator[str]:
    yield "| what | rows | measured | goal | |"
    yield "|---|---|---|---|---|"
    seen = set()
    for name, record in _records(rows):
        if "broken" in record:
            yield f"| {TITLES[name]} | | not measured: {record['broken']} | | |"
            continue
        if (place := (name, record["rows"])) in seen:
            continue  # a row that takes fewer than it was offered, offered more
        seen.add(place)
        for check in record["checks"]:
            reached = {True: "reached", False: "**not reached**", None: ""}[check.get("reached")]
            asked = goal(check) if "goal" in check else ""
            shown = f"{figure(check['value'], check['unit'])} {check['what']}"
            yield f"| {TITLES[name]} | {_count(record['rows'])} | {shown} | {asked} | {reached} |"


def _count(rows: int) -> str:
    return f"{rows:,}" if rows else ""


def _missed(rows: Table) -> Iterator[str]:
    missed: dict[str, list[str]] = {}
    for name, record in _records(rows):
        for check in record.get("checks", ()):
            if check.get("reached") is False:
                where = f" at {record['rows']:,}" if record["rows"] else ""
                shown = f"{figure(check['value'], check['unit'])}{where} for {goal(check)}"
                missed.setdefault(name, []).append(shown)
    if not missed:
        yield words.ALL_REACHED
        return
    yield words.MISSED
    for name, figures in missed.items():
        why = REASONS.get(name, "no reason is known yet.")
        yield f"- **{TITLES[name]}** ({'; '.join(dict.fromkeys(figures))}): {why}"


def _figures(rows: Table) -> Iterator[str]:
    for name, record in _records(rows):
        if details := record.get("details"):
            shown = "; ".join(f"{what} {_value(value)}" for what, value in details.items())
            where = f" at {record['rows']:,}" if record["rows"] else ""
            yield f"- {TITLES[name]}{where}: {shown}"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    if isinstance(value, int | float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
    return str(value)


def _scale(sizes: Mapping[int, Table]) -> Iterator[str]:
    order = sorted(sizes)
    factor = order[-1] / order[0]
    last = f"rows × {factor:g}: seconds, memory |" if len(order) > 1 else ""
    yield f"| job | {' | '.join(f'{size:,}' for size in order)} | {last}"
    yield "|---|" + "---|" * (len(order) + bool(last))
    jobs = dict.fromkeys(job for size in order for job in sizes[size])
    for job in jobs:
        cells = [_cell(sizes[size].get(job)) for size in order]
        grown = f"{_grown([sizes[size].get(job) for size in order])} |" if last else ""
        yield f"| {job} | {' | '.join(cells)} | {grown}"
    notes = {
        (job, one["skipped"]): None for size in order for job, one in sizes[size].items() if "skipped" in one
    }  # fmt: skip
    if notes:
        yield ""
        yield from (f"- {job}: {why}" for job, why in notes)


def _cell(figures: Table | None) -> str:
    if figures is None or "skipped" in figures:
        return "–"
    return f"{figures['wall']:,.2f} s, {figures['cpu']:,.2f} s, {figures['peak']:,.0f} MB"


def _grown(cells: Sequence[Table | None]) -> str:
    """From the smallest size to the largest, or empty where one was not measured."""
    first, last = cells[0], cells[-1]
    if first is None or last is None or "skipped" in first or "skipped" in last:
        return ""
    return f"× {last['wall'] / first['wall']:,.1f}, × {last['peak'] / first['peak']:.2f}"


def _state(sizes: Mapping[int, Table]) -> Iterator[str]:
    ways = dict.fromkeys(job for jobs in sizes.values() for job, one in jobs.items() if "state" in one)
    if not ways:
        return
    order = sorted(sizes)
    yield words.STATE.format(bytes=typical_size())
    yield f"| state | {' | '.join(f'{size:,}' for size in order)} |"
    yield "|---|" + "---|" * len(order)
    for way in ways:
        found = ((size, sizes[size].get(way, {}).get("state")) for size in order)
        cells = (f"{state / size:,.0f} ({state / 1e6:,.0f} MB)" if state else "–" for size, state in found)
        yield f"| {way} | {' | '.join(cells)} |"


def _soak(soak: Table) -> Iterator[str]:
    yield words.SOAK.format(rows=soak["rows"])
    yield "| | at a quarter | at the end | at most | growth |"
    yield "|---|---|---|---|---|"
    for name, unit in (("memory", " MB"), ("files", "")):
        figures = (soak["quarter"][name], soak["end"][name], soak["most"][name])
        cells = " | ".join(f"{value:,.0f}{unit}" for value in figures)
        yield f"| {name if name == 'memory' else 'open files'} | {cells} | × {soak['growth'][name]:.2f} |"
    audit = soak["audit"]
    met = ", ".join(f"{name} {number:,}" for name, number in soak["faults"].items())
    yield ""
    yield (
        f"It took {soak['seconds']:,.0f} s and met {met}. `bioforge audit` says: {audit['paid']:,} paid,"
        f" {audit['paid_twice']:,} paid twice, {audit['lost']:,} lost; {audit['maybe_paid']:,} maybe paid, whose answers did"
        " not arrive."
    )


def _comparison(compared: Table) -> Iterator[str]:
    rows = max((one["rows"] for one in compared.values() if "rows" in one), default=0)
    yield words.COMPARISON.format(rows=rows)
    yield "| tool | rows/s | seconds | memory | nothing changed: seconds, requests | one row changed: seconds, requests |"
    yield "|---|---|---|---|---|---|"
    for name, one in compared.items():
        if "broken" in one:
            yield f"| {name} | not measured: {one['broken']} | | | | |"
            continue
        first = one["first"]
        again = [f"{one[stage]['wall']:,.2f}, {one[stage]['requests']:,}" for stage in ("nothing", "one")]
        figures = [f"{one['rate']:,.0f}", f"{first['wall']:,.1f}", f"{first['peak']:,.0f} MB", *again]
        yield f"| {name} | {' | '.join(figures)} |"
    yield words.COMPARED.format(batch_only=" and ".join(BATCH_ONLY)).rstrip()


def main() -> None:
    print(page(json.loads(Path(sys.argv[1]).read_text("utf-8"))), end="")


if __name__ == "__main__":
    main()

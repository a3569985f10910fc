"""The page docs/money-safety.md from results: `python benchmarks/money_safety/report.py results.json > docs/money-safety.md`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import batch_scenarios  # noqa: F401  # registers them
import fault_scenarios  # noqa: F401  # registers them
import words
from scenarios import ALL

Cell = list[dict[str, Any]]
NUMBERS = ("twice", "in_flight", "just", "lost", "wrong", "unfit", "needless", "answered", "rows", "charges")


def total(cell: Cell, name: str) -> int:
    return sum(play.get(name, 0) for play in cell)


def avoidable(cell: Cell) -> int:
    return total(cell, "twice") - total(cell, "in_flight")


def finished(cell: Cell) -> bool:
    return all(play.get("finished", False) for play in cell)


def shown(cell: Cell | None) -> str:
    """`paid twice (in flight) / lost / wrong`, and whether it finished."""
    if cell is None:
        return ""
    if any("broken" in play for play in cell):
        return "not measured"
    twice = f"{total(cell, 'twice')} ({total(cell, 'in_flight')})" if total(cell, "twice") else "0"
    text = f"{twice} / {total(cell, 'lost')} / {total(cell, 'wrong')}"
    if unfit := total(cell, "unfit"):
        text += f", {unfit} unfit"
    if avoidable(cell) or total(cell, "lost") or total(cell, "wrong") or unfit:
        text = f"**{text}**"
    if len(cell) > 1:
        text += f" in {len(cell)}"
    worst = min(cell, key=lambda play: play["answered"] - play["rows"])
    return text if finished(cell) else f"{text}, {worst['answered']} of {worst['rows']} rows"


def page(results: dict[str, Any]) -> str:
    return "\n".join(_page(results)) + "\n"


def _page(results: dict[str, Any]) -> Iterator[str]:
    machine, cells = results["machine"], results["cells"]
    yield words.HEAD
    yield f"Measured on {machine['date']} with Python {machine['python']} on {machine['system']}, shared with other work:"
    yield ""
    yield from (f"- {name}: {version}" for name, version in sorted(_versions(results).items()))
    yield "\n## In short\n"
    yield words.SHORT
    yield from _short(cells, list(results["tools"]))
    for kind, title in (("calls", "One call for each row"), ("batch", "The Batch API")):
        tools = [name for name in results["tools"] if _kind(name) == kind]
        tools = [name for name in tools if any(name in cell for cell in cells.values())]
        yield f"\n## {title}\n"
        if kind == "calls":
            yield words.CELLS
        yield f"| scenario | {' | '.join(tools)} |"
        yield f"|---|{'---|' * len(tools)}"
        for story in ALL.values():
            row = [shown(cells.get(story.name, {}).get(tool)) for tool in tools]
            if any(row):
                yield f"| {story.title} | {' | '.join(row)} |"
    yield words.COUNTED
    yield "\n## Every number of bioforge's that is not 0\n"
    yield words.OURS
    yield _named(cells)
    yield from _ours(cells)
    yield words.OTHERS
    yield "\n## What each scenario does\n"
    yield words.STAGE
    yield from (f"- **{story.title}**: {story.what}" for story in ALL.values() if story.name in cells)
    yield words.NOT_RUN.rstrip()


def _versions(results: dict[str, Any]) -> dict[str, str]:
    """By tool; bioforge once, with the commit."""
    found = {name: text for name, text in results["tools"].items() if not name.startswith("bioforge")}
    return found | {"bioforge": results["machine"]["bioforge"]}


def _short(cells: dict[str, dict[str, Cell]], tools: Sequence[str]) -> Iterator[str]:
    yield "| tool | plays | twice, avoidable | twice, in flight | lost | wrong | unfit | needless requests | unfinished |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for tool in tools:
        own = [cell[tool] for cell in cells.values() if tool in cell]
        own = [cell for cell in own if not any("broken" in play for play in cell)]
        if not own:
            continue
        sums = [sum(total(cell, name) for cell in own) for name in ("in_flight", "lost", "wrong", "unfit", "needless")]
        plays = sum(map(len, own))
        open_ended = sum(not play.get("finished", False) for cell in own for play in cell)
        figures = [plays, sum(map(avoidable, own)), *sums, open_ended]
        yield f"| {tool} | {' | '.join(map(str, figures))} |"


def _named(cells: dict[str, dict[str, Cell]]) -> str:
    own = [cell for row in cells.values() for tool, cell in row.items() if tool.startswith("bioforge")]
    unknown, unnamed = (sum(total(cell, name) for cell in own) for name in ("unknown", "unnamed"))
    return f"In all plays there were {unknown:,} such charges; {unnamed} of them were not in its state.\n"


def _ours(cells: dict[str, dict[str, Cell]]) -> Iterator[str]:
    for name, row in cells.items():
        for tool, cell in row.items():
            if not tool.startswith("bioforge") or any("broken" in play for play in cell):
                continue
            if not any(total(cell, number) for number in ("twice", "lost", "wrong", "unfit", "needless")) and finished(
                cell
            ):
                continue
            yield f"- **{ALL[name].title}, {tool}**: {_explained(cell, tool == words.CAUTIOUS)}"


def _explained(cell: Cell, cautious: bool) -> str:
    twice, in_flight, just = total(cell, "twice"), total(cell, "in_flight"), total(cell, "just")
    sentences = []
    if in_flight:
        also = f" ({just} of them handed over less than a quarter of a second before the end)" if just else ""
        sentences.append(f"{in_flight} paid twice whose first answer nobody could know{also}.")
    if twice > in_flight:
        sentences.append(f"**{twice - in_flight} paid twice although an answer had been handed over.**")
    for number, text in (("lost", "lost"), ("wrong", "wrong"), ("unfit", "unfit"), ("needless", "needless requests")):
        if found := total(cell, number):
            sentences.append(f"**{found} {text}.**")
    if not finished(cell):
        rows = f"{min(play['answered'] for play in cell)} of {cell[0]['rows']} rows"
        told = (
            f"{rows}: the others wait for a decision, as was asked for." if cautious else f"**Not finished: {rows}.**"
        )
        sentences.append(told)
    if unknown := total(cell, "unknown"):
        unnamed = total(cell, "unnamed")
        named = f"**{unnamed} of them are not in its state**" if unnamed else "all are in its state"
        sentences.append(f"Charges whose answer is not certain to have arrived: {unknown}; {named}.")
    said = dict.fromkeys(" ".join(str(play.get("audit", "")).split()) for play in cell)
    sentences.append("`audit`: " + "; ".join(f"“{text}”" for text in said if text) + ".")
    return " ".join(sentences)


def _kind(tool: str) -> str:
    return "batch" if tool in words.BATCH_TOOLS else "calls"


def main() -> None:
    print(page(json.loads(Path(sys.argv[1]).read_text("utf-8"))), end="")


if __name__ == "__main__":
    main()

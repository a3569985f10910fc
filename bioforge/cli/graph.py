"""`plan --graph`: the recipes as a tree, with the stale targets of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bioforge.core.text import plural
from bioforge.report.console import PLAIN, Screen, table

if TYPE_CHECKING:
    from bioforge.engine.project import OpenProject
    from bioforge.store import Store


@dataclass(frozen=True, slots=True)
class Node:
    """A recipe. `targets` counts those of all its variants; `stale` counts them by reason."""

    recipe: str
    needs: tuple[str, ...]
    for_all: bool
    variants: int
    targets: int
    stale: Mapping[str, int]


def graph_nodes(store: Store, project: OpenProject, recipes: Sequence[str]) -> list[Node]:
    """Return a node for each recipe, in the given order."""
    from bioforge.store import stale_counts

    artists = stale_counts.total_artists(store)
    counts = stale_counts.counts(store, recipes)
    nodes = []
    for name in recipes:
        recipe = project.config.recipes[name]
        variants = len(project.variants[name])
        each = 1 if recipe.scope == "all" else artists
        nodes.append(Node(name, tuple(recipe.needs), recipe.scope == "all", variants, variants * each, counts[name]))
    return nodes


def graph_lines(nodes: Sequence[Node], screen: Screen = PLAIN) -> Iterator[str]:
    """Yield a tree: each recipe below the last one it needs, with its other needs beside it."""
    known = {node.recipe for node in nodes}
    children: dict[str, list[Node]] = {"": []}
    for node in nodes:
        needs = [need for need in node.needs if need in known]
        children.setdefault(needs[-1] if needs else "", []).append(node)
    rows = [["recipe", "targets", "fresh", "stale"]]

    def add(node: Node, before: str, branch: str, below: str) -> None:
        stale = ", ".join(f"{number:,} {reason}" for reason, number in sorted(node.stale.items())) or "-"
        fresh = node.targets - sum(node.stale.values())
        rows.append([f"{before}{branch}{_label(node)}", f"{node.targets:,}", f"{fresh:,}", stale])
        inner = children.get(node.recipe, [])
        for number, child in enumerate(inner, start=1):
            last = number == len(inner)
            add(child, before + below, "└─ " if last else "├─ ", "   " if last else "│  ")

    for root in children[""]:
        add(root, "", "", "")
    yield from table(rows, right=(1, 2), screen=screen, drop=(1,))


def _label(node: Node) -> str:
    notes = []
    if node.for_all:
        notes.append("over all artists")
    if node.variants > 1:
        notes.append(plural(node.variants, "variant"))
    if len(node.needs) > 1:
        notes.append(f"also needs {', '.join(node.needs[:-1])}")
    return node.recipe + (f" ({'; '.join(notes)})" if notes else "")

"""Collect the texts of bioforge that people see: messages, hints, help texts and log events.

    python tests/golden/collect.py      # rewrite messages.txt after a deliberate change of wording

A text is a string of three or more words that is not a docstring; a placeholder of an f-string is shown as `{}`. In store/,
whose strings are SQL, only texts of errors count. A changed text shows in the diff of messages.txt.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "bioforge"
MESSAGES = Path(__file__).with_name("messages.txt")


def collect() -> str:
    """Return every text under the name of its module, in the order of the code, one line each."""
    parts = []
    for path in sorted(PACKAGE.rglob("*.py")):
        texts = list(dict.fromkeys(_texts(path)))
        if texts:
            parts.append("\n".join([f"# {path.relative_to(PACKAGE.parent).as_posix()}", *texts, ""]))
    return "\n".join(parts)


def _texts(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text("utf-8"))
    roots: list[ast.AST] = [tree]
    if path.is_relative_to(PACKAGE / "store"):
        roots = [node for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    skipped = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    skipped |= {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    found: list[tuple[int, int, str]] = []
    for node in (node for root in roots for node in ast.walk(root) if id(node) not in skipped):
        if isinstance(node, ast.JoinedStr):
            text = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)  # type: ignore[misc]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        if len(text.split()) > 2:
            found.append(
                (
                    node.lineno,
                    node.col_offset,
                    text.replace("\n", "\\n").encode("utf-8", "backslashreplace").decode("utf-8"),
                )
            )
    return (text for _, _, text in sorted(found))


if __name__ == "__main__":
    MESSAGES.write_text(collect(), "utf-8")

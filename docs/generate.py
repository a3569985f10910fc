"""Writes the generated parts of the pages in this folder: `python docs/generate.py`. A test compares them.

A generated part stands between two comments, `<!-- generated: KIND NAME -->` and `<!-- end -->`, and is one fenced
block: the help of a command as it is printed, or a table of the state as SQLite has it.
"""

from __future__ import annotations

import re
import sqlite3
import tempfile
from contextlib import closing
from functools import cache
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).parent
PART = re.compile(r"<!-- generated: (?P<kind>\w+) ?(?P<name>[\w ]*?) -->\n.*?<!-- end -->", re.DOTALL)


def help_of(command: str) -> str:
    """`bioforge COMMAND --help` in 80 columns; of bioforge itself for an empty name. `batch create` is a command too."""
    from typer.testing import CliRunner

    from bioforge.cli.app import app

    shown: str = CliRunner().invoke(app, [*command.split(), "--help"]).stdout
    return f"```text\n{shown.strip()}\n```"


@cache
def schema() -> dict[str, str]:
    """The statement that makes each table and view of a new state, by name, in the order of their making."""
    from bioforge.store import Store

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bioforge.db"
        Store.open(path).close()
        with closing(sqlite3.connect(path)) as connection:
            rows = connection.execute(
                "SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'view') AND sql IS NOT NULL"
                " AND name NOT LIKE 'sqlite%' AND name NOT LIKE '\\_sqlite%' ESCAPE '\\' ORDER BY rowid"
            )
            return dict(rows.fetchall())


def schema_of(name: str) -> str:
    return f"```text\n{schema()[name]}\n```"


def made_with() -> str:
    """What the form of the help depends on beside bioforge."""
    return f"typer {'.'.join(version('typer').split('.')[:2])}"


def generated(page: str) -> str:
    """A page's text with every generated part made anew."""

    def part(found: re.Match[str]) -> str:
        kind, name = found["kind"], found["name"]
        content = {"help": help_of, "schema": schema_of, "version": lambda _: f"<!-- {made_with()} -->"}[kind](name)
        return f"<!-- generated: {kind}{' ' * bool(name)}{name} -->\n{content}\n<!-- end -->"

    return PART.sub(part, page)


def main() -> None:
    for path in sorted(FOLDER.glob("*.md")):
        text = path.read_text("utf-8")
        if (new := generated(text)) != text:
            path.write_text(new, "utf-8")
            print(f"wrote {path.name}")


if __name__ == "__main__":
    main()

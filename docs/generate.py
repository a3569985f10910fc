"""Writes the generated parts of the pages in this folder: `python docs/generate.py`. A test compares them.

A generated part stands between two comments, `<!-- generated: KIND NAME -->` and `<!-- end -->`, and is one fenced
block: the help of a command as it is printed, a table of the state as SQLite has it, a file of this repository (or a
function or class of it, named after its path), the signatures of a plugin's hooks and values, the attributes of a class
or the events with their fields as a table, or what a plugin that is wrong makes a command say.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import chdir, closing, contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TypeGuard

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent
PART = re.compile(r"<!-- generated: (?P<kind>\w+) ?(?P<name>[\w ./-]*?) -->\n.*?<!-- end -->", re.DOTALL)


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


# ---------------------------------------------------------------------------------------------------------- plugins

LANGUAGES = {".py": "python", ".toml": "toml", ".xml": "xml", ".md": "markdown"}
MISTAKES = {
    "unknown_hook": ("unknown_hook", "plugins", ""),
    "forgotten_mark": ("forgotten_mark", "plugins", ""),
    "import_failure": ("import_failure", "plugins", ""),
    "wrong_type": ("wrong_type", "plugins", ""),
    "failing_hook": ("failing_hook", "plugins", ""),
    "no_version": ("no_version", "plugins", ""),
    "newer_version": ("newer_version", "plugins", ""),
    "claimed_twice": ("claimed_twice", "plugins", ""),
    "claimed_and_used": ("claimed_twice", "plan", 'reader = "csv"'),
    "left_out_and_used": ("no_version", "plan", ""),
    "wrong_row": ("wrong_row", "plan", ""),
    "wrong_option": ("wrong_option", "plan", 'skip = "3"'),
    "unknown_option": ("wrong_option", "plan", "skp = 3"),
}
"""By name: the plugin in examples/plugins/mistakes/, the command that says what is wrong, and what `[input]` has beside a
path."""

_LIST = """
[project]
name = "list"
[provider]
base_url = "simulator"
[input]
path = "painters.list"
{more}
[recipe.bio]
model = "gpt-6-luna"
input = "{{{{ artist_name }}}}"
"""


def file_of(name: str) -> str:
    """A file by its path, or the functions and classes of it that are named after the path."""
    path, *names = name.split()
    text = (ROOT / path).read_text("utf-8")
    if names:
        lines = text.splitlines()
        found = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        starts = {
            one: min([node.lineno, *(mark.lineno for mark in node.decorator_list)]) for one, node in found.items()
        }
        text = "\n\n\n".join("\n".join(lines[starts[one] - 1 : found[one].end_lineno]) for one in names)
    # In these pages `toml` is a project file.
    language = "ini" if path.endswith("pyproject.toml") else LANGUAGES.get(Path(path).suffix, "text")
    return f"```{language}\n{text.strip()}\n```"


def signatures_of(_: str) -> str:
    """The hooks, and what the values that they return are called with."""
    from bioforge.core import interfaces
    from bioforge.plugins import hookspecs
    from bioforge.plugins.manager import HOOKS

    lines = [f"{name}{inspect.signature(getattr(hookspecs, name))}" for name in HOOKS]
    for name in ("Reader", "PathReader", "Writer", "FolderWriter", "PathWriter"):
        call = inspect.signature(getattr(interfaces, name).__call__)
        called = call.replace(parameters=list(call.parameters.values())[1:])
        lines.append(f"{name}{called}")
    lines.append("BackendFactory(context: BackendContext) -> Backend")
    return "```text\n" + "\n".join(line.replace("'", "") for line in lines) + "\n```"


def attributes_of(name: str) -> str:
    """The attributes of a class, with their defaults and what stands below each in `PATH CLASS`."""
    path, one = name.split()
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    (found,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == one]
    lines = ["| attribute | default | says |", "|---|---|---|"]
    for node, told in zip(found.body, found.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and _is_text(told):
            default = "" if node.value is None else ast.unparse(node.value)
            shown = f"`{default}`" if len(default) < 30 else "see `help()`"
            lines.append(f"| `{node.target.id}` | {shown} | {_in_a_row(ast.literal_eval(told.value))} |")
    return "\n".join(lines)


def _is_text(node: ast.stmt) -> TypeGuard[ast.Expr]:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _in_a_row(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def reasons_of(_: str) -> str:
    """Return the table of reasons in Markdown."""
    from bioforge.core.reasons import REASONS

    lines = ["| reason | meaning | a run … | detail |", "|---|---|---|---|"]
    lines += [f"| `{word}` | {info.label} | {info.action} | {info.detail} |" for word, info in REASONS.items()]
    return "\n".join(lines)


def outcomes_of(name: str) -> str:
    """Return one part of the table of outcomes in Markdown."""
    from bioforge.backends.openai.errors import TABLE

    lines = ["| received | class | paid | request | reason |", "|---|---|---|---|---|"]
    for rule in TABLE[name]:
        shown = f"`{rule.error_class}`" if rule.error_class.isidentifier() else rule.error_class
        lines.append(f"| {rule.received} | {shown} | {rule.paid} | {rule.then} | {rule.why} |")
    return "\n".join(lines)


def events_of(_: str) -> str:
    """Every event, with its fields and the first paragraph of what it is."""
    from dataclasses import MISSING, fields
    from typing import get_args

    from bioforge.core import events

    lines = ["| event | fields | says |", "|---|---|---|"]
    for kind in get_args(events.Event):
        names = [f"{field.name}{'' if field.default is MISSING else '=…'}" for field in fields(kind)]
        names = [name for name in names if not name.startswith("followed")]
        said_first = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0]
        lines.append(f"| `{kind.__name__}` | `{', '.join(names)}` | {_in_a_row(said_first)} |")
    return "\n".join(lines)


@cache
def said(name: str) -> str:
    """What the command of a mistake says on stderr, with the plugin installed as `bioforge-list` and no other."""
    from bioforge.testing.processes import invoke

    plugin, command, more = MISTAKES[name]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "bioforge_list.py").write_text((ROOT / f"examples/plugins/mistakes/{plugin}.py").read_text("utf-8"))
        about = root / "bioforge_list-0.1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: bioforge-list\nVersion: 0.1.0\n")
        (about / "entry_points.txt").write_text("[bioforge]\nlist = bioforge_list\n")
        (root / "bioforge.toml").write_text(_LIST.format(more=more))
        (root / "painters.list").write_text("Hilma af Klint\nEl Anatsui\n")
        with _found(folder), chdir(root):
            ran = invoke(command, env={"BIOFORGE_LOAD_PLUGINS": "list"})
    assert ran.code, f"{name}: nothing was wrong"
    assert "Traceback" not in ran.err, ran.err
    return ran.err


@contextmanager
def _found(folder: str) -> Iterator[None]:
    """What is installed in this folder is found first, and forgotten again."""
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)
        sys.modules.pop("bioforge_list", None)


def mistake_of(name: str) -> str:
    return f"```console\n$ bioforge {MISTAKES[name][1]}\n{said(name).strip()}\n```"


def made_with() -> str:
    """What the form of the help depends on beside bioforge."""
    return f"typer {'.'.join(version('typer').split('.')[:2])}"


MAKERS: dict[str, Callable[[str], str]] = {
    "help": help_of,
    "schema": schema_of,
    "version": lambda _: f"<!-- {made_with()} -->",
    "file": file_of,
    "signatures": signatures_of,
    "attributes": attributes_of,
    "reasons": reasons_of,
    "outcomes": outcomes_of,
    "events": events_of,
    "mistake": mistake_of,
}


def generated(page: str) -> str:
    """A page's text with every generated part made anew."""

    def part(found: re.Match[str]) -> str:
        kind, name = found["kind"], found["name"]
        content = MAKERS[kind](name)
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

"""The Python source that decides what a model accepts: what tells a changed validator from an unchanged one.

From the model's class, everything of the same package or project folder that it names, and what that names: base
classes, inner models, types with validators, functions and constants. Compared as text, so a comment inside counts as
well; what is validated again costs nothing.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType
from typing import Any

Place = tuple[str, str]
"""A module, and a name at its top level."""

Segment = tuple[str, ast.stmt]


def reachable_source(model: type) -> list[str]:
    """Source texts in a fixed order. Empty where there are none, as for a model made at run time."""
    near = _Neighbourhood(model.__module__)
    sources: dict[str, _Source] = {}
    found: dict[Place, list[Segment]] = {}
    waiting = [(cls.__module__, cls.__qualname__.partition(".")[0]) for cls in _classes(model)]
    while waiting:
        module, name = waiting.pop()
        if (module, name) in found or module not in sys.modules or not near.has(module):
            continue
        if module not in sources:
            sources[module] = _Source(sys.modules[module])
        source = sources[module]
        found[module, name] = source.segments.get(name, [])
        waiting.extend(source.origins(name))
        for _, statement in found[module, name]:
            waiting.extend(source.named_in(statement))
    return [text for place in sorted(found) for text, _ in found[place]]


def _classes(model: Any) -> Iterator[type]:
    """A model and its bases, and the same of what a generic one was made for."""
    for cls in model.__mro__:
        yield cls
        for part in getattr(cls, "__pydantic_generic_metadata__", {}).get("args", ()):
            if isinstance(part, type):
                yield from _classes(part)


class _Neighbourhood:
    """The modules of one's own: of the same package, or beside it, where that is a folder and no installation."""

    def __init__(self, module: str) -> None:
        self.package = module.partition(".")[0]
        self.folder = _folder(self.package)

    def has(self, module: str) -> bool:
        package = module.partition(".")[0]
        return package == self.package or (self.folder is not None and _folder(package) == self.folder)


def _folder(package: str) -> Path | None:
    """What a package or module was imported from. None for what was installed."""
    module = sys.modules.get(package)
    inside = list(getattr(module, "__path__", ()))
    file = inside[0] if inside else getattr(module, "__file__", None)
    folder = Path(file).resolve().parent if file else None
    return None if folder is None or "site-packages" in folder.parts else folder


class _Source:
    """A module's text, cut into the statements at its top level by the names they define."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.segments: dict[str, list[Segment]] = {}
        self.imported: dict[str, Place] = {}
        self.everything_of: list[str] = []
        try:
            text = inspect.getsource(module)
            tree = ast.parse(text)
        except (OSError, TypeError, SyntaxError):
            return
        lines = text.splitlines(keepends=True)
        for statement in _statements(tree.body):
            if isinstance(statement, ast.ImportFrom):
                self.note_import(statement)
            decorators = getattr(statement, "decorator_list", [])
            first = min([statement.lineno, *(decorator.lineno for decorator in decorators)])
            segment = "".join(lines[first - 1 : statement.end_lineno]).strip(), statement
            for name in dict.fromkeys(_defined(statement)):
                self.segments.setdefault(name, []).append(segment)

    def note_import(self, statement: ast.ImportFrom) -> None:
        home = self.home_of(statement)
        for alias in statement.names:
            if alias.name == "*":
                self.everything_of.append(home)
            else:
                self.imported[alias.asname or alias.name] = home, alias.name

    def home_of(self, statement: ast.ImportFrom) -> str:
        written = "." * statement.level + (statement.module or "")
        try:
            return resolve_name(written, self.module.__package__ or "") if statement.level else written
        except ImportError:  # of no package: a line that has never run
            return ""

    def origins(self, name: str) -> Iterator[Place]:
        """Where a name that this module did not define itself may have come from."""
        if name in self.imported:
            yield self.imported[name]
        elif name not in self.segments:
            yield from ((home, name) for home in self.everything_of)

    def named_in(self, statement: ast.stmt) -> Iterator[Place]:
        """What one of the segments names: `check`, `checks.some`, `"Work"`, or what it imports by itself."""
        for node in ast.walk(statement):
            match node:
                case ast.Name(id=name):
                    yield self.module.__name__, name
                case ast.Constant(value=str(name)) if name.isidentifier():  # an annotation in quotes
                    yield self.module.__name__, name
                case ast.Attribute(value=owner, attr=name) if (module := self.module_of(owner)) is not None:
                    yield module.__name__, name
                case ast.ImportFrom():
                    yield from ((self.home_of(node), alias.name) for alias in node.names)

    def module_of(self, owner: ast.expr) -> ModuleType | None:
        """The module that an expression like `archive.checks` is."""
        match owner:
            case ast.Name(id=name):
                value = vars(self.module).get(name)
            case ast.Attribute(value=outer, attr=name):
                value = vars(self.module_of(outer) or object).get(name)
            case _:
                return None
        return value if isinstance(value, ModuleType) else None


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Those inside a top-level `if` or `try` too."""
    for statement in body:
        match statement:
            case ast.If(body=inner, orelse=other):
                yield from _statements([*inner, *other])
            case (
                ast.Try(body=inner, handlers=handlers, orelse=other, finalbody=last)
                | ast.TryStar(body=inner, handlers=handlers, orelse=other, finalbody=last)
            ):
                caught = [part for handler in handlers for part in handler.body]
                yield from _statements([*inner, *caught, *other, *last])
            case _:
                yield statement


def _defined(statement: ast.stmt) -> Iterator[str]:
    match statement:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield name
        case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    yield node.id
        case _:
            alias = getattr(statement, "name", None)  # `type Year = …`, from Python 3.12 on
            if isinstance(alias, ast.Name):
                yield alias.id

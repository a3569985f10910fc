"""The source code that decides which answers a model accepts, to detect changed validators.

It consists of the model's class and, recursively, everything it names in the same package or project folder: base
classes, inner models, types with validators, functions and constants. It is compared as text, comments included, as
validating answers again costs nothing.
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
"""A module and a top-level name in it."""

Segment = tuple[str, ast.stmt]


def reachable_source(model: type) -> list[str]:
    """Return source texts in a fixed order; empty for a model without source, like one created at run time."""
    project = _Project(model.__module__)
    sources: dict[str, _Source] = {}
    segments: dict[Place, list[Segment]] = {}
    waiting = [(cls.__module__, cls.__qualname__.partition(".")[0]) for cls in _classes(model)]
    while waiting:
        module, name = waiting.pop()
        if (module, name) in segments or module not in sys.modules or not project.has(module):
            continue
        if module not in sources:
            sources[module] = _Source(sys.modules[module])
        source = sources[module]
        segments[module, name] = source.segments.get(name, [])
        waiting.extend(source.origins(name))
        for _, statement in segments[module, name]:
            waiting.extend(source.references(statement))
    return [text for place in sorted(segments) for text, _ in segments[place]]


def _classes(model: Any) -> Iterator[type]:
    """Yield a model, its bases, and those of its generic arguments."""
    for cls in model.__mro__:
        yield cls
        for part in getattr(cls, "__pydantic_generic_metadata__", {}).get("args", ()):
            if isinstance(part, type):
                yield from _classes(part)


class _Project:
    """The modules in the same package, or in the same folder if it is not installed."""

    def __init__(self, module: str) -> None:
        self.package = module.partition(".")[0]
        self.folder = _folder(self.package)

    def has(self, module: str) -> bool:
        package = module.partition(".")[0]
        return package == self.package or (self.folder is not None and _folder(package) == self.folder)


def _folder(package: str) -> Path | None:
    """Return the folder of a package or module; None if it is installed."""
    module = sys.modules.get(package)
    inside = list(getattr(module, "__path__", ()))
    file = inside[0] if inside else getattr(module, "__file__", None)
    folder = Path(file).resolve().parent if file else None
    return None if folder is None or "site-packages" in folder.parts else folder


class _Source:
    """The top-level statements of a module by the names they define."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.segments: dict[str, list[Segment]] = {}
        self.imported: dict[str, Place] = {}
        self.star_imports: list[str] = []
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
            for name in dict.fromkeys(_defined_names(statement)):
                self.segments.setdefault(name, []).append(segment)

    def note_import(self, statement: ast.ImportFrom) -> None:
        home = self.module_of_import(statement)
        for alias in statement.names:
            if alias.name == "*":
                self.star_imports.append(home)
            else:
                self.imported[alias.asname or alias.name] = home, alias.name

    def module_of_import(self, statement: ast.ImportFrom) -> str:
        written = "." * statement.level + (statement.module or "")
        try:
            return resolve_name(written, self.module.__package__ or "") if statement.level else written
        except ImportError:  # a relative import outside a package, never executed
            return ""

    def origins(self, name: str) -> Iterator[Place]:
        """Yield the places that a name may have been imported from."""
        if name in self.imported:
            yield self.imported[name]
        elif name not in self.segments:
            yield from ((home, name) for home in self.star_imports)

    def references(self, statement: ast.stmt) -> Iterator[Place]:
        """Yield the places that a statement refers to: `check`, `checks.some`, `"Work"`, or its own imports."""
        for node in ast.walk(statement):
            match node:
                case ast.Name(id=name):
                    yield self.module.__name__, name
                case ast.Constant(value=str(name)) if name.isidentifier():  # a quoted annotation
                    yield self.module.__name__, name
                case ast.Attribute(value=owner, attr=name) if (module := self.module_of(owner)) is not None:
                    yield module.__name__, name
                case ast.ImportFrom():
                    yield from ((self.module_of_import(node), alias.name) for alias in node.names)

    def module_of(self, owner: ast.expr) -> ModuleType | None:
        """Return the module that an expression like `archive.checks` refers to, or None."""
        match owner:
            case ast.Name(id=name):
                value = vars(self.module).get(name)
            case ast.Attribute(value=outer, attr=name):
                value = vars(self.module_of(outer) or object).get(name)
            case _:
                return None
        return value if isinstance(value, ModuleType) else None


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield statements, including those inside a top-level `if` or `try`."""
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


def _defined_names(statement: ast.stmt) -> Iterator[str]:
    match statement:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield name
        case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    yield node.id
        case _:
            alias = getattr(statement, "name", None)  # `type Year = …` since Python 3.12
            if isinstance(alias, ast.Name):
                yield alias.id

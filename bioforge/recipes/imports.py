"""What the user's own Python code defines, imported by name with the project folder importable for that time.

The only place that imports a project's Python code, and only when a recipe names it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

from bioforge.core.errors import ConfigError, nearest
from bioforge.recipes.schema.errors import one_line

if TYPE_CHECKING:
    from pydantic import BaseModel


@contextmanager
def importable(root: Path, module: str) -> Iterator[None]:
    """`root` comes first where modules are looked for.

    A module of the same name that came from another folder stands aside meanwhile: in one process there may be
    several projects with a `models.py`.
    """
    top = module.partition(".")[0]
    folder = str(root.resolve())
    aside: dict[str, ModuleType] = {}
    here = Path(folder, top).is_dir() or Path(folder, f"{top}.py").is_file()
    if here and top in sys.modules and not _is_from(sys.modules[top], Path(folder)):
        aside = {name: sys.modules.pop(name) for name in list(sys.modules) if name == top or name.startswith(f"{top}.")}
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with suppress(ValueError):  # the module may have changed the path itself
            sys.path.remove(folder)
        if aside:
            for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
                del sys.modules[name]
            sys.modules.update(aside)


def _is_from(module: ModuleType, folder: Path) -> bool:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(Path(place).resolve().is_relative_to(folder) for place in places if place)


def import_model(source: str, root: Path) -> type[BaseModel]:
    """The model that `package.module:Model` names. Call it inside `importable`. `ConfigError` says what is wrong."""
    from pydantic import BaseModel

    found = import_object(source, root, _models_in)
    if not _is_model(found):
        raise ConfigError(
            f"{source}: {_what(found)}, expected a pydantic model", "a class that derives from pydantic.BaseModel"
        )
    if found is BaseModel:
        raise ConfigError(f"{source}: pydantic.BaseModel itself has no fields", "name a class that derives from it")
    model: type[BaseModel] = found
    return model


def import_object(source: str, root: Path, names_in: Callable[[Any], Iterable[str]]) -> Any:
    """What `package.module:name` names. Call it inside `importable`. `ConfigError` says what is wrong.

    `names_in`: what a module or class defines that could have been meant.
    """
    name, _, attribute = source.partition(":")
    found: Any = _import(name, source, root)
    passed = name
    for step in attribute.split("."):
        if not hasattr(found, step):
            names = list(names_in(found))
            hint = nearest(step, names) or (f"there is: {', '.join(names[:10])}" if names else "")
            raise ConfigError(f"{source}: {passed} has no {step!r}", hint)
        found = getattr(found, step)
        passed = f"{passed}.{step}"
    return found


def _import(name: str, source: str, root: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as problem:
        if problem.name and (name == problem.name or name.startswith(f"{problem.name}.")):
            near = nearest(name, _modules(name, root))
            raise ConfigError(
                f"{source}: no such module {problem.name!r}", near or f"modules are looked for in {root} first"
            ) from None
        raise _failed(source, name, problem, root) from problem
    except (Exception, SystemExit) as problem:
        raise _failed(source, name, problem, root) from problem


def _failed(source: str, name: str, problem: BaseException, root: Path) -> ConfigError:
    """With the file and line of the user's own code that failed."""
    where = line_of(problem, root.resolve())
    words = problem.msg if isinstance(problem, SyntaxError) else one_line(str(problem))
    return ConfigError(
        f"{source}: importing {name} failed{f' in {where}' if where else ''}: {type(problem).__name__}: {words}"
    )


def line_of(problem: BaseException, folder: Path) -> str:
    """`models.py, line 3`: the innermost line of the user's own code, in `folder`; empty where it had none."""
    if isinstance(problem, SyntaxError) and problem.filename:
        return f"{_shown(Path(problem.filename), folder)}, line {problem.lineno}"
    lines = []
    trace: TracebackType | None = problem.__traceback__
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if path.is_absolute() and path.resolve().is_relative_to(folder) and "site-packages" not in path.parts:
            lines.append(f"{_shown(path, folder)}, line {trace.tb_lineno}")
        trace = trace.tb_next
    return lines[-1] if lines else ""


def _shown(path: Path, folder: Path) -> str:
    path = path.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _modules(name: str, root: Path) -> list[str]:
    """Names like the one asked for: the project's own modules, at its top and in the package named."""
    import pkgutil

    package, _, _ = name.rpartition(".")
    found = [module.name for module in pkgutil.iter_modules([str(root)])]
    found += [path.name for path in root.iterdir() if path.is_dir() and any(path.glob("*.py"))]
    for parent in {package, *found} - {""}:
        folder = root.joinpath(*parent.split("."))
        found += [f"{parent}.{module.name}" for module in pkgutil.iter_modules([str(folder)])]
    return sorted(set(found))


def _is_model(value: object) -> bool:
    from pydantic import BaseModel

    return isinstance(value, type) and issubclass(value, BaseModel)


def _what(value: object) -> str:
    if isinstance(value, type):
        old = any(base.__module__.startswith("pydantic.v1") for base in value.__mro__)
        return f"a model of pydantic v1 ({value.__name__})" if old else f"the class {value.__name__}"
    return f"a {type(value).__name__}"


def _models_in(holder: Any) -> Iterator[str]:
    """The models that a module or class defines; what it imported is somebody else's."""
    home = getattr(holder, "__module__", None) or getattr(holder, "__name__", None)
    for name, value in getattr(holder, "__dict__", {}).items():
        if _is_model(value) and value.__module__ == home:
            yield name

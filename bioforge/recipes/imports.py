"""Import of Python objects from a project: the only module that imports its code, and only if a recipe names it."""

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
    """Put `root` first in the import path.

    A module of the same name from another folder is set aside: several projects in one process may have a `models.py`.
    """
    top = module.partition(".")[0]
    folder = str(root.resolve())
    set_aside: dict[str, ModuleType] = {}
    here = Path(folder, top).is_dir() or Path(folder, f"{top}.py").is_file()
    if here and top in sys.modules and not _is_from(sys.modules[top], Path(folder)):
        set_aside = {
            name: sys.modules.pop(name) for name in list(sys.modules) if name == top or name.startswith(f"{top}.")
        }
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with suppress(ValueError):  # the imported module may have changed the path
            sys.path.remove(folder)
        if set_aside:
            for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
                del sys.modules[name]
            sys.modules.update(set_aside)


def _is_from(module: ModuleType, folder: Path) -> bool:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(Path(place).resolve().is_relative_to(folder) for place in places if place)


def import_model(source: str, root: Path) -> type[BaseModel]:
    """Import the model `package.module:Model`. Call it inside `importable`. Raise `ConfigError` on failure."""
    from pydantic import BaseModel

    value = import_object(source, root, _models_in)
    if not _is_model(value):
        raise ConfigError(
            f"{source}: {_describe(value)}, expected a pydantic model", "a class that derives from pydantic.BaseModel"
        )
    if value is BaseModel:
        raise ConfigError(f"{source}: pydantic.BaseModel itself has no fields", "name a class that derives from it")
    model: type[BaseModel] = value
    return model


def import_object(source: str, root: Path, names_in: Callable[[Any], Iterable[str]]) -> Any:
    """Import the object `package.module:name`. Call it inside `importable`. Raise `ConfigError` on failure.

    `names_in` lists the names in a module or class that the error suggests.
    """
    name, _, attribute = source.partition(":")
    value: Any = _import(name, source, root)
    path = name
    for step in attribute.split("."):
        if not hasattr(value, step):
            names = list(names_in(value))
            hint = nearest(step, names) or (f"there is: {', '.join(names[:10])}" if names else "")
            raise ConfigError(f"{source}: {path} has no {step!r}", hint)
        value = getattr(value, step)
        path = f"{path}.{step}"
    return value


def _import(name: str, source: str, root: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            near = nearest(name, _modules(name, root))
            raise ConfigError(
                f"{source}: no such module {error.name!r}", near or f"the import path starts with {root}"
            ) from None
        raise _import_failed(source, name, error, root) from error
    except (Exception, SystemExit) as error:
        raise _import_failed(source, name, error, root) from error


def _import_failed(source: str, name: str, error: BaseException, root: Path) -> ConfigError:
    """Return the error with the file and line of the project code that failed."""
    where = line_of(error, root.resolve())
    message = error.msg if isinstance(error, SyntaxError) else one_line(str(error))
    return ConfigError(
        f"{source}: importing {name} failed{f' in {where}' if where else ''}: {type(error).__name__}: {message}"
    )


def line_of(error: BaseException, folder: Path) -> str:
    """Return `models.py, line 3`, the innermost line of code in `folder`; empty without one."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_relative(Path(error.filename), folder)}, line {error.lineno}"
    lines = []
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if path.is_absolute() and path.resolve().is_relative_to(folder) and "site-packages" not in path.parts:
            lines.append(f"{_relative(path, folder)}, line {trace.tb_lineno}")
        trace = trace.tb_next
    return lines[-1] if lines else ""


def _relative(path: Path, folder: Path) -> str:
    path = path.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _modules(name: str, root: Path) -> list[str]:
    """Return the project's modules, at its top level and in the package of `name`."""
    import pkgutil

    package, _, _ = name.rpartition(".")
    modules = [module.name for module in pkgutil.iter_modules([str(root)])]
    modules += [path.name for path in root.iterdir() if path.is_dir() and any(path.glob("*.py"))]
    for parent in {package, *modules} - {""}:
        folder = root.joinpath(*parent.split("."))
        modules += [f"{parent}.{module.name}" for module in pkgutil.iter_modules([str(folder)])]
    return sorted(set(modules))


def _is_model(value: object) -> bool:
    from pydantic import BaseModel

    return isinstance(value, type) and issubclass(value, BaseModel)


def _describe(value: object) -> str:
    if isinstance(value, type):
        old = any(base.__module__.startswith("pydantic.v1") for base in value.__mro__)
        return f"a pydantic v1 model ({value.__name__})" if old else f"the class {value.__name__}"
    return f"a {type(value).__name__}"


def _models_in(holder: Any) -> Iterator[str]:
    """Yield the models that a module or class defines, without those it imports."""
    module = getattr(holder, "__module__", None) or getattr(holder, "__name__", None)
    for name, value in getattr(holder, "__dict__", {}).items():
        if _is_model(value) and value.__module__ == module:
            yield name

"""Check a plugin's module: its contract version, its hooks and the values they return."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pluggy

from bioforge.core.errors import PluginError, nearest

API_VERSION = 1
"""The version of `hookspecs.py` and of the names in `bioforge.plugin`. A change that breaks plugins raises it."""

DECLARATION = "BIOFORGE_API"
"""The name of the module attribute with the contract version that a plugin is made for."""

HOOKS = ("bioforge_readers", "bioforge_backends", "bioforge_writers")


DISTRIBUTION = "bioforge-llm"
"""The name of this program in package indexes."""

IMPORT_NAME = "bioforge"
"""The name of the package and of the command. The distribution of this name belongs to another project."""


def name_clash() -> tuple[str, str] | None:
    """Return a message and a hint if another project's distribution `bioforge` is installed: it writes into our package."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        found = distribution(IMPORT_NAME)
    except (PackageNotFoundError, ValueError):
        return None
    if any(entry.value == "bioforge.cli:main" for entry in found.entry_points):
        return None  # this program, installed before its distribution was renamed
    return (
        f"the distribution {IMPORT_NAME!r} {found.version} is installed here: it is another project, and its files"
        f" replace some of {DISTRIBUTION}",
        f"`{sys.executable} -m pip uninstall {IMPORT_NAME}`, then"
        f" `{sys.executable} -m pip install --force-reinstall --no-deps {DISTRIBUTION}`",
    )


def version_problem(plugin: object) -> str:
    """Return why the contract version of a plugin does not fit, or an empty text."""
    declared = getattr(plugin, DECLARATION, None)
    match declared:
        case None:
            return f"declares no plugin API version: add {DECLARATION} = {API_VERSION} to the module"
        case int() if declared == API_VERSION and declared is not True:
            return ""
        case int() if not isinstance(declared, bool):
            newer = "a newer bioforge" if declared > API_VERSION else "a newer version of the plugin"
            return f"needs plugin API version {declared}; this bioforge has version {API_VERSION}: install {newer}"
    return f"{DECLARATION} is {declared!r:.40}, expected a whole number like {API_VERSION}"


def hook_problem(manager: pluggy.PluginManager, plugin: object) -> str:
    """Return why the hooks of a registered plugin do not fit, or an empty text."""
    called = set()
    for caller in manager.get_hookcallers(plugin) or ():
        called.add(caller.name)
        optional = all(
            implementation.optionalhook for implementation in caller.get_hookimpls() if implementation.plugin is plugin
        )
        if not caller.has_spec() and not optional:
            near = nearest(caller.name, HOOKS) or f"hooks are: {', '.join(HOOKS)}"
            return f"implements an unknown hook {caller.name!r}; {near}"
    for hook in HOOKS:
        if hook not in called and callable(getattr(plugin, hook, None)):
            return f"has a function {hook!r} without @hookimpl, so it is never called"
    return ""


def check_values(values: object, hook: str) -> dict[str, Any]:
    """Return what a hook returned, callables by name. Raises `PluginError` for anything else."""
    if not isinstance(values, Mapping):
        raise PluginError(f"{hook}: expected a mapping of names, found {type(values).__name__}")
    for name, value in values.items():
        if not isinstance(name, str) or not name:
            raise PluginError(f"{hook}: expected a name as text, found {name!r}")
        if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name):
            raise PluginError(
                f"{hook}: {name!r} is not a valid name: use letters, digits, '_' and '-', and a suffix without its dot"
            )
        if not callable(value):
            raise PluginError(f"{hook}: {name!r} should be a callable, found {type(value).__name__}")
        options = getattr(value, "Options", None)
        if options is not None and not (isinstance(options, type) and hasattr(options, "model_validate")):
            raise PluginError(f"{hook}: {name!r} has Options that are not a pydantic model: {options!r:.60}")
    return dict(values)


def edit_stamp(module: object, name: str) -> str:
    """Return ` edited at NANOSECONDS` for the module of an editable installation, else an empty text."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        origin = distribution(name).read_text("direct_url.json") or ""
    except (PackageNotFoundError, ValueError):
        return ""
    file = getattr(module, "__file__", None)
    if file is None or not json.loads(origin or "{}").get("dir_info", {}).get("editable"):
        return ""
    path = Path(file)
    files = path.parent.rglob("*.py") if path.name == "__init__.py" else [path]
    return f" edited at {max((file.stat().st_mtime_ns for file in files), default=0)}"

"""What a plugin's module says of itself: which contract it is made for, which hooks it has and what they return; and what
is wrong with that, in words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pluggy

from bioforge.core.errors import PluginError, nearest

API_VERSION = 1
"""The version of the contract: `hookspecs.py`, and what `bioforge.plugin` names. A change that breaks plugins raises it."""

DECLARATION = "BIOFORGE_API"
"""What a plugin's module says it is made for."""

HOOKS = ("bioforge_readers", "bioforge_backends", "bioforge_writers")


def wrong_version(plugin: object) -> str:
    """What is wrong with the version of the contract that a plugin is made for, or an empty text."""
    declared = getattr(plugin, DECLARATION, None)
    match declared:
        case None:
            return (
                f"does not say which version of the contract it is made for: put {DECLARATION} = {API_VERSION} into it"
            )
        case int() if declared == API_VERSION and declared is not True:
            return ""
        case int() if not isinstance(declared, bool):
            newer = "a newer bioforge" if declared > API_VERSION else "a newer version of the plugin"
            return (
                f"is made for version {declared} of the contract, and this bioforge has {API_VERSION}: it needs {newer}"
            )
    return f"{DECLARATION} is {declared!r:.40}, expected a whole number like {API_VERSION}"


def wrong_hooks(manager: pluggy.PluginManager, plugin: object) -> str:
    """What is wrong with the hooks that a registered plugin implements, or an empty text."""
    called = set()
    for caller in manager.get_hookcallers(plugin) or ():
        called.add(caller.name)
        optional = all(one.optionalhook for one in caller.get_hookimpls() if one.plugin is plugin)
        if not caller.has_spec() and not optional:
            near = nearest(caller.name, HOOKS) or f"hooks are: {', '.join(HOOKS)}"
            return f"implements an unknown hook {caller.name!r}; {near}"
    for hook in HOOKS:
        if hook not in called and callable(getattr(plugin, hook, None)):
            return f"has a function {hook!r} without @hookimpl, so it is never called"
    return ""


def checked(values: object, hook: str) -> dict[str, Any]:
    """What a hook returned: names, and what is called by them. PluginError where it is something else."""
    if not isinstance(values, Mapping):
        raise PluginError(f"{hook}: expected a mapping of names, found {type(values).__name__}")
    for name, value in values.items():
        if not isinstance(name, str) or not name:
            raise PluginError(f"{hook}: expected a name as text, found {name!r}")
        if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name):
            raise PluginError(f"{hook}: {name!r} is no name: letters, digits, '_' and '-'; a suffix without its dot")
        if not callable(value):
            raise PluginError(f"{hook}: {name!r} should be something to call, found {type(value).__name__}")
        options = getattr(value, "Options", None)
        if options is not None and not (isinstance(options, type) and hasattr(options, "model_validate")):
            raise PluginError(f"{hook}: {name!r} has Options that are no pydantic model: {options!r:.60}")
    return dict(values)


def edited(module: object, name: str) -> str:
    """` edited at …` for the module of an editable installation; else an empty text."""
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
    return f" edited at {max((one.stat().st_mtime_ns for one in files), default=0)}"

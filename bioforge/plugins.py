"""The plugin manager: what is built in and what is installed, through the same three hooks."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pluggy

from bioforge import __version__, hookspecs
from bioforge.errors import PluginError, nearest
from bioforge.interfaces import BackendFactory, FolderWriter, Reader, Writer

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "bioforge"
BUILT_IN = ("bioforge.readers", "bioforge.writers", "bioforge.openai.plugin")
HOOKS = ("bioforge_readers", "bioforge_backends", "bioforge_writers")


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """A plugin as people know it: its distribution's name and version, where it comes from (`built in`, or its entry
    point), and the names it provides by hook."""

    name: str
    version: str = ""
    source: str = ""
    provides: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def build_manager(load: str | None, *, built_in: Iterable[str] = BUILT_IN) -> Plugins:
    """The built-in plugins, and the installed ones that `load` chooses.

    `load` is `BIOFORGE_LOAD_PLUGINS`: None for all, an empty text for none, or names separated by commas (of the
    distribution or of the entry point). PluginError when one of them is not installed. A plugin that cannot be
    imported or registered does not stop the others: it is one of `Plugins.problems`.
    """
    plugins = Plugins()
    for module in built_in:
        plugins.load(partial(importlib.import_module, module), module, __version__, "built in")
    if load is None or load.strip():
        for entry, name, version in _installed(load):
            unique = f"{name}:{entry.name}" if name in plugins else name
            plugins.load(entry.load, unique, version, entry.value)
    return plugins


def _installed(load: str | None) -> list[tuple[EntryPoint, str, str]]:
    from importlib.metadata import entry_points

    found = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        name, version = (entry.dist.name, entry.dist.version) if entry.dist else (entry.name, "")
        found.append((entry, name, version))
    if load is None:
        return found
    known = {_same(word) for entry, name, _ in found for word in (entry.name, name)}
    wanted = [word.strip() for word in load.split(",") if word.strip()]
    for word in wanted:
        if _same(word) not in known:
            near = nearest(word, [name for _, name, _ in found])
            raise PluginError(
                f"BIOFORGE_LOAD_PLUGINS names {word!r}, which is not installed{near and '; ' + near}",
                f"`pip install {word}` installs it",
            )
    chosen = {_same(word) for word in wanted}
    return [(entry, name, version) for entry, name, version in found if chosen & {_same(entry.name), _same(name)}]


def _same(name: str) -> str:
    """Distribution names are the same in either case, and with '-', '_' or '.'."""
    return name.lower().replace("_", "-").replace(".", "-")


@dataclass(slots=True)
class _Collected:
    """What one hook gave: values by plugin and name, and the first plugin error."""

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    wrong: PluginError | None = None


class Plugins:
    """Plugins and what they provide. `problems` has a sentence for each that could not be used."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager("bioforge")
        self._manager.add_hookspecs(hookspecs)
        self._known: dict[str, tuple[object, str, str]] = {}
        self._collected: dict[str, _Collected] = {}
        self.problems: list[str] = []

    def load(self, get: Callable[[], object], name: str, version: str = "", source: str = "") -> None:
        """Register what `get` returns; a failure is a problem of this plugin, not of the others."""
        try:
            plugin = get()
        # Whatever a foreign module does while it is imported, the other plugins are to work.
        except (Exception, SystemExit) as problem:
            self.problems.append(f"plugin {name!r} cannot be imported: {type(problem).__name__}: {problem}")
            return
        try:
            self.register(plugin, name, version, source)
        except PluginError as problem:
            self.problems.append(problem.message)

    def register(self, plugin: object, name: str, version: str = "", source: str = "") -> None:
        """Add a module or object with hook implementations. PluginError when it does not fit the hooks."""
        try:
            self._manager.register(plugin, name)
        except (pluggy.PluginValidationError, ValueError) as problem:
            raise PluginError(f"plugin {name!r} cannot be used: {problem}") from None
        self._known[name] = (plugin, version, source)
        self._collected.clear()

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def readers(self) -> dict[str, Reader]:
        return cast("dict[str, Reader]", self._all("bioforge_readers"))

    def backends(self) -> dict[str, BackendFactory]:
        return cast("dict[str, BackendFactory]", self._all("bioforge_backends"))

    def writers(self) -> dict[str, Writer | FolderWriter]:
        return cast("dict[str, Writer | FolderWriter]", self._all("bioforge_writers"))

    def reader(self, name: str) -> Reader:
        """PluginError with the nearest name and all known ones when there is no such reader."""
        return cast("Reader", self._one("reader", name, self.readers()))

    def backend(self, name: str) -> BackendFactory:
        return cast("BackendFactory", self._one("backend", name, self.backends()))

    def writer(self, name: str) -> Writer | FolderWriter:
        return cast("Writer | FolderWriter", self._one("writer", name, self.writers()))

    def describe(self) -> list[PluginInfo]:
        """Every plugin with what it provides, in the order of loading. Whatever is wrong with one is added to
        `problems` instead of raised."""
        self.conflicts()
        return [
            PluginInfo(name, version, source, self._provided(name))
            for name, (_, version, source) in self._known.items()
        ]

    def conflicts(self) -> list[str]:
        """Run every check of every hook, and add what is wrong to `problems`, which is returned."""
        for hook in HOOKS:
            self._collect(hook)
            try:
                self._all(hook)
            except PluginError as problem:
                if problem.message not in self.problems:
                    self.problems.append(problem.message)
        return self.problems

    def _provided(self, plugin: str) -> dict[str, tuple[str, ...]]:
        """Names by hook; asks after `conflicts`, so that every hook is collected."""
        return {hook: tuple(self._collected[hook].values.get(plugin, ())) for hook in HOOKS}

    def _one(self, kind: str, name: str, known: Mapping[str, object]) -> object:
        if name in known:
            return known[name]
        near = nearest(name, known)
        hint = f"known: {', '.join(sorted(known)) or 'none'}"
        raise PluginError(f"no {kind} {name!r}{near and '; ' + near}", "; ".join([hint, *self.problems]))

    def _all(self, hook: str) -> dict[str, Any]:
        """What every plugin returns from `hook`, merged; PluginError for unknown hooks, wrong types and two claims."""
        self._check_hooks()
        collected = self._collect(hook)
        if collected.wrong:
            raise collected.wrong
        merged: dict[str, Any] = {}
        claimed: dict[str, str] = {}
        for plugin, values in collected.values.items():
            for name, value in values.items():
                if name in claimed:
                    raise PluginError(
                        f"{name!r} is claimed by two plugins, {claimed[name]!r} and {plugin!r} ({hook})",
                        "uninstall one, or leave it out with BIOFORGE_LOAD_PLUGINS",
                    )
                claimed[name] = plugin
                merged[name] = value
        return merged

    def _collect(self, hook: str) -> _Collected:
        """Each plugin asked once."""
        if hook not in self._collected:
            collected = self._collected[hook] = _Collected()
            for name in self._known:
                try:
                    collected.values[name] = self._ask(hook, name)
                except PluginError as problem:
                    collected.wrong = collected.wrong or problem
        return self._collected[hook]

    def _ask(self, hook: str, name: str) -> dict[str, Any]:
        plugin = self._known[name][0]
        found: dict[str, Any] = {}
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            if implementation.plugin is not plugin:
                continue
            try:
                values = implementation.function()
            except Exception as problem:
                self.problems.append(f"plugin {name!r} fails in {hook}: {type(problem).__name__}: {problem}")
                continue
            found.update(_checked(values, hook, name))
        return found

    def _check_hooks(self) -> None:
        for name, (plugin, _, _) in self._known.items():
            for caller in self._manager.get_hookcallers(plugin) or ():
                optional = all(one.optionalhook for one in caller.get_hookimpls() if one.plugin is plugin)
                if not caller.has_spec() and not optional:
                    near = nearest(caller.name, HOOKS)
                    raise PluginError(
                        f"plugin {name!r} implements an unknown hook {caller.name!r}{near and '; ' + near}",
                        f"hooks: {', '.join(HOOKS)}; the plugin may be made for another version of bioforge",
                    )
            called = {caller.name for caller in self._manager.get_hookcallers(plugin) or ()}
            for hook in HOOKS:
                if hook not in called and callable(getattr(plugin, hook, None)):
                    raise PluginError(
                        f"plugin {name!r} has a function {hook!r} without @hookimpl, so it is never called"
                    )


def _checked(values: object, hook: str, plugin: str) -> dict[str, Any]:
    where = f"plugin {plugin!r}, {hook}"
    if not isinstance(values, Mapping):
        raise PluginError(f"{where}: expected a mapping of names, found {type(values).__name__}")
    for name, value in values.items():
        if not isinstance(name, str) or not name:
            raise PluginError(f"{where}: expected a name as text, found {name!r}")
        if not callable(value):
            raise PluginError(f"{where}: {name!r} should be something to call, found {type(value).__name__}")
    return dict(values)

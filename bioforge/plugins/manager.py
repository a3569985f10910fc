"""Load built-in and installed plugins through the same three hooks."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pluggy

from bioforge import __version__
from bioforge.core.errors import PluginError, nearest
from bioforge.core.interfaces import AnyReader, AnyWriter, BackendFactory
from bioforge.plugins import hookspecs
from bioforge.plugins.contract import (
    API_VERSION,
    DECLARATION,
    HOOKS,
    check_values,
    edit_stamp,
    hook_problem,
    name_clash,
    version_problem,
)

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "bioforge"
BUILT_IN_SOURCE = "built in"
BUILT_IN = ("bioforge.readers.plugin", "bioforge.writers.plugin", "bioforge.backends.openai.plugin")


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """Describe a plugin for `bioforge plugins`.

    `name` and `version` are its distribution's; `source` is `built in` or its entry point; `provides` lists names by hook;
    `api` is the contract version it declares.
    """

    name: str
    version: str = ""
    source: str = ""
    provides: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    api: int | None = None
    problems: tuple[str, ...] = ()


def build_manager(
    load: str | None, *, built_in: Iterable[str] = BUILT_IN, warn: Callable[[str], None] | None = None
) -> Plugins:
    """Load the built-in plugins and the installed ones that `load` names.

    `load` is `BIOFORGE_LOAD_PLUGINS`: None for all, an empty text for none, or names separated by commas (of the
    distribution or of the entry point). Raises `PluginError` when one of them is not installed. A broken plugin is left
    out and does not stop the others: its problem goes to `Plugins.problems` and to `warn`.
    """
    plugins = Plugins(warn)
    for module in built_in:
        plugins.load(
            partial(importlib.import_module, module), module.rpartition(".")[0] or module, __version__, BUILT_IN_SOURCE
        )
    if load is None or load.strip():
        if clash := name_clash():
            plugins.report("; ".join(clash))
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
    known = {_normalize(word) for entry, name, _ in found for word in (entry.name, name)}
    wanted = [word.strip() for word in load.split(",") if word.strip()]
    for word in wanted:
        if _normalize(word) not in known:
            near = nearest(word, [name for _, name, _ in found])
            raise PluginError(
                f"BIOFORGE_LOAD_PLUGINS names {word!r}, which is not installed{near and '; ' + near}",
                "`BIOFORGE_LOAD_PLUGINS= bioforge plugins` works without any" if not near else "",
            )
    chosen = {_normalize(word) for word in wanted}
    return [
        (entry, name, version) for entry, name, version in found if chosen & {_normalize(entry.name), _normalize(name)}
    ]


def _normalize(name: str) -> str:
    """Return a name in the form in which pip compares distribution names."""
    return name.lower().replace("_", "-").replace(".", "-")


@dataclass(slots=True)
class _Loaded:
    """A loaded plugin and its problems; the hooks of one that is `left_out` are not called."""

    plugin: object
    version: str
    source: str
    problems: list[str] = field(default_factory=list)
    left_out: bool = False


class Plugins:
    """Loaded plugins and the names they provide. `problems` has one sentence for each thing that cannot be used."""

    def __init__(self, warn: Callable[[str], None] | None = None) -> None:
        self._manager = pluggy.PluginManager("bioforge")
        self._manager.add_hookspecs(hookspecs)
        self._known: dict[str, _Loaded] = {}
        self._collected: dict[str, dict[str, dict[str, Any]]] = {}
        self._warn = warn
        self.problems: list[str] = []

    def load(self, get: Callable[[], object], name: str, version: str = "", source: str = "") -> None:
        """Register the module that `get` returns; a failure is a problem of this plugin, not of the others."""
        known = self._known[name] = _Loaded(None, version, source)
        try:
            with redirect_stdout(sys.stderr):  # its output must not mix with exported records
                known.plugin = get()
        # The other plugins must work whatever a third-party module does while it is imported.
        except (Exception, SystemExit) as problem:
            _show_traceback()
            self._leave_out(name, f"cannot be imported: {type(problem).__name__}: {problem}")
            return
        if source != BUILT_IN_SOURCE and (wrong := version_problem(known.plugin)):
            self._leave_out(name, wrong)
            return
        try:
            self.register(known.plugin, name, version, source)
        except PluginError as problem:
            self._leave_out(name, problem.message)

    def register(self, plugin: object, name: str, version: str = "", source: str = "") -> None:
        """Add a module or object with hook implementations. Raises `PluginError` when it does not fit the hooks."""
        try:
            self._manager.register(plugin, name)
        except (pluggy.PluginValidationError, ValueError) as problem:
            raise PluginError(f"cannot be used: {str(problem).strip()}") from None
        if wrong := hook_problem(self._manager, plugin):
            self._manager.unregister(plugin)
            raise PluginError(wrong)
        self._known[name] = _Loaded(plugin, version, source)
        self._collected.clear()

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def readers(self) -> dict[str, AnyReader]:
        """Return readers by name, without names that two plugins claim."""
        return cast("dict[str, AnyReader]", self._all("bioforge_readers"))

    def backends(self) -> dict[str, BackendFactory]:
        """Return backend factories by name, without names that two plugins claim."""
        return cast("dict[str, BackendFactory]", self._all("bioforge_backends"))

    def writers(self) -> dict[str, AnyWriter]:
        """Return writers by name, without names that two plugins claim."""
        return cast("dict[str, AnyWriter]", self._all("bioforge_writers"))

    def reader(self, name: str) -> AnyReader:
        """Return the reader of this name. Raises `PluginError` with the nearest name when there is none or more than one."""
        return cast("AnyReader", self._one("reader", name))

    def backend(self, name: str) -> BackendFactory:
        """Return the backend factory of this name. Raises `PluginError` like `reader`."""
        return cast("BackendFactory", self._one("backend", name))

    def writer(self, name: str) -> AnyWriter:
        """Return the writer of this name. Raises `PluginError` like `reader`."""
        return cast("AnyWriter", self._one("writer", name))

    def third_party(self, hook: str, name: str) -> str:
        """Return the plugin that provides a name; empty for built-in names."""
        owner = next((plugin for plugin, values in self._collect(hook).items() if name in values), "")
        return "" if not owner or self._known[owner].source == BUILT_IN_SOURCE else owner

    def version(self, plugin: str) -> str:
        """Return the version of a plugin's distribution; for an editable installation also when its newest file changed.

        Empty for an unknown plugin.
        """
        known = self._known.get(plugin)
        return "" if known is None else known.version + edit_stamp(known.plugin, plugin)

    def describe(self) -> list[PluginInfo]:
        """Return every plugin with its names and problems, in the order of loading."""
        self.conflicts()
        return [
            PluginInfo(
                name,
                known.version,
                known.source,
                {hook: tuple(self._collected[hook].get(name, ())) for hook in HOOKS},
                API_VERSION if known.source == BUILT_IN_SOURCE else getattr(known.plugin, DECLARATION, None),
                tuple(known.problems),
            )
            for name, known in self._known.items()
        ]

    def conflicts(self) -> list[str]:
        """Check the values of every hook, and return `problems` with what was found."""
        for hook in HOOKS:
            for name, owners in self._owners(hook).items():
                if len(owners) > 1:
                    problem = _claimed(name, hook, owners)
                    self.report(problem)
                    for known in map(self._known.__getitem__, owners):
                        if problem not in known.problems:
                            known.problems.append(problem)
        return self.problems

    def _owners(self, hook: str) -> dict[str, list[str]]:
        """Return the plugins that provide each name."""
        owners: dict[str, list[str]] = {}
        for plugin, values in self._collect(hook).items():
            for name in values:
                owners.setdefault(name, []).append(plugin)
        return owners

    def _one(self, kind: str, name: str) -> object:
        hook = f"bioforge_{kind}s"
        owners = self._owners(hook)
        match owners.get(name, ()):
            case [owner]:
                return self._collect(hook)[owner][name]
            case [_, _, *_]:
                raise PluginError(
                    _claimed(name, hook, owners[name]), "uninstall one, or leave it out with BIOFORGE_LOAD_PLUGINS"
                )
        close = get_close_matches(name, owners, n=1, cutoff=0.6)
        near = f"did you mean {close[0]!r}?" if close else ""
        hint = f"known: {', '.join(sorted(owners)) or 'none'}"
        problems = self.problems if self._warn is None else ()
        raise PluginError(f"no {kind} {name!r}{near and '; ' + near}", "; ".join([hint, *problems]))

    def _all(self, hook: str) -> dict[str, Any]:
        """Return the values of all plugins for `hook`, merged."""
        collected = self._collect(hook)
        return {name: collected[owners[0]][name] for name, owners in self._owners(hook).items() if len(owners) == 1}

    def _collect(self, hook: str) -> dict[str, dict[str, Any]]:
        """Return values by plugin and name, calling each plugin once."""
        if hook not in self._collected:
            collected: dict[str, dict[str, Any]] = {}
            for name, known in self._known.items():
                if known.left_out:
                    continue
                try:
                    collected[name] = self._call(hook, known.plugin)
                except PluginError as problem:
                    self._note(name, problem.message)
            self._collected[hook] = collected
        return self._collected[hook]

    def _call(self, hook: str, plugin: object) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            if implementation.plugin is not plugin:
                continue
            try:
                with redirect_stdout(sys.stderr):
                    values = implementation.function()
            except (Exception, SystemExit) as problem:
                _show_traceback()
                raise PluginError(f"{hook} fails: {type(problem).__name__}: {problem}") from None
            found.update(check_values(values, hook))
        return found

    def _leave_out(self, name: str, problem: str) -> None:
        self._known[name].left_out = True
        self._note(name, f"{problem}; it is left out")

    def _note(self, name: str, problem: str) -> None:
        known = self._known[name]
        known.problems.append(problem)
        version = f" {known.version}" if known.version else ""
        self.report(f"plugin {name!r}{version}: {problem}")

    def report(self, problem: str) -> None:
        """Add to `problems` and warn, once for each text."""
        if problem not in self.problems:
            self.problems.append(problem)
            if self._warn is not None:
                self._warn(problem)


def _show_traceback() -> None:
    """Print the traceback when BIOFORGE_DEBUG is set."""
    if os.environ.get("BIOFORGE_DEBUG"):
        traceback.print_exc(file=sys.stderr)


def _claimed(name: str, hook: str, owners: Sequence[str]) -> str:
    return f"{name!r} is claimed by {len(owners)} plugins, {' and '.join(map(repr, owners))} ({hook})"

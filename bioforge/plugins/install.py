"""Install and uninstall plugins with pip (or uv), and report what a fresh interpreter then finds."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from bioforge.core.errors import BioforgeError, PluginError, UsageError, nearest
from bioforge.plugins.contract import DISTRIBUTION, IMPORT_NAME, name_clash

PREFIX = "bioforge-"
LOAD = "BIOFORGE_LOAD_PLUGINS"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class InstalledPlugin:
    """A third-party plugin as `bioforge plugins` lists it; `offers` reads like `readers parquet, xlsx; writers parquet`."""

    name: str
    version: str
    offers: str
    problems: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(slots=True)
class InstallReport:
    """Lines for what worked, notes, and errors with their hints."""

    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    errors: list[BioforgeError] = field(default_factory=list)


def list_names(provides: Mapping[str, Sequence[str]]) -> str:
    """Format names by hook as `readers parquet, xlsx; writers parquet`."""
    return "; ".join(
        f"{hook.removeprefix('bioforge_')} {', '.join(names)}" for hook, names in provides.items() if names
    )


def normalize(name: str) -> str:
    """Return a distribution name in the form in which pip compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def list_plugins() -> dict[str, InstalledPlugin]:
    """Return the installed plugins by normalized name, as a fresh interpreter loads them.

    This process imported what was there before. Raises `BioforgeError` where bioforge no longer starts.
    """
    environment = {name: value for name, value in os.environ.items() if name != LOAD}
    # -P: the working folder is not a place to import from
    command = [sys.executable, "-P", "-m", "bioforge", "plugins", "--format", "json"]
    ran = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    try:
        listed = json.loads(ran.stdout)["plugins"]
    except ValueError:
        last = (ran.stderr.strip() or f"exit code {ran.returncode}").splitlines()[-1]
        raise BioforgeError(
            f"bioforge no longer starts in this environment: {last}",
            f"`{sys.executable} -m bioforge plugins` shows the whole error; `{sys.executable} -m pip check` may name the cause",
        ) from None
    plugins = [_plugin(entry) for entry in listed if entry["source"] != "built in"]
    return {normalize(plugin.name): plugin for plugin in plugins}


def _plugin(entry: Mapping[str, Any]) -> InstalledPlugin:
    return InstalledPlugin(entry["name"], entry["version"], list_names(entry["provides"]), tuple(entry["problems"]))


def installer() -> list[str]:
    """Return the command before `install`: this interpreter's pip, else uv. Raises `UsageError` without either."""
    if find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if uv := shutil.which("uv"):
        return [uv, "pip"]
    raise UsageError(
        "this environment has no pip, and uv is not on the path",
        f"`{sys.executable} -m ensurepip` installs pip; with pipx: `pipx inject {DISTRIBUTION} NAME`",
    )


def _run(verb: str, arguments: Sequence[str]) -> int:
    """Run pip with its output on stderr and return its exit code."""
    command = installer()
    extra = (["-y"] if verb == "uninstall" else []) if find_spec("pip") else ["--python", sys.executable]
    environment = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", **os.environ}
    return subprocess.run([*command, verb, *extra, *arguments], env=environment, stdout=2).returncode


def install(packages: Sequence[str], options: Sequence[str] = (), editable: Sequence[str] = ()) -> InstallReport:
    """Install `packages` (names, paths and further options for pip) and `editable` folders.

    Raises `UsageError` before anything happens, and `BioforgeError` when pip fails, after pip printed why.
    """
    first_option = next((number for number, word in enumerate(packages) if word.startswith("-")), len(packages))
    requested = list(packages[:first_option])
    if not requested and not editable:
        raise UsageError(
            "no package to install is named", "`bioforge install bioforge-tables`, or a folder: `bioforge install .`"
        )
    for path in (*filter(_is_path, requested), *editable):
        if "://" not in path and not os.path.exists(path.partition("[")[0]):
            raise UsageError(f"{path} does not exist", "give a folder with a pyproject.toml, a wheel, or a name")
    if IMPORT_NAME in map(normalize, map(_name, requested)):
        raise UsageError(
            f"the distribution {IMPORT_NAME!r} of the package index is another project; nothing was installed",
            f"this program is called {DISTRIBUTION!r} there: `bioforge install -U {DISTRIBUTION}`",
        )
    installer()
    before = list_plugins()
    if code := _run("install", [*options, *(word for path in editable for word in ("-e", path)), *packages]):
        raise BioforgeError(f"nothing was installed: pip ended with exit code {code}; see above", _suggest(requested))
    if clash := name_clash():
        raise PluginError(*clash)
    return _compare(requested, before, list_plugins())


def _compare(
    requested: Sequence[str], before: Mapping[str, InstalledPlugin], after: Mapping[str, InstalledPlugin]
) -> InstallReport:
    report = InstallReport()
    names = [normalize(name) for name in map(_name, requested) if name]
    changed = [key for key, plugin in after.items() if before.get(key) != plugin]
    for key in dict.fromkeys([*changed, *(name for name in names if name in after)]):
        plugin, old = after[key], before.get(key)
        if old is not None and old.version == plugin.version and set(plugin.problems) - set(old.problems):
            report.errors += [
                BioforgeError(f"plugin {plugin.name!r}: {text}", "it worked before this installation")
                for text in plugin.problems
            ]
        elif plugin.problems or not plugin.offers:
            for text in plugin.problems or ("none of its hooks returns a name",):
                report.errors.append(
                    BioforgeError(
                        f"{plugin} is installed, but does not work: {text}",
                        f"`bioforge uninstall {plugin.name}` removes it",
                    )
                )
        elif old == plugin:
            report.lines.append(f"{plugin} is installed already: {plugin.offers}")
        else:
            was = f" (was {old.version})" if old and old.version != plugin.version else ""
            report.lines.append(f"installed {plugin}{was}: {plugin.offers}")
        if (chosen := os.environ.get(LOAD)) is not None and key not in map(normalize, chosen.split(",")):
            report.notes.append(f"{LOAD} is {chosen!r}, which leaves {plugin.name} out")
    for name in (name for name in names if name not in after and name != DISTRIBUTION):
        hints = (f"`{sys.executable} -m pip uninstall {name}` removes it", _suggest([name]))
        report.errors.append(
            BioforgeError(
                f"{name} is installed, but is not a plugin: it has no entry point in the group 'bioforge'",
                "; ".join(filter(None, hints)),
            )
        )
    if not report.lines and not report.errors:
        report.notes.append("no plugin was added or changed")
    return report


def _is_path(word: str) -> bool:
    """Return True for what pip takes for a path: a bare name is looked up in the index even beside a folder of that name."""
    return word.startswith(".") or "/" in word or os.sep in word


def _name(word: str) -> str:
    """Return the distribution's name in a requirement like `bioforge-tables>=0.2`; empty for a path."""
    match = None if _is_path(word) else _NAME.match(word)
    return match[0] if match else ""


def _suggest(requested: Sequence[str]) -> str:
    for name in filter(None, map(_name, requested)):
        if os.path.isdir(name):
            return f"for the folder of that name: `bioforge install ./{name}`"
        if not normalize(name).startswith(PREFIX):
            return f"most plugins are called bioforge-NAME: `bioforge install {PREFIX}{name}`"
    return ""


def find_plugins(names: Sequence[str], installed: Mapping[str, InstalledPlugin]) -> list[InstalledPlugin]:
    """Return the installed plugins of these names. Raises `UsageError` for any other name, bioforge included."""
    for name in names:
        if normalize(name) in (IMPORT_NAME, DISTRIBUTION):
            hint = f"`{sys.executable} -m pip uninstall {DISTRIBUTION}` removes it"
            raise UsageError("bioforge does not uninstall itself; nothing was uninstalled", hint)
        if normalize(name) not in installed:
            known = [plugin.name for plugin in installed.values()]
            full = installed.get(normalize(f"{PREFIX}{name}"))
            near = f"did you mean {full.name!r}?" if full else nearest(name, known)
            hint = near or f"installed plugins: {', '.join(known) or 'none'}"
            raise UsageError(f"no plugin {name!r} is installed; nothing was uninstalled", hint)
    return [installed[key] for key in dict.fromkeys(map(normalize, names))]


def uninstall(plugins: Sequence[InstalledPlugin], options: Sequence[str] = ()) -> InstallReport:
    """Uninstall these plugins. Raises `BioforgeError` when pip fails."""
    if code := _run("uninstall", [*options, *(plugin.name for plugin in plugins)]):
        raise BioforgeError(f"pip ended with exit code {code}; see above", "`bioforge plugins` lists what is installed")
    after, report = list_plugins(), InstallReport()
    for plugin in plugins:
        if normalize(plugin.name) in after:
            hint = f"`{sys.executable} -m pip show -f {plugin.name}` shows its files"
            report.errors.append(BioforgeError(f"{plugin} is still installed", hint))
        else:
            report.lines.append(f"uninstalled {plugin}{plugin.offers and f'; gone: {plugin.offers}'}")
    return report

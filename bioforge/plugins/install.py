"""What is installed in this environment, as a fresh interpreter finds it: this one imported what was there before."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from typing import Any

from bioforge.core.errors import BioforgeError, UsageError, nearest

GROUP = "bioforge"
LOAD = "BIOFORGE_LOAD_PLUGINS"


@dataclass(frozen=True, slots=True)
class Distribution:
    """Something that pip installed. `stamp` changes when it is installed again; `requested`: a person asked for it, and
    it is not there for another's sake; `entries` are the names of its entry points for bioforge, none for no plugin."""

    name: str
    version: str
    stamp: str = ""
    requested: bool = False
    entries: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True, slots=True)
class InstalledEnvironment:
    """What a fresh interpreter found: distributions by their normalised name, what each plugin provides by hook, and
    the problems that `bioforge plugins` tells."""

    distributions: Mapping[str, Distribution]
    provides: Mapping[str, Mapping[str, Sequence[str]]]
    problems: tuple[str, ...] = ()

    def offers(self, one: Distribution) -> str:
        """`readers parquet, xlsx; writers parquet`; empty when it provides nothing."""
        found: dict[str, list[str]] = {}
        for name, provides in self.provides.items():
            if normalised(name.partition(":")[0]) == normalised(one.name):
                for hook, names in provides.items():
                    found.setdefault(hook, []).extend(names)
        return in_words(found)

    def problems_of(self, one: Distribution) -> list[str]:
        """The problems in which it is named, as they were told."""
        quoted = re.compile(rf"'{re.escape(one.name)}(:[^']*)?'")
        return [problem for problem in self.problems if quoted.search(problem)]


def normalised(name: str) -> str:
    """Distribution names are the same in either case, and with '-', '_' or '.'."""
    return re.sub(r"[-_.]+", "-", name).lower()


def in_words(provides: Mapping[str, Sequence[str]]) -> str:
    """`readers parquet, xlsx; writers parquet` of names by hook."""
    return "; ".join(
        f"{hook.removeprefix('bioforge_')} {', '.join(names)}" for hook, names in provides.items() if names
    )


def installed() -> list[Distribution]:
    """The distributions of this interpreter; of several with one name, the first on the path."""
    from importlib.metadata import distributions

    found: dict[str, Distribution] = {}
    for one in distributions():
        folder = getattr(one, "_path", None)
        try:
            name, stat = one.name, folder and os.stat(folder)
        except (OSError, KeyError, TypeError):  # half removed, or without metadata: pip's problem, not ours
            continue
        if not name or normalised(name) in found:
            continue
        found[normalised(name)] = Distribution(
            name,
            one.version,
            f"{stat.st_ino} {stat.st_mtime_ns}" if stat else "",
            one.read_text("REQUESTED") is not None,
            tuple(entry.name for entry in one.entry_points if entry.group == GROUP),
        )
    return list(found.values())


def look() -> InstalledEnvironment:
    """Ask a fresh interpreter. BioforgeError with its last words when bioforge itself does not start there."""
    distributions = [
        Distribution(**{**one, "entries": tuple(one["entries"])}) for one in _asked("bioforge.plugins.install")
    ]
    listed = _asked("bioforge", "plugins", "--format", "json")
    return InstalledEnvironment(
        {normalised(one.name): one for one in distributions},
        {plugin["name"]: plugin["provides"] for plugin in listed["plugins"]},
        tuple(listed["problems"]),
    )


def _asked(*words: str) -> Any:
    """The JSON that `python -m WORDS` prints. The working folder is no place to import from, and every plugin is loaded,
    whatever this process was told to leave out."""
    environment = {name: value for name, value in os.environ.items() if name != LOAD}
    ran = subprocess.run(
        [sys.executable, "-P", "-m", *words], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    try:
        return json.loads(ran.stdout)
    except ValueError:
        last = (ran.stderr.strip() or f"exit code {ran.returncode}").splitlines()[-1]
        raise BioforgeError(
            f"bioforge does not start in this environment any more: {last}",
            f"`{sys.executable} -m {' '.join(words[:2])}` shows all of it; `{sys.executable} -m pip check` may say why",
        ) from None


if __name__ == "__main__":
    print(json.dumps([asdict(one) for one in installed()]))


ITSELF = "bioforge"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


@dataclass(slots=True)
class InstallReport:
    """What to tell: lines for what went well, notes, and errors with their hints."""

    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    errors: list[BioforgeError] = field(default_factory=list)


# ---------------------------------------------------------------------------------------------------------- pip or uv


def installer() -> list[str]:
    """The words before `install`: this interpreter's pip, else uv. UsageError when there is neither."""
    if find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if uv := shutil.which("uv"):
        return [uv, "pip"]
    raise UsageError(
        "this environment has no pip, and there is no uv on the path",
        f"`{sys.executable} -m ensurepip` brings pip; with pipx: `pipx inject bioforge NAME`",
    )


def _run(verb: str, words: Iterable[str]) -> int:
    """pip's exit code. What it prints goes to this process's stderr as it comes."""
    command = installer()
    own = (["-y"] if verb == "uninstall" else []) if find_spec("pip") else ["--python", sys.executable]
    environment = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", **os.environ}
    return subprocess.run([*command, verb, *own, *words], env=environment, stdout=2).returncode


def _by_pip(name: str) -> str:
    return f"`{sys.executable} -m pip uninstall {name}` removes it"


# -------------------------------------------------------------------------------------------------------- installing


def install(packages: Sequence[str], options: Sequence[str] = (), editable: Sequence[str] = ()) -> InstallReport:
    """Install `packages` (names, paths and further words for pip) and `editable` folders, and say what they brought.

    UsageError before anything happens; BioforgeError when pip fails, which has then said why.
    """
    words = _before_options(packages)
    if not words and not editable:
        raise UsageError(
            "nothing to install was named", "`bioforge install bioforge-tables`, or a folder: `bioforge install .`"
        )
    for path in (*filter(_is_path, words), *editable):
        if "://" not in path and not os.path.exists(path.partition("[")[0]):
            raise UsageError(
                f"there is no {path} to install", "give a folder with a pyproject.toml, a wheel, or a name"
            )
    installer()
    before = look()
    if code := _run("install", [*options, *(word for path in editable for word in ("-e", path)), *packages]):
        raise BioforgeError(f"nothing was installed: pip ended with exit code {code}; see above", _meant(words))
    return _came_of(words, before, look())


def _came_of(words: Sequence[str], before: InstalledEnvironment, after: InstalledEnvironment) -> InstallReport:
    """What pip did, told by what was there before and is there after. A dependency that came along is not told of."""
    report = InstallReport()
    there = after.distributions
    new = {
        key: one
        for key, one in there.items()
        if key not in before.distributions or before.distributions[key].stamp != one.stamp
    }
    named = [normalised(name) for name in map(_name, words) if name]
    kept = [there[key] for key in dict.fromkeys(named) if key in there and key not in new]
    for one in (*new.values(), *kept):
        if one.entries or one.requested or one in kept:
            _judge(one, before, after, report, normalised(one.name) in named)
    if not report.lines and not report.errors:
        report.notes.append("nothing changed")
    told = {problem for one in (*new.values(), *kept) for problem in after.problems_of(one)}
    for problem in after.problems:
        if problem not in (*before.problems, *told):
            # What came along may be another version of something that an older plugin stands on.
            report.errors.append(BioforgeError(problem, "it was not so before this installation"))
    return report


def _judge(
    one: Distribution, before: InstalledEnvironment, after: InstalledEnvironment, report: InstallReport, by_name: bool
) -> None:
    """Add to `report` what there is to say of something that was to be installed, and is there."""
    old = before.distributions.get(normalised(one.name))
    is_new = old is None or old.stamp != one.stamp
    state = f"{one} is installed{'' if is_new else ' already'}"
    problems, offers = after.problems_of(one), after.offers(one)
    if normalised(one.name) == ITSELF:
        report.lines.append(f"installed {one}" if is_new else state)
    elif not one.entries:
        meant = _meant([one.name]) if by_name else ""
        report.errors.append(
            BioforgeError(
                f"{state}, and is no plugin of bioforge: it has no entry point in the group {GROUP!r}",
                "; ".join(filter(None, (_by_pip(one.name), meant))),
            )
        )
    elif problems or not offers:
        whose = re.compile(rf"plugin '{re.escape(one.name)}'[^:]*: ")
        for problem in problems or ["none of its hooks returns a name"]:
            message = f"{state}, but does not work: {whose.sub('', problem, count=1)}"
            report.errors.append(BioforgeError(message, f"`bioforge uninstall {one.name}` removes it"))
    else:
        was = f" (was {old.version})" if is_new and old and old.version != one.version else ""
        report.lines.append(f"installed {one}{was}: {offers}" if is_new else f"{state}: {offers}")
        chosen = os.environ.get(LOAD)
        if chosen is not None and not _is_chosen(chosen, one):
            report.notes.append(f"{LOAD} is {chosen!r}, which leaves {one.name} out")


def _before_options(packages: Sequence[str]) -> list[str]:
    """The words before the first option for pip: names and paths."""
    first = next((number for number, word in enumerate(packages) if word.startswith("-")), len(packages))
    return list(packages[:first])


def _is_path(word: str) -> bool:
    """As pip sees it: a bare name is looked for in the index, even where a folder has that name."""
    return word.startswith(".") or "/" in word or os.sep in word


def _name(word: str) -> str:
    """The distribution's name in a requirement like `bioforge-tables>=0.2`; empty for a path."""
    found = None if _is_path(word) else _NAME.match(word)
    return found[0] if found else ""


def _meant(words: Iterable[str]) -> str:
    """A name is never completed, since `tables` can be a distribution of its own. But it can be asked what was meant."""
    for name in filter(None, map(_name, words)):
        if os.path.isdir(name):
            return f"for the folder of that name: `bioforge install ./{name}`"
        if not normalised(name).startswith(f"{ITSELF}-"):
            return f"plugins are mostly called bioforge-NAME: `bioforge install {ITSELF}-{name}`"
    return ""


def _is_chosen(load: str, one: Distribution) -> bool:
    wanted = {normalised(word.strip()) for word in load.split(",")}
    return bool(wanted & {normalised(name) for name in (one.name, *one.entries)})


# ------------------------------------------------------------------------------------------------------ uninstalling


def to_uninstall(names: Sequence[str], now: InstalledEnvironment) -> list[Distribution]:
    """The installed plugins of these names. UsageError for what is none, above all for bioforge itself."""
    plugins = {key: one for key, one in now.distributions.items() if one.entries and key != ITSELF}
    found = []
    for name in dict.fromkeys(names):
        key = normalised(name)
        if key in plugins:
            found.append(plugins[key])
            continue
        if key in now.distributions:
            what = "bioforge does not uninstall itself" if key == ITSELF else f"{name} is no plugin of bioforge"
            raise UsageError(f"{what}; nothing was uninstalled", _by_pip(name))
        known = [one.name for one in plugins.values()]
        meant = next((one.name for one in plugins.values() if key in map(normalised, one.entries)), None)
        raise UsageError(
            f"no plugin {name!r} is installed; nothing was uninstalled",
            f"did you mean {meant!r}?" if meant else nearest(name, known) or f"installed: {', '.join(known) or 'none'}",
        )
    return found


def uninstall(
    plugins: Sequence[Distribution], before: InstalledEnvironment, options: Sequence[str] = ()
) -> InstallReport:
    """Uninstall what `to_uninstall` found, and say which names are gone. BioforgeError when pip fails."""
    if code := _run("uninstall", [*options, *(one.name for one in plugins)]):
        raise BioforgeError(f"pip ended with exit code {code}; see above", "`bioforge plugins` lists what is there")
    after, report = look(), InstallReport()
    for one in plugins:
        if normalised(one.name) in after.distributions:
            hint = f"`{sys.executable} -m pip show -f {one.name}` says where it is"
            report.errors.append(BioforgeError(f"{one} is still there", hint))
        else:
            offers = before.offers(one)
            report.lines.append(f"uninstalled {one}{offers and f'; gone: {offers}'}")
    return report

"""What is installed in this environment, as a fresh interpreter finds it: this one imported what was there before."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bioforge.core.errors import BioforgeError

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
class Environment:
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


def look() -> Environment:
    """Ask a fresh interpreter. BioforgeError with its last words when bioforge itself does not start there."""
    distributions = [Distribution(**{**one, "entries": tuple(one["entries"])}) for one in _asked("bioforge.installed")]
    listed = _asked("bioforge", "plugins", "--format", "json")
    return Environment(
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

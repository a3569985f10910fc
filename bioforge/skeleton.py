"""The plugin that `bioforge init --plugin` writes: it works as it is, and its tests pass."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from string import Template

from bioforge import __version__
from bioforge.core.errors import UsageError, nearest
from bioforge.scaffold import write_new

KINDS = ("reader", "writer", "backend")
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST_NAME = 40

_USE = {
    "reader": '[input]\npath = "artists.$name"            # read by this plugin for its suffix, or: reader = "$name"',
    "writer": '[[output]]\npath = "out/bios.$name"           # written by this plugin for its suffix, or: writer = "$name"',
    "backend": '[backend]\nname = "$name"\n\n[backend.$name]\nmodels = ["gpt-6-luna"]\nusd_per_million_input = 0.5\n'
    "usd_per_million_output = 2.0",
}
_OPTIONS = {
    "reader": "| `columns` | names of columns in the file by their names here | none |\n"
    '| `separator` | the text between a name and its value | `":"` |',
    "writer": '| `root` | the name of the outermost element | `"answers"` |\n'
    "| `failed` | whether what has no answer is written too | `true` |",
    "backend": "| `usd_per_million_input` | US dollars for a million tokens of input | `0.0` |\n"
    "| `usd_per_million_output` | US dollars for a million tokens of output | `0.0` |\n"
    "| `models` | the models that have this price; none for a price that is unknown | `[]` |",
}


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A plugin to be written: `name` is what people put into the project file, in small letters, digits and '-'."""

    name: str
    kind: str

    @classmethod
    def of(cls, name: str, kind: str) -> Skeleton:
        """UsageError for a name that cannot be a plugin's, or a kind that is none. `bioforge-` before it is let go."""
        short = name.removeprefix("bioforge-")
        if not _NAME.fullmatch(short) or len(short) > _LONGEST_NAME:
            raise UsageError(
                f"--plugin {name}: expected small letters, digits and '-', beginning with a letter, {_LONGEST_NAME} at most",
                "like `bioforge init --plugin discogs`, which writes bioforge-discogs",
            )
        if kind not in KINDS:
            raise UsageError(f"--kind {kind}: no such kind", nearest(kind, KINDS) or f"kinds are: {', '.join(KINDS)}")
        return cls(short, kind)

    @property
    def distribution(self) -> str:
        return f"bioforge-{self.name}"

    @property
    def package(self) -> str:
        return self.distribution.replace("-", "_")

    def files(self) -> dict[str, str]:
        """Its files: paths relative to its folder, and their text."""
        identifier = self.name.replace("-", "_")
        words = {
            "name": self.name,
            "kind": self.kind,
            "distribution": self.distribution,
            "package": self.package,
            "identifier": identifier,
            "Class": "".join(part.capitalize() for part in self.name.split("-")),
            "bioforge": __version__,
            "options": _OPTIONS[self.kind],
            "use": Template(_USE[self.kind]).substitute(name=self.name),
        }
        templates = {
            "pyproject.toml": "pyproject.toml.tmpl",
            "README.md": "README.md.tmpl",
            ".gitignore": "gitignore.tmpl",
            f"{self.package}/__init__.py": f"{self.kind}/package.py.tmpl",
            f"{self.package}/py.typed": "",
            "tests/conftest.py": "conftest.py.tmpl",
            f"tests/test_{identifier}.py": f"{self.kind}/test.py.tmpl",
        }
        return {path: _filled(template, words) for path, template in templates.items()}

    def write(self, folder: Path) -> list[Path]:
        """Write it into the folder `bioforge-NAME` below `folder`, and return the paths written.

        UsageError names the files that are there already, and nothing is written then.
        """
        return write_new(
            folder,
            {f"{self.distribution}/{path}": text for path, text in self.files().items()},
            "`bioforge init --plugin NAME DIR` writes it below another folder",
        )


def _filled(template: str, words: dict[str, str]) -> str:
    if not template:
        return ""
    folder = resources("bioforge") / "templates" / "plugin"
    return Template(folder.joinpath(*template.split("/")).read_text("utf-8")).substitute(words)

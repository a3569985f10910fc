"""Environments to throw away, with bioforge and pip in them, and wheels made by hand to be installed there, offline."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import dedent

from processes import ENVIRONMENT, Child, Ran, program

READER = """
    from bioforge.plugin import Artist, hookimpl

    BIOFORGE_API = 1

    def names(stream, source, options):
        for line, name in enumerate(stream, 1):
            yield Artist(str(line), name.decode().strip(), source=source, line=line)

    @hookimpl
    def bioforge_readers():
        return {"names": names}
"""
"""A plugin: a reader of files with a name a line."""

_HIDING = """
    import sys
    from importlib.machinery import PathFinder

    class Without(PathFinder):
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            return None if name == {module!r} else super().find_spec(name, path, target)

    sys.meta_path = [Without if finder is PathFinder else finder for finder in sys.meta_path]
"""


def wheel(
    folder: Path,
    name: str,
    files: Mapping[str, str],
    *,
    version: str = "0.1.0",
    entry: str | None = None,
    script: str = "",
    requires: str = "",
) -> Path:
    """A wheel with these modules. `entry` is the entry point for bioforge, `name = module`; None for no plugin."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    contents = {path: dedent(text) for path, text in files.items()}
    contents[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    if requires:
        contents[f"{info}/METADATA"] += f"Requires-Dist: {requires}\n"
    contents[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    if entry:
        contents[f"{info}/entry_points.txt"] = f"[bioforge]\n{entry}\n"
    if script:
        contents[f"{info}/entry_points.txt"] = f"[console_scripts]\n{script}\n"
    record = "".join(f"{path},{_hash(text)},{len(text.encode())}\n" for path, text in contents.items())
    contents[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, text in contents.items():
            archive.writestr(inner, text)
    return path


def plugin(folder: Path, name: str, code: str = READER, *, version: str = "0.1.0") -> Path:
    """A wheel of a plugin in one module, `bioforge-names` with the entry point `names = bioforge_names`."""
    module = name.replace("-", "_")
    entry = f"{name.removeprefix('bioforge-')} = {module}"
    return wheel(folder, name, {f"{module}.py": code}, version=version, entry=entry)


def wheel_of(project: Path, folder: Path) -> Path:
    """The wheel of a plugin's folder, by what its pyproject.toml says; no backend has to be fetched to build it."""
    about = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))
    files = {
        path.relative_to(project).as_posix(): path.read_text("utf-8")
        for package in about["tool"]["setuptools"]["packages"]
        for path in sorted((project / package).rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    }
    ((entry, module),) = about["project"]["entry-points"]["bioforge"].items()
    name, version = about["project"]["name"], about["project"]["version"]
    return wheel(folder, name, files, version=version, entry=f"{entry} = {module}")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


class Environment:
    """An environment of its own that also sees what the tests' own has, bioforge above all. There is no index.

    A command of bioforge is forked with everything imported, and looks at this environment. Interpreters that it starts
    itself, for pip and to see what is there, are the environment's own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder, with_pip=False, symlinks=True)
        self.site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        self._outer = outer = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        lines = (f"import site; site.addsitedir({path!r})\n" for path in sorted(outer))
        (self.site / "outer.pth").write_text("".join(lines), "utf-8")
        self.python = folder / "bin" / "python"

    def run(self, *words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Ran:
        """`python -m WORDS` in this environment."""
        ran = subprocess.run(
            [str(self.python), "-m", *words],
            cwd=cwd or self.folder,
            env=self._variables(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert "Traceback" not in ran.stderr, ran.stderr
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    def pytest(self, project: Path) -> Ran:
        """The tests of a plugin's folder, as its author runs them, on what is installed."""
        return self.run("pytest", "-p", "no:cacheprovider", "-p", "no:randomly", cwd=project)

    def bioforge(self, *words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Ran:
        """A command as one that lives in this environment."""
        paths = [str(path) for path in (self.python, self.site)]
        return Child(cwd or self.folder, _inside, (*paths, self._outer, self._variables(env), words)).end()

    def _variables(self, more: Mapping[str, str] | None) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))},
            **ENVIRONMENT,
            "PIP_NO_INDEX": "1",
            "PIP_CONFIG_FILE": os.devnull,
            **(more or {}),
        }

    def without(self, module: str) -> None:
        """Nothing finds this module here any more."""
        (self.site / "_hidden.py").write_text(dedent(_HIDING).format(module=module), "utf-8")
        (self.site / "hidden.pth").write_text("import _hidden\n", "utf-8")

    def add(self, wheel: Path) -> None:
        """Install a wheel as pip does, in no time: unpacked, and asked for."""
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(self.site)
        info = self.site / f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
        (info / "REQUESTED").touch()
        with (info / "RECORD").open("a", encoding="utf-8") as record:
            record.write(f"{info.name}/REQUESTED,,\n")


def _inside(python: str, site: str, outer: set[str], variables: Mapping[str, str], words: Sequence[str]) -> None:
    """The command line as this interpreter begins it, which finds what is in `site` before what is in the outer ones."""
    os.environ.clear()
    os.environ.update(variables)
    sys.executable = python
    sys.path.insert(min(place for place, path in enumerate(sys.path) if path in outer), site)
    with open(os.devnull) as nobody:
        os.dup2(nobody.fileno(), 0)
    program(*words)

"""Files of a project: those that nothing may overwrite, and those outside its folder."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from bioforge.config.loader import ProjectConfig
from bioforge.config.relations import TEMPLATES
from bioforge.config.tables import RecipeTable
from bioforge.core.errors import UsageError
from bioforge.core.files import STATE_SUFFIXES


class TakenFiles:
    """The files of a project by path and by inode, so that links to them are recognised."""

    def __init__(self, config: ProjectConfig) -> None:
        self._root = config.root
        found = dict(_files(config))
        self._uses = {os.path.realpath(file): use for file, use in found.items()}
        self._inodes = {inode: use for file, use in found.items() if (inode := _inode(file))}
        root, path = os.path.realpath(config.root), os.path.expanduser(config.input.path)
        self._pattern: list[str] = []
        if "://" not in path and glob.has_magic(path) and not os.path.lexists(os.path.join(root, path)):
            self._pattern = os.path.normpath(os.path.join(root, path)).split(os.sep)
            for name in glob.iglob(path, root_dir=root, recursive=True):
                self._uses[os.path.realpath(os.path.join(root, name))] = "the input"
                if inode := _inode(os.path.join(root, name)):
                    self._inodes[inode] = "the input"

    def outside(self) -> list[str]:
        """Return files that the project reads from outside its folder, links followed, in order of their names."""
        root = os.path.realpath(self._root)
        read = (file for file, use in self._uses.items() if use not in ("the state", "the project file"))
        return sorted(file for file in read if not _is_inside(file, root) and os.path.lexists(file))

    def use(self, path: Path) -> str:
        """Return what `path` is in the project, like `the input`; an empty text if it may be written."""
        real = os.path.realpath(path)
        if self._pattern and _matches(self._pattern, real.split(os.sep)):
            return "the input"
        inode = _inode(real)
        return self._uses.get(real, "") or (self._inodes.get(inode, "") if inode else "")


def check_safe(config: ProjectConfig) -> None:
    """Raise `UsageError` for code of the project, and for files outside its folder that it reads or writes."""
    for name, recipe in config.recipes.items():
        for key, values in (("schema", [recipe.schema_, *recipe.matrix.get("schema", ())]), ("score", [recipe.score])):
            for value in values:
                if isinstance(value, str) and ":" in value:
                    raise UsageError(
                        f"recipe.{name}.{key}: {value} is code of the project, which --safe does not run",
                        "read it, then run without --safe; or leave it out",
                    )
    root = os.path.realpath(config.root)
    written = [config.project.state, *(output.path for output in config.outputs)]
    written += [str(config.simulator[name]) for name in ("ledger", "data") if name in config.simulator]
    for file in (*TakenFiles(config).outside(), *(os.path.realpath(config.root / path) for path in written)):
        if not _is_inside(file, root):
            raise UsageError(
                f"--safe: {file} is outside the project",
                "name a file in the folder of the project, or run without --safe",
            )


def _is_inside(file: str, root: str) -> bool:
    return file == root or file.startswith(os.path.join(root, ""))


def _files(config: ProjectConfig) -> Iterator[tuple[str, str]]:
    root = config.root
    yield str(config.path), "the project file"
    yield str(root / ".env"), "the file .env"
    state = os.path.realpath(config.state_path)
    for suffix in STATE_SUFFIXES:
        yield f"{state}{suffix}", "the state"
    yield str(root / Path(config.input.path).expanduser()), "the input"
    for name, recipe in config.recipes.items():
        for text in _texts(recipe):
            yield str(root / text), f"a template or schema of recipe {name}"
        for function in (recipe.schema_, recipe.score):
            module, colon, _ = (function or "").partition(":")
            if colon:
                place = root.joinpath(*module.split("."))
                yield f"{place}.py", f"code of recipe {name}"
                yield str(place / "__init__.py"), f"code of recipe {name}"


def _texts(recipe: RecipeTable) -> Iterator[str | Path]:
    """Yield everything in a recipe that may name a file."""
    for template in (recipe.instructions, recipe.input):
        if template is not None and template.path is not None:
            yield template.path
    values = [recipe.schema_, *(value for name in (*TEMPLATES, "schema") for value in recipe.matrix.get(name, ()))]
    for value in values:
        if isinstance(value, str) and "\n" not in value and "{" not in value:
            yield value


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _matches(pattern: Sequence[str], parts: Sequence[str]) -> bool:
    """Return True if a path matches a glob, also one that does not exist yet."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(pattern[1:], parts[skipped:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatch(parts[0], pattern[0]) and _matches(pattern[1:], parts[1:])

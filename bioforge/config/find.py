"""Find, decode and parse bioforge.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from bioforge.config.templates import decode
from bioforge.config.validation import short
from bioforge.core.errors import ConfigError

FILE = "bioforge.toml"


def find(path: Path | None) -> tuple[str, Path]:
    """Return the file's name for messages and its absolute path."""
    if path is None:
        here = Path.cwd()
        if not (here / FILE).is_file():
            above = next((str(folder / FILE) for folder in here.parents if (folder / FILE).is_file()), None)
            hint = "`bioforge init` writes one that runs as it is; -f names one elsewhere"
            raise ConfigError(f"no {FILE} in {here}", f"there is {above}: go there, or use -f" if above else hint)
        return FILE, here / FILE
    if path.is_dir():
        path = path / FILE
    return str(path), path.absolute()


def parse(name: str, path: Path) -> dict[str, Any]:
    try:
        text = decode(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"no such project file: {name}", "`bioforge init` writes one that runs as it is") from None
    except OSError as problem:
        raise ConfigError(f"{name}: cannot be read: {problem.strerror}") from None
    except ValueError as problem:
        raise ConfigError(f"{name}: {problem}", "save the file as UTF-8") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise ConfigError(
            f"{name}{_syntax(str(problem), text)}", 'TOML: text stands in quotes, as in key = "text"'
        ) from None
    except RecursionError:
        raise ConfigError(f"{name}: lists or tables are nested too deeply to be read") from None
    except ValueError as problem:  # a number with more digits than anybody counts
        raise ConfigError(f"{name}: cannot be read: {problem}") from None


def _syntax(problem: str, text: str) -> str:
    """Format tomllib's message as `, line 3, column 5: problem; found 'the line'`."""
    what, _, where = problem.rpartition(" (at ")
    if place := re.match(r"line (\d+), column (\d+)\)", where):
        lines = text.split("\n")
        number = min(int(place[1]), len(lines))
        return f", line {place[1]}, column {place[2]}: {_lower(what)}; found {short(lines[number - 1].strip())}"
    return f", at the end: {_lower(what)}" if what else f": {_lower(problem)}"


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]

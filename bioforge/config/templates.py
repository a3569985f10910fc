"""Template texts of a recipe: inline, or in a file beside the project file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bioforge.config.validation import short

if TYPE_CHECKING:
    from pydantic import ValidationInfo

SUFFIXES = (".md", ".txt", ".j2", ".jinja", ".jinja2")


@dataclass(frozen=True, slots=True)
class TemplateText:
    """A template's text; `path` is the file it was read from, None for inline text."""

    text: str
    path: Path | None = None


def read_template(value: object, info: ValidationInfo) -> TemplateText:
    """Validate a template; paths start from `info.context["root"]`. Raises `ValueError` with a sentence."""
    root: Path = (info.context or {})["root"]
    if not isinstance(value, str):
        raise ValueError(f"expected a template file or text, found {short(value)}")
    return resolve(value, root)


def resolve(value: str, root: Path) -> TemplateText:
    """Return the file that `value` names, or `value` itself.

    Text with a line break, `{{` or `{%` is always inline; otherwise an existing file is read. A value that looks
    like a path but is none raises `ValueError`, because a mistyped path sent as a prompt costs money.
    """
    if "\n" not in value and "{{" not in value and "{%" not in value:
        path = root / value
        if _is_file(path):
            return TemplateText(_read(path, value), path)
        if _looks_like_path(value):
            near = _nearest_file(value, root)
            raise ValueError(
                f"no such file {value!r:.80}{near and f'; did you mean {near!r}?'}"
                " (text with a space or a line break is taken as it is)"
            )
    if not value.strip():
        raise ValueError("the template is empty")
    return TemplateText(value)


def decode(data: bytes) -> str:
    """Decode UTF-8, with or without a byte order mark, with any line ends.

    `ValueError` names the line of the first wrong byte.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise ValueError(f"not UTF-8: byte 0x{data[problem.start]:02x} in line {line}") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read(path: Path, name: str) -> str:
    try:
        text = decode(path.read_bytes())
    except OSError as problem:
        raise ValueError(f"cannot read {name!r}: {problem.strerror}") from None
    except ValueError as problem:
        raise ValueError(f"{name!r} is {problem}") from None
    if not text.strip():
        raise ValueError(f"{name!r} is empty")
    return text


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a text too long for a file name
        return False


def _looks_like_path(value: str) -> bool:
    return not any(map(str.isspace, value)) and ("/" in value or value.lower().endswith(SUFFIXES))


def _nearest_file(value: str, root: Path) -> str:
    """Return the file with the most similar path, in the named folder, in `root` or one folder below."""
    try:
        found = list(dict.fromkeys(islice(_files(value, root), 2000)))
    except OSError:  # a folder that may not be listed
        return ""
    if near := get_close_matches(value, found, n=1, cutoff=0.5):
        return near[0]
    same_name = [path for path in found if PurePosixPath(path).name == PurePosixPath(value).name]
    return same_name[0] if same_name else ""


def _files(value: str, root: Path) -> Iterator[str]:
    for folder in ((root / value).parent, root, *sorted(root.glob("*/"))):
        if folder.is_dir() and folder.is_relative_to(root):
            for path in sorted(folder.iterdir()):
                if path.suffix in SUFFIXES and path.is_file():
                    yield path.relative_to(root).as_posix()

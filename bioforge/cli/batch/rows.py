"""Rows for a batch by hand: read, rendered and written as lines, or left out with the reason."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from os import environ
from pathlib import Path
from tempfile import TemporaryDirectory

from bioforge.backends.openai.batch_lines import line
from bioforge.config.plugin_options import PluginOptions
from bioforge.core.errors import InputError
from bioforge.core.events import Attempt
from bioforge.core.hashing import canonical
from bioforge.core.text import plural, slug
from bioforge.core.types import Artist, BadRow, Rendered, Request
from bioforge.engine.backends import bind_reader
from bioforge.plugins.manager import Plugins
from bioforge.readers.sources import find, is_url
from bioforge.recipes.template import RecipeVariant, RenderError

_FIT = re.compile("[A-Za-z0-9_-]{1,64}")

COMMAND_LINE = "the command line"

SHOWN = 5
"""Bad rows to show; the others are counted."""


@dataclass(frozen=True, slots=True)
class RowSource:
    """The source of rows. `reader` None: chosen by suffix. Paths start from `root`."""

    path: str
    reader: str | None
    options: Mapping[str, object]
    root: Path
    file: str = COMMAND_LINE


@dataclass(slots=True)
class RequestTemplate:
    """The request for each row, and `notes` for the user."""

    variants: list[RecipeVariant]
    body: Callable[[Rendered], dict[str, object]]
    notes: list[str] = field(default_factory=list)


_FLAGS = (
    (re.compile(r"write under \[input\] in the project file: columns = \{ (.*?) \}( \(or .*\))?$"), "columns"),
    (re.compile(r"these are JSON lines.*"), "these are JSON lines: give the file the suffix .jsonl"),
    (re.compile(r"another delimiter\?.*"), "another delimiter? Save the file with commas, or as .tsv with tabs"),
    (re.compile(r"set the file's encoding under \[input\].*"), "save the file as UTF-8"),
    (re.compile(r"\[input\] columns\.(\w+)"), r"--columns \1"),
    (re.compile(r"\[input\] columns"), "--columns"),
    (re.compile(r"check \[input\] path in the project file|(check the address in )\[input\] path"), "check --in"),
    (re.compile(r"\[input\] path"), "--in"),
)
"""Hints about the project file, and what replaces them for a file that the command line names."""


def for_flags(text: str) -> str:
    """Return a message about `[input]` in terms of `--in` and `--columns`."""
    for pattern, replacement in _FLAGS:
        if replacement != "columns":
            text = pattern.sub(replacement, text)
        elif match := pattern.search(text):
            pairs = re.findall(r'(\w+) = "([^"]*)"', match[1])
            text = "name the columns: " + " ".join(f"--columns {ours}={shlex.quote(theirs)}" for ours, theirs in pairs)
    return text


def _rows(source: RowSource, plugins: Plugins) -> Iterator[Artist | BadRow]:
    with TemporaryDirectory() as cache:
        if is_url(source.path):
            from bioforge.readers.download import fetch

            found = [fetch(source.path, Path(cache)).source]
        else:
            found = find(source.path, source.root)
        for one in found:
            name = source.reader or one.suffix or "csv"
            yield from bind_reader(plugins, PluginOptions(source.file, environ.get), source.options, name).rows(one)


class BadRows:
    """Rows that cannot be used. If `strict`, nothing is written because of one."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.number = 0
        self.good = 0
        self.examples: list[BadRow] = []

    def add(self, row: BadRow) -> None:
        self.number += 1
        if len(self.examples) < SHOWN:
            self.examples.append(row)

    def check(self) -> None:
        """Raise `InputError` if nothing may be written."""
        if self.number and (self.strict or not self.good):
            head = f"{plural(self.number, 'bad row')} in the input"
            why = ", and strict mode allows none" if self.good else ", and no usable one"
            rest = "fix the rows" + (", or run without --strict to leave them out" if self.good else "")
            raise InputError("\n".join([f"{head}{why}:", *self._shown()]), f"{rest}; nothing was written")
        if not self.good:
            raise InputError("the input has no rows", "add rows below the header; nothing was written")

    def lines(self) -> Iterator[str]:
        if self.number:
            yield f"input: {plural(self.number, 'bad row')} left out:"
            yield from self._shown()

    def _shown(self) -> Iterator[str]:
        for row in self.examples:
            yield f"  {row.source}:{row.line}: {row.message}"
        if self.number > len(self.examples):
            yield f"  … and {self.number - len(self.examples):,} more"


def batch_lines(
    requests: RequestTemplate, source: RowSource, plugins: Plugins, limit: int | None, bad: BadRows
) -> Iterator[bytes]:
    """Yield the lines of the good rows in order."""
    try:
        yield from _batch_lines(requests, source, plugins, limit, bad)
    except InputError as error:
        if source.file != COMMAND_LINE:
            raise
        raise InputError(for_flags(error.message), for_flags(error.hint)) from None


def _batch_lines(
    requests: RequestTemplate, source: RowSource, plugins: Plugins, limit: int | None, bad: BadRows
) -> Iterator[bytes]:
    taken: set[str] = set()
    for row in _rows(source, plugins):
        if isinstance(row, BadRow):
            bad.add(row)
            continue
        name = custom_id(row.artist_id)
        if name in taken:
            bad.add(BadRow(row.source, row.line, f"artist_id {row.artist_id!r} is already taken"))
            continue
        try:
            lines = [_line(requests, variant, name, row) for variant in requests.variants]
        except RenderError as error:
            bad.add(BadRow(row.source, row.line, str(error)))
            continue
        taken.add(name)
        yield from lines
        bad.good += 1
        if bad.good == limit:
            return


def _line(requests: RequestTemplate, variant: RecipeVariant, name: str, artist: Artist) -> bytes:
    body = canonical(requests.body(variant.render(artist)))
    request = Request("", variant.endpoint, variant.model or "", body, artist.artist_id, "")
    if variant.variant:
        name = custom_id(f"{name}-{variant.variant}")
    return line(Attempt(request, 1, "", name, 0.0))


def custom_id(artist_id: str) -> str:
    """Return the artist's id if the API accepts it (1 to 64 of `[A-Za-z0-9_-]`), else its slug and a digest."""
    if _FIT.fullmatch(artist_id):
        return artist_id
    readable = re.sub(r"-+", "-", re.sub(r"[^A-Za-z0-9-]", "", slug(artist_id))).strip("-")
    digest = hashlib.sha256(artist_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{readable or 'id'}-{digest}"

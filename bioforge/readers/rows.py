"""Turn input rows into artists by the rules that all formats share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bioforge.core.errors import InputError, nearest
from bioforge.core.text import derived_id
from bioforge.core.types import Artist, BadRow
from bioforge.readers.csv_decode import encoding_name

OWN_COLUMNS = ("artist_id", "artist_name", "artist_data")
_SHOWN_COLUMNS = 20
_NAMELESS_ROWS = 1_000


class RowError(ValueError):
    """A row that cannot be used; the message is one short sentence."""


# ---------------------------------------------------------------------------------------------------------- options


def check_options(options: Mapping[str, object], known: Sequence[str]) -> None:
    """Raise `InputError` for an option that is not `known`. `strict` is ignored: it is not an option of readers."""
    for name in options:
        if name not in known and name != "strict":
            raise InputError(
                f"[input] {name}: this reader has no such option",
                nearest(name, known) or f"its options are {', '.join(known)}",
            )


def text_option(options: Mapping[str, object], name: str, default: str) -> str:
    value = options.get(name, default)
    if not isinstance(value, str) or "\n" in value or "\r" in value:
        raise InputError(f"[input] {name}: found {value!r}, expected text on one line", f'default: "{default}"')
    return value


def encoding_option(options: Mapping[str, object]) -> str:
    return encoding_name(text_option(options, "encoding", "utf-8"))


def flag_option(options: Mapping[str, object], name: str, default: bool) -> bool:
    value = options.get(name, default)
    if not isinstance(value, bool):
        raise InputError(f"[input] {name}: found {value!r}, expected true or false")
    return value


# ---------------------------------------------------------------------------------------------------------- columns


@dataclass(frozen=True, slots=True)
class RowTemplate:
    """A column made from others: `artist_data = "{{ dates }} {{ placeOfBirth }}"`."""

    column: str
    text: str
    names: frozenset[str]
    render: Callable[[Mapping[str, object]], str]

    @classmethod
    def compile(cls, column: str, text: str) -> RowTemplate:
        from jinja2 import TemplateSyntaxError, meta

        from bioforge.recipes.template import environment

        compiler = environment()
        try:
            names = meta.find_undeclared_variables(compiler.parse(text))
            template = compiler.from_string(text)
        except TemplateSyntaxError as error:
            raise InputError(
                f"[input] columns.{column}: {error.message} in {text!r}",
                'a template looks like "{{ dates }}, {{ country }}"',
            ) from None
        return cls(column, text, frozenset(names - {"columns"}), template.render)


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """The option `columns`: our name on the left; an input column or a template over the row on the right.

    Renaming moves a column; a second use of the same one copies it. Templates keep the columns they read.
    """

    renames: Mapping[str, str] = field(default_factory=dict)
    """Input column to our name."""
    copies: Mapping[str, str] = field(default_factory=dict)
    """Our name to input column."""
    templates: tuple[RowTemplate, ...] = ()

    @classmethod
    def of(cls, option: object) -> ColumnMap:
        """Return the map for an option's value; raise `InputError`."""
        if not isinstance(option, Mapping):
            raise InputError(
                f"[input] columns: found {option!r}, expected a table", 'columns = { artist_name = "name" }'
            )
        renames: dict[str, str] = {}
        copies: dict[str, str] = {}
        templates: list[RowTemplate] = []
        for ours, theirs in option.items():
            if not isinstance(theirs, str) or not theirs.strip():
                raise InputError(
                    f"[input] columns.{ours}: found {theirs!r}, expected the name of an input column or a template"
                )
            if "{{" in theirs or "{%" in theirs:
                templates.append(RowTemplate.compile(ours, theirs))
            elif theirs.strip() in renames:
                copies[ours] = theirs.strip()
            else:
                renames[theirs.strip()] = ours
        return cls(renames, copies, tuple(templates))

    def derived_names(self, column: str) -> set[str]:
        """Return all names of an input column in recipes' templates: its own, and those of columns made from it."""
        names = {column, self.renames.get(column, column)}
        names |= {ours for ours, theirs in self.copies.items() if theirs == column}
        return names | {template.column for template in self.templates if not names.isdisjoint(template.names)}

    @property
    def computes(self) -> bool:
        """Return True if rows need `compute` after their columns were renamed."""
        return bool(self.copies or self.templates)

    def header(self, found: Sequence[str], source: str, *, is_text: bool = True) -> list[str]:
        """Return our names for an input's columns, in order. Raises `InputError` if they cannot make artists."""
        for theirs, ours in self.renames.items():
            if theirs not in found:
                raise InputError(
                    f"{source} has no column {theirs!r}, which [input] columns.{ours} names",
                    nearest(theirs, found) or f"found: {_listed(found)}",
                )
        names = [self.renames.get(name, name) for name in found]
        for name, original in zip(names, found, strict=True):
            if names.count(name) > 1:
                if name == original and found.count(name) > 1:
                    raise InputError(f"{source} has more than one column {name!r}", "rename one of them")
                raise InputError(
                    f"{source} has a column {name!r}, and [input] columns gives another one the same name",
                    f'name the old one too: columns = {{ {name}_old = "{name}" }}',
                )
        if "artist_name" not in names and "artist_name" not in self._added:
            raise no_name_column(found, source, is_text=is_text)
        return names

    @property
    def _added(self) -> set[str]:
        return {*self.copies, *(template.column for template in self.templates)}

    def rename(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row under our names. Raises `RowError` if two keys get the same name."""
        renamed = {self.renames.get(name, name): value for name, value in row.items()}
        if len(renamed) != len(row):
            twice = next(ours for theirs, ours in self.renames.items() if theirs in row and ours in row)
            raise RowError(f"{twice} is in the row twice: under this name, and as the column that is renamed to it")
        return renamed

    def compute(self, row: dict[str, Any], original: Mapping[str, Any]) -> None:
        """Add copies and rendered columns to a renamed `row`; raise `RowError` if a template fails."""
        for ours, theirs in self.copies.items():
            if theirs in original:
                row[ours] = original[theirs]
        if not self.templates:
            return
        names = {**row, **original}
        names["columns"] = dict(names)
        rendered: dict[str, str] = {}
        for template in self.templates:
            try:
                rendered[template.column] = template.render(names).strip()
            except Exception as error:  # any error of a user's template rejects the row
                raise RowError(f"the template for {template.column} failed: {error}") from None
        row.update(rendered)

    def check_templates(self, found: Sequence[str], source: str) -> None:
        """Raise `InputError` if a template names something that is certainly not a column."""
        known = {*found, *self.renames.values(), *self.copies}
        for template in self.templates:
            for name in sorted(template.names - known):
                raise InputError(
                    f"{source} has no column {name!r}, which the template in [input] columns.{template.column} names",
                    nearest(name, known) or f"found: {_listed(found)}",
                )


def no_name_column(found: Sequence[str], source: str, *, is_text: bool = True) -> InputError:
    """Return the error for a missing name column. `is_text`: the header was read from text, so it may be a data row."""
    problem = f"{source} has no column artist_name; found: {_listed(found)}"
    if is_text and len(found) == 1 and found[0].lstrip().startswith("{"):
        return InputError(problem, 'these are JSON lines: write reader = "jsonl" under [input]')
    if is_text and len(found) == 1 and (other := next((mark for mark in ";\t|" if mark in found[0]), None)):
        shown = "tab" if other == "\t" else other
        return InputError(problem, f'another delimiter? Write delimiter = "{shown}" under [input]')
    guesses = {
        "artist_id": _first_like(found, ("id", "artist id", "artistid", "key", "number")),
        "artist_name": _first_like(found, ("name", "artist", "artist name", "full_name"))
        or next((name for name in found if "name" in name.lower()), found[0] if found else "name"),
        "artist_data": _first_like(found, ("bio", "data", "description", "dates", "notes", "text")),
    }
    columns = ", ".join(f'{ours} = "{theirs}"' for ours, theirs in guesses.items() if theirs)
    return InputError(
        problem,
        f"write under [input] in the project file: columns = {{ {columns} }}"
        + (" (or header = false, if the first row is an artist)" if is_text else ""),
    )


def _first_like(found: Sequence[str], words: Sequence[str]) -> str | None:
    return next((name for word in words for name in found if name.lower() == word), None)


def _listed(names: Sequence[str]) -> str:
    shown = [name if len(name) <= 40 else f"{name[:40]}…" for name in names[:_SHOWN_COLUMNS]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "") or "none"


# ------------------------------------------------------------------------------------------------------------- rows


def artists(
    rows: Iterable[tuple[int, Mapping[str, Any] | RowError]],
    source: str,
    columns: ColumnMap,
    header: Sequence[str] | None = None,
) -> Iterator[Artist | BadRow]:
    """Yield the artists of numbered rows; an invalid row is a `BadRow`. Values are JSON values.

    Raises `InputError` if there is no column for the name: by the `header`, if the format has one, else when no
    row among the first has it.
    """
    if header is not None:
        columns.header(header, source, is_text=False)
    held: list[BadRow] | None = [] if header is None else None  # until a row has a name
    nameless: dict[str, None] = {}
    for line, original in rows:
        try:
            if isinstance(original, RowError):
                raise original
            row = columns.rename(original)
            if columns.computes:
                columns.compute(row, original)
            if "artist_name" in row:
                yield from held or ()
                held = None
            elif held is not None:
                nameless.update(dict.fromkeys(original))
            found: Artist | BadRow = artist(row, source, line)
        except RowError as error:
            if columns.templates and header is not None:
                columns.check_templates(header, source)
            found = BadRow(source, line, str(error))
        if held is None:
            yield found
        elif isinstance(found, BadRow):
            held.append(found)
            if len(held) == _NAMELESS_ROWS:
                if nameless:
                    break
                yield from held
                held = None
    if held and nameless:
        raise no_name_column(list(nameless), source, is_text=False)
    yield from held or ()


def artist(row: dict[str, Any], source: str, line: int) -> Artist:
    """Return the artist of a row under our names, with JSON values; removes its own columns from `row`.

    Name and id are text or numbers; data may be any value, as JSON text if it is not text. Raises `RowError`.
    """
    keys = list(row)
    name = _text("artist_name", row.pop("artist_name", None))
    artist_id = _text("artist_id", row.pop("artist_id", None))
    data = row.pop("artist_data", None)
    if not name:
        raise RowError(f"no artist_name (found: {_listed(keys)})" if "artist_name" not in keys else "no artist_name")
    if data is None:
        data = ""
    elif not isinstance(data, str):
        data = json.dumps(data, ensure_ascii=False)
    return Artist(artist_id or derived_id(name), name, data.strip(), row, source, line)


def _text(column: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float):
        kind = {bool: "true or false", list: "a list", dict: "an object"}.get(type(value), "something else")
        raise RowError(f"{column} is {kind}, expected text or a number")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # spreadsheets and data frames write the id 12 as 12.0
    return str(value)


def texts(value: object) -> Iterable[str]:
    """Yield every text inside a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)

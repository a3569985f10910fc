"""Built-in output formats: JSON lines, CSV, TSV, and Markdown as one file or as a folder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import IO, Any

from bioforge.core.errors import ConfigError, nearest
from bioforge.core.hashing import encoder
from bioforge.core.interfaces import FolderWriter, Record, Writer
from bioforge.core.text import file_stem
from bioforge.plugins.hookspecs import hookimpl


@hookimpl
def bioforge_writers() -> Mapping[str, Writer | FolderWriter]:
    folder = MarkdownFolder()
    return {
        "jsonl": jsonl_writer,
        "ndjson": jsonl_writer,
        "csv": csv_writer,
        "tsv": tsv_writer,
        "md": markdown_writer,
        "markdown": markdown_writer,
        "markdown-folder": folder,
    }


def _check_options(options: Mapping[str, object], known: Sequence[str]) -> None:
    for name in options:
        if name not in known:
            hint = f"its options are {', '.join(known)}" if known else "it has no options"
            if name == "split":
                hint = 'for a file an artist: writer = "markdown-folder", or a path that ends in "/"'
            raise ConfigError(f"[[output]] {name}: this writer has no such option", nearest(name, known) or hint)


@contextmanager
def _text(stream: IO[bytes], encoding: str = "utf-8") -> Iterator[io.TextIOWrapper]:
    """`stream` for text, left open. Half a surrogate pair, which a model can return and no file can hold, is `?`."""
    text = io.TextIOWrapper(stream, encoding=encoding, errors="replace", newline="")
    try:
        yield text
        text.flush()
    finally:
        text.detach()


# ------------------------------------------------------------------------------------------------------- JSON lines


def jsonl_writer(records: Iterable[Record], stream: IO[bytes], options: Mapping[str, object]) -> None:
    """One record a line, in UTF-8. No options."""
    _check_options(options, ())
    readable = encoder(separators=(", ", ": "))
    for record in records:
        line = readable(record)
        try:
            stream.write(f"{line}\n".encode())
        except UnicodeEncodeError:  # half of a surrogate pair: an escape keeps what UTF-8 cannot
            stream.write(f"{json.dumps(record)}\n".encode())


# -------------------------------------------------------------------------------------------------------------- CSV

CSV_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "artist_id": ("artist_id",),
    "artist_name": ("artist_name",),
    "artist_data": ("artist_data",),
    "recipe": ("recipe",),
    "variant": ("variant",),
    "response_text": ("response_text",),
    "parsed": ("parsed",),
    "response_id": ("response_id",),
    "created": ("created",),
    "model": ("model",),
    "input_tokens": ("usage", "input_tokens"),
    "output_tokens": ("usage", "output_tokens"),
    "cost_usd": ("cost_usd",),
    "error_class": ("error", "class"),
    "error_message": ("error", "message"),
}
"""The columns in order, each with the keys that lead to its value in a record."""

_FURTHER: Mapping[str, tuple[str, ...]] = {
    "request": ("request",),
    "usage": ("usage",),
    "cached_tokens": ("usage", "cached_tokens"),
    "reasoning_tokens": ("usage", "reasoning_tokens"),
    "error_code": ("error", "code"),
}
"""Columns that are written only where the option `columns` names them."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_writer(records: Iterable[Record], stream: IO[bytes], options: Mapping[str, object]) -> None:
    """A row a record, under a header. Options: columns (a list of names), delimiter, bom, formulas.

    `bom = true` lets Excel see that it is UTF-8. `formulas = "escape"` puts an apostrophe before texts that a
    spreadsheet would calculate. Objects and lists are JSON text. Rows end with CRLF (RFC 4180).
    """
    _write_csv(records, stream, options, ",")


def tsv_writer(records: Iterable[Record], stream: IO[bytes], options: Mapping[str, object]) -> None:
    """As `csv_writer`, with values separated by tabs."""
    _write_csv(records, stream, options, "\t")


def _write_csv(records: Iterable[Record], stream: IO[bytes], options: Mapping[str, object], delimiter: str) -> None:
    _check_options(options, ("columns", "delimiter", "bom", "formulas"))
    names = _columns_option(options)
    paths = [CSV_COLUMNS.get(name) or _FURTHER[name] for name in names]
    bom = options.get("bom", False)
    if not isinstance(bom, bool):
        raise ConfigError(f"[[output]] bom: found {bom!r}, expected true or false")
    formulas = options.get("formulas", "keep")
    if formulas not in ("keep", "escape"):
        raise ConfigError(f"[[output]] formulas: found {formulas!r}", 'expected "keep" or "escape"')
    cell: Callable[[object], object] = _escaped if formulas == "escape" else _cell
    with _text(stream, "utf-8-sig" if bom else "utf-8") as text:
        writer = csv.writer(text, delimiter=_delimiter_option(options, delimiter))
        writer.writerow(names)
        for record in records:
            writer.writerow([cell(_at(record, path)) for path in paths])


def _columns_option(options: Mapping[str, object]) -> list[str]:
    given = options.get("columns", list(CSV_COLUMNS))
    if not isinstance(given, list) or not given:
        raise ConfigError(f"[[output]] columns: found {given!r}, expected a list of names", 'columns = ["artist_id"]')
    known = [*CSV_COLUMNS, *_FURTHER]
    for name in given:
        if name not in known:
            hint = nearest(str(name), known) or f"columns are: {', '.join(known)}"
            raise ConfigError(f"[[output]] columns: no record has {name!r}", hint)
    return given


def _delimiter_option(options: Mapping[str, object], default: str) -> str:
    given = options.get("delimiter", default)
    given = "\t" if given in ("tab", "\\t") else given
    if not isinstance(given, str) or len(given) != 1 or given in '"\r\n':
        raise ConfigError(f"[[output]] delimiter: found {given!r}, expected one character", 'one like "," or "tab"')
    return given


def _at(record: Record, path: tuple[str, ...]) -> object:
    value: Any = record
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _cell(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | bool) else value


def _escaped(value: object) -> object:
    cell = _cell(value)
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


# --------------------------------------------------------------------------------------------------------- Markdown


def markdown_writer(records: Iterable[Record], stream: IO[bytes], options: Mapping[str, object]) -> None:
    """One file with a section an artist: `# name`, and where an artist has several texts, `## recipe` for each.

    Records of an artist follow each other. Texts stand as they came. No options.
    """
    _check_options(options, ())
    with _text(stream) as text:
        for number, group in enumerate(_by_artist(records)):
            text.write(("\n" if number else "") + _section(group))


class MarkdownFolder:
    """A folder with a file an artist, named after name and id, with front matter. No options."""

    writes_folder = True

    def __call__(self, records: Iterable[Record], options: Mapping[str, object]) -> Iterator[tuple[str, bytes]]:
        _check_options(options, ())
        return self._files(records)

    def _files(self, records: Iterable[Record]) -> Iterator[tuple[str, bytes]]:
        for group in _by_artist(records):
            stem = file_stem(str(group[0].get("artist_id", "")), _name(group[0]))
            yield f"{stem}.md", f"{_front_matter(group)}\n{_section(group)}".encode(errors="replace")


def _by_artist(records: Iterable[Record]) -> Iterator[list[Record]]:
    for _, group in groupby(records, key=lambda record: record.get("artist_id")):
        yield list(group)


def _name(record: Record) -> str:
    return str(record.get("artist_name", ""))


def _section(group: Sequence[Record]) -> str:
    parts = [f"# {' '.join(_name(group[0]).split())}\n"]
    for record in group:
        if len(group) > 1:
            variant = record.get("variant")
            parts.append(f"## {record.get('recipe', '')}{f' ({variant})' if variant else ''}\n")
        parts.append(_body(record) + "\n")
    return "\n".join(parts)


def _body(record: Record) -> str:
    """The text, structured output as a JSON block, or what went wrong."""
    if record.get("parsed") is not None:
        block = json.dumps(record["parsed"], ensure_ascii=False, indent=2)
        fence = "```"
        while fence in block:
            fence += "`"
        return f"{fence}json\n{block}\n{fence}"
    if record.get("response_text"):
        return str(record["response_text"]).strip("\r\n")
    error = record.get("error")
    if isinstance(error, Mapping):
        return f"> No text: {error.get('class')}, {' '.join(str(error.get('message', '')).split())}"
    return "> No text yet."


_FRONT_MATTER = ("recipe", "variant", "model", "created", "response_id", "cost_usd")


def _front_matter(group: Sequence[Record]) -> str:
    """YAML between `---` lines; its values are JSON, which YAML reads as it is."""
    first = group[0]
    values: dict[str, object] = {key: first[key] for key in ("artist_id", "artist_name") if key in first}
    if len(group) == 1:
        values.update((key, first[key]) for key in _FRONT_MATTER if first.get(key) not in (None, ""))
    else:
        values["recipes"] = list(dict.fromkeys(record.get("recipe") for record in group))
    lines = (f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())
    return f"---\n{''.join(lines)}---\n"

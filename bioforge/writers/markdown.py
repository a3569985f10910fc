"""Write records as Markdown: one file, or a folder with a file for each artist."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import IO

from bioforge.core.interfaces import Record
from bioforge.core.text import file_stem
from bioforge.writers.options import check_options, open_text


def markdown_writer(records: Iterable[Record], stream: IO[bytes], options: Mapping[str, object]) -> None:
    """Write one file with a section per artist: `# name`, and `## recipe` for each if an artist has several texts.

    Records of an artist are adjacent. Texts are unchanged. No options.
    """
    check_options(options, ())
    with open_text(stream) as text:
        for number, group in enumerate(_by_artist(records)):
            text.write(("\n" if number else "") + _section(group))


class MarkdownFolder:
    """A folder with a file per artist, with front matter. File names have the artist's name and id. No options."""

    writes_folder = True

    def __call__(self, records: Iterable[Record], options: Mapping[str, object]) -> Iterator[tuple[str, bytes]]:
        check_options(options, ())
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
    """Return the text, structured output as a JSON block, or the error."""
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
    """Return YAML between `---` lines; its values are JSON, which is valid YAML."""
    first = group[0]
    values: dict[str, object] = {key: first[key] for key in ("artist_id", "artist_name") if key in first}
    if len(group) == 1:
        values.update((key, first[key]) for key in _FRONT_MATTER if first.get(key) not in (None, ""))
    else:
        values["recipes"] = list(dict.fromkeys(record.get("recipe") for record in group))
    lines = (f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())
    return f"---\n{''.join(lines)}---\n"

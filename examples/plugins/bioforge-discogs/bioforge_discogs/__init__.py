"""Discogs' dump of artists (`discogs_20261101_artists.xml.gz`) as input: `reader = "discogs"`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import IO
from xml.etree.ElementTree import Element, ParseError, iterparse

from pydantic import Field

from bioforge.plugin import Artist, BadRow, InputError, Reader, ReaderOptions, artists, hookimpl, with_options

BIOFORGE_API = 1

NAMES = {"id": "artist_id", "name": "artist_name", "profile": "artist_data"}
"""What Discogs calls the three columns that every artist has. All others keep their names."""

MARKUP = re.compile(r"\[[almr]=([^\]]*)\]|\[/?(?:[biu]|url)(?:=[^\]]*)?\]|\[[almr]\d+\]")


class DiscogsOptions(ReaderOptions):
    markup: bool = Field(False, description="true to keep codes like [a=Name] in texts, or false")


@with_options(DiscogsOptions)
def read_discogs(stream: IO[bytes], source: str, options: DiscogsOptions) -> Iterator[Artist | BadRow]:
    """The artists of a dump, one at a time: no more than one is in memory. InputError when it is no such dump."""
    try:
        rows = ((number, _row(element, options.markup)) for number, element in enumerate(_elements(stream, source), 1))
        yield from artists(rows, source, options.columns)
    except ParseError as error:
        raise InputError(f"{source} cannot be read as XML: {error}", "was it downloaded to its end?") from None


def _elements(stream: IO[bytes], source: str) -> Iterator[Element]:
    """Each `<artist>` right below `<artists>`, when it is complete. It is emptied when the next one is asked for."""
    events = iterparse(stream, events=("start", "end"))
    _, root = next(events)
    if root.tag != "artists":
        raise InputError(f"{source} is no dump of artists: it begins with <{root.tag}>", "expected <artists>")
    depth = 0
    for event, element in events:
        depth += 1 if event == "start" else -1
        if depth == 0:
            if element.tag == "artist":
                yield element
            root.clear()


def _row(artist: Element, markup: bool) -> dict[str, object]:
    """Columns by name: a text for `<realname>…</realname>`, a list of texts for what has parts, like `<aliases>`."""
    row: dict[str, object] = {}
    for field in artist:
        parts = [_text(part, markup) for part in field]
        row[NAMES.get(field.tag, field.tag)] = [part for part in parts if part] if parts else _text(field, markup)
    return row


def _text(element: Element, markup: bool) -> str:
    text = (element.text or "").strip()
    return text if markup else MARKUP.sub(r"\1", text)


@hookimpl
def bioforge_readers() -> Mapping[str, Reader]:
    return {"discogs": read_discogs}

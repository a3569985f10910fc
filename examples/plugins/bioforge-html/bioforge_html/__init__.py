"""One HTML page with all texts, as output: `path = "out/bios.html"`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import IO

from pydantic import Field

from bioforge.plugin import AnyWriter, Options, Record, hookimpl, with_options

BIOFORGE_API = 1


class HtmlOptions(Options):
    title: str = Field("Biographies", description="a text for the head of the page")
    level: int = Field(2, ge=1, le=6, description="a whole number from 1 to 6, the level of the headings")


@with_options(HtmlOptions)
def write_html(records: Iterable[Record], stream: IO[bytes], options: HtmlOptions) -> None:
    """A section for each record, with its text or the reason why there is none."""

    def put(text: str) -> None:
        # A model can return half of a surrogate pair, which no file can hold.
        stream.write(text.encode(errors="replace"))

    title, heading = escape(options.title), f"h{options.level}"
    put(f'<!doctype html>\n<html>\n<head><meta charset="utf-8"><title>{title}</title></head>\n<body>\n')
    for record in records:
        error = record.get("error")
        text = record.get("response_text") or (f"No text: {error['message']}" if isinstance(error, Mapping) else "")
        put(f'<section id="{escape(str(record["artist_id"]))}">\n')
        put(f"<{heading}>{escape(str(record['artist_name']))}</{heading}>\n<p>{escape(str(text))}</p>\n</section>\n")
    put("</body>\n</html>\n")


@hookimpl
def bioforge_writers() -> Mapping[str, AnyWriter]:
    return {"html": write_html}

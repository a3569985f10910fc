"""The writer does what every writer must, and a page of it is HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from bioforge_html import HtmlOptions, bioforge_writers, write_html

from bioforge.testing import WriterContract, record


class Page(HTMLParser):
    """The sections of a page: their ids, and the texts in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: list[dict[str, str]] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag
        if tag == "section":
            self.sections.append({"artist_id": dict(attrs)["id"] or "", "response_text": ""})

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "p":
            text = "" if data.startswith("No text: ") else data
            self.sections[-1]["response_text"] += text


class TestContract(WriterContract):
    suffix = "html"
    name = "html"
    wrong_options = (({"level": 7}, "level"), ({"title": 3}, "title"))

    def writer(self) -> object:
        return write_html

    def read(self, path: Path) -> Sequence[Mapping[str, Any]]:
        return Page(path.read_text("utf-8")).sections


def page(tmp_path: Path, *records: Mapping[str, object], **options: object) -> str:
    path = tmp_path / "page.html"
    with path.open("wb") as stream:
        write_html(records, stream, HtmlOptions(**options))  # type: ignore[arg-type]
    return path.read_text("utf-8")


def test_names_and_texts_are_text(tmp_path: Path) -> None:
    text = page(tmp_path, record(1, "<script>alert(1)</script>", artist_name="Tom & Jo"), title="A < B", level=3)
    assert "<title>A &lt; B</title>" in text
    assert "<h3>Tom &amp; Jo</h3>\n<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>" in text


@pytest.mark.parametrize("text", ["A life.", None])
def test_what_failed_says_why(tmp_path: Path, text: str | None) -> None:
    assert ("No text: too many requests" in page(tmp_path, record(1, text))) == (text is None)


def test_the_hook_names_the_writer() -> None:
    assert bioforge_writers() == {"html": write_html}

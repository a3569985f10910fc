"""The reader does what every reader must, and reads what Discogs writes."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
from bioforge_discogs import NAMES, bioforge_readers, read_discogs

from bioforge.plugin import Artist, InputError
from bioforge.testing import ReaderContract

EXAMPLE = Path(__file__).parent.parent / "example"
TAGS = {ours: theirs for theirs, ours in NAMES.items()}


def dump(rows: Sequence[Mapping[str, Any]]) -> str:
    """A dump with these artists, as Discogs writes it: an artist a line, and no declaration."""
    lines = []
    for row in rows:
        fields = ((TAGS.get(name, name), escape(str(value or ""))) for name, value in row.items())
        lines.append(f"<artist>{''.join(f'<{tag}>{text}</{tag}>' for tag, text in fields)}</artist>\n")
    return f"<artists>\n{''.join(lines)}</artists>\n"


class TestContract(ReaderContract):
    """Every story that bioforge tells of a reader: laziness, memory, broken files, options, a project."""

    suffix = "xml"
    name = "discogs"
    detects_truncation = True
    wrong_options = (({"markup": "no"}, "markup"),)

    def reader(self) -> object:
        return read_discogs

    def write(self, path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        path.write_text(dump(rows), "utf-8")

    def test_parts_are_lists_and_markup_is_text(self) -> None:
        duo, nora, trio = self.read(EXAMPLE / "artists.xml")
        assert duo == Artist(
            "1",
            "The Paper Lanterns",
            "Duo from Aarhus, since 2004. Music for films, mostly with Nora Field on the cello.",
            {
                "realname": "Ida Holm & Ravi Menon",
                "data_quality": "Correct",
                "urls": ["https://lanterns.example"],
                "aliases": ["Holm/Menon"],
            },
            "artists.xml",
            1,
        )
        assert isinstance(nora, Artist)
        assert nora.artist_data == "Cellist, born 1979 in Galway. Solo records on Harbour Tapes."
        assert isinstance(trio, Artist)
        assert trio.columns["members"] == ["Emi Ōtsuki", "Jonas Brandt"]

    def test_markup_can_be_kept(self) -> None:
        _, nora, _ = self.read(EXAMPLE / "artists.xml", markup=True)
        assert isinstance(nora, Artist)
        assert "[b]Solo[/b] records on [l=Harbour Tapes]" in nora.artist_data

    def test_a_name_inside_an_artist_is_not_its_own(self, tmp_path: Path) -> None:
        path = tmp_path / "a.xml"
        path.write_text(
            "<artists><artist><members><id>5</id><name>Emi</name></members><name>Trio</name></artist></artists>"
        )
        (trio,) = self.read(path)
        assert isinstance(trio, Artist)
        assert (trio.artist_name, trio.columns) == ("Trio", {"members": ["5", "Emi"]})

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("<releases></releases>", "a.xml is no dump of artists: it begins with <releases>"),
            ("<artists><artist>", "a.xml cannot be read as XML: no element found"),
            # Entities are neither fetched nor blown up.
            ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><artists>&x;</artists>', "undefined entity"),
            (
                f"<!DOCTYPE a [<!ENTITY e0 '{'e' * 100}'>"
                + "".join(f"<!ENTITY e{n} '{f'&e{n - 1};' * 20}'>" for n in range(1, 9))
                + "]><artists><artist><name>&e8;</name></artist></artists>",
                "amplification",
            ),
        ],
        ids=["another dump", "cut off", "a file of this machine", "a billion laughs"],
    )
    def test_what_cannot_be_read_is_said(self, tmp_path: Path, text: str, said: str) -> None:
        path = tmp_path / "a.xml"
        path.write_text(text)
        assert said in self.refused(path, InputError).message


def test_a_packed_dump_is_read_as_it_is(make_project) -> None:  # type: ignore[no-untyped-def]
    project = make_project(
        {"artists.xml.gz": gzip.compress((EXAMPLE / "artists.xml").read_bytes())},
        toml=(EXAMPLE / "bioforge.toml")
        .read_text("utf-8")
        .replace('"artists.xml"', '"artists.xml.gz"')
        .replace('"simulator"', '"{base_url}"'),
    )
    project.run("run").ok()
    assert [record["artist_name"] for record in project.records()] == [
        "The Paper Lanterns",
        "Nora Field",
        "Ōtsuki Trio",
    ]
    project.assert_ledger_equals_state()


def test_the_hook_names_the_reader() -> None:
    assert bioforge_readers() == {"discogs": read_discogs}

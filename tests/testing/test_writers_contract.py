"""The built-in writers keep the contract that plugins are held to."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

from bioforge.plugin import UsageError, path_writer
from bioforge.testing import WriterContract
from bioforge.writers.plugin import bioforge_writers


class TestJsonLines(WriterContract):
    suffix = name = "jsonl"

    def writer(self):
        return bioforge_writers()[self.name]

    def read(self, path: Path):
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_names_that_mean_the_same() -> None:
    writers = bioforge_writers()
    assert writers["ndjson"] is writers["jsonl"]
    assert writers["markdown"] is writers["md"]


class TestCsv(WriterContract):
    suffix = name = "csv"
    delimiter = ","
    wrong_options = (({"columns": "artist_id"}, "columns"), ({"bom": 1}, "bom"), ({"delimiter": ",,"}, "delimiter"))

    def writer(self):
        return bioforge_writers()[self.name]

    def read(self, path: Path):
        with path.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream, delimiter=self.delimiter))


class TestTsv(TestCsv):
    suffix = name = "tsv"
    delimiter = "\t"


def text_of(section: str) -> str | None:
    """What was written for a record: its text, a JSON block as the text it is, nothing where a line says that it failed."""
    body = section.strip("\r\n")
    if body.startswith("> No text"):
        return None
    if block := re.fullmatch(r"```json\n(.*)\n```", body, re.DOTALL):
        return json.dumps(json.loads(block[1]))
    return body


class TestMarkdown(WriterContract):
    """Its sections have names, and no ids."""

    suffix = name = "md"
    key = "artist_name"

    def writer(self):
        return bioforge_writers()[self.name]

    def read(self, path: Path):
        _, *parts = re.split(r"^# (.*)\n", path.read_text("utf-8"), flags=re.MULTILINE)
        pairs = zip(parts[::2], parts[1::2], strict=True)
        return [{"artist_name": name, "response_text": text_of(body)} for name, body in pairs]


class TestMarkdownFolder(WriterContract):
    name = "markdown-folder"
    many = 400
    ordered = False

    def writer(self):
        return bioforge_writers()[self.name]

    def read(self, path: Path):
        found = []
        for file in path.glob("*.md"):
            _, front, body = file.read_text("utf-8").split("---\n", 2)
            values = dict(line.split(": ", 1) for line in front.splitlines())
            text = text_of(body.split("\n", 2)[2])
            found.append({"artist_id": json.loads(values["artist_id"]), "response_text": text})
        return found


class TestLog(WriterContract):
    """A writer that only adds, and cannot take back."""

    suffix = "log"
    replaces = False

    def writer(self):
        def write(records, path, options):
            if options:
                raise UsageError(f"unknown option {next(iter(options))}")
            there = set(path.read_text("utf-8").splitlines()) if path.exists() else set()
            with path.open("a", encoding="utf-8") as stream:
                for line in map(json.dumps, records):
                    if line not in there:
                        stream.write(f"{line}\n")

        return path_writer(write)

    def read(self, path: Path):
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]

"""Whatever is done to a project and in whatever order: nothing is bought twice or lost, and it comes to the same end.

A walk takes random steps: edits of rows, prompts, schema, matrix, artists and recipes, and runs of all kinds with a server
that fails. After each run the books are looked at; in the end all must be as in a project that never had a history.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from chains import BIO, FACTS, OVERVIEW, TRANSLATION, ChainFolder, Script, Words, chain

STEPS = 14

NAMES = {"1": "Björk", "2": "Magdalena Abakanowicz", "3": "Absalon", "4": "Abbey"}
DATA = ("singer", "sculptor", "painter")
MODELS = ("gpt-6-luna", "gpt-6.1-terra")
LIMITS = (None, 500, 37)
"""How long a note may be at most, which is checked and not sent. The last one is too short for most."""

RECIPES = {"facts": "Collect", "bio": "biography", "translation": "Translate", "overview": "in common"}
"""The recipes, and the words by which their requests are known."""

FAULTS = ("refusal", "incomplete", "misfit", "bad_request", "drop_before", "drop_after", "malformed", "rate_limit")


@dataclass
class Files:
    """What a project's files say, apart from how they say it."""

    rows: dict[str, str] = field(default_factory=lambda: dict.fromkeys(NAMES, DATA[0]))
    removed: set[str] = field(default_factory=set)
    without: set[str] = field(default_factory=set)
    prompts: dict[str, int] = field(default_factory=lambda: {"facts": 0, "bio": 0})
    limit: int | None = None
    models: tuple[str, ...] = MODELS[:1]
    samples: int = 1
    repair: bool = True
    fallback: bool = True

    def write(self, project: ChainFolder) -> None:
        rows = [
            f"{artist},{NAMES[artist]},{data}\n" for artist, data in self.rows.items() if artist not in self.removed
        ]
        project.write("artists.csv", "artist_id,artist_name,artist_data\n" + "".join(rows))
        note = {"type": "string"} | ({} if self.limit is None else {"maxLength": self.limit})
        born = {"type": "integer", "minimum": 1900, "maximum": 1990}
        project.write(
            "facts.json",
            json.dumps(
                {
                    "type": "object",
                    "properties": {"born": born, "note": note},
                    "required": ["born", "note"],
                    "additionalProperties": False,
                }
            ),
        )
        project.recipes(*(text for name, text in self.tables().items() if name in self.present))

    def tables(self) -> dict[str, str]:
        more = ['schema = "facts.json"', "repair = true" * self.repair, 'fallback = ["gpt-6.1-terra"]' * self.fallback]
        matrix = f"matrix = {{ model = {json.dumps(self.models)} }}\nsamples = {self.samples}\n"
        return {
            "facts": FACTS.replace("facts.", f"facts {self.prompts['facts']}.") + "\n".join(more) + "\n",
            "bio": BIO.replace('model = "gpt-6-luna"\n', matrix)
            .replace("facts.text", "facts.parsed.born")
            .replace("biography.", f"biography {self.prompts['bio']}."),
            "translation": TRANSLATION,
            # artists stand in the order in which they were first seen, and here whatever their history is
            "overview": OVERVIEW.replace("in artists", "in artists | sort(attribute='artist_id')"),
        }

    @property
    def present(self) -> set[str]:
        without = self.without | ({"translation"} if "bio" in self.without else set())
        return set(RECIPES) - without


class History:
    """A project that things happen to. `told` is what, for whoever has to look for the reason."""

    def __init__(self, project: ChainFolder, seed: int) -> None:
        self.project = project
        self.files = Files()
        self.told: list[Any] = []
        self._draw = random.Random(seed)
        # what was accepted, and is then forgotten or forced, has more than one right end
        others = [self.accept] if seed % 2 else [self.forget, self.force]
        self._steps: list[Callable[[], object]] = [
            *[self.run] * 4, self.row, self.row, self.prompt, self.limit, self.matrix, self.samples, self.artist,
            self.recipe, self.switch, *others,
        ]  # fmt: skip
        self.files.write(project)

    def step(self) -> None:
        self._draw.choice(self._steps)()
        self.files.write(self.project)

    # ------------------------------------------------------------------------------------------------------------ edits

    def row(self) -> None:
        artist = self._draw.choice(list(NAMES))
        self.files.rows[artist] = self._draw.choice(DATA)
        self.told.append(("row", artist, self.files.rows[artist]))

    def prompt(self) -> None:
        name = self._draw.choice(list(self.files.prompts))
        self.files.prompts[name] ^= 1
        self.told.append(("prompt", name))

    def limit(self) -> None:
        self.files.limit = self._draw.choice(LIMITS)
        self.told.append(("limit", self.files.limit))

    def matrix(self) -> None:
        self.files.models = tuple(self._draw.sample(MODELS, self._draw.choice((1, 1, 2))))
        self.told.append(("matrix", self.files.models))

    def samples(self) -> None:
        self.files.samples ^= 3
        self.told.append(("samples", self.files.samples))

    def artist(self) -> None:
        self.files.removed ^= {self._draw.choice(list(NAMES))}
        if len(self.files.removed) == len(NAMES):
            self.files.removed.clear()
        self.told.append(("removed", sorted(self.files.removed)))

    def recipe(self) -> None:
        self.files.without ^= {self._draw.choice([name for name in RECIPES if name != "facts"])}
        self.told.append(("without", sorted(self.files.without)))

    def switch(self) -> None:
        name = self._draw.choice(("repair", "fallback"))
        setattr(self.files, name, not getattr(self.files, name))
        self.told.append((name, getattr(self.files, name)))

    # --------------------------------------------------------------------------------------------------------- commands

    def run(self) -> None:
        arguments: list[str] = []
        if self._draw.random() < 0.2:
            arguments += ["--max-failures", self._draw.choice("12"), "-j", "1"]
        if self._draw.random() < 0.2:
            arguments += ["--limit", self._draw.choice("125")]
        if self._draw.random() < 0.2:
            arguments += ["--select", self._draw.choice(["1", "2", "reason:new", "reason:changed", "reason:failed"])]
        if self._draw.random() < 0.2:
            arguments.append(self._draw.choice(sorted(self.files.present)))
        if self._draw.random() < 0.3:
            arguments += ["--backend", "threads"]
        faults: dict[Words, str] = {}
        for _ in range(self._draw.choice((0, 0, 1, 2, 3))):
            whose = (self._draw.choice(list(NAMES.values())),) if self._draw.random() < 0.7 else ()
            faults[self._draw.choice(list(RECIPES.values())), *whose] = self._draw.choice(FAULTS)
        self.command("run", *arguments, faults=faults)

    def force(self) -> None:
        which = self._draw.choice([[], ["--select", "1"], ["--select", "3"]])
        self.command("run", "-B", *self._draw.sample(sorted(self.files.present), self._draw.choice((0, 1))), *which)

    def accept(self) -> None:
        self.command("accept", self._draw.choice(["1", "2", "*", "[34]"]), "--yes")

    def forget(self) -> None:
        self.command("forget", self._draw.choice(["1", "2", "*", "[34]"]), "--yes")

    def command(self, *arguments: str, faults: dict[Words, str] | None = None) -> int:
        self.told.append((*arguments, faults or {}))
        self.files.write(self.project)
        self.project.script.faults = dict(faults or {})
        ran = self.project.run(*arguments)
        self.project.script.faults = {}
        assert ran.code in (0, 1), ran.err
        self.project.assert_money_is_explained()
        self.assert_planned_as_from_nothing()
        return ran.code

    # ------------------------------------------------------------------------------------------------- what must be true

    def fresh(self) -> dict[tuple[str, str, str], bool]:
        self.project.run("plan").ok()
        rows = self.project.rows(
            "SELECT artist_id, recipe, variant, state = 'fresh' FROM results WHERE state <> 'removed'"
        )
        return {row[:3]: row[3] for row in rows if row[1] in self.files.present}

    def assert_planned_as_from_nothing(self) -> None:
        """What was planned step by step is what one plan of everything comes to."""
        before = self.fresh()
        with closing(sqlite3.connect(self.project.root / "bioforge.db")) as connection, connection:
            connection.execute("UPDATE planned SET generation = -1")
        after = self.fresh()
        assert after == before, {name for name in before if before[name] != after[name]}

    def stale(self) -> set[str]:
        return {
            row[0] for row in self.project.rows("SELECT artist_id FROM results WHERE state NOT IN ('fresh', 'removed')")
        }

    def come_to_an_end(self) -> dict[tuple[str, str, str], str]:
        """The texts of a project whose server fails no more, and whose files ask for everything."""
        files, project = self.files, self.project
        files.without, files.limit, files.repair, files.fallback = set(), None, True, True
        if self.command("run"):
            self.command("run")
        held = project.value("SELECT count(*) FROM targets WHERE held = 1 AND reason <> 'removed'")
        assert held or not self.stale(), "without a fault everything can be built"
        # what was held back, accepted, or answered in place of another is asked for anew, on purpose
        others = self.stale() | {
            artist
            for (artist,) in project.rows(
                "SELECT r.artist_id FROM results r JOIN artists a USING (artist_id) JOIN targets t ON t.artist = a.id"
                " AND t.recipe = r.recipe AND t.variant = r.variant"
                " WHERE r.answered_by IS NOT NULL OR t.accepted_hash IS NOT NULL"
            )
        }
        if others:
            selects = [word for artist in {*others, "*"} for word in ("--select", artist.replace("*", "[*]"))]
            if self.command("run", "-B", *selects):
                self.command("run")
        assert not self.stale()
        charged = project.charged()
        project.run("run").ok()
        assert project.charged() == charged
        return texts(project)


def texts(project: ChainFolder) -> dict[tuple[str, str, str], str]:
    rows = project.rows("SELECT artist_id, recipe, variant, text FROM results WHERE state <> 'removed'")
    return {row[:3]: row[3] for row in rows}


@contextmanager
def world(root: Path) -> Iterator[ChainFolder]:
    with chain(root, script=Script(), retry_after=0.001) as project:
        yield project


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happened_to_a_project_it_comes_to_the_same_end(tmp_path: Path, seed: int) -> None:
    with world(tmp_path / "old") as project:
        history = History(project, seed)
        try:
            for _ in range(STEPS):
                history.step()
            found = history.come_to_an_end()
        except AssertionError as error:
            error.add_note(f"after {history.told}")
            raise
        with world(tmp_path / "clean") as clean:
            history.files.write(clean)
            clean.run("run").ok()
            assert found == texts(clean), f"after {history.told}"
            assert project.charged() >= clean.charged()

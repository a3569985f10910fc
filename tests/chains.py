"""Projects whose recipes build on each other, and a server that keeps what it was asked and fails as it is told to."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from processes import Ran
from projects import ProjectFolder

from bioforge.simulator import Simulator, SimulatorOptions
from bioforge.simulator.request_bodies import canonical, digest_of

HEAD = """
[project]
name = "test"
[provider]
base_url = "{base_url}"
[input]
path = "artists.csv"
[retry]
first_delay = 0.001
max_attempts = 2
[backend]
concurrency = 4
"""

FACTS = """
[recipe.facts]
model = "gpt-6-luna"
instructions = "Collect facts."
input = "{{ artist_name }}: {{ artist_data }}"
"""

BIO = """
[recipe.bio]
needs = ["facts"]
model = "gpt-6-luna"
instructions = "Write a biography."
input = "{{ artist_name }}, of whom is known: {{ facts.text }}"
"""

TRANSLATION = """
[recipe.translation]
needs = ["bio"]
model = "gpt-6-luna"
instructions = "Translate into French."
input = "{{ bio.text }}"
"""

OVERVIEW = """
[recipe.overview]
for = "all"
needs = ["facts"]
model = "gpt-6-luna"
instructions = "What do they have in common?"
input = "{% for artist in artists %}{{ artist.artist_name }}: {{ artist.facts.text }}\\n{% endfor %}"
"""

Words = str | tuple[str, ...]


class Script:
    """Keeps every body that the server is asked for, and names the faults it meets.

    `faults` are lists by what occurs in a body (one text, or several that all do): the n-th fault for its n-th try, and
    the last one for each further try.
    """

    def __init__(self, faults: Mapping[Words, str | Sequence[str]] | None = None) -> None:
        self.faults = dict(faults or {})
        self.asked: list[Mapping[str, Any]] = []

    def __call__(self, body: Mapping[str, Any], number: int) -> str | None:
        self.asked.append(body)
        text = canonical(body)
        for words, faults in self.faults.items():
            if all(word in text for word in ([words] if isinstance(words, str) else words)):
                names = [faults] if isinstance(faults, str) else faults
                return names[min(number, len(names)) - 1]
        return None

    def count(self, *words: str) -> int:
        """How often anything was asked in which all of these occur."""
        return sum(all(word in canonical(body) for word in words) for body in list(self.asked))


class ChainFolder(ProjectFolder):
    """A project with recipes of its own choosing, and what its server was asked for."""

    def __init__(self, root: Path, server: Simulator, script: Script) -> None:
        self.script = script
        super().__init__(root, server)

    def recipes(self, *tables: str, **replaced: str) -> None:
        """Write bioforge.toml with these tables; `replaced` exchanges texts of them."""
        text = "".join((HEAD.format(base_url=self.server.base_url), *tables))
        for old, new in replaced.items():
            assert old in text, old
            text = text.replace(old, new)
        self.write("bioforge.toml", text)

    def run(self, *arguments: str, **options: Any) -> Ran:
        """A command in this process. The next one imports the project's own modules anew, as one of its own would."""
        try:
            return super().run(*arguments, **options)
        finally:
            for name, module in list(sys.modules.items()):
                if str(getattr(module, "__file__", None)).startswith(f"{self.root}{os.sep}"):
                    del sys.modules[name]

    def states(self, recipe: str, variant: str = "") -> dict[str, str]:
        """What is said of a recipe's targets, by artist: `fresh`, or the reason and its detail."""
        return dict(
            self.rows(
                "SELECT a.artist_id, CASE WHEN t.reason IS NULL THEN 'fresh' ELSE t.reason || coalesce(': ' || t.detail, '')"
                " END FROM targets t JOIN artists a ON a.id = t.artist"
                " WHERE t.recipe = ? AND t.variant = ? ORDER BY a.artist_id",
                recipe,
                variant,
            )
        )

    def texts(self, recipe: str, variant: str = "") -> dict[str, str | None]:
        return dict(self.rows("SELECT artist_id, text FROM results WHERE recipe = ? AND variant = ?", recipe, variant))

    def why_asked(self) -> dict[tuple[str, str], int]:
        """How many attempts there were for each recipe and reason."""
        return {
            (recipe, reason): number
            for recipe, reason, number in self.rows(
                "SELECT t.recipe, x.reason, count(*) FROM attempts x JOIN targets t ON t.id = x.target GROUP BY 1, 2"
            )
        }

    def audit(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("audit", "--format", "json").ok().out)
        return found

    def assert_money_is_explained(self) -> None:
        """The books agree, and whatever the server was paid for twice was asked for again for a reason that says so."""
        found = self.audit()
        assert (found["paid_twice"], found["lost"], found["in_flight"]) == (0, 0, 0)
        charged = Counter(charge.custom_id or charge.client_request_id for charge in self.server.ledger.entries())
        paid, maybe = (
            Counter(row[0] for row in self.rows("SELECT client_request_id FROM attempts WHERE paid = ?", word))
            for word in ("yes", "maybe")
        )
        assert paid <= charged, "the state says paid for what was never charged"
        assert charged - paid <= maybe, "charged, and the state does not know"
        bought = Counter(charge.body_sha256 for charge in self.server.ledger.entries())
        allowed: Counter[str] = Counter()
        for digest, body in self.rows("SELECT request_hash, body FROM requests"):
            allowed[digest_of(canonical(json.loads(body))).hex()] += 1 + self.value(
                "SELECT coalesce(sum((paid = 'maybe') + (reason IN ('forced', 'forgotten', 'invalid'))), 0) FROM attempts"
                " WHERE request_hash = ?",
                digest,
            )
        assert bought <= allowed, f"paid for more often than explained: {bought - allowed}"


@contextmanager
def chain(root: Path, *tables: str, script: Script | None = None, **options: Any) -> Iterator[ChainFolder]:
    """A project with these recipes beside a server of its own."""
    script = script or Script()
    with Simulator(SimulatorOptions(script=script, **options)) as server:
        folder = ChainFolder(root, server, script)
        folder.recipes(*(tables or (FACTS, BIO)))
        yield folder

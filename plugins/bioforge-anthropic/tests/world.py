"""A project with its own server, and checks of its costs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from server import AnthropicServer

from bioforge.testing import ProjectFolder, Ran

ARTISTS = """artist_id,artist_name,artist_data
1,Björk,Icelandic singer
2,Absalon,
3,"Abbey, Edwin Austin","American
painter"
4,Absalon,
"""
"""Three different requests for four artists."""

REQUESTS = 3

QUICK = {"poll_seconds": 0.01, "poll_max_seconds": 0.05, "max_requests": 2}
"""Batches of two and of one, looked at as often as possible."""

CLEAN = "rows paid twice: 0, paid answers lost: 0"
"""How `audit` ends when nothing went wrong and nothing is unclear."""


class World(ProjectFolder):
    """A project folder with the backend `anthropic-batch`, unless a command names another."""

    def __init__(self, root: Path, server: AnthropicServer, options: dict[str, object]) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.server = server
        tables: dict[str, Any] = {
            "project": {"name": "test"},
            "provider": {"base_url": server.base_url, "api_key_env": "ANTHROPIC_API_KEY"},
            "input": {"path": "artists.csv"},
            "recipe": {
                "bio": {
                    "model": "claude-haiku-4-5",
                    "instructions": "Write a biography.",
                    "input": "{{ artist_name }}: {{ artist_data }}",
                    "max_output_tokens": 400,
                }
            },
            "retry": {"first_delay": 0.001, "max_delay": 0.05},
            "backend": {"name": "anthropic-batch", "concurrency": 4, "anthropic-batch": {**QUICK, **options}},
            "output": [{"path": "out.jsonl"}],
        }
        super().__init__(root, server, {"artists.csv": ARTISTS}, tables)  # type: ignore[arg-type]

    def of_many(self, number: int) -> None:
        """Replace the four artists with `number` artists."""
        rows = "".join(f"{place},Artist {place},painter\n" for place in range(number))
        self.write("artists.csv", "artist_id,artist_name,artist_data\n" + rows)

    def charged(self) -> int:
        return len(self.server.charged())

    def to_the_end(self, *arguments: str, most: int = 4) -> list[Ran]:
        """Run `resume` in new processes until one exits with 0."""
        ran = [self.process("resume", *arguments)]
        while ran[-1].code != 0:
            assert len(ran) < most, f"after {most} runs still exit code {ran[-1].code}\n{ran[-1].err}"
            ran.append(self.process("run", *arguments))
        return ran

    # ------------------------------------------------------------------------------------------------- what must be true

    def tiers(self) -> Counter[str]:
        """Count charges by tier."""
        self.server.charged()
        return Counter(charge.tier for charge in self.server.charges)

    def assert_all_fresh(self) -> None:
        """Check that every artist has a text and that the output equals the state."""
        rows = self.rows("SELECT artist_id, state, text FROM results")
        assert {row[1] for row in rows} == {"fresh"}, rows
        written = [json.loads(line) for line in self.read("out.jsonl").splitlines()]
        assert {record["artist_id"]: record["response_text"] for record in written} == {row[0]: row[2] for row in rows}

    def assert_bought_once(self) -> None:
        """Check that each request was charged exactly once."""
        self.server.charged()
        bought = Counter(charge.body_sha256 for charge in self.server.charges)
        twice = {body: times for body, times in bought.items() if times > 1}
        assert not twice, f"charged for more than once: {twice}"

    def assert_books_agree(self) -> None:
        """Check that every charge is a paid attempt with a stored answer, or a maybe paid one."""
        self.assert_ledger_equals_state(self.server.charged())
        audit = self.audit()
        assert (audit["paid_twice"], audit["lost"]) == (0, 0), audit

    def assert_nothing_orphaned(self) -> None:
        """Check that the state knows every batch of the server and has none open."""
        known = {row[0] for row in self.rows("SELECT batch_id FROM batches WHERE batch_id IS NOT NULL")}
        assert {job.id for job in self.server.batches.by_id.values()} <= known, "an orphaned batch"
        assert {row[0] for row in self.rows("SELECT state FROM batches")} <= {"collected", "released"}
        assert not list(self.root.glob("bioforge.db.batches/*")), "files of batches were left behind"

    def assert_undisturbed(self) -> None:
        """Check everything as after a run without faults."""
        self.assert_all_fresh()
        self.assert_bought_once()
        self.assert_books_agree()
        self.assert_nothing_orphaned()
        assert self.run("audit").ok().out.splitlines()[-1] == CLEAN

    def audit(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("audit", "--format", "json").ok().out)
        return found

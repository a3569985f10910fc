"""Adapters: how each tool is told the job, started, and read. A tool is a process that can be killed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from counting import Row

MODEL = "gpt-6-luna"
CONCURRENCY = 6
TIMEOUT = 3.0
"""Seconds for one call, where a tool can be told: the server's answers take a tenth of one, unless they hang."""


@dataclass(frozen=True, slots=True)
class Command:
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)


class Adapter(Protocol):
    """One tool in one way of using it."""

    name: str
    batch: bool
    """Whether it buys through the Batch API; else by one call for each row."""

    def prepare(self, folder: Path, rows: Sequence[Row], prompt: str, base_url: str) -> None:
        """Write the job into the folder; again when the rows or the prompt have changed."""

    def command(self, folder: Path) -> Command:
        """What a person types, also to go on after an interruption. Runs in the folder."""

    def results(self, folder: Path) -> dict[str, str]:
        """The texts in the tool's output, by row."""

    def kept(self, folder: Path) -> list[tuple[str, str]]:
        """Rows and texts that are not in its output, and that it has in a form which a person can read."""

    def said(self, folder: Path) -> dict[str, Any]:
        """What the tool itself says about the money; empty where it has nothing to say."""

    def versions(self) -> str:
        """Name and version of what is measured. RuntimeError if it is not installed."""

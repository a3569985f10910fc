"""Count the outcomes of an import, line by line."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from enum import StrEnum

from bioforge.core.errors import EXIT_FAILED, EXIT_OK

SHOWN = 5
"""Examples of each kind that are shown; the others are only counted."""


class Mismatch(StrEnum):
    """Reasons why an answer belongs to no request."""

    UNKNOWN_ID = "unknown custom_id"
    """No request and no input file has this custom_id."""
    ARTIST = "artist_id without an input file"
    """The custom_id is an artist's id, and no input file has it."""
    OTHER_HASH = "another request than today's"
    """The custom_id names a hash that no target needs and that was never sent."""
    AMBIGUOUS = "one custom_id for several requests"
    OTHER_BODY = "another body than its custom_id says"
    OTHER_INSTRUCTIONS = "answers another question than the input file's"
    EXPORTED = "exported for another request than today's"


@dataclass(slots=True)
class Examples:
    count: int = 0
    shown: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        self.count += 1
        if len(self.shown) < SHOWN:
            self.shown.append(text)


@dataclass(slots=True)
class ImportResult:
    """The outcomes of an import.

    Money in US dollars. `unpriced` answers have no known price. `adopted` answers include the `unusable` ones and
    the `unwanted` ones, which no target needs now. `known` answers were in the state before, `in_batches` belong to
    open batches, and `collected` counts members of open batches by outcome.
    """

    lines: int = 0
    requests: int = 0
    adopted: int = 0
    unusable: int = 0
    unwanted: int = 0
    adopted_usd: float = 0.0
    unpriced: int = 0
    known: int = 0
    in_batches: int = 0
    collected: Counter[str] = field(default_factory=Counter)
    collected_usd: float = 0.0
    unmatched: dict[Mismatch, Examples] = field(default_factory=dict)
    failed: Counter[str] = field(default_factory=Counter)
    duplicated: Examples = field(default_factory=Examples)
    unreadable: Examples = field(default_factory=Examples)
    unknown: Examples = field(default_factory=Examples)
    fresh: int = 0

    def followed_by(self, later: ImportResult) -> ImportResult:
        """Combine the results of two passes over the same lines.

        The second pass matched requests that the first one added.
        """
        both = replace(later, known=later.known - self.adopted, collected=self.collected + later.collected)
        both.adopted += self.adopted
        both.unusable += self.unusable
        both.unwanted += self.unwanted
        both.adopted_usd += self.adopted_usd
        both.unpriced += self.unpriced
        both.collected_usd += self.collected_usd
        both.fresh += self.fresh
        return both

    def add_unmatched(self, reason: Mismatch, name: str) -> None:
        """Count an answer that belongs to no request."""
        self.unmatched.setdefault(reason, Examples()).add(name)

    @property
    def matched(self) -> int:
        return self.adopted + self.known + self.in_batches + self.collected.total() + self.duplicated.count

    @property
    def without_request(self) -> int:
        return sum(examples.count for examples in self.unmatched.values())

    @property
    def exit_code(self) -> int:
        return EXIT_FAILED if self.without_request and not self.matched else EXIT_OK

    @property
    def recognised(self) -> bool:
        """Return True if a line was of a known kind."""
        return bool(self.lines - self.unreadable.count - self.unknown.count)

    @property
    def changed(self) -> bool:
        return bool(self.adopted or self.collected)

"""Count the lines of an import by outcome."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from enum import StrEnum

from bioforge.core.errors import EXIT_FAILED, EXIT_OK

SHOWN = 5
"""Examples of a kind that are kept to be shown; the others are counted."""


class Why(StrEnum):
    """Reasons why an answer matches no request."""

    NOT_ASKED = "unknown custom_id"
    """It says nothing about its request, and no input file has it."""
    ARTIST = "artist_id without an input file"
    """As before, and it is the id of an artist."""
    OTHER_HASH = "another request than today's"
    """It names a hash that no target wants and nobody asked for."""
    AMBIGUOUS = "one custom_id for several requests"
    OTHER_BODY = "another body than its custom_id says"
    OTHER_QUESTION = "answers another question than the input file's"
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
    """Counts of lines by outcome. Money in US dollars; `unpriced` answers have no known price, `unusable` ones are
    among those adopted, as are `unwanted` ones, which no target wants now. `known` answers were there already,
    `in_batches` are left to their open batches, `settled` are members of open batches by what became of them."""

    lines: int = 0
    requests: int = 0
    adopted: int = 0
    unusable: int = 0
    unwanted: int = 0
    adopted_usd: float = 0.0
    unpriced: int = 0
    known: int = 0
    in_batches: int = 0
    settled: Counter[str] = field(default_factory=Counter)
    settled_usd: float = 0.0
    unmatched: dict[Why, Examples] = field(default_factory=dict)
    failed: Counter[str] = field(default_factory=Counter)
    duplicated: Examples = field(default_factory=Examples)
    unreadable: Examples = field(default_factory=Examples)
    unknown: Examples = field(default_factory=Examples)
    fresh: int = 0

    def followed_by(self, later: ImportResult) -> ImportResult:
        """Of two passes over the same lines, the second of which found requests that the first one made known."""
        both = replace(later, known=later.known - self.adopted, settled=self.settled + later.settled)
        both.adopted += self.adopted
        both.unusable += self.unusable
        both.unwanted += self.unwanted
        both.adopted_usd += self.adopted_usd
        both.unpriced += self.unpriced
        both.settled_usd += self.settled_usd
        both.fresh += self.fresh
        return both

    def leave(self, why: Why, name: str) -> None:
        """An answer that belongs to no request."""
        self.unmatched.setdefault(why, Examples()).add(name)

    @property
    def matched(self) -> int:
        return self.adopted + self.known + self.in_batches + self.settled.total() + self.duplicated.count

    @property
    def without_request(self) -> int:
        return sum(examples.count for examples in self.unmatched.values())

    @property
    def exit_code(self) -> int:
        return EXIT_FAILED if self.without_request and not self.matched else EXIT_OK

    @property
    def recognised(self) -> bool:
        """Whether there was one line of a known kind."""
        return bool(self.lines - self.unreadable.count - self.unknown.count)

    @property
    def changed(self) -> bool:
        return bool(self.adopted or self.settled)

"""Does a biography of one sentence keep the facts it was given? `python keeps_facts.py [STATE]`

Asks the embedded server, so it needs no key and costs nothing. For real answers, name a provider in the Config:
`Config(provider=ProviderConfig(base_url="https://api.openai.com/v1"), model="gpt-6-luna")`.

Answers are kept in STATE (default: keeps_facts.db). Break it off and run it again: it asks only for what is missing.
Change `score` and run it again: it asks for nothing.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bioforge.api import Answer, Config, Item
from bioforge.api.evaluation import Evaluation


@dataclass(frozen=True)
class Painter:
    id: str
    name: str
    born: str
    place: str
    known_for: str


class KeepsFacts(Evaluation[Painter, str]):
    """Return the share of the four facts in the answer; 1.0 is all of them."""

    name = "keeps-facts"

    def items(self) -> Iterator[Painter]:
        with (Path(__file__).parent / "painters.csv").open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                yield Painter(**row)

    def request(self, painter: Painter) -> Item:
        return Item(
            f"{painter.name}, born in {painter.place} in {painter.born}, known for {painter.known_for}",
            id=painter.id,
            instructions="Write one sentence about this painter. Keep every fact, and add none.",
            max_output_tokens=200,
        )

    def score(self, painter: Painter, answer: Answer[str]) -> float:
        facts = (painter.name, painter.place, painter.born, painter.known_for)
        return sum(fact in answer.text for fact in facts) / len(facts)


def main(state: str = "keeps_facts.db") -> None:
    report = KeepsFacts().evaluate_sync(Config(model="gpt-6-luna"), state=state)
    for row in sorted(report.rows, key=lambda row: row.score or 0.0)[:3]:
        print(f"{row.id:12} {row.score}  {row.text[:60]}…")
    print(report)


if __name__ == "__main__":
    main(*sys.argv[1:2])

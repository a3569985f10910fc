"""What a plan says its numbers of tokens rest on."""

from __future__ import annotations

import pytest
from projects import ProjectFolder

from bioforge.cli.format import counted_words
from bioforge.planner.estimate import Priced
from bioforge.recipes.tokens import ESTIMATED, Counting, Precision
from bioforge.store import Store
from bioforge.store.stale_counts import StaleGroup
from bioforge.store.statistics import Observed, note_counting

EXACT = Counting("o200k_base", Precision.EXACT)
NEAR = Counting("o200k_base", Precision.NEAR)
OTHER = Counting("cl100k_base", Precision.EXACT)
THOUSAND = Observed(0.7, 80.0, 1_000)
SIX = Observed(0.9, 80.0, 6)


def priced(counting: Counting, corrected: Observed | None = None, requests: int = 1) -> Priced:
    group = StaleGroup("bio", "new", None, 1, requests, 100, 0, 0, "1")
    return Priced(group, "gpt-6-luna", 100, 400, 0.1, counting, corrected)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([priced(ESTIMATED)], "estimated"),
        ([priced(ESTIMATED, SIX)], "estimated and corrected by 6 answers"),
        ([priced(ESTIMATED, THOUSAND), priced(ESTIMATED)], "estimated and corrected by 1,000 answers"),
        ([priced(ESTIMATED, THOUSAND)] * 2, "estimated and corrected by 1,000 answers"),
        ([priced(ESTIMATED, THOUSAND), priced(ESTIMATED, SIX)], "estimated and corrected by 1,006 answers"),
        ([priced(EXACT)] * 2, "input counted with o200k_base"),
        ([priced(EXACT, SIX)], "input counted with o200k_base, and corrected by 6 answers"),
        ([priced(NEAR)], "input counted with o200k_base, the nearest known"),
        ([priced(NEAR, THOUSAND)], "input counted with o200k_base, the nearest known, and corrected by 1,000 answers"),
        ([priced(EXACT), priced(ESTIMATED)], "estimated"),
        ([priced(EXACT), priced(OTHER)], "estimated"),
        ([priced(EXACT), priced(ESTIMATED, requests=0)], "input counted with o200k_base"),
    ],
)
def test_the_words_are_as_sure_as_the_numbers(groups: list[Priced], words: str) -> None:
    assert counted_words(groups) == words


def artists(number: int) -> str:
    return "artist_id,artist_name,artist_data,born\n" + "".join(
        f"{place},Artist {place},painter,19{place:02}\n" for place in range(number)
    )


def last_line(project: ProjectFolder) -> str:
    return project.run("plan").ok().out.splitlines()[-1]


def test_a_plan_gets_surer_with_each_answer(project: ProjectFolder) -> None:
    project.write("artists.csv", artists(20))
    assert last_line(project) == (
        "20 requests will be sent for at most about $0.0040 (400 + 8,000 tokens, estimated; output at its limit)"
    )
    project.run("run", "--limit", "4").ok()
    assert last_line(project).endswith(" tokens, estimated)"), "how long answers are is known, and no more"
    project.run("run", "--limit", "6").ok()
    assert last_line(project).endswith(" tokens, estimated and corrected by 10 answers)")
    billed = project.value("SELECT avg(input_tokens) FROM responses")
    planned = sum(group["input_tokens"] for group in project.plan()["groups"])
    assert planned == pytest.approx(10 * billed, abs=10), "as many as the same requests came to before"


def test_a_plan_says_with_what_its_input_was_counted(project: ProjectFolder) -> None:
    project.run("plan").ok()
    with Store.open(project.root / "bioforge.db") as store:
        note_counting(store, "bio", "", EXACT.as_text(), whole=True)
    assert last_line(project).endswith(" tokens, input counted with o200k_base; output at its limit)")


def test_a_plan_remembers_how_tokens_were_counted(project: ProjectFolder) -> None:
    project.run("plan").ok()
    assert project.value("SELECT value FROM facts WHERE name = 'counting bio'") == ESTIMATED.as_text()

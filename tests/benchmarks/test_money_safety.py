"""The harness of benchmarks/money_safety sees what there is to see: a tool without a memory is caught, a careful one is not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent.parent / "benchmarks" / "money_safety"

TOOL = """
import json, os, sys, urllib.request
from pathlib import Path

job = json.loads(Path("job.json").read_text())
out = Path("out.jsonl")
there = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() and "careful" in sys.argv else []
rows = [row for row in job["rows"] if row["id"] not in {one["id"] for one in there}]
with out.open("a" if there else "w") as stream:
    for place, row in enumerate(rows):
        body = json.dumps({"model": job["model"], "messages": row["messages"]}).encode()
        headers = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"}
        url = job["base_url"] + "/chat/completions"
        with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
            text = json.load(answer)["choices"][0]["message"]["content"]
        name = job["rows"][place - 1]["id"] if "mixing" in sys.argv and place else row["id"]
        stream.write(json.dumps({"id": name, "text": text}) + "\\n")
        stream.flush()
"""


@pytest.fixture(scope="module", autouse=True)
def harness() -> Iterator[None]:
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


def played(folder: Path, scenario: str, *words: str) -> dict[str, Any]:
    import scenarios
    from adapters.scripts import Script
    from stage import Staging

    (folder / "tool.py").write_text(TOOL)
    story = scenarios.ALL[scenario]
    adapter = Script("a-tool", str(folder / "tool.py"), sys.executable, [], words)
    with Staging(adapter, {**story.options, "latency": 0.0}, 0, story.name) as stage:
        story.play(stage)
        return stage.report()


def test_a_careful_tool_costs_nothing_twice(tmp_path: Path) -> None:
    found = played(tmp_path, "clean", "careful")
    assert found["finished"]
    assert found["charges"] == found["answered"] == found["rows"]
    assert not any(found[name] for name in ("twice", "lost", "wrong", "unfit", "needless"))


def test_a_tool_without_a_memory_pays_twice(tmp_path: Path) -> None:
    found = played(tmp_path, "clean")
    assert (found["twice"], found["in_flight"], found["needless"]) == (30, 0, 30)
    assert found["lost"] == found["wrong"] == 0


def test_answers_of_other_rows_are_wrong(tmp_path: Path) -> None:
    found = played(tmp_path, "clean", "mixing")
    assert found["wrong"] == 29
    assert found["lost"] == 30
    assert not found["finished"]


def test_what_was_in_flight_when_it_was_killed_is_told_apart(tmp_path: Path) -> None:
    found = played(tmp_path, "kill", "careful")
    assert found["killed"] == [True]
    assert found["finished"]
    assert found["twice"] == found["in_flight"] <= 1
    assert found["lost"] == found["wrong"] == 0


def test_the_page_is_made_of_results(tmp_path: Path) -> None:
    import report

    play = {
        "rows": 30,
        "answered": 30,
        "finished": True,
        "twice": 3,
        "in_flight": 1,
        "lost": 2,
        "wrong": 0,
        "unknown": 1,
    }
    assert report.shown([{**play, "charges": 33}]) == "**3 (1) / 2 / 0**"
    machine = {"date": "today", "python": "3", "system": "a machine", "bioforge": "0", "repeats": 1}
    cells = {"kill": {"bioforge-async": [{**play, "audit": "all is well", "unnamed": 0}]}}
    page = report.page({"machine": machine, "tools": {"bioforge-async": "0"}, "cells": cells})
    assert "| kill -9 while sending | **3 (1) / 2 / 0** |" in page
    assert "**2 paid twice although an answer had been handed over.**" in page
    assert "“all is well”" in page
    assert json.dumps(str(tmp_path)) not in page

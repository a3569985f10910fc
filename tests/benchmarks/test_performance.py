"""The harness of benchmarks/performance counts and measures what it says; how fast anything is, is not tested."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def harness() -> Iterator[None]:
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, harness: None) -> Iterator[Any]:
    """nginx where it is installed, else the embedded one: what is true of one has to be true of the other."""
    from performance.servers import answering

    with answering(tmp_path_factory.mktemp("server")) as found:
        yield found


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"Authorization": "Bearer x", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def test_the_server_answers_both_endpoints_and_counts_the_calls(server: Any) -> None:
    from performance import bare

    before = server.requests()
    answer = post(f"{server.url}/responses", bare.body(1))
    completion = post(
        f"{server.url}/chat/completions", {"model": "gpt-6-luna", "messages": [{"role": "user", "content": "x"}]}
    )
    assert len(bare.text_of(answer)) > 100
    assert answer["usage"]["total_tokens"] == answer["usage"]["input_tokens"] + answer["usage"]["output_tokens"]
    assert len(completion["choices"][0]["message"]["content"]) > 100
    another = post(f"{server.url}/responses", bare.body(2))
    assert bare.text_of(another) != bare.text_of(answer)
    assert server.requests() - before == 3
    assert server.requests() - before == 3, "asking for the count counts"


def test_the_sketch_keeps_every_intent_and_every_answer(server: Any, tmp_path: Path) -> None:
    from performance import bare

    before = server.requests()
    said = asyncio.run(bare.sketch(server.url, "40", "7", str(tmp_path / "sketch.db")))
    assert said["rate"] > 0
    assert server.requests() - before == 40
    with closing(sqlite3.connect(tmp_path / "sketch.db")) as db:
        assert db.execute("SELECT count(*), max(id) FROM intents").fetchone() == (40, 39)
        assert db.execute("SELECT count(*), min(length(text)) > 100 FROM answers").fetchone() == (40, 1)


def test_memory_is_that_of_the_command_and_not_of_who_started_it(tmp_path: Path) -> None:
    from performance.measuring import NotMeasured, took

    ballast = bytearray(b"x" * (150 << 20))
    ran = took([sys.executable, "-I", "-S", "-c", "x = b'x' * (40 << 20); print(len(x) >> 20)"], tmp_path)
    assert len(ballast)
    assert ran.out.strip() == "40"
    assert 40 < ran.peak < 120
    assert ran.cpu > 0
    with pytest.raises(NotMeasured, match=r"ended with .*3.*: sorry"):
        took([sys.executable, "-I", "-S", "-c", "import sys; print('sorry', file=sys.stderr); sys.exit(3)"], tmp_path)


def test_one_row_changes_and_no_other(tmp_path: Path) -> None:
    from performance.projects import change_row, write_rows

    path = tmp_path / "artists.csv"
    write_rows(path, 100)
    before = path.read_text().splitlines()
    change_row(path)
    after = path.read_text().splitlines()
    assert [place for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new] == [8]
    assert path.stat().st_mtime == 2


def test_the_bare_scripts_do_the_whole_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from performance import bare
    from performance.projects import write_rows

    write_rows(tmp_path / "artists.csv", 20)
    monkeypatch.setattr(bare, "SPLIT", 8)
    assert bare.lines(str(tmp_path / "artists.csv"), str(tmp_path)) == {"files": 3}
    lines = [json.loads(line) for path in sorted(tmp_path.glob("bare-*")) for line in path.read_text().splitlines()]
    assert [line["body"] for line in lines] == [bare.body(i) for i in range(20)]
    bare.plan(str(tmp_path / "artists.csv"), str(tmp_path / "plan.db"))
    with closing(sqlite3.connect(tmp_path / "plan.db")) as db:
        assert db.execute("SELECT count(DISTINCT request_hash) FROM artists").fetchone() == (20,)


def test_rates_are_from_the_first_request_to_the_last_answer(tmp_path: Path) -> None:
    from performance.projects import rate

    with closing(sqlite3.connect(tmp_path / "bioforge.db")) as db, db:
        db.execute("CREATE TABLE attempts (started_at REAL, seconds REAL, paid TEXT)")
        db.executemany("INSERT INTO attempts VALUES (?, 2.0, 'yes')", [(100.0 + i,) for i in range(11)])
        db.execute("INSERT INTO attempts VALUES (100.5, 60.0, 'no')")
    assert rate(tmp_path) == pytest.approx(11 / 12)
    assert rate(tmp_path, 0.1, 0.9) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("bound", "value", "reached"),
    [("at least", 0.7, True), ("at least", 0.69, False), ("at most", 0.7, True), ("at most", 0.71, False),
     ("exactly", 0.7, True), ("exactly", 0.71, False), ("", 0.7, None)],
)  # fmt: skip
def test_a_goal_is_reached_or_not(bound: str, value: float, reached: bool | None) -> None:
    from performance.findings import Check

    check = Check("it", value, goal=0.7 if bound else None, bound=bound)
    assert check.reached is reached
    assert check.record().get("reached") is reached


def test_a_row_is_measured_and_the_page_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from performance import report
    from performance.__main__ import main

    out = tmp_path / "results.json"
    options = ["--repeats", "1", "--folder", str(tmp_path), "--out", str(out)]
    assert main(["first-plan", "batch-lines", "--rows", "20", *options]) == 0
    results = json.loads(out.read_text())
    (found,) = results["rows"]["first-plan"].values()
    ours, by_hand = found["details"]["ours, s"][0], found["details"]["by hand, s"][0]
    assert found["checks"][0]["value"] == pytest.approx(ours / by_hand, rel=0.05)
    assert found["checks"][0]["goal"] == 2
    assert "first-plan" in capsys.readouterr().out
    page = report.page(results)
    assert "| first plan | 20 | " in page
    assert str(tmp_path) not in page
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"], "what was made is gone"


def test_what_cannot_be_measured_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from performance import report
    from performance.__main__ import main

    out = tmp_path / "results.json"
    missing = ["--pythons", str(tmp_path / "no" / "{tool}"), "--compared-rows", "5"]
    arguments = ["comparison", "--tools", "litellm", *missing, "--folder", str(tmp_path), "--out", str(out)]
    assert main(arguments) == 1
    assert "NOT MEASURED" in capsys.readouterr().out
    assert "| litellm | not measured: " in report.page(json.loads(out.read_text()))
    with pytest.raises(SystemExit, match="unknown: nothing"):
        main(["nothing", "--out", str(out)])


def test_the_page_names_what_was_missed_with_its_reason() -> None:
    from performance import report

    def row(value: float, reached: bool) -> dict[str, Any]:
        check = {"what": "by hand", "value": value, "unit": "×", "goal": 2, "bound": "at most", "reached": reached}
        return {"rows": 1000, "checks": [check], "details": {}}

    figures = {"wall": 2.0, "cpu": 1.0, "peak": 50.0}
    look = {"memory": 80.0, "files": 70}
    results = {
        "machine": {"date": "today", "processor": "one", "memory": "2 GB", "system": "a system", "disk": "a disk",
                    "load": "0.1"},
        "versions": {"bioforge": "0"},
        "rows": {"first-plan": {"1000": row(2.5, False)}, "export": {"1000": row(1.5, True)}},
        "scale": {
            "10": {"first plan": figures, "run": {**figures, "state": 5_000}},
            "100": {"first plan": {**figures, "wall": 12.0}, "run": {"skipped": "too many"}},
        },
        "soak": {
            "rows": 9, "seconds": 3, "quarter": look, "end": look, "most": look, "faults": {"drop": 1},
            "growth": {"memory": 1.0, "files": 1.0},
            "audit": {"paid": 9, "paid_twice": 0, "lost": 0, "maybe_paid": 1},
        },
    }  # fmt: skip
    page = report.page(results)
    missed, _, rest = page.partition("### Not reached")[2].partition("###")
    assert f"2.50 × at 1,000 for ≤ 2 ×): {report.REASONS['first-plan']}" in missed
    assert "export" not in missed
    assert "| export as JSONL | 1,000 | 1.50 × by hand | ≤ 2 × | reached |" in page
    assert "| first plan | 2.00 s, 1.00 s, 50 MB | 12.00 s, 1.00 s, 50 MB | × 6.0, × 1.00 |" in rest
    assert "- run: too many" in rest
    assert "| run | 500 (0 MB) | – |" in rest
    assert "9 paid, 0 paid twice, 0 lost; 1 maybe paid" in rest
    assert "All goals are reached" in report.page({**results, "rows": {"export": results["rows"]["export"]}})
    assert "## Numbers" not in report.page({name: results[name] for name in ("machine", "versions")})
    assert set(report.REASONS) <= set(report.TITLES)


def test_the_page_in_the_docs_is_made_of_the_results() -> None:
    from performance import report

    results = json.loads((BENCHMARKS / "performance" / "results.json").read_text("utf-8"))
    made = (BENCHMARKS.parent / "docs" / "performance.md").read_text("utf-8")
    again = "run: python benchmarks/performance/report.py benchmarks/performance/results.json > docs/performance.md"
    assert report.page(results) == made, again


def test_every_row_has_a_title() -> None:
    from performance import report
    from performance.__main__ import ROWS

    assert list(report.TITLES) == list(ROWS)


def test_growth_is_from_a_quarter_to_the_last_look_at_work() -> None:
    from performance.soak import found

    looks = [(0, 50, 9), (10, 80, 70), (30, 90, 72), (80, 99, 72), (100, 99, 5)]
    samples: list[dict[str, float]] = [{"answers": a, "memory": m, "files": f} for a, m, f in looks]
    seen = found(samples, {"lost": 0, "note": "text"}, {"counts": {"faults": {}}})
    assert seen["growth"] == {"memory": 1.1, "files": 1.0}
    assert seen["most"] == {"memory": 99, "files": 72}
    assert seen["audit"] == {"lost": 0}


def test_tools_are_told_the_same_job_and_one_change(tmp_path: Path) -> None:
    from performance.comparison import BATCH_ONLY, SCRIPTS, known

    tools = known("venvs/{tool}/bin/python")
    assert not set(BATCH_ONLY) & set(tools)
    for name, make in tools.items():
        tool, folder = make(), tmp_path / name
        folder.mkdir()
        source = folder / ("artists.csv" if tool.backend else "job.json")
        tool.prepare(folder, 30, "http://127.0.0.1:1/v1")
        before = source.read_text()
        tool.prepare(folder, 30, "http://127.0.0.1:1/v1", changed=True)
        assert source.read_text() == before.replace("painter, active 1857", "sculptor, active 1857")
        assert source.read_text() != before
        assert tool.backend or Path(tool.argv[-1]).parent == SCRIPTS
        assert tool.backend or Path(tool.argv[-1]).exists()

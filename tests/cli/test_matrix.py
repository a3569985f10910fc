"""Variants and samples: each a target of its own, asked once, retired and brought back for nothing, shown when wanted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from chains import BIO, FACTS, TRANSLATION, ChainFolder, chain
from projects import ARTISTS

from bioforge.cli.options import open_project
from bioforge.core.events import Attempt, Started
from bioforge.core.interfaces import Backend
from bioforge.core.types import Rendered
from bioforge.store import Selection, Store, queue, runs
from bioforge.store.recorder import Recorder

COLD, HOT = "temperature=0.2", "temperature=0.9"


def facts(matrix: str = "", samples: int = 1) -> str:
    own = FACTS.replace('model = "gpt-6-luna"\n', "") if "model" in matrix else FACTS
    return f"{own}{f'matrix = {{ {matrix} }}' if matrix else ''}\nsamples = {samples}\n"


def variants(project: ChainFolder, recipe: str = "facts") -> dict[str, int]:
    """Fresh targets by variant."""
    return dict(
        project.rows(
            "SELECT variant, count(*) FROM results WHERE recipe = ? AND state = 'fresh' GROUP BY variant", recipe
        )
    )


def exported(project: ChainFolder, *arguments: str) -> Counter[str]:
    lines = project.run("export", "-F", "jsonl", *arguments).ok().out.splitlines()
    return Counter(json.loads(line).get("variant", "") for line in lines)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[ChainFolder]:
    with chain(tmp_path / "project", facts("temperature = [0.2, 0.9]", 2)) as made:
        yield made


# ------------------------------------------------------------------------------------------------------- each is a target


@pytest.mark.parametrize("backend", ["async", "threads"])
def test_every_variant_and_every_sample_is_asked_once(project: ChainFolder, backend: str) -> None:
    assert project.plan()["requests"] == 16
    project.run("run", "--backend", backend).ok()
    assert project.charged() == 16
    assert variants(project) == dict.fromkeys((COLD, f"{COLD},sample=2", HOT, f"{HOT},sample=2"), 4)
    assert Counter(body["temperature"] for body in project.script.asked) == {0.2: 8, 0.9: 8}
    texts = {text for (text,) in project.rows("SELECT text FROM results")}
    assert len(texts) == 16, "samples are answers of their own"
    assert project.value("SELECT count(DISTINCT request_hash) FROM results") == 16
    project.run("run", "--backend", backend).ok()
    assert project.charged() == 16
    project.assert_money_is_explained()


def test_a_matrix_varies_models_and_texts(project: ChainFolder) -> None:
    project.write("prompts/short.md", "Be short.")
    project.recipes(
        facts(
            'model = ["gpt-6-luna", "gpt-6.1-terra"], instructions = ["prompts/short.md", "Be long, please."]'
        ).replace('instructions = "Collect facts."\n', "")
    )
    project.run("run").ok()
    assert Counter((body["model"], body["instructions"]) for body in project.script.asked) == dict.fromkeys(
        [(model, text) for model in ("gpt-6-luna", "gpt-6.1-terra") for text in ("Be short.", "Be long, please.")], 4
    )
    assert variants(project).keys() == {
        f"model={model},instructions={text}"
        for model in ("gpt-6-luna", "gpt-6.1-terra")
        for text in ("short", "Be-long-please.")
    }
    project.write("prompts/short.md", "Be very short.")
    assert project.reasons() == {"changed": 8}


def test_a_plan_and_a_status_have_a_line_for_each_variant(project: ChainFolder) -> None:
    planned = project.run("plan").ok().out
    for name in (COLD, f"{COLD},sample=2", HOT, f"{HOT},sample=2"):
        assert f"facts/{name} " in planned
    project.run("run", "--select", f"variant:{HOT}").ok()
    status = project.run("status").ok().out
    assert HOT in status
    assert "facts (4 variants)" in project.run("plan", "--graph").ok().out


# ------------------------------------------------------------------------------------------- more and fewer of them


def test_more_samples_ask_only_for_the_new_ones(project: ChainFolder) -> None:
    project.recipes(facts())
    project.run("run").ok()
    assert project.charged() == 4
    for samples, charged in ((2, 8), (3, 12), (1, 12), (3, 12)):
        project.recipes(facts(samples=samples))
        assert project.plan()["requests"] == charged - project.charged()
        project.run("run").ok()
        assert project.charged() == charged
    project.assert_money_is_explained()


def test_a_first_sample_is_the_answer_that_was_there_without_samples(project: ChainFolder) -> None:
    project.recipes(facts())
    project.run("run").ok()
    before = project.texts("facts")
    project.recipes(facts(samples=2))
    project.run("run").ok()
    assert project.texts("facts") == before
    hashes = dict(project.rows("SELECT variant, count(DISTINCT request_hash) FROM results GROUP BY variant"))
    assert hashes == {"": 4, "sample=2": 4}
    assert project.value("SELECT count(DISTINCT body) FROM requests") == 4, "one body, asked twice on purpose"


def test_artists_who_ask_alike_share_each_sample(project: ChainFolder) -> None:
    project.recipes(facts(samples=3), **{"{{ artist_name }}: {{ artist_data }}": "{{ artist_data }}"})
    project.write("artists.csv", "artist_id,artist_name,artist_data\n1,A,painter\n2,B,painter\n")
    project.run("run").ok()
    assert project.charged() == 3


def test_what_comes_to_the_same_request_at_nearly_the_same_time_is_handed_out_once(project: ChainFolder) -> None:
    """The third target was looked up with the second one, before anything was known of the first one's request."""
    project.recipes(FACTS)
    project.write("artists.csv", "artist_id,artist_name,artist_data\n1,A,x\n2,B,x\n3,A,x\n")
    with chdir(project.root), Store.open(project.root / "bioforge.db") as store:
        opened = open_project(None)
        opened.refresh(store)
        run = runs.begin(store, "run", "async", Selection())
        record = Recorder(store, run, "async")
        requests = opened.requests(store, Selection(), run=run)
        ready = queue.target_states(store, "facts", "", [1, 2, 3], run)
        requests.enqueue([ready[1]])
        attempts = [Attempt(next(requests), 1, "W01", "first", 1.0)]
        requests.enqueue([ready[2], ready[3]])
        attempts.append(Attempt(next(requests), 1, "W02", "second", 1.0))
        started = [Started(attempt) for attempt in attempts]
        record.record(started)
        requests.mark_recorded(started)
        assert [attempt.request.artist_id for attempt in attempts] == ["1", "2"]
        assert list(requests) == []


def test_a_request_that_is_being_recorded_while_a_page_is_read_is_sent_once(project: ChainFolder) -> None:
    """The page was read after the first request was pulled and before its start was in the state, so it has it too."""
    project.recipes(FACTS)
    project.write("artists.csv", "artist_id,artist_name,artist_data\n1,A,x\n2,B,y\n3,C,z\n")
    with chdir(project.root), Store.open(project.root / "bioforge.db") as store:
        opened = open_project(None)
        opened.refresh(store)
        run = runs.begin(store, "run", "async", Selection())
        record = Recorder(store, run, "async")
        requests = opened.requests(store, Selection(), run=run)
        requests.enqueue([queue.target_states(store, "facts", "", [3], run)[3]])
        attempts = [Attempt(next(requests), 1, f"W{number}", str(number), 1.0) for number in (1, 2)]
        started = [Started(attempt) for attempt in attempts]
        record.record(started)
        requests.mark_recorded(started)
        assert [attempt.request.artist_id for attempt in attempts] == ["3", "1"]
        assert [request.artist_id for request in requests] == ["2"]


def test_one_more_value_asks_only_for_its_own_variants(project: ChainFolder) -> None:
    project.run("run").ok()
    project.recipes(facts("temperature = [0.2, 0.5, 0.9]", 2))
    assert project.reasons() == {"new": 8}
    project.run("run").ok()
    assert project.charged() == 24


def test_another_order_of_the_same_values_asks_for_nothing(project: ChainFolder) -> None:
    project.run("run").ok()
    project.recipes(facts("temperature = [0.9, 0.2]", 2))
    assert project.plan()["fresh"]
    assert exported(project) == {HOT: 4}, "the first of the file is what is shown"


def test_what_is_taken_out_is_retired_and_costs_nothing_when_it_comes_back(project: ChainFolder) -> None:
    project.run("run").ok()
    project.recipes(facts("temperature = [0.9]"))
    assert project.plan()["fresh"]
    assert project.rows("SELECT variant, state, count(*) FROM results GROUP BY 1, 2 ORDER BY 1") == [
        (COLD, "removed", 4),
        (f"{COLD},sample=2", "removed", 4),
        (HOT, "fresh", 4),
        (f"{HOT},sample=2", "removed", 4),
    ]
    project.run("run").ok()
    assert exported(project) == {HOT: 4}
    project.run("run", "-B").ok()
    assert project.charged() == 20, "what is retired is not asked again either"
    project.recipes(facts("temperature = [0.2, 0.9]", 2))
    assert project.plan()["fresh"]
    project.run("run").ok()
    assert project.charged() == 20
    project.assert_money_is_explained()


def test_from_one_request_to_a_matrix_that_has_it_too_costs_only_what_is_new(project: ChainFolder) -> None:
    project.recipes(FACTS, "temperature = 0.2\n")
    project.run("run").ok()
    project.recipes(facts("temperature = [0.2, 0.9]"))
    assert project.plan()["requests"] == 4
    project.run("run").ok()
    assert project.charged() == 8
    assert variants(project) == {COLD: 4, HOT: 4}


def test_gc_drops_what_no_variant_uses(project: ChainFolder) -> None:
    project.run("run").ok()
    project.recipes(facts("temperature = [0.9]", 2))
    dropped = project.run("gc", "--yes").ok()
    assert "8 answers deleted" in dropped.err
    assert variants(project) == {HOT: 4, f"{HOT},sample=2": 4}
    assert project.plan()["fresh"]
    project.recipes(facts("temperature = [0.2, 0.9]", 2))
    project.run("run").ok()
    assert project.charged() == 24
    project.assert_money_is_explained()


def test_removed_artists_take_all_their_variants_along(project: ChainFolder) -> None:
    project.run("run").ok()
    project.write("artists.csv", ARTISTS.replace("3,Absalon,,1964\n", ""))
    assert project.plan()["fresh"]
    assert set(variants(project).values()) == {3}
    project.write("artists.csv", ARTISTS)
    project.run("run").ok()
    assert project.charged() == 16


class Dying:
    """A backend that is interrupted while its so-manieth body is made."""

    def __init__(self, backend: Backend, bodies: int) -> None:
        self._backend = backend
        self._left = bodies

    def body(self, rendered: Rendered) -> Any:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        return self._backend.body(rendered)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


PAGE = 2_000


def broken_off(project: ChainFolder) -> None:
    """A plan that is interrupted when its first page is durable."""
    with chdir(project.root), Store.open(project.root / "bioforge.db") as store:
        opened = open_project(None)
        opened.backend = Dying(opened.backend, PAGE)  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            opened.refresh(store)


@pytest.fixture
def large(project: ChainFolder) -> ChainFolder:
    rows = "".join(f"{number},Artist,painter\n" for number in range(PAGE + 1))
    project.write("artists.csv", "artist_id,artist_name,artist_data\n" + rows)
    return project


def test_a_variant_whose_first_plan_was_broken_off_is_retired_like_all_others(large: ChainFolder) -> None:
    large.recipes(facts("temperature = [0.2, 0.9]"))
    broken_off(large)
    large.recipes(facts("temperature = [0.9]"))
    (group,) = large.plan()["groups"]
    assert (group["variant"], group["targets"], group["requests"]) == (HOT, PAGE + 1, 1)


def test_a_change_whose_plan_was_broken_off_can_be_taken_back(large: ChainFolder) -> None:
    large.recipes(FACTS)
    large.run("run").ok()
    large.edit("bioforge.toml", "Collect facts.", "Collect all facts.")
    broken_off(large)
    large.edit("bioforge.toml", "Collect all facts.", "Collect facts.")
    assert large.plan()["fresh"]
    large.run("run").ok()
    assert large.charged() == 1


# ---------------------------------------------------------------------------------------------------- selected and shown


@pytest.mark.parametrize(
    ("select", "meant"),
    [
        (COLD, {COLD, f"{COLD},sample=2"}),
        ("sample=2", {f"{COLD},sample=2", f"{HOT},sample=2"}),
        ("sample=1", {COLD, HOT}),
        (f"{HOT},sample=2", {f"{HOT},sample=2"}),
        ("*0.9*", {HOT, f"{HOT},sample=2"}),
    ],
)
def test_variants_are_selected_by_their_settings(project: ChainFolder, select: str, meant: set[str]) -> None:
    project.run("run", "--select", f"variant:{select}", "--select", "3").ok()
    assert variants(project) == dict.fromkeys(meant, 1)
    assert project.charged() == len(meant)


def test_a_variant_that_is_none_is_an_error(project: ChainFolder) -> None:
    ran = project.run("run", "--select", "variant:temperature=0.3")
    assert ran.code == 2
    assert "--select variant:temperature=0.3: no such variant" in ran.err
    assert "did you mean 'temperature=0.9'?" in ran.err
    project.recipes(facts())
    assert "no recipe has a matrix" in project.run("run", "--select", f"variant:{COLD}").err
    assert project.charged() == 0


def test_outputs_and_exports_show_the_first_variant_or_all(project: ChainFolder) -> None:
    project.recipes(
        facts("temperature = [0.2, 0.9]", 2),
        '[[output]]\npath = "first.jsonl"\n[[output]]\npath = "all.jsonl"\nall = true\n',
    )
    project.run("run").ok()
    assert len(project.read("first.jsonl").splitlines()) == 4
    assert {json.loads(line)["variant"] for line in project.read("first.jsonl").splitlines()} == {COLD}
    assert len(project.read("all.jsonl").splitlines()) == 16
    assert exported(project) == {COLD: 4}
    everything = dict.fromkeys((COLD, f"{COLD},sample=2", HOT, f"{HOT},sample=2"), 4)
    assert exported(project, "--all") == everything
    assert exported(project, "--select", f"variant:{HOT}") == {HOT: 4, f"{HOT},sample=2": 4}
    project.edit("bioforge.toml", "[0.2, 0.9]", "[0.9, 0.2]")
    project.run("run").ok()
    assert {json.loads(line)["variant"] for line in project.read("first.jsonl").splitlines()} == {HOT}


def test_a_changed_row_and_a_failure_are_of_each_variant(project: ChainFolder) -> None:
    project.script.faults = {("Absalon", '"temperature":0.9'): "bad_request"}
    assert project.run("run").code == 1
    assert project.charged() == 14
    project.script.faults = {}
    project.edit("artists.csv", "Icelandic singer", "singer")
    assert project.reasons() == {"changed": 4, "failed": 2}
    project.run("run").ok()
    assert project.charged() == 20


# -------------------------------------------------------------------------------------------------- variants along chains


def test_who_needs_variants_has_one_for_each_and_reads_its_own(tmp_path: Path) -> None:
    with chain(tmp_path / "project", facts("temperature = [0.2, 0.9]", 2), BIO, TRANSLATION) as project:
        project.run("run").ok()
        assert project.charged() == 3 * 16
        for name in (COLD, f"{COLD},sample=2", HOT, f"{HOT},sample=2"):
            above = project.texts("facts", name)
            below = ",".join(f"facts.{setting}" for setting in name.split(","))
            assert variants(project, "bio")[below] == 4
            for text in above.values():
                assert project.script.count("biography", json.dumps(text, ensure_ascii=False)[1:-1]) == 1
        project.assert_money_is_explained()


def test_what_is_needed_is_selected_with_a_variant(tmp_path: Path) -> None:
    with chain(tmp_path / "project", facts("temperature = [0.2, 0.9]"), BIO) as project:
        project.run("run", "bio", "--select", "variant:facts.temperature=0.9").ok()
        assert variants(project) == {HOT: 4}
        assert variants(project, "bio") == {f"facts.{HOT}": 4}
        assert project.charged() == 8


def test_variants_at_both_ends_of_a_diamond_are_those_of_one_and_the_same(tmp_path: Path) -> None:
    style = BIO.replace("recipe.bio", "recipe.style").replace("Write a biography.", "Describe the style.")
    both = TRANSLATION.replace('["bio"]', '["bio", "style"]').replace(
        "{{ bio.text }}", "{{ bio.text }} | {{ style.text }}"
    )
    with chain(tmp_path / "project", facts("temperature = [0.2, 0.9]"), BIO, style, both) as project:
        project.run("run").ok()
        assert variants(project, "translation") == {f"facts.{COLD}": 4, f"facts.{HOT}": 4}
        assert project.charged() == 4 * 8


def test_a_variant_that_is_retired_takes_those_who_need_it_along(tmp_path: Path) -> None:
    with chain(tmp_path / "project", facts("temperature = [0.2, 0.9]"), BIO) as project:
        project.run("run").ok()
        project.recipes(facts("temperature = [0.9]"), BIO)
        assert project.plan()["fresh"]
        project.run("run").ok()
        assert variants(project, "bio") == {f"facts.{HOT}": 4}
        project.edit("artists.csv", "Icelandic singer", "singer")
        project.run("run").ok()
        project.recipes(facts("temperature = [0.2, 0.9]"), BIO)
        assert project.reasons() == {"changed": 1, "upstream": 1}, "meanwhile the row has changed for it too"
        project.run("run").ok()
        assert project.charged() == 16 + 2 + 2
        project.assert_money_is_explained()


def test_one_text_about_all_for_each_variant(tmp_path: Path) -> None:
    overview = FACTS.replace("facts", "overview").replace(
        'model = "gpt-6-luna"', 'for = "all"\nsamples = 2\nmodel = "gpt-6-luna"'
    )
    overview = overview.replace("{{ artist_name }}: {{ artist_data }}", "{{ artists | length }} artists")
    with chain(tmp_path / "project", overview) as project:
        project.run("run").ok()
        assert project.charged() == 2
        assert variants(project, "overview") == {"": 1, "sample=2": 1}

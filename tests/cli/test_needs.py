"""Recipes that need recipes: built in order and without a barrier, only what reads something new, healed from above."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from chains import BIO, FACTS, OVERVIEW, TRANSLATION, ChainFolder, Script, chain
from projects import ARTISTS

KIND = """{"type": "object", "properties": {"kind": {"enum": ["artist"]}}, "required": ["kind"],
"additionalProperties": false}"""
"""Whatever is asked, the answer is the same."""

FRESH = dict.fromkeys("0123", "fresh")


@pytest.fixture
def project(tmp_path: Path) -> Iterator[ChainFolder]:
    with chain(tmp_path / "project", FACTS, BIO, TRANSLATION) as made:
        yield made


def many(number: int) -> str:
    rows = "".join(f"{place},Artist {place},painter\n" for place in range(number))
    return "artist_id,artist_name,artist_data\n" + rows


def without(project: ChainFolder, line: str) -> None:
    project.write("artists.csv", ARTISTS.replace(line, ""))


# ------------------------------------------------------------------------------------------------------------- in order


@pytest.mark.parametrize("backend", ["async", "threads"])
def test_what_is_needed_is_asked_first_and_given_to_who_needs_it(project: ChainFolder, backend: str) -> None:
    ran = project.run("run", "--backend", backend).ok()
    assert "done    12 of 12" in ran.err
    assert project.charged() == 12
    facts, bios = project.texts("facts"), project.texts("bio")
    inputs = [body["input"] for body in project.script.asked]
    for artist in "0123":
        (bio,) = [text for text in inputs if text.endswith(f"of whom is known: {facts[artist]}")]
        assert inputs.index(bio) < inputs.index(bios[artist]), "a translation of what was not there yet"
    project.assert_money_is_explained()

    again = project.run("run", "--backend", backend).ok()
    assert "everything is up to date (12 targets)" in again.err
    assert project.charged() == 12


@pytest.mark.parametrize("backend", ["async", "threads"])
def test_there_is_no_barrier_and_what_was_begun_is_finished_first(project: ChainFolder, backend: str) -> None:
    artists = 30
    project.write("artists.csv", many(artists))
    project.run("run", "--backend", backend, "-j", "2").ok()
    order = [
        (recipe, artist)
        for recipe, artist in project.rows(
            "SELECT t.recipe, t.artist FROM attempts x JOIN targets t ON t.id = x.target ORDER BY x.id"
        )
    ]
    assert len(order) == 3 * artists
    begun = {pair: place for place, pair in enumerate(order)}
    for artist in range(1, artists + 1):
        # with two in flight, at most one other request is handed out before the next of this artist is ready
        for recipe, after in (("facts", "bio"), ("bio", "translation")):
            assert begun[after, artist] - begun[recipe, artist] <= 6, order
    rows = project.rows(
        "SELECT b.started_at, max(f.started_at + f.seconds) FROM attempts b JOIN targets t ON t.id = b.target,"
        " attempts f JOIN targets u ON u.id = f.target WHERE t.recipe = 'bio' AND u.recipe = 'facts' GROUP BY b.id"
    )
    assert sum(started < last for started, last in rows) > artists / 2, "biographies waited for the facts of all"


def test_a_batch_for_each_step(tmp_path: Path) -> None:
    with chain(tmp_path / "project", FACTS, BIO, batch_seconds=0) as project:
        project.recipes(FACTS, BIO, "[backend.batch]\npoll_seconds = 0.01\npoll_max_seconds = 0.02\n")
        project.run("run", "--backend", "batch").ok()
        assert project.states("bio") == FRESH
        assert project.value("SELECT count(*) FROM batches WHERE state = 'collected'") == 2
        assert project.charged() == 8


def test_batches_that_nobody_waits_for_bring_the_next_step_when_they_are_collected(tmp_path: Path) -> None:
    with chain(tmp_path / "project", FACTS, BIO, batch_seconds=0) as project:
        for expected in ({"in batch": 4, "upstream": 4}, {"in batch": 4}):
            assert project.run("run", "--backend", "batch", "--no-wait").code == 75
            assert project.reasons() == expected
        project.run("run", "--backend", "batch", "--no-wait").ok()
        assert project.charged() == 8


def test_a_recipe_is_built_with_what_it_needs_and_without_what_needs_it(project: ChainFolder) -> None:
    project.run("run", "bio").ok()
    assert project.why_asked() == {("facts", "new"): 4, ("bio", "new"): 4}
    project.run("run", "facts").ok()
    assert project.charged() == 8
    project.run("run", "translation").ok()
    assert project.charged() == 12


def test_one_artist_is_selected_with_the_whole_chain(project: ChainFolder) -> None:
    project.run("run", "--select", "3").ok()
    assert project.charged() == 3
    assert project.states("translation") == {**dict.fromkeys("012", "upstream: bio"), "3": "fresh"}


def test_artists_with_the_same_request_share_what_is_needed(tmp_path: Path) -> None:
    with chain(tmp_path / "project", FACTS, BIO) as project:
        project.edit("bioforge.toml", 'input = "{{ artist_name }}: {{ artist_data }}"', 'input = "{{ artist_data }}"')
        project.write("artists.csv", many(5))
        project.run("run").ok()
        assert project.why_asked() == {("facts", "new"): 1, ("bio", "new"): 5}


def test_a_recipe_may_need_several_of_which_one_needs_another(tmp_path: Path) -> None:
    both = TRANSLATION.replace('["bio"]', '["facts", "bio"]').replace(
        "{{ bio.text }}", "{{ bio.text }} {{ facts.text }}"
    )
    with chain(tmp_path / "project", both, BIO, FACTS) as project:
        project.run("run").ok()
        assert project.charged() == 12
        project.edit("artists.csv", "Icelandic singer", "singer")
        project.run("run").ok()
        assert project.charged() == 15


# ---------------------------------------------------------------------------------------------- only what is something new


def test_one_changed_row_rebuilds_the_chain_of_that_artist(project: ChainFolder) -> None:
    project.run("run").ok()
    project.edit("artists.csv", "Icelandic singer", "Icelandic composer")
    assert project.reasons() == {"changed": 1, "upstream": 2}
    project.run("run").ok()
    assert project.charged() == 15
    assert {pair: number for pair, number in project.why_asked().items() if pair[1] != "new"} == {
        ("facts", "changed"): 1,
        ("bio", "changed"): 1,
        ("translation", "changed"): 1,
    }


def test_a_column_that_nobody_in_the_chain_reads_costs_nothing(project: ChainFolder) -> None:
    project.run("run").ok()
    project.edit("artists.csv", "1965", "1966")
    assert project.run("plan", "-q").code == 0


def test_a_changed_prompt_in_the_middle_leaves_what_is_above_it(project: ChainFolder) -> None:
    project.run("run").ok()
    project.edit("bioforge.toml", "Write a biography.", "Write a poem.")
    assert project.reasons() == {"changed": 4, "upstream": 4}
    project.run("run").ok()
    assert project.charged() == 20
    project.edit("bioforge.toml", "Write a poem.", "Write a biography.")
    assert project.plan()["fresh"], "reverting costs nothing, all along the chain"


def test_an_answer_that_came_back_the_same_changes_nothing_below(tmp_path: Path) -> None:
    with chain(tmp_path / "project", FACTS + 'schema = "kind.json"\n', BIO, TRANSLATION) as project:
        project.write("kind.json", KIND)
        project.run("run").ok()
        project.edit("artists.csv", "Icelandic singer", "Icelandic composer")
        project.edit("bioforge.toml", "Collect facts.", "Collect all facts.")
        assert project.reasons() == {"changed": 4, "upstream": 8}
        ran = project.run("run").ok()
        assert project.charged() == 16
        assert "done    4 of 4" in ran.err
        assert project.plan()["fresh"]
        project.assert_money_is_explained()


def test_asked_again_and_answered_alike_only_what_was_forced_is_paid(project: ChainFolder) -> None:
    project.run("run").ok()
    project.run("run", "-B", "facts").ok()
    assert project.charged() == 16
    assert project.plan()["fresh"]
    project.run("run", "-B", "--select", "1").ok()
    assert project.charged() == 19, "the whole chain was asked for, and is built although nothing new came from above"
    assert project.audit()["forced_again"] == 7
    project.assert_money_is_explained()


def test_another_answer_above_is_the_reason_below(tmp_path: Path) -> None:
    with chain(tmp_path / "project", FACTS + "temperature = 0.7\n", BIO) as project:
        project.run("run").ok()
        old = project.texts("facts")["1"]
        project.run("run", "-B", "facts", "--select", "1").ok()
        new = project.texts("facts")["1"]
        assert old != new
        (group,) = project.plan()["groups"]
        assert (group["recipe"], group["reason"], group["detail"], group["targets"]) == (
            "bio",
            "changed",
            "answer of facts",
            1,
        )
        why = project.run("why", "1").ok().out
        assert "answer of facts" in why
        assert f"old: {old[:60]}" in why
        assert f"new: {new[:60]}" in why
        project.run("run").ok()
        assert project.charged() == 10
        assert project.script.asked[-1]["input"].endswith(new)


def test_what_was_forced_and_broken_off_is_built_by_the_next_run(project: ChainFolder) -> None:
    project.run("run").ok()
    project.script.faults = {("Collect", "Absalon"): "bad_request"}
    assert project.run("run", "-B", "--select", "3").code == 1
    assert project.states("bio")["3"] == "skipped: facts (bad_request)"
    assert project.charged() == 12
    project.script.faults = {}
    project.run("run").ok()
    assert project.charged() == 15, "also the biography and the translation, which were to be built anew"
    assert project.audit()["forced_again"] == 3
    project.run("run").ok()
    assert project.charged() == 15


# ------------------------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize("backend", ["async", "threads"])
def test_a_refusal_above_skips_what_is_below_and_nobody_else(project: ChainFolder, backend: str) -> None:
    project.script.faults = {("Collect", "Absalon"): "refusal"}
    ran = project.run("run", "--backend", backend)
    assert ran.code == 1
    assert project.charged() == 10
    for recipe in ("bio", "translation"):
        assert project.states(recipe) == {**FRESH, "3": "skipped: facts (refusal)"}
        assert f"skipped: 1 target of {recipe}: no answer of facts (refusal)" in ran.err
    project.script.faults = {}
    assert project.run("run", "--backend", backend).code == 1
    assert project.charged() == 10, "an answer that was paid for is not bought again by itself"
    assert project.reasons() == {"failed": 1, "skipped": 2}
    project.run("run", "-B", "facts", "--select", "3").ok()
    project.run("run").ok()
    assert project.states("translation") == FRESH
    assert project.charged() == 13
    project.assert_money_is_explained()


def test_what_failed_without_being_paid_is_healed_with_all_below_by_the_next_run(project: ChainFolder) -> None:
    project.script.faults = {("Collect", "Absalon"): "bad_request", ("biography", "Björk"): "bad_request"}
    assert project.run("run").code == 1
    assert project.states("bio") == {**FRESH, "1": project.states("bio")["1"], "3": "skipped: facts (bad_request)"}
    assert project.states("translation") == {
        **FRESH,
        "1": "skipped: bio (bad_request)",
        "3": "skipped: facts (bad_request)",
    }
    assert project.reasons() == {"failed": 2, "upstream": 3}, "the next run asks again, and they wait for that"
    project.script.faults = {}
    project.run("run").ok()
    assert project.charged() == 12
    project.assert_money_is_explained()


def test_what_fails_again_as_before_ends_the_run_all_the_same(project: ChainFolder) -> None:
    project.script.faults = {("Collect", "Absalon"): "bad_request"}
    for _ in range(2):
        ran = project.run("run")
        assert ran.code == 1
        assert "skipped: 1 target of bio: no answer of facts (bad_request)" in ran.err
    assert project.charged() == 9


def test_what_cannot_be_rendered_skips_what_is_below(project: ChainFolder) -> None:
    project.edit(
        "bioforge.toml", 'input = "{{ artist_name }}: {{ artist_data }}"', 'input = "{{ 1 / (artist_data | length) }}"'
    )
    assert project.run("run").code == 1
    assert project.states("bio") == {**FRESH, "3": "skipped: facts (template)"}
    project.edit("artists.csv", "Absalon,,", "Absalon,sculptor,")
    project.run("run").ok()
    assert project.states("translation") == FRESH


def test_one_of_two_needed_recipes_is_enough_to_be_skipped(tmp_path: Path) -> None:
    style = FACTS.replace("facts", "style")
    both = BIO.replace('["facts"]', '["facts", "style"]').replace(
        "{{ facts.text }}", "{{ facts.text }}{{ style.text }}"
    )
    script = Script({("Collect style", "Absalon"): "refusal"})
    with chain(tmp_path / "project", FACTS, style, both, script=script) as project:
        assert project.run("run").code == 1
        assert project.states("bio") == {**FRESH, "3": "skipped: style (refusal)"}
        assert project.charged() == 4 + 4 + 3


def test_maybe_paid_above_is_not_waited_for_where_it_is_never_asked_again(project: ChainFolder) -> None:
    project.edit("bioforge.toml", "max_attempts = 2", "max_attempts = 2\nmaybe_paid = false")
    project.script.faults = {("Collect", "Absalon"): "drop_after"}
    assert project.run("run").code == 1
    assert project.states("translation")["3"] == "skipped: facts (maybe paid)"
    charged = project.charged()
    project.script.faults = {}
    assert project.run("run").code == 1
    assert project.charged() == charged
    project.run("run", "-B", "--select", "3").ok()
    assert project.states("translation") == FRESH


def test_max_failures_counts_failures_and_not_what_is_skipped_for_them(project: ChainFolder) -> None:
    project.script.faults = {("Collect", "Absalon"): "bad_request"}
    ran = project.run("run", "--max-failures", "2")
    assert ran.code == 1
    assert "was to stop" not in ran.err
    assert project.states("translation") == {**FRESH, "3": "skipped: facts (bad_request)"}


# -------------------------------------------------------------------------------------------------- artists come and go


def test_a_removed_artist_takes_the_chain_along_and_brings_it_back_for_nothing(project: ChainFolder) -> None:
    project.run("run").ok()
    without(project, "3,Absalon,,1964\n")
    assert project.run("plan", "-q").code == 0
    assert project.states("translation")["3"] == "removed"
    project.write("artists.csv", ARTISTS)
    assert project.run("plan", "-q").code == 0
    project.run("run").ok()
    assert project.charged() == 12


def test_a_new_artist_is_one_more_chain(project: ChainFolder) -> None:
    project.run("run").ok()
    project.write("artists.csv", ARTISTS + "5,Édith Piaf,French singer,1915\n")
    assert project.reasons() == {"new": 1, "upstream": 2}
    project.run("run").ok()
    assert project.charged() == 15


# --------------------------------------------------------------------------------------------------- one text about all


@pytest.fixture
def overview(tmp_path: Path) -> Iterator[ChainFolder]:
    with chain(tmp_path / "project", OVERVIEW, FACTS) as made:
        yield made


@pytest.mark.parametrize("backend", ["async", "threads"])
def test_one_text_about_all_waits_for_everybody_and_is_asked_once(overview: ChainFolder, backend: str) -> None:
    assert overview.reasons() == {"new": 4, "upstream": 1}
    overview.run("run", "--backend", backend).ok()
    assert overview.charged() == 5
    last = overview.script.asked[-1]
    facts = overview.texts("facts")
    assert last["input"].splitlines() == [
        f"Björk: {facts['1']}",
        f"Abakanowicz, Magdalena: {facts['2']}",
        f"Absalon: {facts['3']}",
        f"Abbey, Edwin Austin: {facts['0']}",
    ]
    (record,) = [
        json.loads(line) for line in overview.run("export", "-F", "jsonl", "--recipe", "overview").ok().out.splitlines()
    ]
    assert (record["artist_id"], record["recipe"]) == ("*", "overview")
    overview.run("run", "--backend", backend).ok()
    assert overview.charged() == 5


def test_it_is_asked_again_when_something_it_reads_has_changed_and_only_then(overview: ChainFolder) -> None:
    overview.run("run").ok()
    overview.edit("artists.csv", "1965", "1966")
    assert overview.run("plan", "-q").code == 0
    overview.run("run", "-B", "facts").ok()
    assert overview.plan()["fresh"], "the facts came back as they were"
    assert overview.charged() == 9
    overview.edit("artists.csv", "Icelandic singer", "singer")
    assert overview.reasons() == {"changed": 1, "upstream": 1}
    overview.run("run").ok()
    assert overview.charged() == 11
    without(overview, "3,Absalon,,1964\n")
    assert overview.plan()["groups"][0]["reason"] == "changed"
    overview.run("run").ok()
    assert overview.charged() == 12
    assert "Absalon" not in overview.script.asked[-1]["input"]


def test_it_is_skipped_while_anybody_has_failed(overview: ChainFolder) -> None:
    overview.script.faults = {("Collect", "Absalon"): "refusal"}
    assert overview.run("run").code == 1
    assert overview.states("overview") == {"*": "skipped: facts (refusal)"}
    assert overview.charged() == 4
    without(overview, "3,Absalon,,1964\n")
    overview.run("run").ok()
    assert overview.states("overview") == {"*": "fresh"}
    assert overview.charged() == 5


def test_a_plan_says_that_it_is_skipped_although_others_are_still_to_come(overview: ChainFolder) -> None:
    overview.script.faults = {("Collect", "Absalon"): "refusal"}
    assert overview.run("run", "--select", "3").code == 1
    assert overview.reasons() == {"failed": 1, "new": 3, "skipped": 1}
    overview.script.faults = {}
    overview.run("run", "-B", "--select", "3").ok()
    assert overview.reasons() == {"new": 3, "upstream": 1}
    overview.run("run").ok()
    assert overview.states("overview") == {"*": "fresh"}


def test_single_artists_may_need_the_text_about_all(tmp_path: Path) -> None:
    place = BIO.replace("bio", "place").replace('["facts"]', '["overview"]').replace("facts.text", "overview.text")
    with chain(tmp_path / "project", FACTS, OVERVIEW, place) as project:
        project.run("run").ok()
        assert project.charged() == 4 + 1 + 4
        (text,) = project.texts("overview").values()
        assert project.script.count("of whom is known", json.dumps(text, ensure_ascii=False)[1:-1]) == 4
        project.edit("artists.csv", "Icelandic singer", "singer")
        project.run("run").ok()
        assert project.charged() == 9 + 1 + 1 + 4, "what all are compared with has changed for everybody"
        project.assert_money_is_explained()


def test_a_text_about_all_that_needs_nothing_is_asked_at_once(tmp_path: Path) -> None:
    alone = OVERVIEW.replace('needs = ["facts"]\n', "").replace(": {{ artist.facts.text }}", "")
    with chain(tmp_path / "project", alone) as project:
        project.run("run").ok()
        project.edit("artists.csv", "Icelandic singer", "singer")
        assert project.run("plan", "-q").code == 0, "it does not read this column"
        project.edit("artists.csv", "Björk", "Bjork")
        (group,) = project.plan()["groups"]
        assert (group["reason"], group["detail"]) == ("changed", "artists")
        project.run("run").ok()
        assert project.charged() == 2


def test_a_recipe_that_is_for_all_now_has_no_targets_of_single_artists_and_the_other_way_round(tmp_path: Path) -> None:
    single = FACTS.replace("{{ artist_name }}: {{ artist_data }}", "{{ artists | length }}").replace(
        'model = "gpt-6-luna"', 'for = "all"\nmodel = "gpt-6-luna"'
    )
    with chain(tmp_path / "project", FACTS) as project:
        project.run("run").ok()
        for tables, charged in (((single,), 5), ((FACTS,), 5), ((single,), 5)):
            project.recipes(*tables)
            project.run("run").ok()
            assert project.charged() == charged
            assert project.plan()["fresh"]
        assert project.states("facts") == {"*": "fresh", **dict.fromkeys("0123", "removed")}


# ------------------------------------------------------------------------------------------- what is shown before sending


def test_a_plan_counts_and_prices_what_waits(project: ChainFolder) -> None:
    planned = project.plan()
    assert [(group["recipe"], group["reason"], group["detail"], group["requests"]) for group in planned["groups"]] == [
        ("facts", "new", None, 4),
        ("bio", "upstream", "facts", 4),
        ("translation", "upstream", "bio", 4),
    ]
    assert planned["requests"] == 12
    assert planned["cost_usd"] == pytest.approx(sum(group["cost_usd"] for group in planned["groups"]))
    assert "8 targets wait for another recipe; they are sent only if its answer changes" in project.run("plan").ok().out
    assert project.charged() == 0


def test_the_graph_of_the_recipes(tmp_path: Path) -> None:
    with chain(tmp_path / "project", TRANSLATION, OVERVIEW, BIO, FACTS) as project:
        project.run("run", "facts").ok()
        project.run("run", "bio", "--select", "1").ok()
        assert project.run("plan", "--graph").ok().out == (
            "recipe                          targets  fresh  stale\n"
            "facts                                 4      4  -\n"
            "├─ bio                                4      1  3 new\n"
            "│  └─ translation                     4      0  1 new, 3 upstream\n"
            "└─ overview (over all artists)        1      0  1 new\n"
        )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["facts"]', '["fact"]', "'fact' is an unknown recipe; did you mean 'facts'?"),
        ('["facts"]', '["translation"]', "recipes that need each other: bio → translation → bio"),
        ("{{ facts.text }}", "{{ facts.txt }}", "the template uses facts.txt"),
        (
            "{{ facts.text }}",
            "{{ needs['fact'].text }}",
            "the template uses needs['fact'], but the recipe does not need it",
        ),
        ("{{ facts.text }}", "{{ facts.parsed.born }}", "recipe 'facts' has no schema"),
        ("{{ facts.text }}", "{{ translation.text }}", "'translation', which is not a column of the input"),
    ],
)
def test_a_mistake_in_what_is_needed_is_found_before_anything_is_sent(
    project: ChainFolder, old: str, new: str, message: str
) -> None:
    project.edit("bioforge.toml", old, new)
    ran = project.run("run")
    assert ran.code == 2
    assert message in ran.err
    assert project.charged() == 0


# ---------------------------------------------------------------------------------------------------- other commands


def test_what_is_accepted_above_changes_nothing_below(project: ChainFolder) -> None:
    project.run("run").ok()
    project.edit("bioforge.toml", "Collect facts.", "Collect  facts.")
    project.run("accept", "--recipe", "facts", "--yes").ok()
    assert project.plan()["fresh"]
    project.run("run").ok()
    assert project.charged() == 12


def test_what_waits_cannot_be_accepted_before_it_is_known_what_it_asks(project: ChainFolder) -> None:
    project.run("run").ok()
    project.edit("artists.csv", "Icelandic singer", "singer")
    ran = project.run("accept", "--yes").ok()
    assert "1 target accepted" in ran.err
    assert project.plan()["fresh"], "with the facts accepted, the rest is what it was"
    assert project.charged() == 12


def test_an_answer_forgotten_above_is_asked_again_and_leaves_what_is_below(project: ChainFolder) -> None:
    project.run("run").ok()
    project.run("forget", "1", "--recipe", "facts", "--yes").ok()
    assert project.reasons() == {"forgotten": 1, "upstream": 2}
    project.run("run").ok()
    assert project.charged() == 13, "the same facts again: the biography is still that of these"
    project.assert_money_is_explained()


def test_a_limit_counts_targets_of_the_whole_chain(project: ChainFolder) -> None:
    project.run("run", "--limit", "5").ok()
    assert project.why_asked() == {("facts", "new"): 4, ("bio", "new"): 1}
    project.run("run", "--limit", "5").ok()
    assert project.charged() == 10
    project.run("run").ok()
    assert project.charged() == 12


def test_a_plan_file_of_a_chain_is_done_to_its_end_or_refused(project: ChainFolder) -> None:
    project.run("plan", "--out", "all.plan").ok()
    project.run("run", "--plan", "all.plan").ok()
    assert project.charged() == 12
    assert project.plan()["fresh"]
    late = project.run("run", "--plan", "all.plan")
    assert late.code == 2
    assert "has an answer now" in late.err

    project.edit("artists.csv", "Icelandic singer", "singer")
    project.run("plan", "--out", "next.plan").ok()
    project.run("run", "facts").ok()
    refused = project.run("run", "--plan", "next.plan")
    assert refused.code == 2
    assert project.charged() == 13


def test_a_budget_ends_a_chain_in_the_middle_and_the_next_run_goes_on(project: ChainFolder) -> None:
    project.edit(
        "bioforge.toml",
        'instructions = "Translate into French."',
        'instructions = "Translate into French."\nmax_output_tokens = 9000',
    )
    assert project.run("run", "--max-cost", "0.002").code == 75
    assert 0 < project.charged() < 12
    project.run("run").ok()
    assert project.charged() == 12
    project.assert_money_is_explained()


def test_what_waits_is_not_selected_by_that(project: ChainFolder) -> None:
    ran = project.run("run", "--select", "reason:upstream")
    assert ran.code == 2
    assert "these targets wait for another recipe" in ran.err
    assert project.charged() == 0


def test_a_whole_chain_is_imported(project: ChainFolder, tmp_path: Path) -> None:
    project.run("run").ok()
    exported = project.run("export", "-F", "jsonl").ok().out
    with chain(tmp_path / "other", FACTS, BIO, TRANSLATION) as other:
        other.write("bought.jsonl", exported)
        ran = other.run("import", "bought.jsonl").ok()
        assert "adopted: 12 answers" in ran.err
        assert other.plan()["fresh"]
        other.run("run").ok()
        assert other.charged() == 0
        assert other.texts("translation") == project.texts("translation")


def test_of_an_imported_chain_only_what_is_missing_is_asked(project: ChainFolder, tmp_path: Path) -> None:
    project.run("run").ok()
    lines = project.run("export", "-F", "jsonl").ok().out.splitlines(keepends=True)
    missing = [line for line in lines if json.loads(line)["recipe"] == "facts" and json.loads(line)["artist_id"] == "3"]
    assert len(missing) == 1
    with chain(tmp_path / "other", FACTS, BIO, TRANSLATION) as other:
        other.write("bought.jsonl", "".join(line for line in lines if line not in missing))
        other.run("import", "bought.jsonl").ok()
        assert other.reasons() == {"new": 1, "upstream": 2}
        other.run("run").ok()
        assert 1 <= other.charged() <= 3
        other.run("import", "bought.jsonl").ok()
        assert other.plan()["fresh"]


def test_an_answer_forgotten_below_leaves_what_is_above(project: ChainFolder) -> None:
    project.run("run").ok()
    ran = project.run("forget", "1", "--recipe", "translation", "--yes").ok()
    assert "1 answer forgotten" in ran.err
    assert project.states("facts") == FRESH

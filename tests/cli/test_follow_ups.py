"""What is asked after a failure: once more with the errors, then other models; no link of a chain is paid for twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chains import BIO, FACTS, ChainFolder, Script, chain

from bioforge.core.hashing import definition_hash

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"born": {"type": "integer", "minimum": 1800, "maximum": 1999}, "note": {"type": "string"}},
    "required": ["born", "note"],
    "additionalProperties": False,
}
TYPED = FACTS + 'schema = "facts.json"\n'
REPAIR = TYPED + "repair = true\n"
FALLBACK = FACTS + 'fallback = ["gpt-6.1-terra"]\n'
BOTH = REPAIR + 'fallback = ["gpt-6.1-terra", "gpt-6-sol"]\n'
FRESH = dict.fromkeys("0123", "fresh")

ASKED_AGAIN = "previous answer did not fit"
LUNA, TERRA, SOL = '"gpt-6-luna"', '"gpt-6.1-terra"', '"gpt-6-sol"'


@pytest.fixture
def project(tmp_path: Path) -> Iterator[ChainFolder]:
    with chain(tmp_path / "project", BOTH) as made:
        made.write("facts.json", json.dumps(SCHEMA))
        yield made


def limited(longest: int) -> str:
    note = {"type": "string", "maxLength": longest}
    return json.dumps({**SCHEMA, "properties": {**SCHEMA["properties"], "note": note}})


def links(project: ChainFolder, artist: str = "3") -> list[tuple[str, str, str]]:
    """(model, reason, outcome) of everything that was asked for an artist, in order."""
    return project.rows(
        "SELECT q.model, x.reason, coalesce(x.error_class, x.outcome) FROM attempts x JOIN requests q USING (request_hash)"
        " JOIN targets t ON t.id = x.target JOIN artists a ON a.id = t.artist WHERE a.artist_id = ? ORDER BY x.id",
        artist,
    )


def answered_by(project: ChainFolder) -> dict[str, str | None]:
    return dict(project.rows("SELECT artist_id, answered_by FROM results"))


# --------------------------------------------------------------------------------------------------------------- repair


@pytest.mark.parametrize("endpoint", ["/v1/responses", "/v1/chat/completions"])
def test_an_answer_that_does_not_fit_is_asked_for_once_more_with_its_errors(
    project: ChainFolder, endpoint: str
) -> None:
    project.recipes(REPAIR, f'endpoint = "{endpoint}"\n')
    project.script.faults = {("Absalon", ASKED_AGAIN): "ok", "Absalon": "misfit"}
    ran = project.run("run").ok()
    assert project.charged() == 5
    assert " 4 of 4 in " in ran.err
    assert links(project) == [("gpt-6-luna", "new", "schema"), ("gpt-6-luna", "repair", "succeeded")]
    (asked,) = [body for body in project.script.asked if ASKED_AGAIN in json.dumps(body)]
    turns = asked["input"] if endpoint == "/v1/responses" else asked["messages"]
    assert [turn["role"] for turn in turns][-3:] == ["user", "assistant", "user"]
    assert "simulated fault" in json.dumps(turns[-2])
    assert "born: missing" in json.dumps(turns[-1])
    assert answered_by(project) == {**dict.fromkeys("012"), "3": "repair"}
    records = [json.loads(line) for line in project.run("export", "-F", "jsonl").ok().out.splitlines()]
    assert {record["artist_id"]: record["request"].get("answered_by") for record in records} == answered_by(project)
    project.run("run").ok()
    assert project.charged() == 5
    project.assert_money_is_explained()


def test_every_link_of_a_chain_is_shown_with_its_price(project: ChainFolder) -> None:
    project.script.faults = {("Absalon", ASKED_AGAIN): "ok", "Absalon": "misfit"}
    project.run("run").ok()
    why = project.run("why", "3").ok().out
    assert why.count("req_") == 2
    assert "unusable" in why
    assert "repair" in why
    assert why.count("$") >= 2


@pytest.mark.parametrize("fault", ["refusal", "incomplete", "bad_request"])
def test_only_an_answer_that_does_not_fit_can_be_repaired(project: ChainFolder, fault: str) -> None:
    project.recipes(REPAIR)
    project.script.faults = {"Absalon": fault}
    assert project.run("run").code == 1
    assert len(links(project)) == 1


def test_a_repair_that_does_not_fit_either_is_held_and_nothing_is_asked_a_third_time(project: ChainFolder) -> None:
    project.recipes(REPAIR)
    project.script.faults = {"Absalon": "misfit"}
    for _ in range(3):
        ran = project.run("run")
        assert ran.code == 1
        assert "held back: 1 target" in ran.err
    assert project.charged() == 5
    project.script.faults = {}
    project.run("run", "-B", "--select", "3").ok()
    assert links(project)[2:] == [("gpt-6-luna", "forced", "succeeded")], "on purpose the recipe's own request is asked"
    assert answered_by(project)["3"] is None
    project.assert_money_is_explained()


def test_artists_with_the_same_request_share_a_repair(project: ChainFolder) -> None:
    project.recipes(REPAIR)
    project.write("artists.csv", "artist_id,artist_name,artist_data\n" + "".join(f"{n},Absalon,\n" for n in range(4)))
    project.script.faults = {(ASKED_AGAIN,): "ok", "Absalon": "misfit"}
    project.run("run").ok()
    assert project.charged() == 2
    assert answered_by(project) == dict.fromkeys("0123", "repair")


# ------------------------------------------------------------------------------------------------------------- fallback


@pytest.mark.parametrize(
    ("fault", "backend"),
    [
        ("refusal", "async"),
        ("refusal", "threads"),
        ("incomplete", "async"),
        ("content_filter", "async"),
        ("bad_request", "threads"),
        ("drop_after", "async"),
        ("drop_before", "threads"),
    ],
)
def test_after_a_failure_that_is_final_another_model_is_asked(project: ChainFolder, fault: str, backend: str) -> None:
    project.recipes(FALLBACK)
    project.script.faults = {("Absalon", LUNA): fault}
    ran = project.run("run", "--backend", backend).ok()
    assert " 4 of 4 in " in ran.err
    assert [link[:2] for link in links(project)][-1] == ("gpt-6.1-terra", "fallback")
    assert project.value("SELECT model FROM results WHERE artist_id = '3'").startswith("gpt-6.1-terra")
    assert answered_by(project)["3"] == "fallback"
    asked = len(project.script.asked)
    project.run("run", "--backend", backend).ok()
    assert len(project.script.asked) == asked
    project.assert_money_is_explained()


def test_what_is_tried_again_is_no_reason_to_fall_back(project: ChainFolder) -> None:
    project.recipes(FALLBACK)
    project.script.faults = {("Absalon", LUNA): ["rate_limit_bare", "ok"], ("Björk", LUNA): ["drop_before", "ok"]}
    project.run("run").ok()
    assert project.script.count(TERRA) == 0


def test_a_chain_goes_through_repairs_and_models_in_order(project: ChainFolder) -> None:
    project.script.faults = {("Absalon", SOL, ASKED_AGAIN): "ok", "Absalon": "misfit"}
    project.run("run").ok()
    assert links(project) == [
        ("gpt-6-luna", "new", "schema"),
        ("gpt-6-luna", "repair", "schema"),
        ("gpt-6.1-terra", "fallback", "schema"),
        ("gpt-6.1-terra", "repair", "schema"),
        ("gpt-6-sol", "fallback", "schema"),
        ("gpt-6-sol", "repair", "succeeded"),
    ]
    assert answered_by(project)["3"] == "repair"
    assert project.charged() == 9
    project.assert_money_is_explained()


def test_a_chain_whose_links_were_all_paid_for_is_held(project: ChainFolder) -> None:
    project.script.faults = {"Absalon": "misfit"}
    for _ in range(3):
        assert project.run("run").code == 1
    assert project.charged() == 9
    assert project.rows("SELECT reason, held FROM targets WHERE held = 1") == [("failed", 1)]
    (record,) = [json.loads(line) for line in project.run("export", "--failed", "-F", "jsonl").ok().out.splitlines()]
    assert record["error"]["class"] == "schema"
    project.assert_money_is_explained()


@pytest.mark.parametrize(
    ("own", "other", "asked"), [("refusal", "bad_request", TERRA), ("bad_request", "refusal", LUNA)]
)
def test_of_a_chain_that_failed_only_what_was_not_paid_is_asked_by_the_next_run(
    project: ChainFolder, own: str, other: str, asked: str
) -> None:
    project.recipes(FALLBACK)
    project.script.faults = {("Absalon", LUNA): own, ("Absalon", TERRA): other}
    assert project.run("run").code == 1
    assert project.charged() == 4
    assert project.run("run").code == 1
    assert [link[0] for link in links(project)] == ["gpt-6-luna", "gpt-6.1-terra", json.loads(asked)]
    project.script.faults = {("Absalon", LUNA): own if own == "refusal" else "ok"}
    project.run("run").ok()
    assert project.charged() == 5
    project.assert_money_is_explained()


def test_where_nothing_of_a_chain_was_paid_the_next_run_begins_with_the_recipes_own_model(
    project: ChainFolder,
) -> None:
    project.recipes(FALLBACK)
    project.script.faults = {"Absalon": "bad_request"}
    assert project.run("run").code == 1
    project.script.faults = {}
    project.run("run").ok()
    assert answered_by(project)["3"] is None
    assert [link[0] for link in links(project)] == ["gpt-6-luna", "gpt-6.1-terra", "gpt-6-luna"]


def test_a_variant_does_not_fall_back_to_its_own_model(tmp_path: Path) -> None:
    models = FALLBACK.replace('model = "gpt-6-luna"\n', 'matrix = { model = ["gpt-6-luna", "gpt-6.1-terra"] }\n')
    with chain(tmp_path / "project", models, script=Script({"Absalon": "refusal"})) as project:
        assert project.run("run").code == 1
        assert project.script.count("Absalon") == 2
        assert project.charged() == 8
        assert project.value("SELECT sum(held) FROM targets") == 2


def test_a_quota_is_no_reason_to_fall_back(tmp_path: Path) -> None:
    with chain(tmp_path / "project", FALLBACK, quota_after=2) as project:
        ran = project.run("run", "-j", "1")
        assert ran.code == 75
        assert project.charged() == 2
        assert project.script.count(TERRA) == 0
        assert set(project.reasons()) <= {"new", "interrupted"}


def test_a_link_that_may_have_been_paid_ends_a_chain_where_nothing_unclear_is_asked_again(
    project: ChainFolder,
) -> None:
    project.recipes(FALLBACK, **{"max_attempts = 2": "max_attempts = 2\nmaybe_paid = false"})
    project.script.faults = {("Absalon", LUNA): "drop_after"}
    for _ in range(2):
        assert project.run("run").code == 1
    assert links(project) == [("gpt-6-luna", "new", "connection")]
    assert project.reasons() == {"maybe paid": 1}
    project.assert_money_is_explained()


# --------------------------------------------------------------------------------------- counting, stopping, going on


def test_max_failures_counts_targets_and_not_the_links_of_their_chains(project: ChainFolder) -> None:
    project.script.faults = {("Absalon", SOL, ASKED_AGAIN): "ok", "Absalon": "misfit"}
    project.run("run", "--max-failures", "1", "-j", "1").ok()
    assert project.charged() == 9


def test_max_failures_counts_a_chain_that_has_come_to_its_end(project: ChainFolder) -> None:
    project.script.faults = {"": "misfit"}
    ran = project.run("run", "--max-failures", "1", "-j", "1")
    assert ran.code == 1
    assert "1 target failed, the limit of --max-failures 1" in ran.err
    assert project.value("SELECT count(*) FROM targets WHERE held = 1") == 1


def test_a_budget_stops_a_chain_between_two_links_and_the_next_run_goes_on(project: ChainFolder) -> None:
    """Of the dearer model there is not enough money left for one answer."""
    project.write("artists.csv", "artist_id,artist_name,artist_data\n3,Absalon,\n")
    project.recipes(FALLBACK.replace("gpt-6.1-terra", "gpt-6-sol"))
    project.script.faults = {("Absalon", LUNA): "refusal"}
    ran = project.run("run", "--max-cost", "0.001")
    assert ran.code == 75, ran.err
    assert project.reasons() == {"fallback": 1}
    (group,) = project.plan()["groups"]
    assert (group["detail"], group["requests"]) == ("gpt-6-luna (refusal)", 1)
    project.run("run").ok()
    assert links(project) == [("gpt-6-luna", "new", "refusal"), ("gpt-6-sol", "fallback", "succeeded")]
    project.assert_money_is_explained()


def test_chains_go_through_batches(tmp_path: Path) -> None:
    script = Script({("Absalon", ASKED_AGAIN): "ok", "Absalon": "misfit"})
    with chain(tmp_path / "project", REPAIR, script=script, batch_seconds=0) as project:
        project.write("facts.json", json.dumps(SCHEMA))
        project.recipes(REPAIR, "[backend.batch]\npoll_seconds = 0.01\npoll_max_seconds = 0.02\n")
        project.run("run", "--backend", "batch").ok()
        assert links(project) == [("gpt-6-luna", "new", "schema"), ("gpt-6-luna", "repair", "succeeded")]
        assert project.value("SELECT count(*) FROM batches") == 2
        assert project.charged() == 5


# ------------------------------------------------------------------------------------------------- what depends on chains


def test_who_needs_an_answer_waits_for_the_whole_chain(project: ChainFolder) -> None:
    project.recipes(BOTH, BIO.replace("facts.text", "facts.parsed.note"))
    project.script.faults = {("Collect", "Absalon", TERRA): "ok", ("Collect", "Absalon"): "misfit"}
    project.run("run").ok()
    assert project.states("bio") == FRESH
    note = json.loads(project.value("SELECT parsed FROM results WHERE artist_id = '3' AND recipe = 'facts'"))["note"]
    assert project.script.count("biography", f"of whom is known: {note}") == 1
    assert project.charged() == 4 + 2 + 4


def test_who_needs_an_answer_is_skipped_when_the_chain_has_come_to_its_end(project: ChainFolder) -> None:
    project.recipes(BOTH, BIO)
    project.script.faults = {("Collect", "Absalon"): "misfit"}
    assert project.run("run").code == 1
    assert project.states("bio") == {**FRESH, "3": "skipped: facts (schema)"}


# ---------------------------------------------------------------------------------------------- when the definition changes


def test_a_repaired_answer_is_checked_again_too(project: ChainFolder) -> None:
    project.recipes(REPAIR)
    project.script.faults = {("Absalon", ASKED_AGAIN): "ok", "Absalon": "misfit"}
    project.run("run").ok()
    length = len(json.loads(project.value("SELECT parsed FROM results WHERE artist_id = '3'"))["note"])
    project.write("facts.json", limited(length - 1))
    assert "5 stored answers checked again at no cost, 3 fit, 2 do not" in project.run("plan").ok().out
    assert project.states("facts")["3"].startswith("invalid: schema: facts.json: note: ")
    project.write("facts.json", json.dumps(SCHEMA))
    assert project.plan()["fresh"]
    assert project.charged() == 5


def test_an_answer_that_fits_after_all_goes_before_what_was_asked_in_its_place(project: ChainFolder) -> None:
    project.recipes(BOTH)
    project.write("facts.json", limited(40))
    project.script.faults = {}
    assert project.run("run").code == 1
    paid = project.charged()
    project.write("facts.json", json.dumps(SCHEMA))
    assert project.plan()["fresh"]
    assert answered_by(project) == dict.fromkeys("0123")
    project.run("run").ok()
    assert project.charged() == paid


def test_an_unfit_answer_is_repaired_where_the_recipe_says_so(project: ChainFolder) -> None:
    project.recipes(REPAIR)
    project.run("run").ok()
    project.write("facts.json", limited(45))
    assert set(project.reasons()) == {"repair"}
    project.run("run")
    assert {reason for _, reason in project.why_asked()} == {"new", "repair"}
    project.assert_money_is_explained()


def test_without_its_fallback_a_recipe_has_a_failure_again_and_with_it_the_answer(project: ChainFolder) -> None:
    project.recipes(FALLBACK)
    project.script.faults = {("Absalon", LUNA): "refusal"}
    project.run("run").ok()
    project.recipes(FACTS)
    assert project.reasons() == {"failed": 1}
    assert project.run("run").code == 1
    project.recipes(FALLBACK)
    project.run("run").ok()
    assert project.charged() == 5
    assert answered_by(project)["3"] == "fallback"


def test_repair_that_is_switched_on_later_asks_for_what_was_held_back(project: ChainFolder) -> None:
    project.recipes(TYPED)
    project.script.faults = {("Absalon", ASKED_AGAIN): "ok", "Absalon": "misfit"}
    assert project.run("run").code == 1
    project.recipes(REPAIR)
    assert project.reasons() == {"repair": 1}
    project.run("run").ok()
    assert project.charged() == 5


def test_a_changed_row_begins_the_chain_anew(project: ChainFolder) -> None:
    project.recipes(FALLBACK)
    project.script.faults = {("Absalon", LUNA): "refusal"}
    project.run("run").ok()
    project.edit("artists.csv", "Absalon,,", "Absalon,sculptor,")
    assert project.reasons() == {"changed": 1}
    project.run("run").ok()
    assert project.charged() == 7
    project.edit("artists.csv", "Absalon,sculptor,", "Absalon,,")
    assert project.plan()["fresh"], "the chain of before is known to its end"


def test_a_forgotten_fallback_is_asked_again_and_the_refusal_before_it_is_not(project: ChainFolder) -> None:
    project.recipes(FALLBACK)
    project.script.faults = {("Absalon", LUNA): "refusal"}
    project.run("run").ok()
    project.run("forget", "3", "--yes").ok()
    project.run("run").ok()
    assert [link[0] for link in links(project)] == ["gpt-6-luna", "gpt-6.1-terra", "gpt-6.1-terra"]
    project.assert_money_is_explained()


def test_an_imported_answer_ends_a_chain(project: ChainFolder) -> None:
    project.recipes(FALLBACK)
    project.script.faults = {("Absalon", LUNA): "bad_request"}
    project.run("run").ok()
    exported = project.run("export", "-F", "jsonl").ok().out
    project.run("forget", "3", "--yes").ok()
    project.write("bought.jsonl", exported)
    project.run("import", "bought.jsonl").ok()
    assert project.plan()["fresh"]
    assert project.charged() == 4
    assert answered_by(project)["3"] == "fallback"


def test_gc_keeps_the_failure_that_an_answer_stands_in_for(project: ChainFolder) -> None:
    project.recipes(FALLBACK)
    project.script.faults = {("Absalon", LUNA): "refusal"}
    project.run("run").ok()
    project.run("gc", "--yes").ok()
    project.edit("bioforge.toml", "Collect facts.", "Collect all facts.")
    project.run("plan").ok()
    project.edit("bioforge.toml", "Collect all facts.", "Collect facts.")
    assert project.plan()["fresh"]


def test_an_upgrade_of_the_validator_checks_answers_again_and_resends_none(
    project: ChainFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state of a version with another validator: only the tag of the validation hash differs."""
    project.recipes(REPAIR)
    project.script.faults = {("Absalon", ASKED_AGAIN): "ok", "Absalon": "misfit"}
    with monkeypatch.context() as earlier:
        earlier.setattr("bioforge.recipes.schema.load._validation_hash", definition_hash)
        project.run("run").ok()
        assert project.plan()["fresh"]
    assert {tag for (tag,) in project.rows("SELECT DISTINCT substr(validation, 1, 3) FROM responses")} == {"v1:"}
    charged = project.charged()
    assert "5 stored answers checked again at no cost, 4 fit, 1 do not" in project.run("plan").ok().out
    assert {tag for (tag,) in project.rows("SELECT DISTINCT substr(validation, 1, 3) FROM responses")} == {"v2:"}
    assert project.plan()["fresh"]
    project.run("run").ok()
    assert project.charged() == charged
    assert answered_by(project) == {**dict.fromkeys("012"), "3": "repair"}

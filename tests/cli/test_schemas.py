"""Typed answers: checked when they come, kept whatever they are, checked again for nothing when the schema changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chains import BIO, FACTS, ChainFolder, chain

LOOSE: dict[str, Any] = {
    "type": "object",
    "properties": {"born": {"type": "integer", "minimum": 1800, "maximum": 1999}, "note": {"type": "string"}},
    "required": ["born", "note"],
    "additionalProperties": False,
}
TYPED = FACTS + 'schema = "facts.json"\n'
WARM = "temperature = 0.7\n"

MODELS = """
from pydantic import BaseModel, field_validator
import note_words

class Facts(BaseModel):
    born: int
    note: str

    @field_validator("note")
    @classmethod
    def said_well(cls, note: str) -> str:
        note_words.check(note)
        return note.upper()
"""
WORDS = """
def check(note):
    return None
"""
STRICT_WORDS = """
def check(note):
    if {word!r} in note:
        raise ValueError("not this word")
"""
FRESH = dict.fromkeys("0123", "fresh")


def limited(longest: int) -> str:
    """The schema with something that is not sent: how long a note may be."""
    note = {**LOOSE["properties"]["note"], "maxLength": longest}
    return json.dumps({**LOOSE, "properties": {**LOOSE["properties"], "note": note}})


def notes(project: ChainFolder) -> dict[str, str]:
    """What the answers say, by artist."""
    rows = project.rows("SELECT artist_id, parsed FROM results WHERE parsed IS NOT NULL")
    return {artist: json.loads(parsed)["note"] for artist, parsed in rows}


def longest(project: ChainFolder) -> tuple[str, int]:
    """The artist with the longest note, and a limit that only this one is over."""
    found = sorted((len(note), artist) for artist, note in notes(project).items())
    assert found[-1][0] > found[-2][0]
    return found[-1][1], found[-2][0]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[ChainFolder]:
    with chain(tmp_path / "project", TYPED) as made:
        made.write("facts.json", json.dumps(LOOSE))
        yield made


@pytest.fixture
def warm(project: ChainFolder) -> ChainFolder:
    """Each further answer to the same request is another one."""
    project.recipes(TYPED, WARM)
    return project


@pytest.fixture
def modelled(project: ChainFolder) -> ChainFolder:
    project.recipes(FACTS, 'schema = "models:Facts"\n', WARM)
    project.write("models.py", MODELS)
    project.write("note_words.py", WORDS)
    return project


# ------------------------------------------------------------------------------------------------- as the answers come


@pytest.mark.parametrize("endpoint", ["/v1/responses", "/v1/chat/completions"])
def test_data_is_asked_for_checked_and_exported(project: ChainFolder, endpoint: str) -> None:
    project.recipes(TYPED, f'endpoint = "{endpoint}"\n')
    project.run("run").ok()
    body = project.script.asked[0]
    sent = body["text"]["format"] if endpoint == "/v1/responses" else body["response_format"]["json_schema"]
    assert (sent["name"], sent["strict"], sent["schema"]["required"]) == ("facts", True, ["born", "note"])
    records = [json.loads(line) for line in project.run("export", "-F", "jsonl").ok().out.splitlines()]
    assert len(records) == 4
    for record in records:
        assert record["parsed"] == json.loads(record["response_text"])
        assert isinstance(record["parsed"]["born"], int)
    assert project.value("SELECT count(*) FROM responses WHERE validation IS NULL") == 0


@pytest.mark.parametrize("backend", ["async", "threads"])
def test_an_answer_that_does_not_fit_is_kept_named_and_held(project: ChainFolder, backend: str) -> None:
    project.script.faults = {"Absalon": "misfit"}
    ran = project.run("run", "--backend", backend)
    assert ran.code == 1
    assert "1 schema" in ran.err
    assert project.states("facts")["3"].startswith("failed: schema: facts.json: ")
    assert "born: missing" in project.states("facts")["3"]
    (record,) = [json.loads(line) for line in project.run("export", "--failed", "-F", "jsonl").ok().out.splitlines()]
    assert record["error"]["class"] == "schema"
    assert json.loads(record["response_text"]) == {"simulated fault": "misfit"}
    assert "parsed" not in record
    for _ in range(2):
        assert project.run("run", "--backend", backend).code == 1
    assert project.charged() == 4
    project.script.faults = {}
    project.run("run", "-B", "--select", "3").ok()
    assert project.charged() == 5
    project.assert_money_is_explained()


def test_refused_and_truncated_answers_keep_their_own_class(project: ChainFolder) -> None:
    project.script.faults = {"Absalon": "refusal", "Björk": "incomplete"}
    assert project.run("run").code == 1
    states = project.states("facts")
    assert states["3"].startswith("failed: refusal")
    assert states["1"].startswith("failed: truncated")


def test_an_answer_that_does_not_fit_skips_who_needs_it(project: ChainFolder) -> None:
    project.recipes(TYPED, BIO.replace("facts.text", "facts.parsed.born"))
    project.script.faults = {("Collect", "Absalon"): "misfit"}
    assert project.run("run").code == 1
    assert project.states("bio") == {**FRESH, "3": "skipped: facts (schema)"}


def test_what_a_model_makes_of_an_answer_is_what_is_stored_and_given_on(modelled: ChainFolder) -> None:
    modelled.recipes(FACTS, 'schema = "models:Facts"\n', BIO.replace("facts.text", "facts.parsed.note"))
    modelled.run("run").ok()
    for artist, note in notes(modelled).items():
        assert note.startswith("SIMULATED NOTE")
        assert note.lower() == json.loads(modelled.texts("facts")[artist] or "")["note"].lower()
        assert modelled.script.count(f"of whom is known: {note}") == 1


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("fact.json", "recipe.facts.schema: fact.json: no such file"),
        ("models:Fact", "recipe.facts.schema: models:Fact: models has no 'Fact'"),
        ("broken.json", "recipe.facts.schema: broken.json"),
    ],
)
def test_a_schema_that_cannot_be_used_is_an_error_before_anything_is_sent(
    modelled: ChainFolder, schema: str, message: str
) -> None:
    modelled.write("broken.json", '{"type": "object"')
    modelled.recipes(FACTS, f'schema = "{schema}"\n')
    ran = modelled.run("run")
    assert ran.code == 2
    assert message in ran.err
    assert modelled.charged() == 0


# ------------------------------------------------------------------------------------------------ stricter and laxer


def test_a_stricter_check_is_made_for_nothing_and_only_misfits_are_asked_again(warm: ChainFolder) -> None:
    warm.run("run").ok()
    artist, limit = longest(warm)
    old = warm.texts("facts")[artist]
    warm.write("facts.json", limited(limit))
    planned = warm.run("plan").ok().out
    assert "schema: 4 stored answers checked again at no cost, 3 fit, 1 do not" in planned
    assert "1 answer no longer fit" in planned
    assert f"  {artist} (facts): schema: facts.json: note: " in planned
    assert warm.states("facts")[artist].startswith("invalid: schema: facts.json: note: ")
    assert warm.charged() == 4
    assert "checked again" not in warm.run("plan").ok().out

    warm.write("facts.json", limited(limit + 1))  # the next one happens to be as long
    assert warm.reasons() == {"invalid": 1}
    warm.run("run")
    assert warm.charged() == 5
    assert warm.texts("facts")[artist] == old, "the older answer shows as long as there is none that fits"
    assert warm.why_asked() == {("facts", "new"): 4, ("facts", "invalid"): 1}
    found = warm.audit()
    assert (found["paid_twice"], found["forced_again"]) == (0, 1)
    warm.assert_money_is_explained()


def test_what_is_asked_again_and_fits_is_fresh(modelled: ChainFolder) -> None:
    modelled.run("run").ok()
    mark = json.loads(modelled.texts("facts")["1"] or "")["note"].split(":")[0]
    modelled.write("note_words.py", STRICT_WORDS.format(word=mark))
    assert modelled.reasons() == {"invalid": 1}
    assert modelled.states("facts")["1"] == "invalid: schema: models:Facts: note: not this word"
    modelled.run("run").ok()
    assert modelled.charged() == 5
    assert mark.upper() not in notes(modelled)["1"]
    modelled.run("run").ok()
    assert modelled.charged() == 5
    modelled.assert_money_is_explained()


def test_what_is_asked_again_and_does_not_fit_either_is_held(project: ChainFolder) -> None:
    project.run("run").ok()
    artist, limit = longest(project)
    project.write("facts.json", limited(limit))
    for _ in range(3):
        assert project.run("run").code == 1
    assert project.charged() == 5, "the same answer again, and not a third time"
    assert project.states("facts")[artist].startswith("failed: schema: ")
    assert project.value("SELECT sum(held) FROM targets") == 1
    project.assert_money_is_explained()


def test_taking_a_stricter_check_back_costs_nothing(project: ChainFolder) -> None:
    project.run("run").ok()
    _, limit = longest(project)
    for _ in range(2):
        project.write("facts.json", limited(limit))
        assert project.reasons() == {"invalid": 1}
        project.write("facts.json", json.dumps(LOOSE))
        assert project.plan()["fresh"]
    project.run("run").ok()
    assert project.charged() == 4
    assert len(notes(project)) == 4


def test_a_laxer_check_makes_what_was_held_back_good_for_nothing(project: ChainFolder) -> None:
    project.write("facts.json", limited(5))
    assert project.run("run").code == 1
    assert project.value("SELECT sum(held) FROM targets") == 4
    assert notes(project) == {}
    project.write("facts.json", json.dumps(LOOSE))
    assert "4 stored answers checked again at no cost, 4 fit" in project.run("plan").ok().out
    project.run("run").ok()
    assert project.charged() == 4
    assert len(notes(project)) == 4


def test_what_was_found_unfit_stays_so_under_another_check_that_it_does_not_fit(project: ChainFolder) -> None:
    project.run("run").ok()
    _, limit = longest(project)
    for longest_note in (limit, limit - 1, 3):
        project.write("facts.json", limited(longest_note))
        assert project.plan()["requests"] >= 1
    assert project.reasons() == {"invalid": 4}
    project.write("facts.json", limited(limit))
    assert project.reasons() == {"invalid": 1}
    assert project.charged() == 4


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [("note_words.py", "return None", "assert note"), ("models.py", "note.upper()", "note.lower()")],
)
def test_a_changed_validator_is_noticed_by_its_source_and_that_of_what_it_calls(
    modelled: ChainFolder, name: str, old: str, new: str
) -> None:
    modelled.run("run").ok()
    modelled.edit(name, old, f"{new}  # anew")
    ran = modelled.run("run").ok()
    assert "schema: 4 stored answers checked again at no cost, 4 fit, 0 do not" in ran.err
    assert modelled.charged() == 4
    assert all(note == (note.lower() if name == "models.py" else note.upper()) for note in notes(modelled).values())


def test_who_needs_the_data_is_built_anew_when_a_model_makes_something_else_of_the_same_answer(
    modelled: ChainFolder,
) -> None:
    modelled.recipes(FACTS, 'schema = "models:Facts"\n', BIO.replace("facts.text", "facts.parsed.note"))
    modelled.run("run").ok()
    modelled.edit("models.py", "note.upper()", "note.title().strip()")  # Python tells edits within a second by the size
    (group,) = modelled.plan()["groups"]
    assert (group["recipe"], group["reason"], group["targets"]) == ("bio", "changed", 4)
    modelled.edit("models.py", "note.title().strip()", "note.upper()")
    assert modelled.plan()["fresh"]
    modelled.edit("models.py", "return note.upper()", "return note.upper()  # as before")
    assert modelled.plan()["fresh"]
    assert modelled.charged() == 8


def test_what_is_sent_of_a_schema_makes_everything_stale_when_it_changes(project: ChainFolder) -> None:
    project.run("run").ok()
    project.write("facts.json", json.dumps(LOOSE).replace("1999", "1998"))
    (group,) = project.plan()["groups"]
    assert (group["reason"], group["detail"], group["targets"]) == ("changed", "schema", 4)
    project.write("facts.json", json.dumps(LOOSE))
    assert project.plan()["fresh"]


def test_a_broken_validator_buys_nothing_again(modelled: ChainFolder) -> None:
    modelled.run("run").ok()
    modelled.write("note_words.py", "def check(note):\n    return note.no_such_method()\n")
    for _ in range(2):
        ran = modelled.run("run")
        assert ran.code == 2
        assert "the model's own code failed in note_words.py, line 2" in ran.err
        assert "fix the validator; nothing was sent" in ran.err
    modelled.write("note_words.py", WORDS)
    assert modelled.plan()["fresh"]
    assert modelled.charged() == 4
    assert len(notes(modelled)) == 4


def test_an_answer_that_a_broken_validator_cannot_check_is_held_until_it_is_mended(modelled: ChainFolder) -> None:
    modelled.recipes(FACTS, 'schema = "models:Facts"\nrepair = true\n')
    modelled.write("note_words.py", "def check(note):\n    return note.no_such_method()\n")
    assert modelled.run("run").code == 1
    assert modelled.charged() == 4, "there is nothing that could be repaired"
    modelled.write("note_words.py", WORDS)
    modelled.run("run").ok()
    assert modelled.charged() == 4
    assert modelled.states("facts") == FRESH


def test_one_answer_is_not_judged_by_two_schemas(project: ChainFolder) -> None:
    project.write("other/facts.json", limited(5))
    project.recipes(TYPED, TYPED.replace("recipe.facts", "recipe.twin").replace("facts.json", "other/facts.json"))
    ran = project.run("run")
    assert ran.code == 2
    assert "recipe.twin: sends the same request as recipe.facts, but validates the answer differently" in ran.err
    assert project.charged() == 0
    project.recipes(TYPED, TYPED.replace("recipe.facts", "recipe.twin"))
    project.run("run").ok()
    assert project.charged() == 4


def test_answers_of_before_are_checked_when_they_are_wanted_again(project: ChainFolder) -> None:
    """A reverted prompt brings back answers that were checked by the schema of then."""
    project.run("run").ok()
    artist, limit = longest(project)
    project.edit("bioforge.toml", "Collect facts.", "Collect all facts.")
    project.run("run").ok()
    project.write("facts.json", limited(limit))
    project.edit("bioforge.toml", "Collect all facts.", "Collect facts.")
    assert project.reasons() == {"invalid": 1}
    assert project.states("facts")[artist].startswith("invalid: ")


def test_an_unfit_answer_keeps_who_needs_it_waiting_and_a_good_one_that_is_the_same_leaves_it(
    project: ChainFolder,
) -> None:
    project.recipes(TYPED, BIO.replace("facts.text", "facts.parsed.born"))
    project.run("run").ok()
    rows = project.rows("SELECT artist_id, parsed FROM results WHERE recipe = 'facts'")
    length = {artist: len(json.loads(parsed)["note"]) for artist, parsed in rows}
    limit = max(length.values()) - 1
    project.write("facts.json", limited(limit))
    assert project.reasons() == {"invalid": 1, "upstream": 1}
    project.write("facts.json", json.dumps(LOOSE))
    assert project.plan()["fresh"]
    project.run("run").ok()
    assert project.charged() == 8


def test_an_accepted_answer_stays_although_it_does_not_fit_and_so_does_what_is_built_on_it(
    project: ChainFolder,
) -> None:
    project.run("run").ok()
    _, limit = longest(project)
    project.recipes(TYPED, BIO.replace("facts.text", "facts.parsed.born"))
    project.run("run").ok()
    project.write("facts.json", limited(limit))
    assert project.reasons() == {"invalid": 1, "upstream": 1}
    project.run("accept", "reason:invalid", "--yes").ok()
    assert project.plan()["fresh"]
    project.run("run").ok()
    assert project.charged() == 8


def test_a_forgotten_answer_is_not_checked(project: ChainFolder) -> None:
    project.run("run").ok()
    project.run("forget", "1", "--yes").ok()
    project.write("facts.json", limited(500))
    assert "3 stored answers checked again" in project.run("plan").ok().out
    assert project.reasons() == {"forgotten": 1}


def test_select_by_the_reason_invalid(project: ChainFolder) -> None:
    project.run("run").ok()
    _, limit = longest(project)
    project.write("facts.json", limited(limit))
    project.edit("artists.csv", "0,", "9,")
    assert project.reasons() in ({"invalid": 1}, {"invalid": 1, "new": 1})
    project.run("run", "--select", "reason:invalid")
    assert project.charged() == 5
